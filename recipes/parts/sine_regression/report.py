"""Figure, history and table of `sine_regression.py`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from ml3_tf.inspection import plot_meta_learning
from parts.experiment import Metrics, Result, Seed, print_table
from parts.tuned_optimizers import OPTIMIZER_NAMES

if TYPE_CHECKING:
    from sine_regression import Settings

BASELINES = ("same_rate", "tuned")


def draw_figure(results: Sequence[Result], settings: "Settings", train: Any, test: Any) -> Figure:
    """Draws the four panels of figure 2 of the paper.

    Args:
        results: One result for each seed.
        settings: The settings.
        train: `(x, y)` of some sines of meta-training.
        test: `(x, y)` of some test sines.
    """
    outer = settings.outer_steps
    num_epochs = len(results[0]["meta_train"]["learned"])
    learned_steps = (np.arange(num_epochs) + 1) * outer / num_epochs
    meta_train = {
        "learned": (learned_steps, [result["meta_train"]["learned"] for result in results]),
        "same rate": ([0, outer], [result["meta_train"]["same_rate"] for result in results]),
    }
    steps = np.arange(1, settings.test_steps + 1)  # a logarithmic axis has no step 0, which is the same for all
    drawn = {
        "learned": "learned",
        "same rate": "same_rate",
        "tuned": "tuned",
        "best optimizer": settings.best_optimizer,
    }
    meta_test = {label: (steps, [result["meta_test"][name][1:] for result in results]) for label, name in drawn.items()}
    figure = plot_meta_learning(train, test, meta_train=meta_train, meta_test=meta_test)
    figure.axes[3].set_xscale("log")
    figure.axes[3].axvline(settings.inner_steps, color="0.5", linewidth=1, linestyle=":")
    return figure


def history_rows(seeds: Sequence[Seed], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the error at each epoch of meta-training, and after each gradient step of meta-test."""
    return [
        {"seed": seed, "phase": phase, "method": name, "step": step, "mse": value}
        for seed, result in zip(seeds, results)
        for phase in ("meta_train", "meta_test")
        for name, curve in result[phase].items()
        for step, value in enumerate(curve)
    ]


def print_report(metrics: Metrics, settings: "Settings") -> None:
    """Prints the table, and the ratios of the errors."""
    steps, reported = settings.test_steps, settings.reported_step
    soon, late = f"after {reported} steps", f"after {steps} steps"
    print_table(
        metrics,
        [
            (f"learned loss, {soon}", "test_mse_learned"),
            (f"MSE at the same rate, {soon}", "test_mse_same_rate"),
            (f"MSE at its best rate, {soon}", "test_mse_tuned"),
            *((f"{label} on MSE, {soon}", f"test_mse_{name}") for name, label in OPTIMIZER_NAMES.items()),
            (f"learned loss, {late}", f"test_mse_learned_{steps}"),
            (f"MSE at the same rate, {late}", f"test_mse_same_rate_{steps}"),
            (f"MSE at its best rate for this, {late}", f"test_mse_tuned_for_{steps}"),
            *((f"{label} on MSE, {late}", f"test_mse_{name}_{steps}") for name, label in OPTIMIZER_NAMES.items()),
        ],
    )
    share = {name: np.mean(metrics["test_mse_learned"]) / np.mean(metrics[f"test_mse_{name}"]) for name in BASELINES}
    print(
        f"\nError {soon}, as a share of the same rate's: {share['same_rate']:.2f}, of the best rate's: "
        f"{share['tuned']:.2f}"
    )
