"""Statistics over tables and seeds, as rliable has them (Agarwal et al., 2021), through SciPy.

    Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021.

Shape letters: S seeds, T tables (or tasks, or environments); `...` any leading axes, of draws for instance.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ml3_tf.extras import needed_for

with needed_for("ml3_tf.bench", "SciPy", extra="recipes"):
    from scipy import stats

__all__ = ["Interval", "bootstrap_interval", "interquartile_mean", "probability_of_improvement"]


class Interval(NamedTuple):
    """A statistic with its interval."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle half of all scores `[..., S, T]`, `[...]`.

    Example:

    >>> float(interquartile_mean([[0.0, 1.0], [3.0, 100.0]]))
    2.0
    """
    scores = np.asarray(scores, float)
    return stats.trim_mean(scores.reshape(*scores.shape[:-2], -1), 0.25, axis=-1)


def probability_of_improvement(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns how often a score is higher than one of the others on the same table; equal ones count half.

    Args:
        scores: `[..., S, T]`.
        others: `[..., S', T]`, of the method that `scores` are compared with.

    Returns:
        `[...]`.

    Raises:
        ValueError: Not two arrays of the same tables.

    Example:

    >>> float(probability_of_improvement([[1.0], [2.0]], [[0.0], [2.0]]))
    0.625
    """
    scores, others = np.asarray(scores, float), np.asarray(others, float)
    if scores.ndim < 2 or others.ndim < 2 or scores.shape[-1] != others.shape[-1]:
        raise ValueError(
            "`scores` and `others` need the shape [seeds, tables], with the same tables. Received: the shapes "
            f"{scores.shape} and {others.shape}"
        )
    # P(X > Y) + P(X = Y) / 2, over all pairs of seeds of a table; then the mean over tables
    differences = scores[..., :, np.newaxis, :] - others[..., np.newaxis, :, :]
    return np.mean((np.sign(differences) + 1) / 2, axis=(-3, -2, -1))


def bootstrap_interval(
    statistic: Callable[..., np.ndarray],
    *scores: np.ndarray,
    num_samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Returns a statistic with its stratified bootstrap interval: the seeds of each table are drawn again.

    Args:
        statistic: Function of as many arrays as there are `scores`, e.g. `interquartile_mean`; with leading axes.
        *scores: `[S, T]` each. The seeds of each table of each array are drawn on their own.
        num_samples: How often they are drawn.
        confidence: Share of the drawn values within the interval, from percentile to percentile.
        seed: Determines the draws.

    Raises:
        ValueError: `scores` are missing, empty, or of another number of axes.

    Example:

    >>> bootstrap_interval(interquartile_mean, np.ones((5, 3)))
    Interval(value=1.0, low=1.0, high=1.0)
    """
    arrays = [np.asarray(values, float) for values in scores]
    if not arrays or any(values.ndim != 2 or not values.size for values in arrays):
        raise ValueError(
            "`scores` need at least one array of the shape [seeds, tables], not empty. Received: the shapes "
            f"{[values.shape for values in arrays]}"
        )
    generator = np.random.default_rng(seed)
    draw = lambda v: np.take_along_axis(v[np.newaxis], generator.integers(0, len(v), (num_samples, *v.shape)), axis=1)
    draws = statistic(*map(draw, arrays))
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(statistic(*arrays)), float(low), float(high))
