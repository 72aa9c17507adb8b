"""The methods that `digits.py` compares, how cross-entropy is tuned, and what a use of a method costs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

import ml3_tf
from parts.costs import core_minutes_per_step, count_core_minutes
from parts.digits.images import draw_tasks, load_images, split, stream_seed
from parts.digits.lenet import learning_curves
from parts.experiment import Result, Seed
from parts.tuned_optimizers import build_optimizers, tune_optimizers

if TYPE_CHECKING:
    from pathlib import Path

    from digits import Settings

LOSS = "categorical_crossentropy"
TEN_DIGITS = tuple(range(10))
TUNED_STEPS = 100  # the rate of `tuned` is tuned for
TUNED_SETTINGS = ("tuned_rate", "optimizer_rates", "best_optimizer")  # and those of ten classes
Method = tuple[Any, keras.optimizers.Optimizer]
"""A loss and an optimizer."""


def tune(_: Seed, settings: "Settings", output_dir: "Path", verbose: int) -> Result:
    """Returns the rates at which cross-entropy is least, for two classes and for ten.

    They are found on training images alone, a part of them held out. `tuned` has the least cross-entropy on average
    over 100 steps, the optimizers after the steps of meta-training. They are the same for all seeds: near the edge of
    divergence, a rate tuned on few learners fails on the next.
    """
    train, held_out = split(load_images(settings.data, settings.data_path)[0])
    seed, found = stream_seed("tune", 0), {}
    for suffix, groups in (("", settings.tuning_pairs), ("_ten", (TEN_DIGITS,))):
        tasks = draw_tasks(train, held_out, groups, settings.per_class, settings.tuning_learners, seed)

        def curve(optimizer: keras.optimizers.Optimizer, steps: int, tasks: dict[str, Any] = tasks) -> np.ndarray:
            return learning_curves(LOSS, optimizer, tasks, steps, seed)[0].mean(axis=1)

        steps = min(TUNED_STEPS, settings.test_steps)
        scores = [curve(keras.optimizers.SGD(rate), steps).mean() for rate in settings.rates]
        best_rate = settings.rates[int(np.argmin(np.nan_to_num(scores, nan=np.inf)))]
        optimizers = tune_optimizers(
            lambda optimizer, curve=curve: curve(optimizer, settings.inner_steps)[-1],
            sgd_rates=settings.sgd_rates,
            adaptive_rates=settings.adaptive_rates,
        )
        values = best_rate, optimizers.rates, optimizers.best
        found |= {name + suffix: value for name, value in zip(TUNED_SETTINGS, values)}
    return found


def build_methods(meta_loss: ml3_tf.MetaLoss, num_classes: int, settings: "Settings") -> dict[str, Method]:
    """Returns name -> loss and optimizer."""
    sgd, ten = keras.optimizers.SGD, num_classes == len(TEN_DIGITS)
    compared = {
        "learned": (meta_loss, sgd(settings.rate(num_classes))),
        "same_rate": (LOSS, sgd(settings.rate(num_classes))),
        "tuned": (LOSS, sgd(settings.tuned_rate_ten if ten else settings.tuned_rate)),
    }
    rates = settings.optimizer_rates_ten if ten else settings.optimizer_rates
    compared |= {name: (LOSS, optimizer) for name, optimizer in build_optimizers(rates).items()}
    return compared | ({"learned_rate_of_two": (meta_loss, sgd(settings.rate(2)))} if ten else {})


def count_costs(
    meta_train: float,
    methods: Mapping[str, Method],
    curves: Mapping[str, np.ndarray],
    tasks: dict[str, Any],
    settings: "Settings",
) -> dict[str, Any]:
    """Returns the costs of a seed, see `costs.py`; a use trains a LeNet on a pair of digits.

    Args:
        meta_train: Core-minutes of meta-training.
        methods: Name -> loss and optimizer.
        curves: Name -> the curves of `learning_curves` on `tasks`.
        tasks: Tasks of unseen pairs.
        settings: The settings.
    """
    compared = {"learned": "learned", "baseline": settings.best_optimizer}
    steps = settings.inner_steps
    per_step = {
        role: core_minutes_per_step(
            lambda name=name: learning_curves(*methods[name], tasks, steps, seed=0),
            steps,
            num_learners=len(tasks["query"][0]),
        )
        for role, name in compared.items()
    }
    errors = {role: curves[name][0].mean(axis=1) for role, name in compared.items()}
    return {"core_minutes": count_core_minutes(meta_train, curves=errors, per_step=per_step, horizon=steps)}
