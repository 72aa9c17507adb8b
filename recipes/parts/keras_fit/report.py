"""Metrics, figure, history and table of `keras_fit.py`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from matplotlib.figure import Figure

from ml3_tf.inspection import LINE_STYLES, NAMED_COLORS, TEXT_SIZE, plot_learning_curve, style_axes
from parts.experiment import Metrics, Result, Seed, print_table
from parts.tuned_optimizers import OPTIMIZER_NAMES, OPTIMIZERS

if TYPE_CHECKING:
    from keras_fit import Settings

METHODS = ("learned", "same_rate", *OPTIMIZERS)
COLORS = {"learned": NAMED_COLORS["learned"], "same_rate": NAMED_COLORS["same rate"], "sgd": NAMED_COLORS["tuned"]}
METRIC = {"digits": "val_accuracy", "diabetes": "val_mse"}


def best_error(task: str, history: Mapping[str, Sequence[float]]) -> float:
    """Returns the least share of errors, or MSE, on the validation data; infinity for a run that diverged."""
    values = np.array(history[METRIC[task]])
    values = 1 - values if task == "digits" else values
    return float(np.min(np.nan_to_num(values, nan=np.inf)))


def measure_digits(
    model: keras.Model, history: Mapping[str, Sequence[float]], data: Mapping[str, Any], epochs: int
) -> dict[str, float]:
    """Returns the metrics of one run; `{}` stands for the method."""
    validation = np.array(history["val_accuracy"])
    reached = np.flatnonzero(validation >= 0.9)
    return {
        "digits_accuracy_{}": model.evaluate(*data["test"], verbose=0, return_dict=True)["accuracy"],
        "digits_accuracy_{}_1": validation[0],
        "digits_accuracy_{}_last": validation[-1],
        "digits_epochs_{}": reached[0] + 1 if len(reached) else epochs,
    }


def measure_diabetes(
    model: keras.Model, history: Mapping[str, Sequence[float]], data: Mapping[str, Any], epochs: int
) -> dict[str, float]:
    """Returns the metrics of one run; `{}` stands for the method."""
    x, y = data["test"]
    mse = model.evaluate(x, y, verbose=0, return_dict=True)["mse"]
    return {
        "diabetes_rmse_{}": np.sqrt(mse) * data["deviation"],
        "diabetes_r2_{}": 1 - mse / y.var(),
        "diabetes_epochs_{}": np.nanargmin(history["val_mse"]) + 1,
        "diabetes_mse_{}_best": np.nanmin(history["val_mse"]),
        "diabetes_mse_{}_last": history["val_mse"][-1],
    }


def draw_figure(results: Sequence[Result], settings: "Settings", losses: Mapping[str, str]) -> Figure:
    """Draws the best validation metric up to each epoch: learned loss, SGD, and the best optimizer by the tuning.

    Args:
        results: One result for each seed.
        settings: The settings.
        losses: Task -> name of its learned loss.
    """
    figure = Figure(figsize=(14, 4), dpi=150, layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)
    axes = figure.subplots(1, 2)
    labels = {"digits": "share of errors, best so far", "diabetes": "MSE / variance, best so far"}
    for (task, task_settings), ax in zip(settings.tasks.items(), axes):
        ax.set_yscale("log")
        usual = {"digits": "cross-entropy", "diabetes": "MSE"}[task]
        rates = dict(zip(OPTIMIZERS, getattr(settings, f"{task}_rates")))
        methods = {
            "learned": f'"{losses[task]}", SGD {task_settings.rate}',
            "same_rate": f"{usual}, SGD {task_settings.rate}",
            "sgd": f"{usual}, SGD {rates['sgd']:g}",
        }
        best = getattr(settings, f"{task}_best_optimizer")
        methods[best] = f"{usual}, {OPTIMIZER_NAMES[best]} {rates[best]:g}"
        for (method, label), style in zip(methods.items(), LINE_STYLES):
            curves = [
                _best_so_far(task, result["curves"][f"{task}_{method}"], task_settings.epochs) for result in results
            ]
            epochs = np.arange(1, task_settings.epochs + 1)
            color = COLORS.get(method, "C3")
            plot_learning_curve(curves, ax, label=label, color=color, steps=epochs)
            ax.lines[-1].set_linestyle(style)
        ax.set(xlabel="epochs", ylabel=labels[task], title=f"{task}, validation data")
        ax.legend(fontsize=TEXT_SIZE - 1, frameon=False)
    style_axes(axes)
    return figure


def _best_so_far(task: str, values: Sequence[float], epochs: int) -> np.ndarray:
    """The best value up to each epoch; a run that was stopped early keeps its best value to the end."""
    values = 1 - np.array(values) if task == "digits" else np.array(values)
    values = np.minimum.accumulate(np.nan_to_num(values, nan=np.inf))
    return np.pad(values, (0, epochs - len(values)), mode="edge")


def history_rows(seeds: Sequence[Seed], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the validation metric of each run at each epoch."""
    return [
        {"seed": seed, "run": run, "epoch": epoch, "validation_metric": value}
        for seed, result in zip(seeds, results)
        for run, curve in result["curves"].items()
        for epoch, value in enumerate(curve, start=1)
    ]


def print_report(metrics: Metrics) -> None:
    """Prints the table."""
    methods = {"learned": "learned loss", "same_rate": "usual loss, same rate"}
    methods |= {name: f"usual loss, tuned {label}" for name, label in OPTIMIZER_NAMES.items()}
    metric_names = {
        "digits_accuracy_{}": "digits, test accuracy",
        "digits_epochs_{}": "digits, epochs to 90 %",
        "diabetes_rmse_{}": "diabetes, test RMSE",
        "diabetes_epochs_{}": "diabetes, best epoch",
    }
    rows = [(f"{label}, {methods[m]}", name.format(m)) for name, label in metric_names.items() for m in METHODS]
    print_table(metrics, rows)
