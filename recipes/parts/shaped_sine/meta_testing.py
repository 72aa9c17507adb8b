"""The meta-test of `shaped_sine.py`: its baselines, how they are tuned, what is reported, and what a use costs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

import ml3_tf
from parts.costs import core_minutes_per_step, count_core_minutes
from parts.experiment import Result, Seed, kept_learner, seed_loss_folder
from parts.shaped_sine.report import recovered
from parts.shaped_sine.tasks import INNER_RATE, INNER_STEPS, build_learner, draw_tasks
from parts.tuned_optimizers import build_optimizers, tune_optimizers

if TYPE_CHECKING:
    from shaped_sine import Settings

TUNED = ("optimizer_rates", "best_optimizer")
TEST_SETS = {"": {}, "_beyond": {"frequency": (5.0, 7.0)}, "_noise": {"noise": 0.1}}


def frequencies(
    loss: Any, optimizer: keras.optimizers.Optimizer, tasks: Mapping[str, Any], num_steps: int
) -> np.ndarray:
    """Returns omega before the first step and after each, `[num_steps + 1, N]`; every method takes this path."""
    curves = ml3_tf.meta_test(
        kept_learner(build_learner),
        loss,
        optimizer,
        tasks,
        num_steps=num_steps,
        metrics={"omega": get_omega},
        jit_compile=False,  # few, small steps: compilation would take longer
    )
    return curves["omega"]


def get_omega(parameters: ml3_tf.Parameters, _: Mapping[str, Any]) -> tf.Tensor:
    """Returns the frequency of each learner, `[N, ...]`."""
    return parameters.trainable[0]


def tune(_: Seed, settings: "Settings", output_dir: Path, verbose: int) -> Result:
    """Returns the rates at which MSE recovers most of the tuning frequencies after ten steps, the same for all seeds.

    Of equal shares the smaller rate counts, which is further from divergence.
    """
    tasks = draw_tasks(settings.num_tuning_tasks, "tune", 0, with_x=False)
    tuned = tune_optimizers(
        lambda optimizer: 1 - recovered(frequencies("mse", optimizer, tasks, INNER_STEPS), tasks)[-1],
        sgd_rates=settings.rates,
        adaptive_rates=settings.rates,
    )
    return dict(zip(TUNED, (tuned.rates, tuned.best)))


def score(
    name: str, loss: Any, optimizer: keras.optimizers.Optimizer, with_x: bool, seed: int, settings: "Settings"
) -> tuple[dict[str, float], list[float]]:
    """Returns the metrics of one method, and its share of frequencies recovered at each step."""
    num_tasks, steps = settings.num_test_tasks, settings.test_steps
    task_sets = [draw_tasks(num_tasks, "test", seed, with_x=with_x, **kwargs) for kwargs in TEST_SETS.values()]
    omegas = [frequencies(loss, optimizer, tasks, steps) for tasks in task_sets]
    curves = [recovered(omega, tasks) for omega, tasks in zip(omegas, task_sets)]
    metrics = {f"recovered_{name}{suffix}": float(curve[INNER_STEPS]) for suffix, curve in zip(TEST_SETS, curves)}
    metrics |= {f"recovered_{name}_{later}": float(curves[0][later]) for later in (3 * INNER_STEPS, steps)}
    metrics[f"best_recovered_{name}"] = float(curves[0].max())
    omega, x, y = omegas[0][INNER_STEPS], *task_sets[0]["query"]
    metrics[f"frequency_error_{name}"] = float(np.mean(np.abs(omega - task_sets[0]["frequency"])))
    metrics[f"test_mse_{name}"] = float(np.mean((np.sin(omega[:, np.newaxis, np.newaxis] * x) - y) ** 2))
    return metrics, curves[0].tolist()


def build_baselines(settings: "Settings") -> dict[str, keras.optimizers.Optimizer]:
    """Returns the name of each method on MSE -> its optimizer."""
    tuned = {f"mse_{name}": optimizer for name, optimizer in build_optimizers(settings.optimizer_rates).items()}
    return {"mse": keras.optimizers.SGD(INNER_RATE), "mse_tuned": tuned.pop("mse_sgd"), **tuned}


def count_costs(
    meta_train_cost: float, curves: Mapping[str, list[float]], settings: "Settings", seed: int, output_dir: Path
) -> Mapping[str, float | None]:
    """Returns the core-minutes of learning the shaped loss, and of one use; a use finds one frequency."""
    baseline = "mse_tuned" if settings.best_optimizer == "sgd" else f"mse_{settings.best_optimizer}"
    methods = {
        "learned": (
            "shaped",
            ml3_tf.load_meta_loss(seed_loss_folder(seed, output_dir)),
            keras.optimizers.SGD(INNER_RATE),
        ),
        "baseline": (baseline, "mse", build_baselines(settings)[baseline]),
    }
    num_tasks, steps, per_step, errors = settings.num_test_tasks, settings.test_steps, {}, {}
    for role, (name, loss, optimizer) in methods.items():
        tasks = draw_tasks(num_tasks, "test", seed, with_x=role == "learned")
        train = lambda loss=loss, optimizer=optimizer, tasks=tasks: frequencies(loss, optimizer, tasks, steps)
        per_step[role] = core_minutes_per_step(train, steps, num_tasks)
        errors[role] = [1 - share for share in curves[name]]
    return count_core_minutes(meta_train_cost, curves=errors, per_step=per_step, horizon=INNER_STEPS)
