"""The rows and the text that the recipe `reacher_demonstrations.py` makes of its results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parts.experiment import Metrics, Result, print_table
from parts.reacher_demonstrations.morphology import ARMS, POLICIES

METHODS = ("learned", "cloning", "goal_cloning", "taught", "nearest", "ilqr")
ROWS = (
    ("final distance (rad)", "final_distance"),
    ("fingertip (m)", "fingertip_distance"),
    ("reached", "reached"),
)


def history_rows(seeds: Sequence[int], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the rows of `history.csv`: the final distance (rad) to each target after each update."""
    return [
        {"seed": seed, "method": method, "update": update, "target": target, "trained": int(trained), "distance": value}
        for seed, result in zip(seeds, results)
        for method, curve in result["distances"].items()
        for update, values in enumerate(curve)
        for target, value in enumerate(values)
        for trained in [target >= len(result["targets"]["unseen"])]
    ]


def print_report(metrics: Metrics, inner_rate: float, inner_clipnorm: float, output_dir: Path, loss_path: Path) -> None:
    """Prints a table of the metrics, the names of the files, and how to use the loss.

    Args:
        metrics: The metrics.
        inner_rate: Rate of SGD that the loss was learned for.
        inner_clipnorm: Largest gradient norm that the loss was learned for.
        output_dir: Folder of the run.
        loss_path: Folder of the learned loss.
    """
    print_table(
        metrics,
        [
            (f"{kind} targets, {label}, {method}", f"{prefix}{name}_{method}")
            for kind, prefix in (("unseen", ""), ("training", "trained_"))
            for label, name in ROWS
            for method in METHODS
        ]
        + [
            (f"{kind} ({label}), final distance (rad), {method}", f"{kind}_final_distance_{method}")
            for label, kinds in (("policy", POLICIES), ("arm", ARMS))
            for kind in kinds
            for method in ("learned", "taught", "goal_cloning")
        ],
    )
    print(
        f"\nFigure: {output_dir / 'figure.png'}\nLearned loss: {loss_path}"
        f'\n\nUse it with any policy:\n\n    import keras, ml3_tf\n    loss = ml3_tf.load_meta_loss("{loss_path}")\n'
        f"    optimizer = keras.optimizers.SGD({inner_rate}, clipnorm={inner_clipnorm})\n"
        "    policy.compile(optimizer=optimizer, loss=loss)"
    )
