"""The figure of `digits.py`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ml3_tf.inspection import LINE_STYLES, NAMED_COLORS, TEXT_SIZE, plot_learning_curve, style_axes
from parts.digits.images import load_images, view
from parts.experiment import Result

if TYPE_CHECKING:
    from digits import Settings

METHODS = {
    "learned": "learned loss",
    "same_rate": "cross-entropy, same rate",
    "tuned": "cross-entropy, best rate",
}


def draw_figure(results: Sequence[Result], settings: "Settings") -> Figure:
    """Draws digits, meta-training, and meta-test on unseen pairs and on ten digits, as figure 2 of the paper."""
    figure = Figure(figsize=(14, 7), dpi=150, layout="constrained")
    figure.get_layout_engine().set(wspace=0.05, hspace=0.05)
    (digits, *accuracies), (meta_training, *cross_entropies) = figure.subplots(2, 3)
    draw_digits(settings, digits)
    draw_meta_training(results, settings, meta_training)
    for prefix, axes, title in (
        ("", 0, "new images of unseen pairs"),
        ("ten_class_", 1, "new images of all ten digits"),
    ):
        best = settings.best_optimizer_ten if prefix else settings.best_optimizer
        draw_methods(results, prefix, 1, accuracies[axes], best)
        draw_methods(results, prefix, 0, cross_entropies[axes], best)
        accuracies[axes].set(title=f"({'bc'[axes]}) {title}", ylabel="accuracy")
        cross_entropies[axes].set(title=f"({'ef'[axes]}) {title}", ylabel="cross-entropy (nats)")
    for ax in (*accuracies, *cross_entropies):
        label = f"the {settings.inner_steps} steps of meta-training"
        ax.axvline(settings.inner_steps, color="0.5", linewidth=1, linestyle=":", label=label)
    style_axes([digits, *accuracies, meta_training, *cross_entropies])
    digits.grid(False)
    digits.tick_params(length=0)
    handles, labels = accuracies[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=3, fontsize=TEXT_SIZE, frameon=False)
    return figure


def draw_digits(settings: "Settings", ax: Axes) -> None:
    """Draws the pair of meta-training with some of its views above, and the unseen pairs below."""
    train, _ = load_images(settings.data, settings.data_path)
    first = [np.pad(train.x[train.y == digit][:1], ((0, 0), (3, 3), (3, 3), (0, 0))) for digit in range(10)]
    seen = [view(first[digit], index)[0] for index in (0, 1, 6, 7) for digit in settings.train_pair]
    unseen = [first[digit][0] for pair in settings.test_pairs for digit in pair]
    blank = np.zeros_like(unseen[0])
    rows = [np.hstack(row + [blank] * (max(len(seen), len(unseen)) - len(row))) for row in (seen, unseen)]
    height = len(blank)
    ax.imshow(np.vstack([rows[0], np.zeros_like(rows[0][: height // 2]), rows[1]]), cmap="gray_r")
    ax.set(
        title="(a) digits", xticks=[], yticks=[0.5 * height, 2 * height], yticklabels=["seen,\nturned", "unseen\npairs"]
    )
    ax.spines[:].set_visible(False)


def draw_meta_training(results: Sequence[Result], settings: "Settings", ax: Axes) -> None:
    """Draws the task loss over the outer iterations, one curve for each number of classes."""
    ax.set_yscale("log")
    for (num_classes, head), style in zip(settings.heads.items(), LINE_STYLES):
        curves = [result["meta_train"][str(num_classes)] for result in results]
        steps = (np.arange(len(curves[0])) + 1) * head.outer_steps / len(curves[0])
        plot_learning_curve(curves, ax, label=f"{num_classes} classes", color=NAMED_COLORS["learned"], steps=steps)
        ax.lines[-1].set_linestyle(style)
    ax.set(title="(d) meta-training, seen pair", xlabel="outer iterations", ylabel="cross-entropy (nats)")
    ax.legend(fontsize=TEXT_SIZE - 1, frameon=False)


def draw_methods(results: Sequence[Result], prefix: str, quantity: int, ax: Axes, best: str) -> None:
    """Draws one curve for each method over the gradient steps.

    Args:
        results: One result for each seed.
        prefix: The group of digits.
        quantity: 0 for cross-entropy, 1 for accuracy.
        ax: Where to draw.
        best: The optimizer that is drawn beside `METHODS`.
    """
    ax.set_xscale("log")
    ax.set_yscale("log" if quantity == 0 else "linear")
    labels = METHODS | {best: "cross-entropy, best optimizer"}
    for (name, label), style in zip(labels.items(), LINE_STYLES):
        curves = np.array([result["meta_test"][prefix][name][quantity] for result in results])[:, 1:]
        steps = np.arange(1, curves.shape[1] + 1)  # a logarithmic axis has no step 0, which is the same for all
        color = NAMED_COLORS.get(name.replace("_", " "), "C3")
        plot_learning_curve(curves, ax, label=label, color=color, steps=steps)
        ax.lines[-1].set_linestyle(style)
    ax.set_xlabel("gradient steps")
    if quantity == 1:
        ax.set_ylim(top=1.01)  # the band of a standard deviation has no bound
