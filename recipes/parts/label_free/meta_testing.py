"""The meta-test of `label_free.py`: how methods are tuned and run, and what a use costs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from ml3_tf.bench.image_data import Images
from parts.costs import core_minutes_per_step, count_core_minutes
from parts.label_free.corruptions import SEEN, UNSEEN
from parts.label_free.methods import ENTROPY, METHODS, TARGETS, Target
from parts.label_free.report import mean_curve
from parts.label_free.tasks import Tasks, adapt, draw_tasks

if TYPE_CHECKING:
    from label_free import Settings


def tune_rate(name: str, target: Target, model: keras.Model, loss: Any, tasks: Tasks, settings: "Settings") -> float:
    """Returns the rate of the grid at which a method is best on the corruptions of meta-training."""
    grid = settings.rates
    if name == "learned":
        grid = [settings.inner_rate * share for share in settings.learned_rates]
    curves = [run_method(name, target, model, loss, rate, tasks, settings.tuned_steps) for rate in grid]
    return grid[int(np.argmax([np.nan_to_num(curve[-1]).mean() for curve in curves]))]


def run_method(
    name: str, target: Target, model: keras.Model, loss: Any, rate: float, tasks: Tasks, num_steps: int
) -> np.ndarray:
    """Returns the accuracy of the adapted classifiers, `[num_steps + 1, N]`."""
    method = METHODS[name]
    options = {"affine_only": method.affine_only, "has_labels": method.has_labels}
    return adapt(model, target.normalization, loss, method.optimizer(rate), tasks, num_steps, **options)


def compare(
    target: Target, model: keras.Model, parts: Mapping[str, Images], meta_loss: Any, settings: "Settings", seed: int
) -> tuple[dict[str, dict[str, list[float]]], dict[str, float]]:
    """Adapts a classifier with every method: method -> corruption -> accuracy after each step, and the tuned rates."""
    sizes = settings.num_batches, settings.batch_size, settings.num_query
    tuning = draw_tasks(parts["tune"], SEEN, *sizes, seed=[seed, 2])
    test = draw_tasks(parts["test"], UNSEEN, *sizes, seed=[seed, 3])
    losses = {name: METHODS[name].loss or meta_loss for name in target.methods}
    rates = {name: tune_rate(name, target, model, loss, tuning, settings) for name, loss in losses.items()}
    curves = {
        name: run_method(name, target, model, loss, rates[name], test, settings.test_steps)
        for name, loss in losses.items()
    }
    curves["same_rate"] = run_method("entropy", target, model, ENTROPY, rates["learned"], test, settings.test_steps)
    families = np.array(test.families)
    by_family = lambda curve: {name: curve[:, families == name].mean(axis=1).tolist() for name in UNSEEN}
    return {name: by_family(curve) for name, curve in curves.items()}, rates


def count_costs(
    meta_train_cost: float,
    curves: Mapping[str, Mapping[str, list[float]]],
    rates: Mapping[str, float],
    model: keras.Model,
    parts: Mapping[str, Images],
    meta_loss: Any,
    settings: "Settings",
) -> Mapping[str, float | None]:
    """Returns the core-minutes of learning the loss and of one use, which adapts to one batch."""
    roles = {"learned": "learned", "baseline": "information"}
    tasks = draw_tasks(
        parts["test"], UNSEEN, settings.num_batches, settings.batch_size, settings.num_query, seed=[0, 3]
    )
    steps = settings.tuned_steps
    per_step = {
        role: core_minutes_per_step(
            lambda name=name: run_method(
                name, TARGETS[""], model, METHODS[name].loss or meta_loss, rates[name], tasks, steps
            ),
            steps,
            len(tasks.families),
        )
        for role, name in roles.items()
    }
    errors = {role: 1 - mean_curve(curves[name]) for role, name in roles.items()}
    return count_core_minutes(meta_train_cost, curves=errors, per_step=per_step, horizon=steps)
