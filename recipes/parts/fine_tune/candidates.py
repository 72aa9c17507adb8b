"""What each method of `fine_tune.py` chooses from, what it chooses, and the best optimizer by that choice."""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from parts.costs import core_minutes_per_step, count_core_minutes
from parts.experiment import Result, Seed
from parts.fine_tune.methods import Candidate, Choice, Curves, Tasks, mean_curves
from parts.fine_tune.model import CROSS_ENTROPY
from parts.fine_tune.tasks import load_classes, prepare
from parts.tuned_optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from pathlib import Path

    from fine_tune import Settings


def build_optimizer(name: str, rate: float, decay: float = 0.0) -> keras.optimizers.Optimizer:
    """Returns an optimizer of `OPTIMIZERS` with a weight decay, which Muon's AdamW takes, too.

    Example:

    >>> build_optimizer("sgd", 0.1, 0.3).weight_decay
    0.3
    """
    optimizer: Any = OPTIMIZERS[name](rate)
    optimizer.weight_decay = decay or None
    if name == "muon":
        optimizer.adam_weight_decay = decay or None
    return optimizer


def optimizer_candidates(settings: "Settings") -> dict[str, list[Candidate]]:
    """Returns for each of `OPTIMIZERS` its grid, with cross-entropy as the loss."""
    grids = {
        "sgd": (settings.sgd_rates, settings.sgd_decays),
        "adam": (settings.rates, (0.0,)),
        "adamw": (settings.rates, settings.decays),
        "muon": (settings.muon_rates, settings.muon_decays),
    }
    return {
        name: [_candidate(CROSS_ENTROPY, name, rate, decay) for decay in decays for rate in rates]
        for name, (rates, decays) in grids.items()
    }


def all_candidates(meta_loss: Any, settings: "Settings") -> dict[str, list[Candidate]]:
    """Returns for each method the grid that it is tuned on."""
    rates, decay = settings.rates, settings.decay
    return {
        "learned": [_candidate(meta_loss, "adamw", rate, decay) for rate in rates],
        "same_rate": [_candidate(CROSS_ENTROPY, "adamw", settings.rate, decay)],
        **optimizer_candidates(settings),
        "smoothing": [
            _candidate(smoothed_cross_entropy(value), "adamw", rate, decay, smoothing=value)
            for value in settings.smoothings
            for rate in rates
        ],
    }


def _candidate(loss: Any, name: str, rate: float, decay: float, **values: float) -> Candidate:
    return Candidate(loss, lambda: build_optimizer(name, rate, decay), {"rate": rate, "decay": decay, **values})


@functools.cache
def smoothed_cross_entropy(smoothing: float) -> keras.losses.Loss:
    """Returns cross-entropy with label smoothing; one for all seeds, which share what is compiled for it."""
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)


def best_optimizer(start: keras.Model, tasks: Tasks, settings: "Settings") -> str:
    """Returns which of `OPTIMIZERS` has the least cross-entropy on tuning tasks, at its best candidate and step."""
    least = {
        name: min(np.nanmin(mean_curves(candidate, start, tasks, settings.test_steps)[1]) for candidate in grid)
        for name, grid in optimizer_candidates(settings).items()
    }
    return min(least, key=least.__getitem__)


def find_best_optimizer(_: Seed, settings: "Settings", output_dir: "Path", verbose: int) -> Result:
    """Returns the optimizer that the learned loss is measured against, the same for all seeds."""
    start, _, tasks = prepare(load_classes(settings.data_path), settings, settings.tuning_seed, verbose)
    return {"best_optimizer": best_optimizer(start, tasks, settings)}


def count_costs(
    meta_train: float,
    choices: Mapping[str, Mapping[str, Choice]],
    curves: Mapping[str, Curves],
    start: keras.Model,
    tasks: Tasks,
    settings: "Settings",
) -> dict[str, Any]:
    """Returns the costs of a seed, see `costs.py`; a use fine-tunes on one task.

    Args:
        meta_train: Core-minutes of meta-training.
        choices: Method -> its choices.
        curves: Method -> the curves of its choices on `tasks`.
        start: The weights that fine-tuning starts from.
        tasks: Test tasks.
        settings: The settings.
    """
    compared = {"learned": "learned", "baseline": settings.best_optimizer}
    steps = settings.test_steps
    per_step = {
        role: core_minutes_per_step(
            lambda name=name: mean_curves(choices[name]["cross_entropy"].candidate, start, tasks, steps),
            steps,
            num_learners=len(tasks["query"][0]),
        )
        for role, name in compared.items()
    }
    errors = {role: np.asarray(curves[name]["cross_entropy"][1]) for role, name in compared.items()}
    horizon = settings.inner_steps
    return {"core_minutes": count_core_minutes(meta_train, curves=errors, per_step=per_step, horizon=horizon)}
