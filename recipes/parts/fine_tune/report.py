"""History and table of `fine_tune.py`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parts.experiment import Metrics, Result, Seed, print_table
from parts.fine_tune.methods import QUANTITIES, REPORTED_STEPS

if TYPE_CHECKING:
    from fine_tune import Settings

LABELS = {
    "learned": "learned loss",
    "same_rate": "cross-entropy, same AdamW",
    "sgd": "cross-entropy, tuned SGD",
    "adam": "cross-entropy, tuned Adam",
    "adamw": "cross-entropy, tuned AdamW",
    "muon": "cross-entropy, tuned Muon",
    "smoothing": "label smoothing",
}


def history_rows(seeds: Sequence[Seed], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the task loss at each epoch of meta-training, and both quantities after each step of fine-tuning.

    A method has two curves for each start: of what is best for accuracy, and of what is best for cross-entropy.
    """
    rows = []
    for seed, result in zip(seeds, results):
        shared = {"seed": seed, "phase": "meta_train", "method": "learned", "best_for": ""}
        rows += [
            {**shared, "step": epoch, "accuracy": "", "cross_entropy": loss}
            for epoch, loss in enumerate(result["meta_train"])
        ]
        for name, curves in result["meta_test"].items():
            phase = "other_weights" if name.startswith("other_weights_") else "meta_test"
            for quantity, curve in curves.items():
                shared = {"seed": seed, "phase": phase, "method": name.removeprefix("other_weights_")}
                rows += [
                    {**shared, "best_for": quantity, "step": step, "accuracy": accuracy, "cross_entropy": loss}
                    for step, (accuracy, loss) in enumerate(zip(*curve))
                ]
    return rows


def print_report(metrics: Metrics, settings: "Settings", figure_path: Path, loss_path: Path) -> None:
    """Prints the table, and how to use the learned loss."""
    rows = []
    for prefix, weights in (("", ""), ("other_weights_", "other weights, ")):
        for quantity in QUANTITIES:
            words = quantity.replace("_", "-")
            rows += [(f"{weights}{label}: {words}", f"{prefix}{quantity}_{name}") for name, label in LABELS.items()]
    rows += [
        (
            f"{label}: {kind.replace('_', ' ')}{quantity.replace('_', '-')} after {steps} steps",
            f"{kind}{quantity}_{name}_{steps}",
        )
        for kind in ("", "best_")
        for quantity in QUANTITIES
        for name, label in LABELS.items()
        for steps in REPORTED_STEPS
        if f"{quantity}_{name}_{steps}" in metrics
    ]
    print_table(metrics, rows)
    print(
        f"\nFigure: {figure_path}\nLearned loss: {loss_path}\n\nUse it in any Keras classifier with logits and one-hot "
        f'targets:\n\n    import keras, ml3_tf\n    loss = ml3_tf.load_meta_loss("{loss_path}")\n'
        f"    model.compile(optimizer=keras.optimizers.AdamW({settings.rate}, weight_decay={settings.decay}), "
        "loss=loss)"
    )
