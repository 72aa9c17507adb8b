"""The figure of `digits.py`."""

import numpy as np
from digit_images import load_images, view
from matplotlib.figure import Figure

from ml3_tf.inspection.learning_curves import NAMED_COLORS, plot_learning_curve
from ml3_tf.inspection.style import LINE_STYLES, TEXT_SIZE, style_axes

METHODS = {
    "learned": "learned loss",
    "same_rate": "cross-entropy, same rate",
    "tuned": "cross-entropy, best rate",
}


def draw_figure(results, config):
    """Digits, meta-training, and meta-test on unseen pairs and on ten digits, as figure 2 of the paper."""
    figure = Figure(figsize=(14, 7), dpi=150, layout="constrained")
    figure.get_layout_engine().set(wspace=0.05, hspace=0.05)
    (digits, *accuracies), (meta_training, *cross_entropies) = figure.subplots(2, 3)
    draw_digits(config, digits)
    draw_meta_training(results, config, meta_training)
    for prefix, axes, title in (
        ("", 0, "new images of unseen pairs"),
        ("ten_class_", 1, "new images of all ten digits"),
    ):
        draw_methods(results, prefix, 1, accuracies[axes])
        draw_methods(results, prefix, 0, cross_entropies[axes])
        accuracies[axes].set(title=f"({'bc'[axes]}) {title}", ylabel="accuracy")
        cross_entropies[axes].set(title=f"({'ef'[axes]}) {title}", ylabel="cross-entropy (nats)")
    for ax in (*accuracies, *cross_entropies):
        label = f"the {config['inner_steps']} steps of meta-training"
        ax.axvline(config["inner_steps"], color="0.5", linewidth=1, linestyle=":", label=label)
    style_axes([digits, *accuracies, meta_training, *cross_entropies])
    digits.grid(False)
    digits.tick_params(length=0)
    handles, labels = accuracies[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=4, fontsize=TEXT_SIZE, frameon=False)
    return figure


def draw_digits(config, ax):
    """Above the pair of meta-training and some of its views, below the unseen pairs."""
    train, _ = load_images(config["data"], config["data_path"])
    first = [np.pad(train.x[train.y == digit][:1], ((0, 0), (3, 3), (3, 3), (0, 0))) for digit in range(10)]
    seen = [view(first[digit], index)[0] for index in (0, 1, 6, 7) for digit in config["train_pair"]]
    unseen = [first[digit][0] for pair in config["test_pairs"] for digit in pair]
    blank = np.zeros_like(unseen[0])
    rows = [np.hstack(row + [blank] * (max(len(seen), len(unseen)) - len(row))) for row in (seen, unseen)]
    height = len(blank)
    ax.imshow(np.vstack([rows[0], np.zeros_like(rows[0][: height // 2]), rows[1]]), cmap="gray_r")
    ax.set(
        title="(a) digits", xticks=[], yticks=[0.5 * height, 2 * height], yticklabels=["seen,\nturned", "unseen\npairs"]
    )
    ax.spines[:].set_visible(False)


def draw_meta_training(results, config, ax):
    ax.set_yscale("log")
    for (head, settings), style in zip(config["heads"].items(), LINE_STYLES):
        curves = [result["meta_train"][head] for result in results]
        steps = (np.arange(len(curves[0])) + 1) * settings["outer_steps"] / len(curves[0])
        plot_learning_curve(curves, ax, label=f"{head} classes", color=NAMED_COLORS["learned"], steps=steps)
        ax.lines[-1].set_linestyle(style)
    ax.set(title="(d) meta-training, seen pair", xlabel="outer iterations", ylabel="cross-entropy (nats)")
    ax.legend(fontsize=TEXT_SIZE - 1, frameon=False)


def draw_methods(results, prefix, quantity, ax):
    """One curve for each method over the gradient steps; `quantity` is 0 for cross-entropy and 1 for accuracy."""
    ax.set_xscale("log")
    ax.set_yscale("log" if quantity == 0 else "linear")
    for name, style in zip(METHODS, LINE_STYLES):
        curves = np.array([result["meta_test"][prefix][name][quantity] for result in results])[:, 1:]
        steps = np.arange(1, curves.shape[1] + 1)  # step 0, the same for all, has no place on a logarithmic axis
        color = NAMED_COLORS[name.replace("_", " ")]
        plot_learning_curve(curves, ax, label=METHODS[name], color=color, steps=steps)
        ax.lines[-1].set_linestyle(style)
    ax.set_xlabel("gradient steps")
    if quantity == 1:
        ax.set_ylim(top=1.01)  # the band of a standard deviation knows no bound
