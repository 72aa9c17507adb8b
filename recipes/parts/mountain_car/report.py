"""The rows and the text that the recipe `mountain_car.py` makes of its results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parts.experiment import Metrics, Result, print_table
from parts.mountain_car.settings import LossSettings

STARTS = {"nominal": "", "random": "random_start_"}  # kind of start -> prefix of its metrics
ROWS = (("final distance", "final_distance"), ("reached the flag", "reach_rate"), ("strict", "strict_rate"))


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
        methods: The learned losses of the run.
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
