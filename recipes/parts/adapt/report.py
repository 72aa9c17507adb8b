"""Metrics, statistics, history and table of `adapt.py`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ml3_tf.bench.statistics import Interval, bootstrap_interval, interquartile_mean, probability_of_improvement
from parts.adapt.scoring import Score
from parts.adapt.training import CHECKED_STEPS
from parts.experiment import Result, Seed

MEAN = "mean"  # over the optimizers
WORSE = -0.005  # of R^2, accuracy or balanced accuracy

Curves = Mapping[str, Sequence[Sequence[float]]]


def compute_metrics(curves: Curves) -> dict[str, float]:
    """Returns the metrics of one seed from "setting/optimizer/arm/table" -> scores, of which the last counts."""
    groups: dict[tuple[str, str, str], list[Score]] = {}
    for run, scores in curves.items():
        setting, optimizer, arm, _ = run.split("/")
        groups.setdefault((setting, optimizer, arm), []).append(Score(*scores[-1]))
    metrics = {}
    for (setting, optimizer, arm), scores in groups.items():
        method = arm if arm == optimizer else f"{arm}_{optimizer}"
        metrics[f"{setting}_score_{method}"] = interquartile_mean([score.normalized for score in scores])
        metrics[f"{setting}_loss_{method}"] = float(np.median([score.loss for score in scores]))
    return metrics


def last_scores(results: Sequence[Result], field: str) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Returns setting -> optimizer -> arm -> one field of the last scores, `[seeds, tables]`.

    One more "optimizer" is the mean over the optimizers. Gradient boosting, which has none, stands beside all.
    """
    values: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    index = Score._fields.index(field)
    names = [run.split("/") for run in results[0]["curves"]]
    for setting, optimizer, arm, _ in names:
        tables = [name[3] for name in names if name[:3] == [setting, optimizer, arm]]
        runs = [f"{setting}/{optimizer}/{arm}/{table}" for table in tables]
        values.setdefault(setting, {}).setdefault(optimizer, {})[arm] = np.array(
            [[result["curves"][run][-1][index] for run in runs] for result in results]
        )
    for optimizers in values.values():
        boosting = optimizers.pop("boosting")
        first = next(iter(optimizers.values()))
        optimizers[MEAN] = {arm: np.mean([arms[arm] for arms in optimizers.values()], axis=0) for arm in first}
        for arms in optimizers.values():
            arms |= boosting
    return values


def compute_statistics(results: Sequence[Result], num_samples: int = 2000) -> dict[str, Any]:
    """Returns setting -> optimizer -> arm -> statistics over seeds and tables, each with its interval of 95 %.

    "interquartile_mean" of the normalized scores; "difference" of it to the base; "improvement", the probability that
    a score is above the base's. "adapt" has two more: "table_differences" to the base's R^2 or accuracy, not scaled,
    mean over seeds, and "tables_worse", those where it is below -0.005.
    """
    statistics: dict[str, Any] = {}
    values, names = last_scores(results, "value"), [run.split("/") for run in results[0]["curves"]]
    for setting, optimizers in last_scores(results, "normalized").items():
        tables = [name[3] for name in names if name[0] == setting and name[2] == "boosting"]
        statistics[setting] = {}
        for optimizer, arms in optimizers.items():
            rows = statistics[setting][optimizer] = {
                arm: compare(scores, None if arm == "base" else arms["base"], num_samples)
                for arm, scores in arms.items()
            }
            pair = values[setting][optimizer]
            differences = (pair["adapt"] - pair["base"]).mean(axis=0)
            rows["adapt"]["table_differences"] = dict(zip(tables, differences.tolist(), strict=True))
            rows["adapt"]["tables_worse"] = [name for name, d in zip(tables, differences) if d < WORSE]
    return statistics


def compare(scores: np.ndarray, base: np.ndarray | None, num_samples: int) -> dict[str, Any]:
    """Returns the statistics of one arm, `[seeds, tables]`, beside those of the base, if there are any."""
    above = lambda ours, theirs: interquartile_mean(ours) - interquartile_mean(theirs)
    rows = {"interquartile_mean": bootstrap_interval(interquartile_mean, scores, num_samples=num_samples)}
    if base is not None:
        rows["difference"] = bootstrap_interval(above, scores, base, num_samples=num_samples)
        rows["improvement"] = bootstrap_interval(probability_of_improvement, scores, base, num_samples=num_samples)
    return rows


def history_rows(seeds: Sequence[Seed], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the scores of each run after each 100 steps."""
    return [
        dict(zip(("setting", "optimizer", "arm", "table"), run.split("/"), strict=True))
        | {"seed": seed, "step": "" if "/boosting/" in run else CHECKED_STEPS * number}
        | Score(*score)._asdict()
        for seed, result in zip(seeds, results, strict=True)
        for run, scores in result["curves"].items()
        for number, score in enumerate(scores, start=1)
    ]


def print_report(statistics: Mapping[str, Any]) -> None:
    """Prints the table, with intervals of 95 %."""
    print(f"\n{'':32}  {'score, interquartile mean':>25}  {'above the base by':>25}  {'probability of that':>22}")
    for setting, optimizers in statistics.items():
        for optimizer, arms in optimizers.items():
            for arm, row in arms.items():
                columns = [
                    _with_interval(row[name], sign) if name in row else ""
                    for name, sign in (("interquartile_mean", ""), ("difference", "+"), ("improvement", ""))
                ]
                print(f"{f'{setting}, {optimizer}, {arm}':32}  {columns[0]:>25}  {columns[1]:>25}  {columns[2]:>22}")
            worse = arms["adapt"]["tables_worse"]
            print(f"    adapt is more than {-WORSE} below the base on {len(worse)} tables: {', '.join(worse) or '-'}")


def _with_interval(interval: Interval, sign: str) -> str:
    value, low, high = interval
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"
