"""The figure of a loss itself: what it has learned, beside the task loss it was learned for."""

import functools

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ml3_tf.feature_layout import PER_OUTPUT
from ml3_tf.inspection.closed_form import check_range, explain, value_and_gradient
from ml3_tf.inspection.style import LINE_STYLES, TEXT_SIZE, style_axes
from ml3_tf.meta_loss import MetaLoss

REGRESSION = "regression"
CLASSIFICATION = "classification"
# What each kind of task compares with, and where it looks. Probabilities stop short of 0 and 1, where logarithms end.
DEFAULTS = {
    REGRESSION: {"task_loss": "mse", "y_range": (-5.0, 5.0)},
    CLASSIFICATION: {"task_loss": "binary_crossentropy", "y_range": (0.01, 0.99)},
}
CLASSES = (0.0, 1.0)
GRID_SIZE = 101  # points to a side
LEARNED_COLORS = ("#08306b", "C0", "#6baed6", "#9ecae1")  # shades of the blue of "learned"
TASK_COLOR = "C1"  # orange, as "task loss" in the other figures
NEAR = 0.05  # of the range: the errors at which the task loss is scaled to match
NUM_LEVELS = 12  # contour lines to a panel


def plot_meta_loss(loss, task=None, task_loss=None, y_range=None, targets=None, fixed=None, title=None):
    """Draws what a loss has learned: the loss and its gradient, beside those of the task loss.

    For regression, five panels. Left, over the plane of target and prediction: the loss, counted from its value at
    y_pred = y_true (what a function of `y_true` adds moves no learner), and its gradient with respect to the
    prediction; where the gradient is zero (black line) the loss holds a prediction to be right, which should be the
    diagonal. Right: the gradient against the error for a few targets. A straight line there is a quadratic loss, a
    level one an absolute error: the loss has saturated, and an outlier pulls no harder than a moderate error.

    For classification, two panels for each class: the loss and its gradient against the predicted probability.

    The task loss is scaled to have the same gradient near zero error (classification: near the middle of the range),
    and the legend names the factor: the learning rate at which the task loss would take the same steps there. The
    line below the title is `ml3_tf.inspection.closed_form.explain`'s.

    Args:
        loss: A `MetaLoss`, or any Keras loss: an object, a function or a name.
        task: `"regression"` or `"classification"` (targets 0 and 1). Default `None`: `"classification"` for a
            `MetaLoss` in mode `"per_output"`, `"regression"` for all others.
        task_loss: Keras loss to compare with. Default `None`: `"mse"`, or `"binary_crossentropy"`.
        y_range: Pair `(low, high)`: the range of predictions and of targets, in their unit. Default `None`:
            `(-5, 5)`, or `(0.01, 0.99)` for classification.
        targets: Sequence of at most four targets at which regression is sliced. Default `None`: the quarter points
            of `y_range`. Classification is sliced at 0 and 1.
        fixed: For a loss of more than one target and one prediction, what it also looks at; see
            `ml3_tf.inspection.closed_form.value_and_gradient`.
        title: Title above the panels. Default `None`: "What the loss has learned".

    Returns:
        `matplotlib.figure.Figure` of 14 x 6.8 inches (classification: 14 x 4) at 150 dpi, bound to no display.

    Raises:
        ValueError: An unknown `task`, too many or no `targets`, or arguments that `explain` or `value_and_gradient`
            refuses; it names the features that are to be fixed.

    Example:
        >>> figure = plot_meta_loss("log_cosh")
        >>> [ax.get_title() for ax in figure.axes][:2]
        ['(a) learned loss', '(b) its gradient']
    """
    if task is None:
        task = CLASSIFICATION if isinstance(loss, MetaLoss) and loss.mode == PER_OUTPUT else REGRESSION
    if task not in DEFAULTS:
        raise ValueError(f"Unknown `task`. Expected one of {list(DEFAULTS)}, or `None`. Received: task={task!r}")
    task_loss = DEFAULTS[task]["task_loss"] if task_loss is None else task_loss
    y_range = check_range(DEFAULTS[task]["y_range"] if y_range is None else y_range)
    explanation = explain(loss, y_range, CLASSES if task == CLASSIFICATION else None, fixed=fixed)
    learned = functools.partial(value_and_gradient, loss, fixed=fixed)
    baseline = functools.partial(value_and_gradient, task_loss)
    name = task_loss if isinstance(task_loss, str) else getattr(task_loss, "name", None) or task_loss.__name__
    if task == CLASSIFICATION:
        figure = _plot_classes(learned, baseline, name, y_range)
    else:
        figure = _plot_plane(learned, baseline, name, y_range, _check_targets(targets, y_range))
    title = "What the loss has learned" if title is None else title
    # One line above the other; the second is the plainer one.
    figure.suptitle(f"{title}\n", fontsize=TEXT_SIZE + 2, fontweight="bold")
    height = figure.get_size_inches()[1]
    figure.text(0.5, 1 - 0.45 / height, str(explanation), fontsize=TEXT_SIZE, ha="center", va="center", color="0.25")
    return figure


def _check_targets(targets, y_range):
    low, high = y_range
    targets = [low + (high - low) * share for share in (0.25, 0.5, 0.75)] if targets is None else list(targets)
    if not 0 < len(targets) <= len(LEARNED_COLORS):
        raise ValueError(f"`targets` should be one to {len(LEARNED_COLORS)} numbers. Received: {targets}")
    return [float(target) for target in targets]


def _match(learned_gradient, task_gradient, near):
    """The factor of the task loss: least squares between the two gradients where `near` is true."""
    learned_gradient, task_gradient = learned_gradient[near], task_gradient[near]
    norm = np.sum(task_gradient**2)
    return float(np.sum(learned_gradient * task_gradient) / norm) if norm > 0 else 1.0


def _plot_plane(learned, baseline, name, y_range, targets):
    """Value and gradient over (y_true, y_pred), learned above and task loss below; the slices to the right."""
    grid = np.linspace(*y_range, GRID_SIZE)
    y_true, y_pred = np.meshgrid(grid, grid)
    value, gradient = learned(y_true, y_pred)
    task_value, task_gradient = baseline(y_true, y_pred)
    scale = _match(gradient, task_gradient, np.abs(y_pred - y_true) <= NEAR * np.ptp(grid))
    values = [surface - np.diag(surface) for surface in (value, scale * task_value)]  # target by target
    gradients = [gradient, scale * task_gradient]
    label = f"{name} × {scale:.3g}"

    figure = Figure(figsize=(14, 6.8), dpi=150, layout="constrained")
    figure.get_layout_engine().set(wspace=0.02, hspace=0.05)
    axes = figure.subplot_mosaic([["a", "b", "e"], ["c", "d", "e"]], width_ratios=[1, 1, 1.9])
    _draw_column([axes["a"], axes["c"]], grid, values, "Purples", min(values[0].min(), 0.0))
    _draw_column([axes["b"], axes["d"]], grid, gradients, "RdBu_r", -np.abs(gradient).max())
    for ax, surface in zip((axes["b"], axes["d"]), gradients):
        ax.contour(grid, grid, surface, [0.0], colors="black", linewidths=2)
    _draw_slices(axes["e"], learned, lambda y_true, y_pred: scale * baseline(y_true, y_pred)[1], label, grid, targets)
    titles = ["(a) learned loss", "(b) its gradient", f"(c) {label}", "(d) its gradient"]
    for key, title in zip("abcd", titles):
        axes[key].set(title=title, xlabel="y_true" if key in "cd" else "", ylabel="y_pred" if key in "ac" else "")
        axes[key].tick_params(labelbottom=key in "cd", labelleft=key in "ac")
    style_axes(axes.values())
    for key in "abcd":
        axes[key].grid(False)
    zero = Line2D([], [], color="black", linewidth=2, label="gradient is zero")
    handles = [zero, axes["a"].lines[0]]
    figure.legend(handles=handles, loc="outside lower left", ncols=2, fontsize=TEXT_SIZE, frameon=False)
    return figure


def _draw_column(axes, grid, surfaces, color_map, low):
    """Two surfaces in one color scale, which ends where the first one ends: beyond it lies one flat shade."""
    high = np.abs(surfaces[0]).max() or 1.0
    levels = MaxNLocator(NUM_LEVELS).tick_values(low, high)
    for ax, surface in zip(axes, surfaces):
        image = ax.pcolormesh(
            grid, grid, surface, cmap=color_map, vmin=low, vmax=high, shading="gouraud", rasterized=True
        )
        ax.contour(grid, grid, surface, levels[levels != 0], colors="0.3", linewidths=0.6, linestyles="-")
        ax.plot(grid, grid, color="0.1", linestyle=(0, (1, 2)), linewidth=1.5, label="y_pred = y_true")
        ax.set_aspect("equal")
        ax.locator_params(nbins=5)
    bar = axes[0].figure.colorbar(image, ax=axes, extend="max" if low == 0 else "both", aspect=45)
    bar.ax.tick_params(labelsize=TEXT_SIZE - 2)
    bar.outline.set_visible(False)


def _draw_slices(ax, learned, task_gradient, task_label, grid, targets):
    """The gradient against the error for each target; the task loss may leave the frame, which is the learned one's."""
    ax.axhline(0.0, color="0.6", linewidth=0.8)
    ax.axvline(0.0, color="0.6", linewidth=0.8)
    slices = [learned(target, grid)[1] for target in targets]
    for target, color, style, gradient in zip(targets, LEARNED_COLORS, LINE_STYLES, slices):
        label = f"learned, y_true = {target:g}"
        ax.plot(grid - target, gradient, color=color, linestyle=style, linewidth=2.5, label=label)
    error = np.linspace(grid[0] - max(targets), grid[-1] - min(targets), GRID_SIZE)
    ax.plot(error, task_gradient(targets[0], targets[0] + error), color=TASK_COLOR, linewidth=2, label=task_label)
    limit = 1.25 * np.abs(slices).max() or 1.0
    ax.set(ylim=(-limit, limit), xlabel="y_pred − y_true", ylabel="d loss / d y_pred")
    ax.set_title("(e) gradient against the error")
    ax.legend(loc="upper left", fontsize=TEXT_SIZE - 1, frameon=False)


def _plot_classes(learned, baseline, name, y_range):
    """Value and gradient against the prediction, for each class; the value counted from the best end of the range."""
    grid = np.linspace(*y_range, GRID_SIZE)
    y_true, y_pred = np.meshgrid(CLASSES, grid, indexing="ij")
    own, other = learned(y_true, y_pred), baseline(y_true, y_pred)
    scale = _match(own[1], other[1], np.abs(y_pred - np.mean(y_range)) <= NEAR * np.ptp(grid))
    figure = Figure(figsize=(14, 4), dpi=150, layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)
    axes = figure.subplots(1, 2 * len(CLASSES))
    for row, target in enumerate(CLASSES):
        best = -1 if target == max(CLASSES) else 0  # the end of the grid that is next to the class
        for column, quantity in enumerate(("loss", "gradient")):
            ax = axes[2 * row + column]
            for values, factor, color, style, label in (
                (own, 1.0, "C0", "-", "learned"),
                (other, scale, TASK_COLOR, "--", f"{name} × {scale:.3g}"),
            ):
                curve = factor * values[column][row]
                curve = curve - curve[best] if quantity == "loss" else curve
                ax.plot(grid, curve, color=color, linestyle=style, linewidth=2, label=label)
            drawn = ax.lines[0].get_ydata()
            margin = 0.15 * (np.ptp(drawn) or 1.0)  # the frame is the learned loss's: the task loss may have a pole
            ax.set(ylim=(min(drawn.min(), 0) - margin, max(drawn.max(), 0) + margin), xlabel="y_pred")
            ax.set_title(f"({'abcd'[2 * row + column]}) {quantity} for y_true = {target:g}")
            ax.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    style_axes(axes)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=TEXT_SIZE, frameon=False
    )
    return figure
