"""The figures of the recipes that reach goals through a learned model (ML3, figure 3)."""

import numpy as np
from matplotlib.figure import Figure

from ml3_tf.inspection.style import LINE_STYLES, TEXT_SIZE, style_axes

COLORS = {"learned": "C0", "same_rate": "C1", "tuned": "C2", "tuned_squared": "C3"}
LABELS = {
    "learned": "learned loss",
    "same_rate": "task loss, same rate",
    "tuned": "task loss, best rate",
    "tuned_squared": "squared distance, best rate",
}
NUM_PATHS = 5  # goals whose trajectories are drawn


def draw_figure(results, config, goals, unit, axis_labels, trained=None):
    """Trajectories of the first seed, and final distance against updates with quartiles over seeds and goals.

    Args:
        results: What the seeds gave: `"distances"`, `"paths"` and `"goals"`, see `goal_reaching_report.run_seed`.
        config: Settings of the run.
        goals: Prefix of the metrics -> what its goals are, in words. The first is what trajectories are drawn for.
        unit: Unit of a distance.
        axis_labels: Of the two coordinates of a goal.
        trained: Optional range of the first coordinate in which meta-training took place: it is shaded.

    Returns:
        `matplotlib.figure.Figure`.
    """
    figure = Figure(figsize=(14, 5.0), dpi=150, layout="constrained")
    axes = figure.subplots(1, 1 + len(goals), width_ratios=[1.1, *[1] * len(goals)])
    _draw_paths(axes[0], results[0], next(iter(goals)), trained)
    reported = config["reported_step"]
    axes[0].set(xlabel=axis_labels[0], ylabel=axis_labels[1], title=f"(a) first seed, after {reported} updates")
    top, drawn = 0.0, [method for method in COLORS if method in results[0]["methods"]]
    for ax, letter, (prefix, words) in zip(axes[1:], "bcd", goals.items()):
        for method in drawn:
            distances = np.concatenate([np.array(result["distances"][prefix + method]) for result in results], axis=1)
            top = max(top, _draw_quartiles(ax, distances, method))
        ax.axvline(reported, color="0.5", linewidth=1, linestyle=":")
        ax.set(title=f"({letter}) {words}", xlabel="policy updates", ylabel=f"final distance to the goal ({unit})")
    for ax in axes[1:]:
        ax.set_ylim(0, 1.05 * top)
        ax.locator_params(axis="x", integer=True)
    style_axes(axes)
    handles = {line.get_label(): line for line in axes[0].lines if not line.get_label().startswith("_")}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=6, fontsize=TEXT_SIZE, frameon=False)
    return figure


def _draw_paths(ax, result, prefix, trained):
    """The first goals, and how the policies trained for them get there."""
    goals = np.array(result["goals"][prefix])[:NUM_PATHS]
    for order, method in enumerate(method for method in COLORS if method in result["methods"]):
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
    if trained is not None:
        ax.axvspan(*trained, color="0.93", zorder=0)
        place = {"transform": ax.get_xaxis_transform(), "ha": "center", "va": "top"}
        ax.text(np.mean(trained), 0.98, "meta-training", fontsize=TEXT_SIZE - 1, color="0.4", **place)


def _draw_quartiles(ax, distances, method):
    """Median and quartiles over seeds and goals; returns the highest value drawn."""
    lower, median, upper = np.percentile(distances, [25, 50, 75], axis=1)
    steps = np.arange(len(median))
    ax.plot(steps, median, color=COLORS[method], linestyle=_style(method), linewidth=2)
    ax.fill_between(steps, lower, upper, color=COLORS[method], alpha=0.2, linewidth=0)
    return upper.max()


def _style(method):
    return LINE_STYLES[list(COLORS).index(method)]
