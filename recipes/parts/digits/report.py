"""Metrics, history and table of `digits.py`.

METHOD is a method of the recipe; a prefix names a group of digits: "" the unseen pairs, "train_pair_", "ten_class_".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parts.digits.figure import METHODS
from parts.experiment import Metrics, Result, Seed, print_table
from parts.tuned_optimizers import OPTIMIZER_NAMES

if TYPE_CHECKING:
    from digits import Settings

REPORTED_STEPS = (10, 20, 60, 100, 200, 300)


def compute_metrics(curves: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Returns the metrics of one seed, from prefix -> method -> `[2, steps + 1, N]`, see `learning_curves`."""
    metrics = {}
    for prefix, methods in curves.items():
        for name, (cross_entropy, accuracy) in methods.items():
            for step in REPORTED_STEPS:
                if step < len(accuracy):
                    until = slice(step + 1)
                    metrics[f"{prefix}accuracy_{name}_{step}"] = float(accuracy[step].mean())
                    metrics[f"{prefix}cross_entropy_{name}_{step}"] = float(cross_entropy[step].mean())
                    metrics[f"{prefix}best_accuracy_{name}_{step}"] = float(accuracy[until].mean(axis=1).max())
                    metrics[f"{prefix}best_cross_entropy_{name}_{step}"] = float(
                        cross_entropy[until].mean(axis=1).min()
                    )
            metrics[f"{prefix}steps_to_90_{name}"] = float(steps_to(0.9, accuracy).mean())
    return metrics


def steps_to(threshold: float, accuracy: np.ndarray) -> np.ndarray:
    """Returns the first step at which each learner reaches the threshold; the last step if it never does.

    Args:
        threshold: The accuracy to reach.
        accuracy: `[steps + 1, N]`.

    Returns:
        `[N]`.
    """
    reached = accuracy >= threshold
    return np.where(reached.any(axis=0), reached.argmax(axis=0), len(accuracy) - 1)


def history_rows(seeds: Sequence[Seed], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the scores at each epoch of meta-training, and after each gradient step of meta-test."""
    rows = []
    for seed, result in zip(seeds, results):
        for num_classes, curve in result["meta_train"].items():
            shared = {"seed": seed, "phase": f"meta_train_{num_classes}_classes", "method": "learned"}
            rows += [{**shared, "step": i, "cross_entropy": loss, "accuracy": ""} for i, loss in enumerate(curve)]
        for prefix, methods in result["meta_test"].items():
            for name, (cross_entropy, accuracy) in methods.items():
                shared = {"seed": seed, "phase": f"{prefix}meta_test", "method": name}
                rows += [
                    {**shared, "step": i, "cross_entropy": loss, "accuracy": share}
                    for i, (loss, share) in enumerate(zip(cross_entropy, accuracy))
                ]
    return rows


def print_report(metrics: Metrics, settings: "Settings", figure_path: Path, loss_path: Path) -> None:
    """Prints the table for unseen pairs and for ten digits, and how to use the learned loss."""
    kinds = {"": "unseen pairs", "ten_class_": "ten digits"}
    rows = []
    for prefix, kind in kinds.items():
        for key, method in (METHODS | OPTIMIZER_NAMES).items():
            rows += [
                (f"{kind}, {method}: accuracy after {step} steps", f"{prefix}accuracy_{key}_{step}")
                for step in REPORTED_STEPS
                if step <= settings.test_steps
            ]
            rows.append((f"{kind}, {method}: steps to 90 %", f"{prefix}steps_to_90_{key}"))
    print_table(metrics, rows)
    print(
        f"\nFigure: {figure_path}\nLearned loss: {loss_path}\n\nUse it in any Keras classifier with a softmax and "
        f'one-hot targets:\n\n    import keras, ml3_tf\n    loss = ml3_tf.load_meta_loss("{loss_path}")\n'
        f"    model.compile(optimizer=keras.optimizers.SGD({settings.rate_scale} * num_classes**1.5), loss=loss)"
    )
