"""The rows and the text that the recipe `mountain_car.py` makes of its results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from parts.experiment import Metrics, Result, print_table
from parts.mountain_car.settings import LossSettings
from parts.mountain_car.task import scores

STARTS = {"nominal": "", "random": "random_start_"}  # kind of start -> prefix of its metrics
ROWS = (("final distance", "final_distance"), ("reached the flag", "reach_rate"), ("strict", "strict_rate"))


def compute_metrics(prefix: str, method: str, states: np.ndarray, reported_step: int) -> dict[str, float]:
    """Returns the metrics of one method from one kind of starts.

    They are taken at the horizon, and three and ten times beyond it: the last value and the best one up to then.

    Args:
        prefix: Prefix of the metrics.
        method: Name of the method.
        states: `[num_updates + 1, N, T + 1, 2]`.
        reported_step: The horizon, in updates.
    """
    curves, end = [scores(rollouts) for rollouts in states], len(states) - 1
    metrics = {f"{prefix}reach_rate_{method}": curves[reported_step]["reach_rate"]}
    for name, best in (("final_distance", min), ("strict_rate", max)):
        values = [curve[name] for curve in curves]
        for factor in (1, 3, 10):
            step = min(factor * reported_step, end)
            words = f"{name}_{method}" + ("" if factor == 1 else f"_{step}")
            metrics |= {f"{prefix}{words}": values[step], f"{prefix}best_{words}": best(values[: step + 1])}
    return metrics


def history_rows(seeds: Sequence[int], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the rows of `history.csv`: the final distance of each policy after each update."""
    return [
        {"seed": seed, "starts": kind, "method": name, "update": update, "policy": policy, "final_distance": distance}
        for seed, result in zip(seeds, results)
        for kind, prefix in STARTS.items()
        for name in result["paths"]
        for update, distances in enumerate(result["distances"][prefix + name])
        for policy, distance in enumerate(distances)
    ]


def print_report(
    metrics: Metrics, methods: Sequence[str], settings: LossSettings, output_dir: Path, loss_path: Path
) -> None:
    """Prints a table of the metrics, the names of the files, and how to use the loss.

    Args:
        metrics: The metrics.
        methods: The learned losses of the run, and the baselines.
        settings: The settings of the first of them, which is in `loss_path`.
        output_dir: Folder of the run.
        loss_path: Folder of the learned loss.
    """
    print_table(
        metrics,
        [
            (f"{label}, {start} start, {method}", f"{prefix}{name}_{method}")
            for prefix, start in (("", "the paper's"), ("random_start_", "random"))
            for label, name in ROWS
            for method in (*methods, "ilqr")
        ],
    )
    print(
        f"\niLQR: {metrics['ilqr_iterations'][0]} iterations and {metrics['ilqr_model_calls'][0]} steps of the model; "
        f"it ends at the goal with {metrics['ilqr_weightings'][0]:.0%} of the weightings."
        f"\nFigure: {output_dir / 'figure.png'}, {output_dir / 'car.gif'}\nLearned loss: {loss_path}"
        f'\n\nUse it with any policy:\n\n    import keras, ml3_tf\n    loss = ml3_tf.load_meta_loss("{loss_path}")\n'
        f"    optimizer = keras.optimizers.SGD({settings.inner_rate}, clipnorm={settings.inner_clipnorm})\n"
        "    policy.compile(optimizer=optimizer, loss=loss)"
    )
