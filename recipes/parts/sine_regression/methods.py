"""The methods that `sine_regression.py` compares, how MSE is tuned, what is reported, and what a use costs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

import ml3_tf
from parts.costs import core_minutes_per_step, count_core_minutes
from parts.experiment import Result, Seed
from parts.sine_regression.regressor import train_regressors
from parts.sine_regression.tasks import draw_tasks
from parts.tuned_optimizers import build_optimizers, tune_optimizers

if TYPE_CHECKING:
    from pathlib import Path

    from sine_regression import Settings

TUNED_SETTINGS = ("tuned_rate", "tuned_rate_at_end", "optimizer_rates", "best_optimizer")
Method = tuple[Any, keras.optimizers.Optimizer]
"""A loss and an optimizer."""


def learning_curve(
    loss: Any, optimizer: keras.optimizers.Optimizer, tasks: Any, settings: "Settings", seed: int
) -> np.ndarray:
    """Returns the error of fresh regressors at meta-test, `[test_steps + 1]`, mean over tasks."""
    steps = settings.test_steps
    return train_regressors(loss, optimizer, tasks, steps, seed=seed, jit_compile=settings.jit_compile)


def tune(_: Seed, settings: "Settings", output_dir: "Path", verbose: int) -> Result:
    """Returns the rates that are best for MSE: of all optimizers after the reported step, of SGD at the end, too.

    They are the same for all seeds: near the edge of divergence, a rate tuned on few sines fails on the next.
    """
    tasks = draw_tasks("tune", 0, settings.num_tuning_tasks)
    sgd, short = keras.optimizers.SGD, settings.replace(test_steps=settings.reported_step)
    curves = [learning_curve("mse", sgd(rate), tasks, settings, 0) for rate in settings.rates]
    scores = np.nan_to_num(np.array(curves), nan=np.inf)
    best = [settings.rates[scores[:, step].argmin()] for step in (settings.reported_step, settings.test_steps)]
    optimizers = tune_optimizers(
        lambda optimizer: learning_curve("mse", optimizer, tasks, short, 0)[-1],
        sgd_rates=settings.sgd_rates,
        adaptive_rates=settings.adaptive_rates,
    )
    return dict(zip(TUNED_SETTINGS, (*best, optimizers.rates, optimizers.best)))


def build_methods(meta_loss: ml3_tf.MetaLoss, settings: "Settings") -> dict[str, Method]:
    """Returns name -> loss and optimizer."""
    sgd, rate = keras.optimizers.SGD, settings.inner_rate
    methods = {"learned": (meta_loss, sgd(rate)), "same_rate": ("mse", sgd(rate))}
    methods |= {"tuned": ("mse", sgd(settings.tuned_rate)), "tuned_for_end": ("mse", sgd(settings.tuned_rate_at_end))}
    return methods | {
        name: ("mse", optimizer) for name, optimizer in build_optimizers(settings.optimizer_rates).items()
    }


def compute_metrics(curves: Mapping[str, np.ndarray], settings: "Settings") -> dict[str, float]:
    """Returns the errors of each method after the reported step, three times as many, and at the end; last and best."""
    reported, end = settings.reported_step, settings.test_steps
    suffixes = {reported: "", min(3 * reported, end): f"_{min(3 * reported, end)}", end: f"_{end}"}
    metrics = {}
    for name, curve in curves.items():
        if name == "tuned_for_end":
            metrics[f"test_mse_tuned_for_{end}"] = float(curve[end])
            continue
        for step, suffix in suffixes.items():
            metrics[f"test_mse_{name}{suffix}"] = float(curve[step])
            metrics[f"best_test_mse_{name}{suffix}"] = float(np.nanmin(curve[: step + 1]))
    return metrics


def count_costs(
    meta_train: float,
    methods: Mapping[str, Method],
    curves: Mapping[str, np.ndarray],
    tasks: Any,
    settings: "Settings",
) -> dict[str, Any]:
    """Returns the costs of a seed, see `costs.py`; a use trains a regressor on one sine.

    Args:
        meta_train: Core-minutes of meta-training.
        methods: Name -> loss and optimizer.
        curves: Name -> the curve of `learning_curve` on `tasks`.
        tasks: Test tasks.
        settings: The settings.
    """
    compared = {"learned": "learned", "baseline": settings.best_optimizer}
    per_step = {
        role: core_minutes_per_step(
            lambda name=name: learning_curve(*methods[name], tasks, settings, seed=0),
            settings.test_steps,
            num_learners=settings.num_test_tasks,
        )
        for role, name in compared.items()
    }
    errors = {role: curves[name] for role, name in compared.items()}
    counted = count_core_minutes(meta_train, curves=errors, per_step=per_step, horizon=settings.reported_step)
    return {"core_minutes": counted}
