"""The figure of `label_free.py`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ml3_tf
from ml3_tf.bench.image_data import NUM_CLASSES
from ml3_tf.inspection import NAMED_COLORS, TEXT_SIZE, plot_learning_curve, style_axes
from parts.experiment import Result
from parts.label_free.losses import Entropy

if TYPE_CHECKING:
    from label_free import Settings

LABELS = {
    "learned": "learned loss",
    "entropy": "entropy, best rate",
    "same_rate": "entropy, same rate",
    "affine": "entropy, normalization alone",
    "information": "information maximization",
    "information_adam": "information maximization, Adam",
    "statistics": "new statistics alone",
    "labels": "cross-entropy, with the labels",
}
LOOKS = {
    "learned": (NAMED_COLORS["learned"], "-"),
    "entropy": (NAMED_COLORS["tuned"], "-."),
    "same_rate": (NAMED_COLORS["same rate"], "--"),
    "affine": ("C4", (0, (5, 1, 1, 1, 1, 1))),
    "information": ("C3", ":"),
    "information_adam": ("C3", "-"),
    "statistics": ("C5", (0, (3, 1))),
    "labels": ("0.5", (0, (1, 1))),
}
TITLES = {"": "digits", "fashion_": "Fashion-MNIST", "batch_norm_": "batch normalization"}
SHARE_OF_CLASS = {"balanced batch": 0.1, "half the batch in this class": 0.5}
RENEWED = 5  # steps after which the statistics of batch normalization are those of the batch, to 3 %
CONFIDENCE = 0.9  # of the other images of the batch that is drawn


def draw_figure(results: Sequence[Result], settings: "Settings", meta_loss: ml3_tf.MetaLoss) -> Figure:
    """Draws accuracy over steps for each test corruption and each further classifier, and what the loss has learned."""
    figure = Figure(figsize=(18, 8), dpi=120, layout="constrained")
    figure.get_layout_engine().set(wspace=0.04, hspace=0.05)
    axes = figure.subplots(2, 4)
    for letter, family, ax in zip("abcd", results[0]["meta_test"][""]["learned"], axes[0]):
        draw_methods(results, "", [family], ax)
        ax.set_title(f"({letter}) {family.replace('_', ' ')}")
    for letter, prefix, ax in zip("ef", ("fashion_", "batch_norm_"), axes[1]):
        first = RENEWED if prefix == "batch_norm_" else 0
        draw_methods(results, prefix, [*results[0]["meta_test"][prefix]["learned"]], ax, first=first)
        ax.set_title(f"({letter}) {TITLES[prefix]}, all four")
    for ax in (*axes[0], *axes[1, :2]):
        ax.axvline(settings.tuned_steps, color="0.5", linewidth=1, linestyle=(0, (1, 4)))
    draw_meta_training(results, settings, axes[1, 2])
    draw_pull(meta_loss, axes[1, 3])
    style_axes(axes.flat)
    for ax in (axes[0, 0], axes[1, 0], axes[1, 2]):
        ax.set_ylabel("accuracy", fontsize=TEXT_SIZE)
    drawn = {label: line for ax in (axes[0, 0], axes[1, 1]) for line, label in zip(*ax.get_legend_handles_labels())}
    figure.legend(drawn.values(), drawn, loc="outside lower center", ncols=4, fontsize=TEXT_SIZE, frameon=False)
    return figure


def draw_methods(results: Sequence[Result], prefix: str, families: Sequence[str], ax: Axes, *, first: int = 0) -> None:
    """Draws one curve for each method over the gradient steps from the `first` on, the mean over some corruptions."""
    for method, label in LABELS.items():
        if method not in results[0]["meta_test"][prefix]:
            continue
        curves = [
            np.mean([result["meta_test"][prefix][method][family] for family in families], axis=0) for result in results
        ]
        color, style = LOOKS[method]
        steps = np.arange(len(curves[0]))
        first = min(first, steps[-1] - 1)
        plot_learning_curve(np.array(curves)[:, first:], ax, label=label, color=color, steps=steps[first:])
        ax.lines[-1].set_linestyle(style)
    ax.set(xlabel="gradient steps", xscale="symlog")
    ax.set_xlim(first, steps[-1])
    ticks = [tick for tick in (0, 1, 3, 5, 10, 30, 100) if tick in steps[first:] and (tick != 5 or first)]
    ax.set_xticks(ticks, labels=map(str, ticks))
    ax.minorticks_off()


def draw_meta_training(results: Sequence[Result], settings: "Settings", ax: Axes) -> None:
    """Draws the accuracy after the inner steps over the outer steps, on the corruptions of meta-training."""
    curves = np.array([result["meta_train"] for result in results])
    steps = (np.arange(curves.shape[1]) + 1) * settings.outer_steps / curves.shape[1]
    plot_learning_curve(curves, ax, color=NAMED_COLORS["learned"], steps=steps)
    ax.set(title="(g) meta-training, seen corruptions", xlabel="outer steps")


def draw_loss(meta_loss: ml3_tf.MetaLoss) -> Figure:
    """Draws the last panel alone, for the card of the loss."""
    figure = Figure(figsize=(7, 5), dpi=150, layout="constrained")
    ax = figure.add_subplot()
    draw_pull(meta_loss, ax)
    for method in ("learned", "entropy", "information"):
        ax.plot([], [], color=LOOKS[method][0], label=LABELS[method])
    ax.set_ylim(bottom=-2.6)  # room for the legend
    ax.legend(loc="lower left", fontsize=TEXT_SIZE - 2, frameon=False)
    ax.set_title("label_free: what the loss has learned")
    style_axes([ax])
    return figure


def draw_pull(meta_loss: ml3_tf.MetaLoss, ax: Axes) -> None:
    """Draws how an image's most likely class is pulled up, for two batches that it may be in.

    Each loss is drawn in its own unit, the largest pull in the balanced batch.
    """
    losses = {"learned": meta_loss, "entropy": Entropy(), "information": Entropy(diversity=1.0)}
    confidences = np.linspace(0.15, 0.99, 60)
    for method, loss in losses.items():
        scale = None
        for share, style in zip(SHARE_OF_CLASS.values(), ("-", "--")):
            pulls = np.array([pull(loss, confidence, share) for confidence in confidences])
            scale = np.abs(pulls).max() if scale is None else scale
            ax.plot(confidences, pulls / scale, color=LOOKS[method][0], linestyle=style, linewidth=2)
    ax.axhline(0, color="0.5", linewidth=1)
    for batch, style in zip(SHARE_OF_CLASS, ("-", "--")):
        ax.plot([], [], color="black", linestyle=style, label=batch)
    ax.set(title="(h) pull to the likeliest class", xlabel="its probability", ylabel="pull (own unit)")
    ax.set_ylim(bottom=ax.get_ylim()[0] - 0.6)  # room for the legend
    ax.legend(loc="lower right", fontsize=TEXT_SIZE - 2, frameon=False)


def pull(loss: Any, confidence: float, share: float, batch_size: int = 100) -> float:
    """Returns minus the derivative of a batch's loss by the logit of one image's most likely class.

    Args:
        loss: The loss.
        confidence: Probability of that class; the other classes share the rest.
        share: Share of the other images in the same class; the other classes share the rest.
        batch_size: Number of images.
    """
    import tensorflow as tf

    likeliest = np.ones(batch_size, int)  # of the other images; the class of the first is 0
    number = round(share * batch_size)
    likeliest[:number] = 0
    likeliest[number:] = 1 + np.arange(batch_size - number) % (NUM_CLASSES - 1)
    probabilities = np.full(batch_size, CONFIDENCE)
    probabilities[0] = confidence
    rest = ((1 - probabilities) / (NUM_CLASSES - 1))[:, np.newaxis]
    y_pred = np.where(np.eye(NUM_CLASSES)[likeliest] > 0, probabilities[:, np.newaxis], rest)
    logits = tf.constant(np.log(y_pred), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        y_pred = tf.nn.softmax(logits)
        value = tf.reduce_mean(loss.call(y_pred[:, :0], y_pred))
    return -float(tape.gradient(value, logits)[0, 0])
