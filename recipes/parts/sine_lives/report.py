"""Figure, history and table of `sine_lives.py`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from ml3_tf.inspection import plot_learning_curve, style_axes
from parts.experiment import Metrics, Result, Seed, print_table
from parts.tuned_optimizers import OPTIMIZER_NAMES

if TYPE_CHECKING:
    from sine_lives import Settings

NUM_POINTS = 60  # of a curve in the figure
LABELS = {"learned": "learned loss", "tuned": "MSE at its best rate"}
LOOKS = {"learned": ("C0", "-"), "tuned": ("C2", "-.")}  # the best optimizer is red and dotted


def draw_figure(results: Sequence[Result], settings: "Settings") -> Figure:
    """Draws the error, a geometric mean, while whole lives teach the loss, and that of regressors on unseen sines."""
    figure = Figure(figsize=(9, 3.6), dpi=150, layout="constrained")
    train, test = figure.subplots(1, 2)
    curves = np.exp([result["meta_train"]["learned"] for result in results])  # the loss is a mean logarithm
    steps = (np.arange(curves.shape[1]) + 1) * settings.outer_steps / curves.shape[1]
    train.set(title="(a) meta-training", xlabel="outer steps", yscale="log")
    train.set_ylabel("error over a life (MSE)")
    plot_learning_curve(curves, train, steps=steps, color="C0")
    test.set(title="(b) fresh regressors, unseen sines", xlabel="gradient steps", ylabel="error (MSE)")
    test.set(xscale="log", yscale="log")
    best = settings.best_optimizer
    for name, label in (LABELS | {best: f"MSE, {OPTIMIZER_NAMES[best]} at its best rate"}).items():
        curves = [smooth(np.array(result["meta_test"][name])) for result in results]
        color, style = LOOKS.get(name, ("C3", ":"))
        middles = smooth(np.arange(len(results[0]["meta_test"][name])))
        plot_learning_curve(np.array(curves), test, label=label, color=color, steps=middles)
        test.lines[-1].set_linestyle(style)
    test.axvline(settings.life, color="0.5", linewidth=1, linestyle=":")
    style_axes([train, test])
    test.legend(frameon=False)
    return figure


def smooth(curve: np.ndarray) -> np.ndarray:
    """Returns the geometric mean over each of the `NUM_POINTS` parts of a curve that a logarithmic axis shows alike.

    Learners at their best rate jump up now and then; a thousand such steps would hide all else.
    """
    edges = np.unique(np.geomspace(1, len(curve), NUM_POINTS + 1).astype(int))  # a logarithmic axis has no step 0
    return np.exp([np.log(curve[low:high]).mean() for low, high in zip(edges, edges[1:])])


def history_rows(seeds: Sequence[Seed], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the task loss at each epoch of meta-training, and the error after each gradient step of meta-test."""
    return [
        {"seed": seed, "phase": phase, "method": name, "step": step, "value": value}
        for seed, result in zip(seeds, results)
        for phase in ("meta_train", "meta_test")
        for name, curve in result[phase].items()
        for step, value in enumerate(curve)
    ]


def print_report(metrics: Metrics, settings: "Settings") -> None:
    """Prints the table, and on how many seeds the learned loss is at or below the tuned error."""
    methods = {**LABELS, "best": "MSE at the best rate for so many steps"}
    methods |= {name: f"MSE, tuned {label}" for name, label in OPTIMIZER_NAMES.items()}
    rows = [
        (f"{label}, after {steps} steps", f"test_mse_{name}_{steps}")
        for steps in settings.reported_steps
        for name, label in methods.items()
    ]
    print_table(metrics, [*rows, ("rate of the learned loss", "learned_rate")])
    for steps in settings.reported_steps:
        wins = np.less_equal(metrics[f"test_mse_learned_{steps}"], metrics[f"test_mse_best_{steps}"])
        print(f"at or below the best rate for {steps} steps: {wins.sum()} of {len(wins)} seeds")
