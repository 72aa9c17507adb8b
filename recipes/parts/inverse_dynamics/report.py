"""Metrics, table and figure of the inverse dynamics recipe."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from ml3_tf.inspection import LINE_STYLES, TEXT_SIZE, plot_learning_curve, style_axes

if TYPE_CHECKING:
    from inverse_dynamics import Settings
from parts.experiment import Metrics, Result, Seed, print_table

ARMS = {"shaped": "C0", "unshaped": "C3", "same rate": "C1", "tuned": "C2", "tuned Adam": "C4"}
QUANTITIES = {
    "torque_rmse": "torque error, N m",
    "torque_share": "torque error / std",
    "inertia_error": "inertia error",
}


def compute_metrics(curves: Mapping[str, Mapping[str, list[float]]], settings: "Settings") -> dict[str, float]:
    """Returns the metrics of one seed, name -> value; the recipe's docstring explains them."""
    last, metrics = settings.test_steps, {}
    for step, suffix in reported_steps(settings).items():
        for quantity in QUANTITIES:
            metrics |= {f"{quantity}_{_key(name)}{suffix}": curve[quantity][step] for name, curve in curves.items()}
    to_reach = curves["same rate"]["torque_rmse"][last]
    for name, curve in curves.items():
        reached = np.flatnonzero(np.array(curve["torque_rmse"]) <= to_reach)
        # A method that never gets there counts with one step more than were taken.
        metrics[f"steps_to_mse_final_{_key(name)}"] = int(reached[0]) if reached.size else last + 1
    return metrics


def reported_steps(settings: "Settings") -> dict[int, str]:
    """Returns step -> suffix of its metrics; the last step has none."""
    soon, last = settings.reported_step, settings.test_steps
    return {**{step: f"_{step}" for step in (soon // 2, soon, 2 * soon) if step < last}, last: ""}


def _key(name: str) -> str:
    return name.replace(" ", "_").lower()


def history_rows(seeds: Sequence[Seed], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the errors of each method before the first gradient step and after each."""
    return [
        {"seed": seed, "method": name, "step": step, **{quantity: curve[quantity][step] for quantity in curve}}
        for seed, result in zip(seeds, results)
        for name, curve in result["meta_test"].items()
        for step in range(len(curve["torque_rmse"]))
    ]


def print_report(metrics: Metrics, settings: "Settings") -> None:
    """Prints the table, and on how many seeds the shaped loss is ahead."""
    steps = reported_steps(settings)
    print_table(
        metrics,
        [
            (f"{label}, {name}, after {step} steps", f"{quantity}_{_key(name)}{suffix}")
            for quantity, label in QUANTITIES.items()
            for step, suffix in steps.items()
            for name in ARMS
        ]
        + [(f"steps to the final error of MSE, {name}", f"steps_to_mse_final_{_key(name)}") for name in ARMS],
    )
    print()
    for quantity, label in QUANTITIES.items():
        for step, suffix in steps.items():
            shaped = np.array(metrics[f"{quantity}_shaped{suffix}"])
            wins = {name: int((shaped < metrics[f"{quantity}_{_key(name)}{suffix}"]).sum()) for name in list(ARMS)[1:]}
            counts = ", ".join(f"{name} {count}" for name, count in wins.items())
            print(f"{label}, after {step} steps: of {len(shaped)} seeds the shaped loss is below {counts}")


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
    figure.legend(handles, names, loc="outside lower center", ncols=6, fontsize=TEXT_SIZE - 2, frameon=False)
    return figure


def _plot_curves(ax: Axes, results: Sequence[Result], quantity: str, label: str, title: str) -> None:
    """Draws mean and spread over seeds; a logarithmic axis has no step 0, which is the same for all."""
    ax.set(xscale="log", yscale="log", xlabel="gradient steps", ylabel=label, title=title)
    for (name, color), style in zip(ARMS.items(), (*LINE_STYLES, (0, (1, 3)))):
        curves = np.array([result["meta_test"][name][quantity][1:] for result in results])
        label = name if "shaped" in name else f"MSE, {name}"
        plot_learning_curve(curves, ax, label=label, color=color, steps=np.arange(1, curves.shape[1] + 1))
        ax.lines[-1].set_linestyle(style)
    for axis, digits in ((ax.xaxis, (1,)), (ax.yaxis, (1, 2, 3, 5))):
        axis.set_major_locator(LogLocator(subs=digits))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
