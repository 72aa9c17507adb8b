"""The figure of `noisy_labels.py`."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

import ml3_tf
from ml3_tf.bench.image_data import NUM_CLASSES, one_hot
from ml3_tf.inspection import NAMED_COLORS, TEXT_SIZE, plot_learning_curve, style_axes
from parts.experiment import Result
from parts.noisy_labels.losses import build_generalized
from parts.noisy_labels.report import LABELS

DRAWN = {"clean": "right labels", "symmetric_40": "40 % any other class", "pairs_40": "40 % the next class"}
NETWORK_NAMES = {"mlp": "MLP", "lenet": "LeNet"}
STYLES = {
    "learned": (NAMED_COLORS["learned"], "-"),
    "cross_entropy": (NAMED_COLORS["task loss"], "--"),
    "generalized": (NAMED_COLORS["tuned"], "-."),
    "symmetric": ("C6", (0, (5, 2))),
    "forward": ("C4", ":"),
    "adapted": ("C5", (0, (3, 1, 1, 1, 1, 1))),
    "right_only": ("0.4", (0, (1, 3))),
}
BATCHES = {"right labels": "-", "40 % any other class": "--", "40 % the next class": ":"}
CONFIDENCE = 0.9  # of the other images of the batch that is drawn
GENERALIZED_Q = 0.9


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


def draw_loss(meta_loss: ml3_tf.MetaLoss) -> Figure:
    """Draws how an image is pulled to its label, in batches with right and wrong labels: for the card of the loss.

    Each loss is drawn in its own unit, the largest pull in the batch of right labels.
    """
    losses = {
        "learned": meta_loss,
        "cross_entropy": keras.losses.CategoricalCrossentropy(),
        "generalized": build_generalized(GENERALIZED_Q),
    }
    figure = Figure(figsize=(7, 5), dpi=150, layout="constrained")
    ax = figure.add_subplot()
    probabilities = np.linspace(0.01, 0.98, 60)
    for method, loss in losses.items():
        unit = max(pull(loss, probability, "right labels") for probability in probabilities)
        for batch, style in BATCHES.items():
            if batch != "right labels" and method != "learned":
                continue  # these do not see the batch
            pulls = [pull(loss, probability, batch) / unit for probability in probabilities]
            detail = {"learned": f", {batch}", "generalized": f", q = {GENERALIZED_Q}"}.get(method, "")
            label = LABELS[method] + detail
            ax.plot(probabilities, pulls, color=STYLES[method][0], linestyle=style, linewidth=2, label=label)
    ax.axhline(0, color="0.5", linewidth=1)
    ax.set(
        title="noisy_labels: what the loss has learned",
        xlabel="probability of the label; the rest is on the class before it",
        ylabel="pull to the label (own unit)",
    )
    ax.set_ylim(top=ax.get_ylim()[1] + 0.55)  # room for the legend
    ax.legend(loc="upper right", fontsize=TEXT_SIZE - 2, frameon=False)
    style_axes([ax])
    return figure


def pull(loss: Any, probability: float, batch: str, batch_size: int = 100) -> float:
    """Returns minus the derivative of a batch's loss by the logit of one image's label.

    Args:
        loss: The loss.
        probability: Probability of that label; the class before it has nearly all of the rest.
        batch: Name of one of `BATCHES`: which labels the other images have.
        batch_size: Number of images.
    """
    import tensorflow as tf

    classes = np.arange(batch_size) % NUM_CLASSES
    turns = np.arange(batch_size) // NUM_CLASSES
    is_wrong = (turns % 5 < 2) & (batch != "right labels")
    shifts = 1 if batch == "40 % the next class" else 1 + (classes + turns) % (NUM_CLASSES - 1)
    labels = (classes + np.where(is_wrong, shifts, 0)) % NUM_CLASSES
    labels[0] = 1
    y_pred = np.where(one_hot(classes) > 0, CONFIDENCE, (1 - CONFIDENCE) / (NUM_CLASSES - 1))
    y_pred[0] = 1e-3
    y_pred[0, 1] = probability
    y_pred[0, 0] = 1 - y_pred[0, 1:].sum()
    logits = tf.constant(np.log(y_pred), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = tf.reduce_mean(loss.call(one_hot(labels), tf.nn.softmax(logits)))
    return -float(tape.gradient(value, logits)[0, 1])
