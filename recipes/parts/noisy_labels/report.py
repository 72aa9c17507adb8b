"""Metrics, history and table of `noisy_labels.py`."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from parts.experiment import Metrics, Result, Seed

Curves: TypeAlias = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]]
"""Network -> method -> noise -> "epoch", and "test" and "checked", the accuracies after it."""
LABELS = {
    "learned": "learned loss",
    "cross_entropy": "cross-entropy",
    "label_smoothing": "label smoothing",
    "generalized": "generalized cross-entropy",
    "symmetric": "symmetric cross-entropy",
    "bootstrapping": "bootstrapping",
    "forward": "forward correction by batch",
    "adapted": "AdaptLoss, with the checked",
    "with_checked": "cross-entropy, also on the checked",
    "right_only": "cross-entropy, right labels alone",
}
FIXED = ("cross_entropy", "label_smoothing", "generalized", "symmetric", "bootstrapping")


def compute_metrics(curves: Curves) -> dict[str, float]:
    """Returns the accuracy of the last epoch, of the best one, and of the one that the checked images choose."""
    metrics = {}
    for network, methods in curves.items():
        for method, noises in methods.items():
            for noise, parts in noises.items():
                name, test = f"{network}_{noise}_{method}", np.array(parts["test"])
                metrics[f"accuracy_{name}"] = float(test[-1])
                metrics[f"best_accuracy_{name}"] = float(test.max())
                metrics[f"stopped_accuracy_{name}"] = float(test[np.argmax(parts["checked"])])
    return metrics


def history_rows(seeds: Sequence[Seed], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the accuracy on the test images of every classifier over the epochs."""
    return [
        {"seed": seed, "network": network, "method": method, "noise": noise, "epoch": epoch, "accuracy": accuracy}
        for seed, result in zip(seeds, results)
        for network, methods in result["curves"].items()
        for method, noises in methods.items()
        for noise, parts in noises.items()
        for epoch, accuracy in zip(parts["epoch"], parts["test"])
    ]


def print_report(metrics: Metrics, curves: Curves) -> None:
    """Prints the accuracy of the last epoch, mean over seeds, and on how many seeds the learned loss is above."""
    for network, methods in curves.items():
        noises = list(methods["learned"])
        width = max(map(len, LABELS.values()))
        num_seeds = len(next(iter(metrics.values())))
        print(f"\n{network}, accuracy after the last epoch (%), over {num_seeds} seed(s)")
        print(" " * width + "".join(f"{noise:>14}" for noise in noises))
        for method in methods:
            print(f"{LABELS[method]:{width}}" + "".join(_cell(metrics, network, noise, method) for noise in noises))
        for name, prefix in (("stopped early", "stopped_"), ("best epoch", "best_")):
            cells = "".join(_cell(metrics, network, noise, "cross_entropy", prefix) for noise in noises)
            print(f"{f'cross-entropy, {name}':{width}}{cells}")
        wins = "".join(f"{best_fixed(metrics, network, noise)[1]:>14}" for noise in noises)
        print(f"{'learned is above the best fixed':{width}}{wins}  seeds")


def best_fixed(metrics: Metrics, network: str, noise: str) -> tuple[str, int]:
    """Returns the hand-made loss with the highest mean, and the number of seeds on which the learned loss is above."""
    of = lambda method: np.array(metrics[f"accuracy_{network}_{noise}_{method}"])
    known = [method for method in FIXED if f"accuracy_{network}_{noise}_{method}" in metrics]
    best = max(known, key=lambda method: of(method).mean())
    return best, int(np.sum(of("learned") > of(best)))


def _cell(metrics: Metrics, network: str, noise: str, method: str, prefix: str = "") -> str:
    values = metrics.get(f"{prefix}accuracy_{network}_{noise}_{method}")
    return f"{'-':>14}" if values is None else f"{100 * np.mean(values):8.1f} ±{100 * np.std(values):4.1f}"
