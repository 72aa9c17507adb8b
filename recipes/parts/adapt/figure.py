"""The figure of `adapt.py`, in the form of rliable's: points with their intervals."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ml3_tf.inspection import NAMED_COLORS, TEXT_SIZE, style_axes
from parts.adapt.report import MEAN, WORSE

TITLES = {"clean": "clean", "label_noise": "20 % wrong labels", "outliers": "5 % outliers", "imbalance": "imbalance"}
OPTIMIZER_NAMES = {"adam": "Adam", "adamw": "AdamW", "muon": "Muon"}
ARM_STYLES = {  # label, color, marker
    "base": ("base loss", NAMED_COLORS["task loss"], "o"),
    "adapt": ("AdaptLoss", NAMED_COLORS["learned"], "D"),
    "robust": ("loss made for the setting", NAMED_COLORS["tuned"], "s"),
    "boosting": ("gradient boosting", "0.5", "^"),
}


def draw_figure(statistics: Mapping[str, Any]) -> Figure:
    """Draws the interquartile means, the probabilities of improvement, and the differences on each clean table."""
    figure = Figure(figsize=(14, 8), dpi=150, layout="constrained")
    figure.get_layout_engine().set(wspace=0.05, hspace=0.06)
    grid = figure.add_gridspec(2, 4)
    scores = [figure.add_subplot(grid[0, column]) for column in range(4)]
    better, tables = figure.add_subplot(grid[1, :2]), figure.add_subplot(grid[1, 2:])
    for number, (setting, ax) in enumerate(zip(TITLES, scores, strict=True)):
        groups = {OPTIMIZER_NAMES.get(name, name): arms for name, arms in statistics[setting].items() if name != MEAN}
        draw_intervals(groups, "interquartile_mean", ax)
        ax.set(title=f"({'abcd'[number]}) {TITLES[setting]}", xlabel="score, interquartile mean")
        if number:
            ax.tick_params(labelleft=False)
    draw_improvement(statistics, better)
    draw_tables(statistics["clean"][MEAN]["adapt"]["table_differences"], tables)
    style_axes([*scores, better, tables])
    for ax in (*scores, better):
        ax.grid(False, axis="y")
    tables.tick_params(axis="x", labelsize=TEXT_SIZE - 4)
    tables.grid(False, axis="x")
    tables.set_axisbelow(True)
    handles, labels = scores[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=TEXT_SIZE, frameon=False)
    return figure


def draw_intervals(groups: Mapping[str, Mapping[str, Any]], statistic: str, ax: Axes, skip: str | None = None) -> None:
    """Draws one row for each group, and in it a point with its interval for each arm."""
    for row, arms in enumerate(groups.values()):
        shown = [arm for arm in ARM_STYLES if arm in arms and arm != skip]
        for place, arm in zip(np.linspace(-0.27, 0.27, len(shown)), shown, strict=True):
            value, low, high = arms[arm][statistic]
            label, color, marker = ARM_STYLES[arm]
            ax.plot([low, high], [row + place] * 2, color=color, linewidth=2.5, solid_capstyle="butt")
            ax.plot(value, row + place, marker, color=color, label=label if row == 0 else None)
    ax.set_yticks(range(len(groups)), list(groups))
    ax.set_ylim(len(groups) - 0.5, -0.5)


def draw_improvement(statistics: Mapping[str, Any], ax: Axes) -> None:
    """Draws how probably each arm is better than the base; the scores are means over the optimizers."""
    groups = {title: statistics[setting][MEAN] for setting, title in TITLES.items()}
    draw_intervals(groups, "improvement", ax, skip="base")
    ax.axvline(0.5, color="0.3", linewidth=1, linestyle=":")
    ax.set(
        title="(e) better than the base loss, mean over optimizers", xlabel="probability of improvement", xlim=(0, 1)
    )


def draw_tables(differences: Mapping[str, float], ax: Axes) -> None:
    """Draws the difference between AdaptLoss and the base on each clean table, in order."""
    names = sorted(differences, key=differences.get)
    values = [differences[name] for name in names]
    colors = [NAMED_COLORS["task loss"] if value < WORSE else NAMED_COLORS["learned"] for value in values]
    ax.bar(range(len(names)), values, color=colors)
    ax.axhline(0, color="0.3", linewidth=1)
    ax.axhline(WORSE, color="0.3", linewidth=1, linestyle=":")
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set(title="(f) clean tables, AdaptLoss minus base loss", ylabel="accuracy or R²")
