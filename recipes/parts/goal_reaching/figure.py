"""The figures of the recipes that reach goals through a learned model (ML3, figure 3)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ml3_tf.inspection import LINE_STYLES, TEXT_SIZE, style_axes
from parts.experiment import Result
from parts.goal_reaching.experiment import Experiment
from parts.goal_reaching.meta_testing import ADAPTIVE
from parts.goal_reaching.settings import GoalReachingSettings
from parts.tuned_optimizers import OPTIMIZER_NAMES

STYLES = {  # of the methods that are always drawn: color and line
    "learned": ("C0", LINE_STYLES[0]),
    "same_rate": ("C1", LINE_STYLES[1]),
    "tuned": ("C2", LINE_STYLES[2]),
    "tuned_squared": ("C3", LINE_STYLES[3]),
}
BEST_STYLE = ("C4", (0, (5, 1, 1, 1, 1, 1)))  # of the best baseline, if it is another
LABELS = {"learned": "learned loss", "same_rate": "task loss, same rate"}
LABELS |= {
    name + cost: f"{words}, {optimizer}"
    for cost, words in (("", "task loss"), ("_squared", "squared distance"))
    for name, optimizer in {"tuned": "best rate", **{name: OPTIMIZER_NAMES[name] for name in ADAPTIVE}}.items()
}
Style = tuple[str, Any]
"""Color and line, as Matplotlib takes them."""
NUM_PATHS = 5  # goals whose trajectories are drawn


def draw_figure(results: Sequence[Result], experiment: Experiment, settings: GoalReachingSettings) -> Figure:
    """Draws trajectories of the first seed, and final distance against updates with quartiles over seeds and goals.

    Trajectories are those to the goals of the first prefix. The range of meta-training is shaded.

    Args:
        results: The results of the seeds, see `parts.goal_reaching.report.run_one_seed`.
        experiment: `Experiment`.
        settings: The settings.
    """
    titles, reported_step = experiment.titles, settings.reported_step
    best = settings.best_baseline
    styles = STYLES | {best: STYLES.get(best, BEST_STYLE)}
    figure = Figure(figsize=(14, 5.0), dpi=150, layout="constrained")
    axes = figure.subplots(1, 1 + len(titles), width_ratios=[1.1, *[1] * len(titles)])
    _draw_paths(axes[0], results[0], next(iter(titles)), styles, experiment.trained_range)
    x_label, y_label = experiment.axis_labels
    axes[0].set(xlabel=x_label, ylabel=y_label, title=f"(a) first seed, after {reported_step} updates")
    top = 0.0
    for ax, letter, (prefix, title) in zip(axes[1:], "bcd", titles.items()):
        for method, style in styles.items():
            distances = np.concatenate([np.array(result["distances"][prefix + method]) for result in results], axis=1)
            top = max(top, _draw_quartiles(ax, distances, style))
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


def _draw_paths(
    ax: Axes, result: Result, prefix: str, styles: Mapping[str, Style], trained_range: tuple[float, float] | None
) -> None:
    """Draws the first goals, and how the policies trained for them get there."""
    goals = np.array(result["goals"][prefix])[:NUM_PATHS]
    for order, (method, (color, line)) in enumerate(styles.items()):
        for number, path in enumerate(np.array(result["paths"][prefix + method])[:NUM_PATHS]):
            label, front = (None if number else LABELS[method]), 5 - order  # the learned loss lies on top
            ax.plot(*path.T, color=color, linestyle=line, linewidth=2, label=label, zorder=front)
            ax.plot(*path[-1], "o", color=color, markersize=7, zorder=front)
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


def _draw_quartiles(ax: Axes, distances: np.ndarray, style: Style) -> float:
    """Draws median and quartiles over seeds and goals; returns the highest value drawn."""
    lower, median, upper = np.percentile(distances, [25, 50, 75], axis=1)
    steps = np.arange(len(median))
    color, line = style
    ax.plot(steps, median, color=color, linestyle=line, linewidth=2)
    ax.fill_between(steps, lower, upper, color=color, alpha=0.2, linewidth=0)
    return upper.max()
