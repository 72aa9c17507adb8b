"""How a method is tuned, and how it is scored; every method takes this path.

A method has a grid of losses, optimizers and rates to choose from. Its choice, and the number of steps, is the best one
on the tuning tasks, once for accuracy and once for cross-entropy: they are rarely best together.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np

from parts.fine_tune.model import fine_tune

QUANTITIES = ("accuracy", "cross_entropy")
REPORTED_STEPS = (10, 30, 100, 300, 1000)
Tasks: TypeAlias = dict[str, Any]
"""`{"support": (x, y), "query": (x, y)}` of N tasks."""
Curves = Mapping[str, np.ndarray]
"""For each of `QUANTITIES`, the curves of what was chosen for it, `[2, steps + 1]`: its accuracy, its cross-entropy."""


class Candidate(NamedTuple):
    """One entry of a method's grid.

    Attributes:
        loss: A learned loss, or one of Keras's.
        build_optimizer: Function without arguments that returns the optimizer.
        values: The values of the grid, by their names.
    """

    loss: Any
    build_optimizer: Callable[[], keras.optimizers.Optimizer]
    values: dict[str, float]


class Choice(NamedTuple):
    """A candidate, and after how many steps it is best."""

    candidate: Candidate
    steps: int


def tune(candidates: Sequence[Candidate], start: keras.Model, tasks: Tasks, num_steps: int) -> dict[str, Choice]:
    """Returns for each of `QUANTITIES` the candidate and the number of steps that are best on average over tasks."""
    curves = np.stack([mean_curves(candidate, start, tasks, num_steps) for candidate in candidates], axis=1)
    return {quantity: Choice(candidates[i], steps) for quantity, (i, steps) in best_of(curves).items()}


def best_of(curves: np.ndarray) -> dict[str, tuple[int, int]]:
    """Returns for each of `QUANTITIES` which candidate is best, and after how many steps.

    Args:
        curves: `[2, candidates, steps + 1]`, accuracy and cross-entropy; NaN, of a model that diverged, is the worst.
    """
    accuracy, cross_entropy = curves
    scores = np.nan_to_num(accuracy, nan=-np.inf), np.nan_to_num(-cross_entropy, nan=-np.inf)
    places = [np.unravel_index(np.argmax(score), score.shape) for score in scores]
    return {quantity: (int(i), int(step)) for quantity, (i, step) in zip(QUANTITIES, places)}


def mean_curves(candidate: Candidate, start: keras.Model, tasks: Tasks, num_steps: int) -> np.ndarray:
    """Returns accuracy and cross-entropy after each step, mean over tasks, `[2, steps + 1]`."""
    return fine_tune(candidate.loss, candidate.build_optimizer(), start, tasks, num_steps).mean(axis=2)


def score(choices: Mapping[str, Choice], start: keras.Model, tasks: Tasks, num_steps: int) -> Curves:
    """Returns the curves of each choice on tasks that it was not tuned on."""
    curves = {}
    for quantity, (candidate, _) in choices.items():
        same = [curves[other] for other in curves if choices[other].candidate is candidate]
        curves[quantity] = same[0] if same else mean_curves(candidate, start, tasks, num_steps)
    return curves


def compute_metrics(name: str, choices: Mapping[str, Choice], curves: Curves, *, prefix: str = "") -> dict[str, float]:
    """Returns the metrics of one method, whose names begin with `prefix`."""
    metrics = {}
    for row, quantity in enumerate(QUANTITIES):
        curve = curves[quantity][row]
        metrics[f"{prefix}{quantity}_{name}"] = float(curve[choices[quantity].steps])
        best = np.fmax.accumulate(curve) if quantity == "accuracy" else np.fmin.accumulate(curve)
        for kind, values in ("", curve), ("best_", best):
            metrics |= {
                f"{prefix}{kind}{quantity}_{name}_{steps}": float(values[steps])
                for steps in REPORTED_STEPS
                if steps < len(curve)
            }
    accurate = curves["accuracy"][1][choices["accuracy"].steps]
    return metrics | {f"{prefix}cross_entropy_when_accurate_{name}": float(accurate)}


def describe(choices: Mapping[str, Choice]) -> dict[str, dict[str, float]]:
    """Returns the values of each choice, as JSON can hold them."""
    return {quantity: {**candidate.values, "steps": steps} for quantity, (candidate, steps) in choices.items()}
