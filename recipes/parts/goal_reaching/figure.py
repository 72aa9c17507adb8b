"""The figures of the recipes that reach goals through a learned model (ML3, figure 3)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ml3_tf.inspection import LINE_STYLES, TEXT_SIZE, style_axes
from parts.experiment import Result
from parts.goal_reaching.experiment import Experiment

COLORS = {"learned": "C0", "same_rate": "C1", "tuned": "C2", "tuned_squared": "C3"}
LABELS = {
    "learned": "learned loss",
    "same_rate": "task loss, same rate",
    "tuned": "task loss, best rate",
    "tuned_squared": "squared distance, best rate",
}
NUM_PATHS = 5  # goals whose trajectories are drawn


def draw_figure(results: Sequence[Result], experiment: Experiment, *, reported_step: int) -> Figure:
    """Draws trajectories of the first seed, and final distance against updates with quartiles over seeds and goals.

    Trajectories are those to the goals of the first prefix. The range of meta-training is shaded.

    Args:
        results: The results of the seeds, see `parts.goal_reaching.report.run_one_seed`.
        experiment: `Experiment`.
        reported_step: Number of updates after which the metrics are measured.
    """
    titles = experiment.titles
    figure = Figure(figsize=(14, 5.0), dpi=150, layout="constrained")
    axes = figure.subplots(1, 1 + len(titles), width_ratios=[1.1, *[1] * len(titles)])
    _draw_paths(axes[0], results[0], next(iter(titles)), experiment.trained_range)
    x_label, y_label = experiment.axis_labels
    axes[0].set(xlabel=x_label, ylabel=y_label, title=f"(a) first seed, after {reported_step} updates")
    top = 0.0
    for ax, letter, (prefix, title) in zip(axes[1:], "bcd", titles.items()):
        for method in COLORS:
            distances = np.concatenate([np.array(result["distances"][prefix + method]) for result in results], axis=1)
            top = max(top, _draw_quartiles(ax, distances, method))
        ax.axvline(reported_step, color="0.5", linewidth=1, linestyle=":")
        label = f"final distance to the goal ({experiment.unit})"
        ax.set(title=f"({letter}) {title}", xlabel="policy updates", ylabel=label)
    for ax in axes[1:]:
        ax.set_ylim(0, 1.05 * top)
        ax.locator_params(axis="x", integer=True)
    style_axes(axes)
    handles = {line.get_label(): line for line in axes[0].lines if not line.get_label().startswith("_")}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=6, fontsize=TEXT_SIZE, frameon=False)
    return figure


def _draw_paths(ax: Axes, result: Result, prefix: str, trained_range: tuple[float, float] | None) -> None:
    """Draws the first goals, and how the policies trained for them get there."""
    goals = np.array(result["goals"][prefix])[:NUM_PATHS]
    for order, method in enumerate(COLORS):
        for number, path in enumerate(np.array(result["paths"][prefix + method])[:NUM_PATHS]):
            label, front = (None if number else LABELS[method]), 5 - order  # the learned loss lies on top
            ax.plot(*path.T, color=COLORS[method], linestyle=_style(method), linewidth=2, label=label, zorder=front)
            ax.plot(*path[-1], "o", color=COLORS[method], markersize=7, zorder=front)
            ax.plot(*path[0], "s", color="black", markersize=9, markerfacecolor="white", zorder=6)
    white = {"color": "black", "markerfacecolor": "white", "linestyle": "", "zorder": 7}
    ax.plot(*goals.T, "*", markersize=14, label="goal", **white)
    ax.plot([], [], "s", markersize=9, label="start", **white)
    ax.margins(0.08)
    ax.set_aspect("equal", adjustable="datalim")
    if trained_range is not None:
        ax.axvspan(*trained_range, color="0.93", zorder=0)
        place = {"transform": ax.get_xaxis_transform(), "ha": "center", "va": "top"}
        ax.text(np.mean(trained_range), 0.98, "meta-training", fontsize=TEXT_SIZE - 1, color="0.4", **place)


def _draw_quartiles(ax: Axes, distances: np.ndarray, method: str) -> float:
    """Draws median and quartiles over seeds and goals; returns the highest value drawn."""
    lower, median, upper = np.percentile(distances, [25, 50, 75], axis=1)
    steps = np.arange(len(median))
    ax.plot(steps, median, color=COLORS[method], linestyle=_style(method), linewidth=2)
    ax.fill_between(steps, lower, upper, color=COLORS[method], alpha=0.2, linewidth=0)
    return upper.max()


def _style(method: str) -> str:
    return LINE_STYLES[list(COLORS).index(method)]
