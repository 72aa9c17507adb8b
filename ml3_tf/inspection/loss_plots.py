"""The figure of a loss itself: its value and its gradient, beside those of the task loss that it was learned for."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ml3_tf.arguments import LossLike
from ml3_tf.inspection.closed_form import FixedFeatures, check_range, evaluate_on_plane, explain
from ml3_tf.inspection.notebook_figure import NotebookFigure
from ml3_tf.inspection.style import LINE_STYLES, TEXT_SIZE, style_axes
from ml3_tf.inspection.task_kinds import CLASSES, CLASSIFICATION, RANGES, REGRESSION, TaskKind, kind_of

_Plane: TypeAlias = Callable[[Any, Any], tuple[np.ndarray, np.ndarray]]  # (y_true, y_pred) -> value, gradient

TASK_LOSSES: dict[TaskKind, str] = {REGRESSION: "mse", CLASSIFICATION: "binary_crossentropy"}
GRID_SIZE = 101  # points to a side
LEARNED_COLORS = ("#08306b", "C0", "#6baed6", "#9ecae1")  # shades of the blue of "learned"
TASK_COLOR = "C1"  # orange, as "task loss" in the other figures
NEAR = 0.05  # of the range: the errors at which the task loss is scaled to match
NUM_LEVELS = 12  # contour lines to a panel


def plot_meta_loss(
    loss: LossLike,
    *,
    task: TaskKind | None = None,
    task_loss: LossLike | None = None,
    y_range: Sequence[float] | None = None,
    targets: Sequence[float] | None = None,
    fixed: FixedFeatures | None = None,
    title: str | None = None,
) -> Figure:
    """Draws a loss and its gradient, beside those of the task loss: what has the loss learned?

    For regression there are five panels. The four on the left show, over the plane of target and prediction, the loss
    and its gradient with respect to the prediction. The loss is counted from its value at y_pred = y_true, because a
    function of `y_true` moves no learner. A black line marks where the gradient is zero: there the loss holds a
    prediction to be right, and this line should be the diagonal. The panel on the right shows the gradient against the
    error for a few targets. A straight line there is a quadratic loss. A level one is an absolute error: the loss has
    saturated, and an outlier pulls no harder than a moderate error.

    For classification there are two panels for each class: the loss and its gradient against the predicted probability.

    The task loss is scaled to have the same gradient near zero error (classification: near the middle of the range).
    The legend names the factor: at this learning rate the task loss would take the same steps there. The line below the
    title is that of `explain`.

    Args:
        loss: A `MetaLoss`, or any Keras loss: an object, a function or a name.
        task: `"regression"` or `"classification"` (targets 0 and 1). Default `None`: `"classification"` for a
            `MetaLoss` in mode `"per_output"`, `"regression"` for all others.
        task_loss: Keras loss to compare with. Default `None`: `"mse"`, or `"binary_crossentropy"`.
        y_range: Pair `(low, high)`, the range of predictions and of targets, in their unit. Default `None`:
            `(-5, 5)`, or `(0.01, 0.99)` for classification.
        targets: One to four targets at which regression is sliced. Default `None`: the quarter points of `y_range`.
            Classification is sliced at 0 and 1.
        fixed: For a loss of more than one target and one prediction, the other features; see `evaluate_on_plane`.
        title: Title above the panels. Default `None`: "What the loss has learned".

    Returns:
        `matplotlib.figure.Figure` of 14 x 6.8 inches (classification: 14 x 4) at 150 dpi, bound to no display.

    Raises:
        ValueError: An unknown `task`, too many or no `targets`, or arguments that `explain` or `evaluate_on_plane`
            refuses; the error names the features that must be fixed.

    Example:

    >>> figure = plot_meta_loss("log_cosh")
    >>> [ax.get_title() for ax in figure.axes][:2]
    ['(a) learned loss', '(b) its gradient']
    """
    if task is None:
        task = kind_of(loss)
    if task not in TASK_LOSSES:
        raise ValueError(f"`task` must be one of {list(TASK_LOSSES)}, or `None`. Received: task={task!r}")
    compared: LossLike = TASK_LOSSES[task] if task_loss is None else task_loss
    low_high = check_range(RANGES[task] if y_range is None else y_range)
    explanation = explain(loss, y_range=low_high, targets=CLASSES if task == CLASSIFICATION else None, fixed=fixed)

    def learned(y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
        return evaluate_on_plane(loss, y_true=y_true, y_pred=y_pred, fixed=fixed)

    def baseline(y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
        return evaluate_on_plane(compared, y_true=y_true, y_pred=y_pred)

    if task == CLASSIFICATION:
        figure = _plot_classes(learned, baseline, _name(compared), low_high)
    else:
        figure = _plot_plane(learned, baseline, _name(compared), low_high, _check_targets(targets, low_high))
    title = "What the loss has learned" if title is None else title
    # The line of the explanation follows the title; it is plainer.
    figure.suptitle(f"{title}\n", fontsize=TEXT_SIZE + 2, fontweight="bold")
    height = figure.get_size_inches()[1]
    figure.text(0.5, 1 - 0.45 / height, str(explanation), fontsize=TEXT_SIZE, ha="center", va="center", color="0.25")
    return figure


def _name(loss: Any) -> str:
    return loss if isinstance(loss, str) else getattr(loss, "name", None) or loss.__name__


def _check_targets(targets: Sequence[float] | None, y_range: tuple[float, float]) -> list[float]:
    low, high = y_range
    values = [low + (high - low) * share for share in (0.25, 0.5, 0.75)] if targets is None else list(targets)
    if not 0 < len(values) <= len(LEARNED_COLORS):
        raise ValueError(f"`targets` must be one to {len(LEARNED_COLORS)} numbers. Received: {values}")
    return [float(value) for value in values]


def _match(learned_gradient: np.ndarray, task_gradient: np.ndarray, near: np.ndarray) -> float:
    """Returns the factor of the task loss: least squares between the two gradients where `near` is true."""
    learned_gradient, task_gradient = learned_gradient[near], task_gradient[near]
    norm = np.sum(task_gradient**2)
    return float(np.sum(learned_gradient * task_gradient) / norm) if norm > 0 else 1.0


def _plot_plane(
    learned: _Plane, baseline: _Plane, name: str, y_range: tuple[float, float], targets: list[float]
) -> Figure:
    """Draws value and gradient over (y_true, y_pred), learned above, task loss below, and the slices to the right."""
    grid = np.linspace(y_range[0], y_range[1], GRID_SIZE)
    y_true, y_pred = np.meshgrid(grid, grid)
    value, gradient = learned(y_true, y_pred)
    task_value, task_gradient = baseline(y_true, y_pred)
    scale = _match(gradient, task_gradient, np.abs(y_pred - y_true) <= NEAR * np.ptp(grid))
    values = [surface - np.diag(surface) for surface in (value, scale * task_value)]  # target by target
    gradients = [gradient, scale * task_gradient]
    label = f"{name} × {scale:.3g}"

    figure = NotebookFigure(figsize=(14, 6.8), dpi=150, layout=ConstrainedLayoutEngine(wspace=0.02, hspace=0.05))
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


def _draw_column(
    axes: Sequence[Axes], grid: np.ndarray, surfaces: Sequence[np.ndarray], color_map: str, low: float
) -> None:
    """Draws two surfaces in one color scale, which ends where the first one ends: beyond it lies one flat shade."""
    high = np.abs(surfaces[0]).max() or 1.0
    levels = MaxNLocator(NUM_LEVELS).tick_values(low, high)
    images = []
    for ax, surface in zip(axes, surfaces):
        scale = {"cmap": color_map, "vmin": low, "vmax": high}
        images.append(ax.pcolormesh(grid, grid, surface, **scale, shading="gouraud", rasterized=True))
        ax.contour(grid, grid, surface, levels[levels != 0], colors="0.3", linewidths=0.6, linestyles="-")
        ax.plot(grid, grid, color="0.1", linestyle=(0, (1, 2)), linewidth=1.5, label="y_pred = y_true")
        ax.set_aspect("equal")
        ax.locator_params(nbins=5)
    bar = axes[0].figure.colorbar(images[-1], ax=axes, extend="max" if low == 0 else "both", aspect=45)
    bar.ax.tick_params(labelsize=TEXT_SIZE - 2)
    bar.outline.set_visible(False)


def _draw_slices(
    ax: Axes,
    learned: _Plane,
    task_gradient: Callable[[Any, Any], np.ndarray],
    task_label: str,
    grid: np.ndarray,
    targets: list[float],
) -> None:
    """Draws the gradient against the error for each target. The frame fits the learned loss alone."""
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


def _plot_classes(learned: _Plane, baseline: _Plane, name: str, y_range: tuple[float, float]) -> Figure:
    """Draws value and gradient against the prediction, for each class."""
    grid = np.linspace(y_range[0], y_range[1], GRID_SIZE)
    y_true, y_pred = np.meshgrid(CLASSES, grid, indexing="ij")
    own, other = learned(y_true, y_pred), baseline(y_true, y_pred)
    scale = _match(own[1], other[1], np.abs(y_pred - np.mean(y_range)) <= NEAR * np.ptp(grid))
    figure = NotebookFigure(figsize=(14, 4), dpi=150, layout=ConstrainedLayoutEngine(wspace=0.05))
    axes = figure.subplots(1, 2 * len(CLASSES))
    for row, target in enumerate(CLASSES):
        best = -1 if target == max(CLASSES) else 0  # the end of the grid that is next to the class
        for column, quantity in enumerate(("loss", "gradient")):
            ax = axes[2 * row + column]
            curves = [own[column][row], scale * other[column][row]]
            if quantity == "loss":  # counted from the best end of the range
                curves = [curve - curve[best] for curve in curves]
            ax.plot(grid, curves[0], color="C0", linestyle="-", linewidth=2, label="learned")
            ax.plot(grid, curves[1], color=TASK_COLOR, linestyle="--", linewidth=2, label=f"{name} × {scale:.3g}")
            margin = 0.15 * (np.ptp(curves[0]) or 1.0)  # the frame fits the learned loss: the task loss may have a pole
            limits = min(curves[0].min(), 0) - margin, max(curves[0].max(), 0) + margin
            ax.set(ylim=limits, xlabel="y_pred")
            ax.set_title(f"({'abcd'[2 * row + column]}) {quantity} for y_true = {target:g}")
            ax.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    style_axes(axes)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=TEXT_SIZE, frameon=False
    )
    return figure
