"""The figure of `noisy_labels.py`."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ml3_tf.inspection import NAMED_COLORS, TEXT_SIZE, plot_learning_curve, style_axes
from parts.experiment import Result
from parts.noisy_labels.report import LABELS

DRAWN = {"clean": "right labels", "symmetric_40": "40 % any other class", "pairs_40": "40 % the next class"}
NETWORK_NAMES = {"mlp": "MLP", "lenet": "LeNet"}
STYLES = {
    "learned": (NAMED_COLORS["learned"], "-"),
    "cross_entropy": (NAMED_COLORS["task loss"], "--"),
    "generalized": (NAMED_COLORS["tuned"], "-."),
    "forward": ("C4", ":"),
    "adapted": ("C5", (0, (3, 1, 1, 1, 1, 1))),
    "right_only": ("0.4", (0, (1, 3))),
}


def draw_figure(results: Sequence[Result]) -> Figure:
    """Draws the accuracy on unseen images over the epochs, one row for each network."""
    networks = list(results[0]["curves"])
    figure = Figure(figsize=(14, 4 * len(networks) + 0.8), dpi=150, layout="constrained")
    figure.get_layout_engine().set(wspace=0.05, hspace=0.05)
    drawn = {noise: title for noise, title in DRAWN.items() if noise in results[0]["curves"][networks[-1]]["learned"]}
    axes = figure.subplots(len(networks), len(drawn), squeeze=False, sharey="row")
    for row, network in zip(axes, networks, strict=True):
        for ax, (noise, title) in zip(row, drawn.items(), strict=True):
            for method, (color, style) in STYLES.items():
                if noise not in results[0]["curves"][network].get(method, {}):
                    continue
                curves = np.array([result["curves"][network][method][noise]["test"] for result in results])
                epochs = results[0]["curves"][network][method][noise]["epoch"]
                plot_learning_curve(curves, ax, label=LABELS[method], color=color, steps=epochs)
                ax.lines[-1].set_linestyle(style)
            ax.set(title=f"{NETWORK_NAMES[network]}, {title}", xlabel="epochs")
        row[0].set_ylabel("accuracy on unseen images")
    style_axes(axes.flat)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=TEXT_SIZE, frameon=False)
    return figure
