"""The report of the benchmark: tables over all tasks and for each one, and the performance profiles."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ml3_tf.bench.profile import draw_profiles
from ml3_tf.bench.results import Result, collect
from ml3_tf.bench.statistics import bootstrap_interval, interquartile_mean

TITLES = {
    "regression": "Numbers",
    "classification": "Classes",
    "pointmass": "Policies of a point mass",
    "arm": "Policies of an arm",
}
INTRODUCTION = """# Losses compared

Each loss trains fresh models of each task, with the same budget: the same models, examples and numbers of steps. Its
optimizer (SGD, Adam, AdamW or Muon) and rate are the best on tuning seeds, of a grid that is the same for all losses. A
row *as exported* has the optimizer and the rate that a learned loss was learned with, and is not tuned.

A score is 1 at best: the accuracy, the share of the variance that is explained, or, for a policy, the share of the
distance to the goal that is covered at the end. One below 0, or of a model that diverged, counts as 0. The
interquartile mean (IQM) is over all tasks and seeds, with its 95 % stratified bootstrap interval: after as many steps
as were tuned for (1x), and after three and ten times as many.
"""


def write_report(results: Sequence[Result], sources: Mapping[str, str], output_dir: Path) -> Path:
    """Writes `losses.md` and its figure.

    Args:
        results: The results.
        sources: Name of a loss -> where it comes from.
        output_dir: The folder.

    Returns:
        The path of the report.
    """
    groups = {kind: [result for result in results if result.kind == kind] for kind in TITLES}
    groups = {kind: group for kind, group in groups.items() if group}
    parts = [INTRODUCTION]
    for kind, group in groups.items():
        parts += [f"## {TITLES[kind]}\n", summary_table(group), task_table(group)]
    figure = output_dir / "losses.png"
    draw_profiles({TITLES[kind]: group for kind, group in groups.items()}).savefig(figure)
    parts += [f"## Performance profiles\n\n![The share of runs with a score above a threshold]({figure.name})\n"]
    named = sorted({result.loss for result in results} & {*sources})
    parts += ["## Sources\n", "\n".join(f"- `{name}`: {sources[name]}." for name in named) + "\n"]
    path = output_dir / "losses.md"
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def summary_table(results: Sequence[Result]) -> str:
    """Returns the table over all tasks: a row for each loss, the best first.

    Losses that lack a task or a seed of the others are left out.
    """
    losses, tasks, left_out = find_complete(results)
    horizons = [horizon for horizon in results[0].score if all(horizon in result.score for result in results)]
    scores = {horizon: collect(results, losses, tasks, horizon) for horizon in horizons}
    intervals = {
        loss: [bootstrap_interval(interquartile_mean, scores[horizon][row]) for horizon in horizons]
        for row, loss in enumerate(losses)
    }
    rows = [["loss", *(f"IQM at {horizon}x" for horizon in horizons)]]
    for loss, of_loss in sorted(intervals.items(), key=lambda item: -item[1][0].value):
        rows.append([f"`{loss}`", *(f"{i.value:.3f} [{i.low:.3f}, {i.high:.3f}]" for i in of_loss)])
    note = f"\nNot among them, as some tasks or seeds are missing: {', '.join(left_out)}.\n" if left_out else ""
    return _table(rows) + note


def task_table(results: Sequence[Result]) -> str:
    """Returns the table of each task: mean and standard deviation over seeds, after the first horizon."""
    losses, tasks = _in_order(r.loss for r in results), _in_order(r.task for r in results)
    rows = [["task", *(f"`{loss}`" for loss in losses)]]
    for task in tasks:
        found = {loss: [r.score["1"] for r in results if (r.loss, r.task) == (loss, task)] for loss in losses}
        rows.append([task, *(_mean_and_deviation(values) for values in found.values())])
    return _table(rows)


def find_complete(results: Sequence[Result]) -> tuple[list[str], list[str], list[str]]:
    """Returns the losses that have all tasks and seeds which any loss has, all tasks, and the other losses."""
    losses, tasks = _in_order(r.loss for r in results), _in_order(r.task for r in results)
    wanted = {(r.task, r.seed) for r in results}
    runs = {loss: {(r.task, r.seed) for r in results if r.loss == loss} for loss in losses}
    complete = [loss for loss in losses if runs[loss] == wanted]
    return complete, tasks, [loss for loss in losses if loss not in complete]


def _mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"
