"""The result of a sweep: `sweep.json`, a figure and a table, with the best setting."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from ml3_tf.bench.statistics import Interval, bootstrap_interval
from ml3_tf.inspection import style_axes
from parts.experiment import save_figure
from parts.settings import recorded_command
from sweeping.grid import Point
from sweeping.runs import Run, load_recipe

DIFFERENCE = "first less second, seed by seed"


class Score(NamedTuple):
    """The metric of one setting."""

    point: Point
    """The setting."""
    values: list[float]
    """One value for each seed."""

    @property
    def mean(self) -> Interval:
        """The mean over seeds, with its bootstrap interval of 95 %."""
        return _mean_interval(self.values)


def write_report(
    points: Sequence[Point],
    runs: Mapping[str, Run],
    failed: Mapping[str, str],
    facts: Mapping[str, Any],
    output_dir: Path,
) -> None:
    """Writes the files of a sweep, and prints its table and the settings that failed.

    Args:
        points: The settings.
        runs: Name of each setting -> its run, with a summary unless it failed.
        failed: Name of each setting that failed -> its error.
        facts: What `sweep.json` says of the sweep; "metric" and "maximize" decide which setting is best.
        output_dir: Folder of the sweep.
    """
    metric = facts["metric"]
    scores = [Score(p, read_metric(runs[p.name], metric)) for p in points if p.name not in failed]
    order = ranked(scores, maximize=facts["maximize"])
    output_dir.mkdir(parents=True, exist_ok=True)
    write_sweep(facts, order, failed, output_dir)
    if order:
        print_table(order, metric)
        print(f"Figure: {save_figure(draw_figure(order, metric), output_dir)}")
        best = order[0].point
        main = load_recipe(runs[best.name].recipe).main
        command = recorded_command(main, best.settings, seeds=10, first_seed=0, smoke=False)
        print(f"The best setting, on seeds that did not choose it: {command}")
    if failed:
        print(f"\n{len(failed)} of {len(points)} settings failed:", file=sys.stderr)
        for name, error in failed.items():
            print(f"{name}: {error}", file=sys.stderr)


def read_metric(run: Run, metric: str) -> list[float]:
    """Returns the values of a metric in the summary of a setting, one for each seed."""
    return json.loads((run.folder / "summary.json").read_text())["metrics"][metric]


def ranked(scores: Sequence[Score], *, maximize: bool) -> list[Score]:
    """Returns the scores, the best mean first; a mean that is not finite comes last."""
    sign = -1 if maximize else 1
    return sorted(
        scores, key=lambda score: sign * np.mean(score.values) if np.isfinite(score.values).all() else math.inf
    )


def write_sweep(facts: Mapping[str, Any], order: Sequence[Score], failed: Mapping[str, str], output_dir: Path) -> None:
    """Writes `sweep.json`: the facts of the sweep, its settings, the best first, and those that failed."""
    settings = []
    for score in order:
        mean, low, high = score.mean
        about = {"name": score.point.name, "settings": score.point.values, "values": score.values}
        settings.append({**about, "mean": mean, "low": low, "high": high})
    sweep = {**facts, "best": order[0].point.name if order else None, "settings": settings, "failed": dict(failed)}
    path = output_dir / "sweep.json"
    unfinished = path.with_name(".unfinished_sweep.json")
    unfinished.write_text(json.dumps(sweep, indent=2, default=str) + "\n")
    unfinished.replace(path)


def draw_figure(order: Sequence[Score], metric: str) -> Figure:
    """Returns a figure with the mean of each setting and its interval, the best setting at the top."""
    figure = Figure(figsize=(8, 1 + 0.35 * len(order)), layout="constrained")
    ax = figure.add_subplot()
    for place, score in enumerate(order):
        value, low, high = score.mean
        ax.plot([low, high], [place, place], color="C0")
        ax.plot(value, place, "o", color="C0")
    ax.set_yticks(range(len(order)), [score.point.name for score in order])
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.set_xlabel(f"{metric}, mean over {len(order[0].values)} seed(s) and its interval of 95 %")
    style_axes([ax])
    return figure


def print_table(order: Sequence[Score], metric: str) -> None:
    """Prints all settings, the best first, and how sure the first place is."""
    width = max(len(text) for text in (metric, DIFFERENCE, *(score.point.name for score in order)))
    print(f"\n{metric:{width}}  {'mean':>10}  interval of 95 %, over {len(order[0].values)} seed(s)")
    for score in order:
        print(f"{score.point.name:{width}}  {_text(score.mean)}")
    if len(order) > 1:
        difference = _mean_interval(np.subtract(order[0].values, order[1].values))
        print(f"{DIFFERENCE:{width}}  {_text(difference)}")


def _text(interval: Interval) -> str:
    return "{:10.4g}  [{:.4g}, {:.4g}]".format(*interval)


def _mean_interval(values: Sequence[float]) -> Interval:
    """Values that are not finite have no interval."""
    if not np.isfinite(values).all():
        return Interval(float(np.mean(values)), math.nan, math.nan)
    return bootstrap_interval(lambda scores: np.mean(scores, axis=(-2, -1)), np.array(values)[:, np.newaxis])
