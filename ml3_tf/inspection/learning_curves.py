"""Figures of learning curves and sine tasks, drawn without pyplot, on the axes that you pass."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.typing import ColorType
from numpy.typing import ArrayLike

from ml3_tf.inspection.notebook_figure import NotebookFigure
from ml3_tf.inspection.style import LINE_STYLES, NAMED_COLORS, TEXT_SIZE, style_axes

Curves: TypeAlias = Mapping[str, ArrayLike | tuple[ArrayLike, ArrayLike]]
"""Curves `[seeds, steps]` by name, or tuples `(steps, curves)` by name."""


def plot_learning_curve(
    curves: ArrayLike,
    ax: Axes,
    *,
    label: str | None = None,
    color: ColorType | None = None,
    steps: ArrayLike | None = None,
) -> Axes:
    """Draws the mean over seeds as a line, with a band of one standard deviation to each side.

    A step at which any seed is not finite is a gap: the mean of the other seeds would hide that one diverged. On a
    log-scaled axis (set the scale first) a mean that is not positive is a gap too, and the band ends at the smallest
    positive value among the seeds and their mean.

    Args:
        curves: `[seeds, steps]`, or `[steps]` for one seed, which has no band. In the unit of the axis.
        ax: The axis to draw on.
        label: Name in the legend. Default `None`: not in the legend.
        color: Matplotlib color of line and band. Default `None`: the next color of the axis.
        steps: `[steps]`, x positions. Default `None`: `0, 1, 2, ...`.

    Returns:
        `ax`.

    Raises:
        ValueError: `curves` has another rank, is empty or leaves nothing to draw, or `steps` does not fit it.

    Example:

    >>> from matplotlib.figure import Figure
    >>> ax = plot_learning_curve([[4.0, 2.0], [2.0, 0.0]], Figure().add_subplot(), label="learned")
    >>> ax.lines[0].get_ydata().tolist()
    [3.0, 1.0]
    """
    values = _as_floats(curves, "curves", "[seeds, steps] or [steps]")
    if values.ndim not in (1, 2) or values.size == 0:
        received = f"Received: shape {values.shape}. Reduce other axes first, for example by a mean over tasks."
        raise ValueError(f"`curves` must have the shape [seeds, steps] or [steps] and not be empty. {received}")
    values = np.atleast_2d(values)
    positions = np.arange(values.shape[1]) if steps is None else _as_floats(steps, "steps", "[steps]")
    if positions.shape != values.shape[1:]:
        received = f"Received: shape {positions.shape}. Give the x position of each step of `curves`, or `None`."
        raise ValueError(f"`steps` must have the shape {values.shape[1:]}. {received}")
    is_log = ax.get_yscale() == "log"
    with np.errstate(invalid="ignore", over="ignore"):  # diverged seeds; they become gaps below
        mean, deviation = values.mean(axis=0), values.std(axis=0)
        drawn = np.isfinite(mean) & ((mean > 0) | (not is_log))
    if not drawn.any():
        raise ValueError(
            f"`curves` must have a step at which every seed is finite{' and the mean positive' if is_log else ''}. "
            f"Received: no such step; {np.isfinite(values).sum()} of {values.size} values are finite. "
            f"Remove the seeds that diverged{', or use a linear axis' if is_log else ''}."
        )
    mean = np.where(drawn, mean, np.nan)
    marker = "." if drawn.sum() == 1 else None  # a line through one point is invisible
    (line,) = ax.plot(positions, mean, label=label, color=color, marker=marker, linewidth=2)
    if len(values) > 1:
        shown = np.vstack([values, mean])[:, drawn]
        lower = np.maximum(mean - deviation, shown[shown > 0].min() if is_log else -np.inf)
        ax.fill_between(positions, lower, mean + deviation, color=line.get_color(), alpha=0.2, linewidth=0)
    return ax


def plot_sine_tasks(
    tasks: Sequence[ArrayLike], ax: Axes, *, label: str | None = None, color: ColorType | None = None
) -> Axes:
    """Draws every task as a thin line through its examples, sorted by x; all in one color.

    Args:
        tasks: Pair `(x, y)`, each `[N, B, 1]` or `[N, B]`: tasks, examples.
        ax: The axis to draw on.
        label: Name of the whole set in the legend. Default `None`: not in the legend.
        color: Matplotlib color. Default `None`: the next color of the axis.

    Returns:
        `ax`.

    Raises:
        ValueError: `tasks` is not a pair, or the shapes of `x` and `y` are not valid, equal and not empty.

    Example:

    >>> from matplotlib.figure import Figure
    >>> ax = plot_sine_tasks(([[2.0, 1.0]], [[0.9, 0.8]]), Figure().add_subplot())
    >>> ax.lines[0].get_xydata().tolist()
    [[1.0, 0.8], [2.0, 0.9]]
    """
    arrays = [_as_floats(value, f"tasks[{i}]", "[N, B, 1] or [N, B]") for i, value in enumerate(tasks)]
    shapes = [array.shape[:2] if array.shape[2:] == (1,) else array.shape for array in arrays]
    if len(arrays) != 2 or shapes[0] != shapes[1] or len(shapes[0]) != 2 or 0 in shapes[0]:
        received = f"Received: shapes {[array.shape for array in arrays]}. Give a single task as x[None], y[None]."
        raise ValueError(f"`tasks` must be a pair (x, y) of equal shapes [N, B, 1] or [N, B], not empty. {received}")
    x, y = (array.reshape(shapes[0]) for array in arrays)
    for task_x, task_y in zip(x, y):
        order = np.argsort(task_x)
        (line,) = ax.plot(task_x[order], task_y[order], label=label, color=color, linewidth=1.4, alpha=0.7)
        label, color = None, line.get_color()  # one entry in the legend, one color
    return ax


def plot_meta_learning(
    train_task: Sequence[ArrayLike],
    test_tasks: Sequence[ArrayLike],
    *,
    meta_train: Curves,
    meta_test: Curves,
    title: str | None = None,
) -> Figure:
    """Draws the four panels of ML3's Figure 2: the tasks on the left, the learning curves on the right.

    A name has one color and line style in both panels: "learned" is blue, "same rate" and "task loss" are orange,
    "tuned" is green, and any other name gets the next free color. The legend is below the panels and hides no curve.

    Args:
        train_task: Pair `(x, y)`, each `[N, B, 1]` or `[N, B]`: the meta-train task or tasks, panel (a).
        test_tasks: Pair of the same form: the meta-test tasks, panel (b).
        meta_train: Curves `[seeds, steps]` by name, or tuples `(steps, curves)` by name: the task loss (MSE) on the
            meta-train task at every outer iteration, panel (c). A tuple is always `(steps, curves)`.
        meta_test: Mapping of the same form: the task loss (MSE) at every gradient step, averaged over the meta-test
            tasks, panel (d).
        title: Title above the panels. Default `None`: no title.

    Returns:
        `matplotlib.figure.Figure` of 14 x 3.4 inches at 150 dpi, bound to no display.

    Raises:
        ValueError: A mapping is empty, or `plot_sine_tasks` or `plot_learning_curve` refuses an argument.

    Example:

    >>> task = ([[0.0, 1.0, 2.0]], [[0.0, 0.8, 0.9]])
    >>> curves = {"learned": [[1.0, 0.1]], "task loss": [[1.0, 0.5]]}
    >>> figure = plot_meta_learning(task, task, meta_train=curves, meta_test=curves)
    >>> [ax.get_title() for ax in figure.axes][:2]
    ['(a) meta-train task', '(b) meta-test task']
    """
    figure = NotebookFigure(figsize=(14, 3.4), dpi=150, layout=ConstrainedLayoutEngine(wspace=0.05))
    axes = figure.subplots(1, 4)
    axes[1].sharex(axes[0])  # the same frame shows how far the meta-test tasks lie from the meta-train task
    axes[1].sharey(axes[0])
    for argument, tasks, ax in (("train_task", train_task, axes[0]), ("test_tasks", test_tasks, axes[1])):
        with _naming(argument):
            plot_sine_tasks(tasks, ax, color="0.2")  # gray: tasks belong to no method
    colors = _assign_colors(meta_train, meta_test)
    _plot_named_curves(meta_train, "meta_train", axes[2], colors)
    _plot_named_curves(meta_test, "meta_test", axes[3], colors)
    train, test = (f"meta-{p} task{'s' if len(ax.lines) > 1 else ''}" for p, ax in zip(("train", "test"), axes))
    axes[0].set(title=f"(a) {train}", xlabel="x", ylabel="y")
    axes[1].set(title=f"(b) {test}", xlabel="x", ylabel="y")
    axes[2].set(title=f"(c) loss on {train}", xlabel="outer iterations", ylabel="task loss (MSE)")
    axes[3].set(title=f"(d) loss on {test}", xlabel="gradient steps", ylabel="task loss (MSE)")
    style_axes(axes)
    handles = {line.get_label(): line for ax in axes[2:] for line in ax.lines}  # a name in both panels appears once
    figure.legend(handles.values(), handles, loc="outside lower right", ncols=5, fontsize=TEXT_SIZE, frameon=False)
    if title is not None:
        figure.suptitle(title, fontsize=TEXT_SIZE + 2, fontweight="bold")
    return figure


def _as_floats(value: Any, name: str, expected: str) -> np.ndarray:
    """Returns `value` as a float array; the error for ragged or non-numeric input names the argument."""
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        received = f"Received: {type(value).__name__} ({error}). Give every row the same length."
        raise ValueError(f"`{name}` must be numbers of the shape {expected}. {received}") from error


@contextlib.contextmanager
def _naming(argument: str) -> Iterator[None]:
    """Puts `argument` before the text of an error whose own name for it is that of another function's argument."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"In `{argument}`: {error}") from error


def _assign_colors(*panels: Curves) -> dict[str, str]:
    """Returns the color of each name: those of `NAMED_COLORS`, then the first free ones, in order of appearance."""
    names = dict.fromkeys(name for panel in panels for name in panel)
    named = {name: NAMED_COLORS[name] for name in names if name in NAMED_COLORS}
    if any({"same rate", "task loss"} <= set(panel) for panel in panels):
        del named["task loss"]  # side by side they need two colors
    free = (f"C{i}" for i in range(len(names)) if f"C{i}" not in named.values())
    return {name: named[name] if name in named else next(free) for name in names}


def _plot_named_curves(panel: Curves, argument: str, ax: Axes, colors: Mapping[str, str]) -> None:
    """Draws every entry of `panel` on a log axis, in the color and line style of its name; errors name the entry."""
    if not panel:
        raise ValueError(f"`{argument}` must map at least one name to curves. Received: {panel!r}. Add 'learned'.")
    ax.set_yscale("log")
    for name, value in panel.items():
        if isinstance(value, tuple) and len(value) != 2:
            received = f"Received: a tuple of {len(value)} items. Stack the seeds into one array [seeds, steps]."
            raise ValueError(f"`{argument}[{name!r}]` must be curves or a tuple (steps, curves). {received}")
        steps, curves = value if isinstance(value, tuple) else (None, value)
        with _naming(f"{argument}[{name!r}]"):
            plot_learning_curve(curves, ax, label=name, color=colors[name], steps=steps)
        ax.lines[-1].set_linestyle(LINE_STYLES[int(colors[name][1:]) % len(LINE_STYLES)])
    ax.locator_params(axis="x", nbins=5, steps=[1, 2, 5, 10], integer=True)
