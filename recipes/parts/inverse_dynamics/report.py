"""Metrics, table and figure of the inverse dynamics recipe."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from ml3_tf.inspection import TEXT_SIZE, plot_learning_curve, style_axes
from parts.experiment import Metrics, Result, Seed, print_table
from parts.inverse_dynamics.meta_testing import REPORTED
from parts.tuned_optimizers import OPTIMIZER_NAMES, OPTIMIZERS

if TYPE_CHECKING:
    from inverse_dynamics import Settings

STYLES = {  # method -> label, color
    "shaped_adam": ("shaped, Adam", "C0"),
    "unshaped_adam": ("unshaped, Adam", "C3"),
    "shaped_sgd": ("shaped, SGD", "C9"),
    "unshaped_sgd": ("unshaped, SGD", "C6"),
    "same_rate_adam": ("MSE, Adam, same rate", "C1"),
    "same_rate_sgd": ("MSE, SGD, same rate", "C8"),
    **{
        name: (f"MSE, {OPTIMIZER_NAMES[name]}, tuned", color)
        for name, color in zip(OPTIMIZERS, ("C2", "C4", "C5", "C7"))
    },
}
QUANTITIES = {
    "torque_rmse": "torque error, N m",
    "torque_share": "torque error / std",
    "inertia_error": "inertia error",
}


def compute_metrics(curves: Mapping[str, Mapping[str, list[float]]], settings: "Settings") -> dict[str, float]:
    """Returns the metrics of one seed, name -> value; the recipe's docstring explains them."""
    metrics = {}
    for step in reported_steps(settings):
        for name, curve in curves.items():
            metrics |= {f"{quantity}_{name}_{step}": curve[quantity][step] for quantity in QUANTITIES}
            # A learner that diverges is as good as it was before.
            metrics[f"best_torque_rmse_{name}_{step}"] = float(np.nanmin(curve["torque_rmse"][: step + 1]))
    return metrics


def reported_steps(settings: "Settings") -> list[int]:
    """Returns the horizon of meta-training, and three and ten times as many steps."""
    return [
        factor * settings.inner_steps for factor in (1, 3, 10) if factor * settings.inner_steps <= settings.test_steps
    ]


def history_rows(seeds: Sequence[Seed], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the errors of each method before the first gradient step and after each."""
    return [
        {"seed": seed, "method": name, "step": step, **{quantity: curve[quantity][step] for quantity in curve}}
        for seed, result in zip(seeds, results)
        for name, curve in result["meta_test"].items()
        for step in range(len(curve["torque_rmse"]))
    ]


def print_report(metrics: Metrics, settings: "Settings") -> None:
    """Prints the table, and on how many seeds the shaped loss for Adam is ahead."""
    steps = reported_steps(settings)
    rows = [
        (f"{label}, {STYLES[name][0]}, after {step} steps", f"{quantity}_{name}_{step}")
        for quantity, label in QUANTITIES.items()
        for step in steps
        for name in STYLES
    ]
    print_table(metrics, rows)
    print()
    for step in steps:
        shaped = np.array(metrics[f"torque_rmse_{REPORTED}_{step}"])
        wins = {
            name: int((shaped < metrics[f"torque_rmse_{name}_{step}"]).sum()) for name in STYLES if name != REPORTED
        }
        counts = ", ".join(f"{STYLES[name][0]}: {count}" for name, count in wins.items())
        print(
            f"After {step} steps, of {len(shaped)} seeds the shaped loss for Adam has the lower torque error ({counts})"
        )


def draw_figure(results: Sequence[Result], settings: "Settings") -> Figure:
    """Draws panel c (reacher) or d (Sawyer) of figure 5 of the paper, and the inertia matrix beside it."""
    figure = Figure(figsize=(12, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots(1, 2)
    panel = {"reacher": "(c) Reacher", "sawyer": "(d) Sawyer"}[settings.robot]
    _plot_curves(axes[0], results, "torque_rmse", "RMSE, N m", f"{panel}: torque on new trajectories")
    _plot_curves(axes[1], results, "inertia_error", "relative error", "inertia matrix inside the learner")
    for ax in axes:
        ax.axvline(settings.inner_steps, color="0.5", linewidth=1, linestyle=":", label="end of meta-training")
    style_axes(axes)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=TEXT_SIZE - 2, frameon=False)
    return figure


def _plot_curves(ax: Axes, results: Sequence[Result], quantity: str, label: str, title: str) -> None:
    """Draws mean and spread over seeds; a logarithmic axis has no step 0, which is the same for all."""
    ax.set(xscale="log", yscale="log", xlabel="gradient steps", ylabel=label, title=title)
    for name, (arm, color) in STYLES.items():
        curves = np.array([result["meta_test"][name][quantity][1:] for result in results])
        plot_learning_curve(curves, ax, label=arm, color=color, steps=np.arange(1, curves.shape[1] + 1))
        ax.lines[-1].set_linestyle("-" if "shaped" in name else ":" if "same_rate" in name else "--")
    for axis, digits in ((ax.xaxis, (1,)), (ax.yaxis, (1, 2, 3, 5))):
        axis.set_major_locator(LogLocator(subs=digits))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
