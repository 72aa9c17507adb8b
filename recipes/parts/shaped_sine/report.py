"""History and table of `shaped_sine.py`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parts.experiment import Metrics, Result, Seed, print_table
from parts.tuned_optimizers import OPTIMIZER_NAMES

TOLERANCE = 0.1  # |omega - nu|, radian per unit of x
LABELS = {
    "shaped": "shaped loss, per set",
    "per_point": "shaped loss, per point",
    "shaped_without_x": "shaped loss, per set, without x",
    "noise_trained": "shaped loss, per set, learned on noise",
    "unshaped": "unshaped loss, per set",
    "mse": "MSE at the same rate",
    "mse_tuned": "MSE at its best rate",
    **{f"mse_{name}": f"MSE, tuned {OPTIMIZER_NAMES[name]}" for name in ("adam", "adamw", "muon")},
}


def recovered(omega: np.ndarray, tasks: Mapping[str, Any]) -> np.ndarray:
    """Returns the share of the tasks whose frequency is recovered, for each step."""
    return np.mean(np.abs(omega - tasks["frequency"].numpy()) <= TOLERANCE, axis=1)


def history_rows(seeds: Sequence[Seed], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the task loss of each epoch of meta-training, and the share recovered after each step of meta-test."""
    return [
        {"seed": seed, "phase": phase, "method": name, "step": step, "value": value}
        for seed, result in zip(seeds, results)
        for phase in ("meta_train", "meta_test")
        for name, curve in result[phase].items()
        for step, value in enumerate(curve)
    ]


def print_report(metrics: Metrics, inner_steps: int, test_steps: int) -> None:
    """Prints the table: the share of frequencies recovered by each method."""
    print(f"\nShare of frequencies recovered within {TOLERANCE} after {inner_steps} steps")
    suffixes = {"": "", f"_{test_steps}": f", {test_steps} steps", "_beyond": ", 5 to 7", "_noise": ", with noise"}
    print_table(
        metrics,
        [
            (label + words, f"recovered_{name}{suffix}")
            for suffix, words in suffixes.items()
            for name, label in LABELS.items()
        ],
    )
