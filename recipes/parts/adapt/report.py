"""Metrics, statistics, history and table of `adapt.py`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parts.adapt.scoring import Score
from parts.adapt.training import CHECKED_STEPS
from parts.experiment import Result, Seed
from parts.statistics import bootstrap_interval, interquartile_mean, probability_of_improvement

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


def compute_statistics(results: Sequence[Result]) -> dict[str, Any]:
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
            rows = statistics[setting][optimizer] = {arm: compare(arms[arm], arms["base"]) for arm in arms}
            pair = values[setting][optimizer]
            differences = (pair["adapt"] - pair["base"]).mean(axis=0)
            rows["adapt"]["table_differences"] = dict(zip(tables, differences.tolist(), strict=True))
            rows["adapt"]["tables_worse"] = [name for name, d in zip(tables, differences) if d < WORSE]
    return statistics


def compare(scores: np.ndarray, base: np.ndarray) -> dict[str, Any]:
    """Returns the statistics of one arm, `[seeds, tables]`, beside the base."""
    difference = lambda ours, theirs: interquartile_mean(ours) - interquartile_mean(theirs)
    return {
        "interquartile_mean": bootstrap_interval(interquartile_mean, scores),
        "difference": bootstrap_interval(difference, scores, base),
        "improvement": bootstrap_interval(probability_of_improvement, scores, base),
    }


def history_rows(seeds: Sequence[Seed], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the scores of each run after each 60 steps."""
    return [
        dict(zip(("setting", "optimizer", "arm", "table"), run.split("/"), strict=True))
        | {"seed": seed, "step": "" if "/boosting/" in run else CHECKED_STEPS * number}
        | Score(*score)._asdict()
        for seed, result in zip(seeds, results, strict=True)
        for run, scores in result["curves"].items()
        for number, score in enumerate(scores, start=1)
    ]


def print_report(statistics: Mapping[str, Any]) -> None:
    """Prints the table."""
    print(f"\n{'':36}  {'score':>6}  {'interval of 95 %':>16}  {'above the base by':>26}  {'better with':>11}")
    for setting, optimizers in statistics.items():
        for optimizer, arms in optimizers.items():
            for arm, row in arms.items():
                mean, difference, improvement = (
                    row[name] for name in ("interquartile_mean", "difference", "improvement")
                )
                interval = f"{mean.low:7.3f} to {mean.high:.3f}"
                above = f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
                print(
                    f"{f'{setting}, {optimizer}, {arm}':36}  {mean.value:6.3f}  {interval:>16}  {above:>26}  "
                    f"{improvement.value:11.2f}"
                )
            worse = arms["adapt"]["tables_worse"]
            print(f"{'':38}adapt is more than 0.005 below the base on {len(worse)} tables: {', '.join(worse) or '-'}")
