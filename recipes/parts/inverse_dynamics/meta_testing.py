"""The meta-test of `inverse_dynamics.py`: its methods, how the baselines are tuned, and what a use costs."""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

import ml3_tf
from parts.costs import core_minutes_per_step, count_core_minutes
from parts.experiment import Result, Seed
from parts.inverse_dynamics.learner import build_learner, error_metrics
from parts.inverse_dynamics.tasks import make_tasks, measured_scales
from parts.tuned_optimizers import OPTIMIZERS, build_optimizers, tune_optimizers

if TYPE_CHECKING:
    from inverse_dynamics import Settings

TUNED = ("optimizer_rates", "best_optimizer")
INNER_OPTIMIZERS = ("sgd", "adam")  # with which losses are learned and used
REPORTED = "shaped_adam"  # the loss that is exported, and whose costs are counted
METHODS = (
    *(f"{name}_{optimizer}" for optimizer in INNER_OPTIMIZERS for name in ("shaped", "unshaped", "same_rate")),
    *OPTIMIZERS,
)
Curves = dict[str, list[float]]
"""Quantity -> its mean over tasks, before the first step and after each."""


def build_inner_optimizer(name: str, settings: "Settings") -> keras.optimizers.Optimizer:
    """Returns the optimizer that a loss is learned and used with, by its name in `INNER_OPTIMIZERS`."""
    return OPTIMIZERS[name](settings.inner_rates[INNER_OPTIMIZERS.index(name)])


def learning_curves(
    loss: Any,
    optimizer: keras.optimizers.Optimizer,
    tasks: Mapping[str, Any],
    settings: "Settings",
    seed: int,
    num_steps: int,
) -> Curves:
    """Trains fresh learners, and measures them on the query points before the first step and after each.

    Returns:
        Dictionary of lists `[num_steps + 1]`, means over tasks: "torque_rmse" (N m), "torque_share" (of the torque's
        standard deviation), "inertia_error" (relative, Frobenius norm).
    """
    learner, metrics = tested_learner(settings)
    curves = ml3_tf.meta_test(
        learner,
        loss,
        optimizer,
        tasks,
        num_steps=num_steps,
        metrics=metrics,
        seed=seed,
        jit_compile=settings.jit_compile,
    )
    scale = np.square(measured_scales(settings).torque)
    return {
        "torque_rmse": np.sqrt((curves["squares"] * scale).mean(axis=(1, 2))).tolist(),
        "torque_share": np.sqrt(curves["squares"].mean(axis=(1, 2))).tolist(),
        "inertia_error": curves["inertia_error"].mean(axis=1).tolist(),
    }


@functools.lru_cache(maxsize=1)
def tested_learner(settings: "Settings") -> tuple[ml3_tf.Learner, Mapping[str, Any]]:
    """Returns the learners that are tested and their metrics: the same, so that all rates share what is compiled."""
    learner = ml3_tf.Learner(functools.partial(build_learner, measured_scales(settings)))
    return learner, error_metrics(learner, measured_scales(settings), settings.inertia_every)


def tune(_: Seed, settings: "Settings", output_dir: Any, verbose: int) -> Result:
    """Returns the rates at which MSE is best after the steps of meta-training, and the best of these optimizers."""
    tasks, steps = make_tasks(settings, "tune", 0, settings.num_tuning_tasks), settings.inner_steps
    tuned = tune_optimizers(
        lambda optimizer: learning_curves("mse", optimizer, tasks, settings, 0, steps)["torque_rmse"][-1],
        sgd_rates=settings.sgd_rates,
        adaptive_rates=settings.adaptive_rates,
    )
    return dict(zip(TUNED, (tuned.rates, tuned.best)))


def build_methods(
    losses: Mapping[str, ml3_tf.MetaLoss], settings: "Settings"
) -> dict[str, tuple[Any, keras.optimizers.Optimizer]]:
    """Returns the name of each of `METHODS` -> its loss and its optimizer."""
    pairs = {
        f"{name}_{optimizer}": (losses.get(f"{name}_{optimizer}", "mse"), build_inner_optimizer(optimizer, settings))
        for optimizer in INNER_OPTIMIZERS
        for name in ("shaped", "unshaped", "same_rate")
    }
    tuned = build_optimizers(settings.optimizer_rates)
    return pairs | {name: ("mse", optimizer) for name, optimizer in tuned.items()}


def meta_test(
    losses: Mapping[str, ml3_tf.MetaLoss], meta_train_cost: float, settings: "Settings", seed: int
) -> tuple[dict[str, Curves], dict[str, float | None]]:
    """Returns the curves of each method on the test tasks of a seed, and the core-minutes of `REPORTED`.

    A use learns the dynamics of one robot; the error is that of the torque.
    """
    tasks = make_tasks(settings, "test", seed, settings.num_test_tasks)
    methods = build_methods(losses, settings)
    test = lambda name, num_steps: learning_curves(*methods[name], tasks, settings, seed, num_steps)
    curves = {name: test(name, settings.test_steps) for name in methods}
    names, steps = {"learned": REPORTED, "baseline": settings.best_optimizer}, settings.inner_steps
    costs = count_core_minutes(
        meta_train_cost,
        curves={role: curves[name]["torque_rmse"] for role, name in names.items()},
        per_step={
            role: core_minutes_per_step(functools.partial(test, name, steps), steps, settings.num_test_tasks)
            for role, name in names.items()
        },
        horizon=steps,
    )
    return curves, costs
