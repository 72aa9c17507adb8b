"""The task loss with the optimizers that a practitioner would try, each at its best rate.

SGD, Adam, AdamW and Muon, as Keras has them; weight decay, momenta and all else are Keras's defaults. The layer that a
learner calls "output", or a policy "mean", is left to Muon's AdamW, as Muon's authors advise, like all variables that
are not matrices.

A recipe tunes them once, on tuning tasks, for the number of steps that its loss was learned for::

    tuned = tune_optimizers(lambda optimizer: learning_curve("mse", optimizer, tasks, settings, 0)[horizon])

keeps `tuned.rates` and `tuned.best` in its settings by `fill_in`, and trains with `build_optimizers(rates)`.
"""

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras

OPTIMIZERS: dict[str, Callable[[float], keras.optimizers.Optimizer]] = {
    "sgd": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "muon": lambda rate: keras.optimizers.Muon(rate, exclude_layers=["output", r"\bmean/"]),
}
OPTIMIZER_NAMES = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "muon": "Muon"}
SGD_RATES = (1e-2, 2e-2, 5e-2, 1e-1)
ADAPTIVE_RATES = (2e-3, 5e-3, 1e-2, 2e-2)
MAX_EXTENSIONS = 12  # over four orders of magnitude in steps of about two


class TunedOptimizers(NamedTuple):
    """The best rate of each optimizer.

    Attributes:
        rates: The rates, in the order of `OPTIMIZERS`.
        scores: The errors at them.
        best: The optimizer of the least error.
    """

    rates: tuple[float, ...]
    scores: tuple[float, ...]
    best: str


def tune_optimizers(
    measure: Callable[[keras.optimizers.Optimizer], Any],
    *,
    sgd_rates: Sequence[float] = SGD_RATES,
    adaptive_rates: Sequence[float] = ADAPTIVE_RATES,
) -> TunedOptimizers:
    """Returns the rates at which the error is least, on tasks that are used for nothing else.

    Args:
        measure: Trains with an optimizer, and returns the error on tuning tasks; less is better. NaN and infinity are
            errors of learners that diverged.
        sgd_rates: Where the search for the rate of SGD begins, see `tune_rate`.
        adaptive_rates: The same for all others.

    Raises:
        ValueError: All learners of an optimizer diverged.
    """
    found = [
        tune_rate(
            lambda rate, build=build: measure(build(rate)),
            sgd_rates if name == "sgd" else adaptive_rates,
            name=OPTIMIZER_NAMES[name],
        )
        for name, build in OPTIMIZERS.items()
    ]
    rates, scores = zip(*found)
    return TunedOptimizers(rates, scores, list(OPTIMIZERS)[scores.index(min(scores))])


def tune_rate(measure: Callable[[float], Any], grid: Sequence[float], *, name: str) -> tuple[float, float]:
    """Returns the rate of the least error, and that error. While it lies at the edge of the grid, the grid grows there.

    Args:
        measure: The error at a rate; less is better.
        grid: The first rates, in rising order. A grid of one rate does not grow.
        name: Name of the optimizer, for warnings and errors.

    Raises:
        ValueError: All learners diverged.

    Example:

    >>> tune_rate(lambda rate: abs(rate - 0.4), [0.05, 0.1], name="SGD")[0]
    0.4
    """
    scores = {rate: _score(measure, rate) for rate in grid}
    for extension in itertools.count():
        rates = sorted(scores)
        best = min(rates, key=scores.__getitem__)
        is_over = len(grid) == 1 or extension == MAX_EXTENSIONS
        if is_over and scores[best] == float("inf"):
            raise ValueError(
                f"All learners of {name} diverged, at rates from {rates[0]:g} to {rates[-1]:g}. Expected a grid that "
                "holds a rate at which they learn."
            )
        if len(grid) == 1 or best not in (rates[0], rates[-1]):
            break
        if is_over:
            warnings.warn(
                f"The best rate of {name}, {best:g}, is at the edge of its grid, {rates[0]:g} to {rates[-1]:g}, which "
                f"was extended {extension} times: it is not tuned. Let the grid begin elsewhere.",
                stacklevel=2,
            )
            break
        edge, inner = (rates[0], rates[1]) if best == rates[0] else (rates[-1], rates[-2])
        rate = float(f"{edge * edge / inner:.3g}")
        scores[rate] = _score(measure, rate)
    return best, scores[best]


def _score(measure: Callable[[float], Any], rate: float) -> float:
    error = float(measure(rate))
    return error if error < float("inf") else float("inf")  # NaN, too


def build_optimizers(rates: Sequence[float]) -> dict[str, keras.optimizers.Optimizer]:
    """Returns fresh optimizers by their names in `OPTIMIZERS`, at rates in the order of these."""
    return {name: build(rate) for (name, build), rate in zip(OPTIMIZERS.items(), rates, strict=True)}
