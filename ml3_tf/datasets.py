"""Datasets of tasks for meta-training and meta-testing, in `tf.data`."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import tensorflow as tf

from ml3_tf.arguments import check_counts

Range: TypeAlias = tuple[float, float] | float
"""The ends `(low, high)` of a uniform distribution, or one number."""


def sine_tasks(
    num_tasks: int = 1,
    *,
    num_support: int = 100,
    num_query: int | None = None,
    amplitude: Range = (0.2, 5.0),
    phase: Range = (-math.pi, math.pi),
    x_range: Range = (-5.0, 5.0),
    seed: int | None = None,
) -> tf.data.Dataset[Any]:
    """Returns an infinite dataset of sine curves `y = amplitude * sin(x - phase)`.

    The defaults are the meta-test distribution of ML3 (appendix D). Its meta-train task is the single curve
    `sine_tasks(amplitude=1, phase=math.pi, x_range=(-2, 2))`.

    Args:
        num_tasks: N, number of curves in a batch.
        num_support: Number of points that a learner trains on.
        num_query: Number of other points, on which it is scored. `None`: the same points, as in the paper.
        amplitude: Range of the amplitude, drawn uniformly, or one number.
        phase: Range of the phase (rad), drawn uniformly, or one number.
        x_range: Range of the inputs, drawn uniformly, or one number.
        seed: Optional integer; the same seed gives the same curves and points.

    Returns:
        A `tf.data.Dataset` of batches `{"support": (x, y), "query": (x, y)}`, each `[num_tasks, points, 1]`, float32.

    Raises:
        ValueError: A number of tasks or points is below 1, or a range ends before its start.

    Example:

    >>> batch = next(iter(sine_tasks(num_tasks=3, num_query=20, seed=0)))
    >>> x, y = batch["query"]
    >>> tuple(x.shape)
    (3, 20, 1)
    """
    check_counts(num_tasks=num_tasks, num_support=num_support)
    if num_query is not None:
        check_counts(num_query=num_query)
    limits = {"amplitude": amplitude, "phase": phase, "x_range": x_range}
    ranges = {name: _as_range(name, value) for name, value in limits.items()}

    def draw(seed: tf.Tensor) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        seeds = tf.random.split(seed, 3)
        num_points = num_support + (num_query or 0)

        def uniform(name: str, shape: tuple[int, ...], seed: tf.Tensor) -> tf.Tensor:
            low, high = ranges[name]
            return tf.random.stateless_uniform(shape, seed, low, high)

        x = uniform("x_range", (num_tasks, num_points, 1), seeds[0])
        curve = (num_tasks, 1, 1)
        y = uniform("amplitude", curve, seeds[1]) * tf.sin(x - uniform("phase", curve, seeds[2]))
        query = slice(num_support, None) if num_query else slice(None)
        return {
            "support": (x[:, :num_support], y[:, :num_support]),
            "query": (x[:, query], y[:, query]),
        }

    if seed is None:
        seeds = tf.data.Dataset.random(rerandomize_each_iteration=True).batch(2, drop_remainder=True)
    else:  # not `Dataset.random(seed)`, whose numbers also depend on TensorFlow's global seed
        seeds = tf.data.Dataset.counter().map(lambda count: tf.stack([tf.constant(seed, count.dtype), count]))
    return seeds.map(draw).prefetch(tf.data.AUTOTUNE)


def _as_range(name: str, value: Range) -> tuple[float, float]:
    low, high = value if isinstance(value, (tuple, list)) else (value, value)
    if not low <= high:
        raise ValueError(f"`{name}` must be a number or a range (low, high). Received: {name}={value}")
    return float(low), float(high)
