"""Metrics, history and table of `label_free.py`.

Curves are nested: prefix of a classifier -> method -> corruption -> accuracy before the first step and after each.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from parts.experiment import Metrics, Result, Seed, print_table
from parts.label_free.figure import LABELS, TITLES

if TYPE_CHECKING:
    from label_free import Settings

NOT_DRAWN = {"affine_adam": "entropy, normalization alone, Adam"}


def compute_metrics(results: Mapping[str, Mapping[str, Any]], *steps: int) -> dict[str, float]:
    """Returns the metrics of one seed.

    Args:
        results: Prefix of a classifier -> its "curves", tuned "rates" and "clean_accuracy".
        *steps: Numbers of steps after which accuracies are reported.
    """
    metrics = {}
    for prefix, result in results.items():
        metrics[f"{prefix}clean_accuracy"] = float(result["clean_accuracy"])
        metrics |= {f"{prefix}rate_{method}": float(rate) for method, rate in result["rates"].items()}
        for method, by_family in result["curves"].items():
            curve = mean_curve(by_family)
            metrics[f"{prefix}accuracy_none"] = float(curve[0])  # the same for all methods
            metrics |= {f"{prefix}accuracy_{method}_{step}": float(curve[step]) for step in steps}
            metrics[f"{prefix}best_accuracy_{method}"] = float(curve.max())
        if prefix == "":
            metrics |= _metrics_by_family(result["curves"], steps)
    return metrics


def _metrics_by_family(curves: Mapping[str, Mapping[str, Sequence[float]]], steps: Sequence[int]) -> dict[str, float]:
    metrics = {}
    for method, by_family in curves.items():
        for family, curve in by_family.items():
            metrics[f"{family}_accuracy_none"] = float(curve[0])
            metrics |= {f"{family}_accuracy_{method}_{step}": float(curve[step]) for step in steps}
    return metrics


def mean_curve(by_family: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Returns the mean over corruptions, `[steps + 1]`."""
    return np.mean([*by_family.values()], axis=0)


def count_wins(metrics: Metrics, learned: str, other: str, margin: float = 0.0) -> int:
    """Returns on how many seeds a metric is greater than another by at least `margin`."""
    return int(np.sum(np.subtract(metrics[learned], metrics[other]) >= margin))


def history_rows(seeds: Sequence[Seed], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the accuracy at each epoch of meta-training, and after each gradient step of meta-test."""
    rows = []
    for seed, result in zip(seeds, results):
        shared = {"seed": seed, "phase": "meta_train", "method": "learned", "corruption": ""}
        rows += [{**shared, "step": step, "accuracy": value} for step, value in enumerate(result["meta_train"])]
        for prefix, methods in result["meta_test"].items():
            for method, by_family in methods.items():
                for family, curve in by_family.items():
                    shared = {"seed": seed, "phase": f"{prefix}meta_test", "method": method, "corruption": family}
                    rows += [{**shared, "step": step, "accuracy": value} for step, value in enumerate(curve)]
    return rows


def print_report(metrics: Metrics, settings: "Settings") -> None:
    """Prints the table, and on how many seeds the learned loss is two points ahead of entropy minimization."""
    rows, reported = [], sorted({settings.tuned_steps, settings.test_steps})
    for prefix, title in TITLES.items():
        rows.append((f"{title}: accuracy without adaptation", f"{prefix}accuracy_none"))
        rows += [
            (f"{title}, {label}: after {steps} steps", f"{prefix}accuracy_{method}_{steps}")
            for steps in reported
            for method, label in {**LABELS, **NOT_DRAWN}.items()
            if f"{prefix}accuracy_{method}_{steps}" in metrics
        ]
    print_table(metrics, rows)
    seeds = len(metrics["accuracy_none"])
    for prefix, title in TITLES.items():
        for steps in reported:
            learned = f"{prefix}accuracy_learned_{steps}"
            ahead = count_wins(metrics, learned, f"{prefix}accuracy_entropy_{steps}", margin=0.02)
            level = count_wins(metrics, learned, f"{prefix}accuracy_information_{steps}")
            print(
                f"{title}, {steps} steps: two points above entropy minimization on {ahead} of {seeds} seeds, at or "
                f"above information maximization on {level}"
            )
