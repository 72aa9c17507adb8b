"""A task of the benchmark: data, a model, and a score between 0 and 1.

Shape letters: P problems of a task, B examples of a problem.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import keras
import numpy as np

from ml3_tf.learner import Parameters

Kind: TypeAlias = Literal["regression", "classification", "pointmass", "arm"]

HORIZONS = (1, 3, 10)
NUM_CHECKS = 10  # scores within the first horizon


class Problems(NamedTuple):
    """Data of P problems, each padded to as many rows as the largest has.

    Attributes:
        support: `(x, y)` to train on, `[P, B, ...]` each.
        query: `(x, y)` to score on, `[P, B', ...]` each.
        num_support: `[P]`, how many rows of each problem are its own.
        num_query: `[P]`, the same for the query.
    """

    support: tuple[np.ndarray, np.ndarray]
    query: tuple[np.ndarray, np.ndarray]
    num_support: np.ndarray
    num_query: np.ndarray


@dataclasses.dataclass(frozen=True)
class Task:
    """One or several problems whose models have one architecture and train at once.

    Args:
        names: A name for each result. The problems are divided among them in equal parts, and a result is the mean.
        kind: "regression", "classification", or that of a `PolicyTask`, "pointmass" or "arm".
        build: Function that builds a Keras model. Its last layer is called "output": Muon leaves that one to Adam.
        draw: Function of a seed that returns the `Problems`.
        num_steps: Number of gradient steps of the first horizon; a multiple of ten.
        batch_size: Number of examples of a step; `None`: all of them.
        horizons: Where the score is reported, as multiples of `num_steps`.
    """

    names: tuple[str, ...]
    kind: Kind
    build: Callable[[], keras.Model]
    draw: Callable[[int], Problems]
    num_steps: int
    batch_size: int | None = None
    horizons: tuple[int, ...] = HORIZONS

    def __post_init__(self) -> None:
        if self.num_steps < NUM_CHECKS or self.num_steps % NUM_CHECKS:
            raise ValueError(
                f"`num_steps` must be a positive multiple of {NUM_CHECKS}, so that the score is taken {NUM_CHECKS} "
                f"times within it. Received: num_steps={self.num_steps}"
            )

    def make_examples(self, loss: Any, predict: Callable[..., Any]) -> Callable[[Parameters, Any], Any]:
        """Returns a function of parameters and rows of the support that returns what a step trains on: the rows.

        Args:
            loss: The loss.
            predict: Function `(parameters, x) -> y_pred`.
        """
        return lambda parameters, rows: rows

    def predict(self, predict: Callable[..., Any], parameters: Parameters, x: Any) -> Any:
        """Returns what is scored, for the `x` of the query: predictions."""
        return predict(parameters, x)

    def smoke(self) -> Self:
        """Returns the task with a few steps alone, to see that everything works."""
        return dataclasses.replace(self, num_steps=NUM_CHECKS, horizons=(1, 3))


def stack_problems(
    supports: Sequence[tuple[np.ndarray, np.ndarray]], queries: Sequence[tuple[np.ndarray, np.ndarray]]
) -> Problems:
    """Returns `Problems` of examples `(x, y)` of each, padded with rows of zeros, which nothing reads.

    Example:

    >>> part = lambda rows: (np.ones((rows, 3)), np.ones((rows, 1)))
    >>> problems = stack_problems([part(5), part(8)], [part(2), part(2)])
    >>> problems.support[0].shape, problems.num_support.tolist()
    ((2, 8, 3), [5, 8])
    """
    return Problems(_stack(supports), _stack(queries), _count(supports), _count(queries))


def _count(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return np.array([len(x) for x, _ in parts])


def _stack(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    most = _count(parts).max()
    pad = lambda values: np.pad(values, [(0, most - len(values)), *[(0, 0)] * (values.ndim - 1)])
    x, y = (np.stack([pad(values) for values in arrays]).astype("float32") for arrays in zip(*parts))
    return x, y


def measure(kind: Kind, y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Returns the score of predictions `[B, C]`, from 0 to 1.

    Regression: the share of the variance that is explained, 1 - MSE / variance, mean over outputs. Classification: the
    accuracy. Policies: the share of the distance to the goal that is covered. A score below 0, and one of predictions
    that are not finite, counts as 0.

    Example:

    >>> y = np.array([[0.0], [2.0]])
    >>> measure("regression", y, y), measure("regression", y, y + 0.5), measure("regression", y, y - 9)
    (1.0, 0.75, 0.0)
    """
    if not np.isfinite(y_pred).all():
        return 0.0
    if kind == "classification":
        return float(np.mean(y_true.argmax(axis=-1) == y_pred.argmax(axis=-1)))
    if kind == "regression":
        left = np.mean(np.square(y_true.astype(float) - y_pred), axis=0) / y_true.var(axis=0)
    else:
        left = np.linalg.norm(y_true.astype(float) - y_pred, axis=-1) / np.linalg.norm(y_true, axis=-1)
    return float(max(0.0, 1 - np.mean(left)))


def draw_order(
    problems: Problems, batch_size: int | None, num_steps: int, generator: np.random.Generator
) -> np.ndarray:
    """Returns which rows of the support each step sees, `[P, num_steps, batch]`: epoch after epoch in another order.

    Rows that are left over at the end of an epoch are not used in it.
    """
    size = int(problems.num_support.min()) if batch_size is None else batch_size
    orders = []
    for number in problems.num_support:
        if size > number:
            raise ValueError(f"`batch_size` must not be larger than the support. Received: {size} for {number} rows")
        steps = number // size
        epochs = [generator.permutation(number)[: steps * size] for _ in range(-(-num_steps // steps))]
        orders.append(np.concatenate(epochs).reshape(-1, size)[:num_steps])
    return np.stack(orders).astype("int32")
