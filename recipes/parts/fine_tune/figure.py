"""The figure of `fine_tune.py`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

from ml3_tf.inspection import LINE_STYLES, NAMED_COLORS, TEXT_SIZE, plot_learning_curve, style_axes
from parts.experiment import Result
from parts.fine_tune.methods import QUANTITIES
from parts.fine_tune.model import LOGITS
from parts.fine_tune.report import LABELS

if TYPE_CHECKING:
    from fine_tune import Settings

STYLES = {  # of each method: color and line
    "learned": (NAMED_COLORS["learned"], LINE_STYLES[0]),
    "same_rate": (NAMED_COLORS["same rate"], LINE_STYLES[1]),
    "sgd": ("C5", (0, (1, 1))),
    "adam": ("C4", (0, (5, 1, 1, 1, 1, 1))),
    "adamw": (NAMED_COLORS["tuned"], LINE_STYLES[2]),
    "muon": ("C6", (0, (6, 2))),
    "smoothing": ("C3", LINE_STYLES[3]),
}
FIRST_STEP = 10  # before it, all methods are far from where they end
GROUPS = {"pretrain_classes": "pre-\ntraining", "meta_train_classes": "meta-\ntraining", "test_classes": "test"}


def draw_figure(results: Sequence[Result], settings: "Settings", images: np.ndarray) -> Figure:
    """Draws the classes, what the loss has learned, and fine-tuning from these weights and from others."""
    figure = Figure(figsize=(14, 7.8), dpi=150, layout="constrained")
    figure.get_layout_engine().set(wspace=0.05, hspace=0.05)
    (classes, *accuracies), (added, *cross_entropies) = figure.subplots(2, 3)
    draw_classes(settings.groups, images, classes)
    draw_added(results, added)
    columns = zip(("", "other_weights_"), ("from these weights", "from other weights"), accuracies, cross_entropies)
    for index, (prefix, words, accuracy, cross_entropy) in enumerate(columns):
        for ax, quantity in zip((accuracy, cross_entropy), QUANTITIES):
            draw_methods(results, prefix, quantity, ax)
            ax.axvline(settings.inner_steps, color="0.5", linewidth=1, linestyle=":", label="steps of meta-training")
        accuracy.set(title=f"({'bc'[index]}) unseen classes, {words}", ylabel="accuracy")
        cross_entropy.set(title=f"({'ef'[index]}) unseen classes, {words}", ylabel="cross-entropy (nats)")
    style_axes([classes, *accuracies, added, *cross_entropies])
    classes.grid(False)
    classes.tick_params(length=0)
    handles, labels = accuracies[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=TEXT_SIZE, frameon=False)
    return figure


def draw_classes(groups: Mapping[str, Sequence[int]], images: np.ndarray, ax: Axes) -> None:
    """Draws one image of each class, a row for each group."""
    side = images.shape[2]
    widest = max(map(len, groups.values()))
    gap = side // 3
    rows = []
    for classes in groups.values():
        row = np.hstack([images[index, 0, ..., 0] for index in classes])
        rows.append(np.pad(row, ((0, gap), (0, (widest - len(classes)) * side))))
    ax.imshow(np.vstack(rows)[:-gap], cmap="gray_r")
    centers = [side / 2 + number * (side + gap) for number in range(len(groups))]
    ax.set(title="(a) classes", xticks=[], yticks=centers, yticklabels=[GROUPS[name] for name in groups])
    ax.spines[:].set_visible(False)


def draw_added(results: Sequence[Result], ax: Axes) -> None:
    """Draws what the loss's network adds to the gradient of cross-entropy, over the logit."""
    ax.axhline(0.0, color="0.6", linewidth=0.8)
    color = NAMED_COLORS["learned"]
    for result in results:  # a line for each: seeds differ more in height than in form
        for curve, style in zip(result["added"], LINE_STYLES):
            ax.plot(LOGITS, curve, color=color, linestyle=style, linewidth=1.2, alpha=0.7)
    for label, style in zip(("true class", "another class"), LINE_STYLES):
        ax.plot([], [], color=color, linestyle=style, linewidth=2, label=label)
    ax.set(title="(d) what the loss adds, each seed", xlabel="logit", ylabel="added to the gradient")
    ax.legend(fontsize=TEXT_SIZE - 1, frameon=False)


def draw_methods(results: Sequence[Result], prefix: str, quantity: str, ax: Axes) -> None:
    """Draws one curve for each method over the steps of fine-tuning: what is best for the quantity."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator([10, 30, 100, 300, 1000]))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    for name, (color, style) in STYLES.items():
        curves = [result["meta_test"][prefix + name][quantity][QUANTITIES.index(quantity)] for result in results]
        curves = np.array(curves)
        steps = np.arange(min(FIRST_STEP, curves.shape[1] - 1), curves.shape[1])
        plot_learning_curve(curves[:, steps], ax, label=LABELS[name], color=color, steps=steps)
        ax.lines[-1].set_linestyle(style)
    ax.set_xlabel("gradient steps")
