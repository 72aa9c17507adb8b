"""The choice of optimizer and rate: for each loss on each task, among as many as for any other."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ml3_tf.bench.task import NUM_CHECKS, Task
from ml3_tf.bench.training import Training

TUNING_SEEDS = (100, 101)  # never reported
FIRST_TUNING_SEED = TUNING_SEEDS[0]


def _half_decades(low: float, number: int) -> tuple[float, ...]:
    return tuple(float(f"{low * 10 ** (0.5 * n):.3g}") for n in range(number))


# A learned loss may carry a rate of its own, and so need a small one: hence the width of the grids.
RATES: Mapping[str, tuple[float, ...]] = {
    "SGD": _half_decades(1e-4, 11),  # to 10
    "Adam": _half_decades(1e-4, 8),  # to 0.3
    "AdamW": _half_decades(1e-4, 8),
    "Muon": _half_decades(1e-4, 8),
}


class Choice(NamedTuple):
    """The name of an optimizer, as in `OPTIMIZERS`, and its rate."""

    optimizer: str
    rate: float


def tune(
    task: Task,
    loss: Any,
    *,
    rates: Mapping[str, Sequence[float]] = RATES,
    seeds: Sequence[int] = TUNING_SEEDS,
    jit_compile: bool = True,
) -> tuple[list[Choice], dict[str, list[list[float]]]]:
    """Chooses, for each name of a task, the optimizer and the rate with the highest mean score.

    The score is that after the first horizon, mean over the tuning seeds.

    Returns:
        The choices, and optimizer -> name -> the score at each rate.
    """
    scores = {}
    for optimizer, grid in rates.items():
        training = Training(task, loss, optimizer, jit_compile=jit_compile)
        runs = [training.run(grid, seed=seed, num_steps=task.num_steps)[NUM_CHECKS] for seed in seeds]
        scores[optimizer] = np.mean(runs, axis=0)  # [names, R]
    choices = []
    for name in range(len(task.names)):
        best = max(rates, key=lambda optimizer, name=name: scores[optimizer][name].max())
        choices.append(Choice(best, float(rates[best][int(scores[best][name].argmax())])))
    return choices, {optimizer: values.round(6).tolist() for optimizer, values in scores.items()}
