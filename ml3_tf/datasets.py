"""Datasets of tasks for meta-training and meta-testing, in `tf.data`.

Shape letters: N tasks, M examples of a table, S support points, Q query points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from ml3_tf.arguments import TensorLike, check_counts

__all__ = ["Range", "sine_tasks", "tasks_from_arrays", "with_minibatches"]

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

    return _seeds(seed).map(draw).prefetch(tf.data.AUTOTUNE)


def tasks_from_arrays(
    x: TensorLike | Sequence[TensorLike],
    y: TensorLike | Sequence[TensorLike],
    num_tasks: int = 1,
    *,
    num_support: int = 100,
    num_query: int = 100,
    num_classes: int | None = None,
    corrupt: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
    seed: int | None = None,
) -> tf.data.Dataset[Any]:
    """Returns an infinite dataset of tasks that are drawn from one's own data.

    A task is a random subset of a table: so many support points that a learner trains on, and other query points that
    score it. Of several tables, each task takes one, drawn uniformly. A table with fewer rows is shared out in the same
    proportion, and what is missing is filled up with examples of weight zero.

    Args:
        x: Inputs `[M, ...]` of a table; or a list of them, one for each of several tables, whose rows have one shape.
        y: Targets `[M, ...]`, or a list of them. With `num_classes`, class indices `[M]`.
        num_tasks: N, number of tasks in a batch.
        num_support: S, number of points that a learner trains on.
        num_query: Q, number of points that score it.
        num_classes: Each task takes so many of the classes, drawn uniformly. They are numbered anew, in random order,
            and targets are one-hot. `None`: all examples, targets as they are.
        corrupt: Optional function `(targets of the support [N, S, ...], seed) -> targets`, for support points that are
            worse than query points: with noisy labels, say. `seed` is for TensorFlow's stateless random functions.
        seed: Optional integer; the same seed gives the same tasks.

    Returns:
        A `tf.data.Dataset` of batches `{"support": (x, y), "query": (x, y)}` of arrays `[N, S, ...]` and `[N, Q, ...]`,
        each `(x, y, sample_weight)` where a table or the classes of a task may have too few examples.

    Raises:
        ValueError: Counts below 1, tables that do not fit together, too few classes, or a table of one example.

    Example: tasks of two classes each, with a fifth of the support labels swapped.

    >>> x, y = np.random.default_rng(0).normal(size=(50, 4)), np.arange(50) % 10
    >>> def corrupt(y, seed):
    ...     is_wrong = tf.random.stateless_uniform(y.shape[:2], seed) < 0.2
    ...     return tf.where(is_wrong[..., tf.newaxis], y[..., ::-1], y)
    >>> tasks = tasks_from_arrays(x, y, 3, num_support=6, num_query=4, num_classes=2, corrupt=corrupt, seed=0)
    >>> [tuple(array.shape) for array in next(iter(tasks))["support"]]
    [(3, 6, 4), (3, 6, 2)]
    """
    check_counts(num_tasks=num_tasks, num_support=num_support, num_query=num_query)
    tables = _Tables(x, y, num_classes)
    size = num_support + num_query

    def draw(seed: tf.Tensor) -> dict[str, Any]:
        seeds = tf.random.split(seed, 4)
        is_chosen, classes = tables.choose(num_tasks, seeds[0], seeds[1])
        # Rows in random order, those of the task first.
        order = tf.random.stateless_uniform([num_tasks, tables.num_rows], seeds[2])
        rows = tf.math.top_k(tf.where(is_chosen, order, order - 1), min(size, tables.num_rows)).indices
        number = tf.minimum(tf.reduce_sum(tf.cast(is_chosen, tf.int32), axis=1, keepdims=True), size)
        first = tf.clip_by_value(number * num_support // size, 1, number - 1)  # of them are for the support
        support = _take(tables, rows, tf.range(num_support), tf.range(num_support) < first, classes)
        place = first + tf.range(num_query)
        query = _take(tables, rows, place, place < number, classes)
        if corrupt is not None:
            support = support[0], corrupt(support[1], seeds[3]), *support[2:]
        has_weights = tables.smallest < size
        return {name: part if has_weights else part[:2] for name, part in (("support", support), ("query", query))}

    return _seeds(seed).map(draw, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def with_minibatches(
    tasks: tf.data.Dataset[Any], batch_size: int, *, num_epochs: int = 10, seed: int | None = None
) -> tf.data.Dataset[Any]:
    """Returns tasks whose learners see another mini-batch of the support in each step, as in `fit`.

    Args:
        tasks: A dataset of batches `{"support": (x, y), "query": (x, y)}` of arrays `[N, B, ...]`.
        batch_size: Number of examples of a mini-batch. Examples that are left over at the end of an epoch are not used
            in it.
        num_epochs: Number of epochs, each in another order, after which the orders repeat.
        seed: Optional integer that determines the orders.

    Returns:
        The dataset, with the indices of each step's examples as "minibatches", `[N, steps, batch_size]`.

    Raises:
        ValueError: Counts below 1; when it is read: a mini-batch that is larger than the support.

    Example:

    >>> tasks = with_minibatches(sine_tasks(2, num_support=100), 32, num_epochs=5)
    >>> tuple(next(iter(tasks))["minibatches"].shape)
    (2, 15, 32)
    """
    check_counts(batch_size=batch_size, num_epochs=num_epochs)

    def add(batch: Any, seed: tf.Tensor) -> Any:
        num_tasks, size = tf.nest.flatten(batch["support"])[0].shape[:2]
        if size is None or batch_size > size:
            raise ValueError(
                f"`batch_size` must not be larger than the support. Received: batch_size={batch_size} for {size} points"
            )
        noise = tf.random.stateless_uniform([num_tasks, num_epochs, size], seed)
        order = tf.argsort(noise)[..., : size // batch_size * batch_size]
        return {**batch, "minibatches": tf.reshape(order, [num_tasks, -1, batch_size])}

    return tf.data.Dataset.zip(tasks, _seeds(seed)).map(add).prefetch(tf.data.AUTOTUNE)


class _Tables:
    """Tables one below the other, and which of their rows a task takes."""

    def __init__(self, x: Any, y: Any, num_classes: int | None) -> None:
        are_arrays = lambda v: (
            isinstance(v, (list, tuple)) and all(np.ndim(part) and hasattr(part, "shape") for part in v)
        )
        several = are_arrays(x) and are_arrays(y)
        xs, ys = ([np.asarray(part) for part in (values if several else [values])] for values in (x, y))
        sizes = [len(part) for part in xs]
        if sizes != [len(part) for part in ys] or len({(a.shape[1:], b.shape[1:]) for a, b in zip(xs, ys)}) != 1:
            raise ValueError(
                "`x` and `y` need as many rows as each other, and rows of one shape in all tables. Received shapes: "
                f"{[part.shape for part in xs]} and {[part.shape for part in ys]}"
            )
        self.x: tf.Tensor = _as_floats(np.concatenate(xs))
        targets = np.concatenate(ys)
        self.num_rows: int = len(targets)
        self._table: tf.Tensor = tf.constant(np.repeat(np.arange(len(sizes)), sizes), tf.int32)
        self._num_tables = len(sizes)
        self._num_classes = num_classes
        if num_classes is None:
            self.y: tf.Tensor = _as_floats(targets)
            self.smallest: int = min(sizes)
        else:
            self.y = tf.constant(targets, tf.int32)
            self._num_known, self.smallest = _check_classes(targets, self._table.numpy(), num_classes)
        if self.smallest < 2:
            raise ValueError(
                "A task needs at least two examples, one to train on and one to score. Received: a table "
                f"{'or classes ' if num_classes else ''}with {self.smallest}"
            )

    def choose(self, num_tasks: int, *seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Draws a table and classes for each task: which rows are its own, `[N, M]`, and its classes `[N, classes]`."""
        table = tf.random.stateless_uniform([num_tasks, 1], seeds[0], 0, self._num_tables, tf.int32)
        is_chosen = self._table == table
        if self._num_classes is None:
            return is_chosen, None
        classes = tf.argsort(tf.random.stateless_uniform([num_tasks, self._num_known], seeds[1]))
        classes = classes[:, : self._num_classes]
        return is_chosen & tf.reduce_any(self.y[:, tf.newaxis] == classes[:, tf.newaxis], axis=-1), classes


def _take(tables: _Tables, rows: tf.Tensor, place: tf.Tensor, counts: tf.Tensor, classes: tf.Tensor | None) -> Any:
    """Returns `(x, y, weights)` of the rows at places in their order, `[N, places]`, the last one beyond them."""
    num_tasks, length = rows.shape
    place = tf.broadcast_to(tf.minimum(place, length - 1), [num_tasks, counts.shape[1]])
    index = tf.gather(rows, place, batch_dims=1)
    y = tf.gather(tables.y, index)
    if classes is not None:
        y = tf.cast(y[..., tf.newaxis] == classes[:, tf.newaxis], tf.float32)
    return tf.gather(tables.x, index), y, tf.cast(counts, tf.float32)


def _check_classes(labels: np.ndarray, table: np.ndarray, num_classes: int) -> tuple[int, int]:
    """Returns the number of classes, and the smallest number of examples that a task may have."""
    check_counts(num_classes=num_classes)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise ValueError(
            f"With `num_classes`, `y` holds class indices [M], integers from 0. Received: {labels.dtype} of the shape "
            f"{labels.shape}"
        )
    num_known = int(labels.max()) + 1
    if num_classes > num_known:
        raise ValueError(f"There are {num_known} classes. Received: num_classes={num_classes}")
    counts = [np.sort(np.bincount(labels[table == number], minlength=num_known)) for number in np.unique(table)]
    return num_known, min(int(np.sum(count[:num_classes])) for count in counts)


def _as_floats(values: np.ndarray) -> tf.Tensor:
    return tf.constant(values, tf.float32 if np.issubdtype(values.dtype, np.floating) else None)


def _seeds(seed: int | None) -> tf.data.Dataset[Any]:
    if seed is None:
        return tf.data.Dataset.random(rerandomize_each_iteration=True).batch(2, drop_remainder=True)
    # Not `Dataset.random(seed)`, whose numbers also depend on TensorFlow's global seed.
    return tf.data.Dataset.counter().map(lambda count: tf.stack([tf.constant(seed, count.dtype), count]))


def _as_range(name: str, value: Range) -> tuple[float, float]:
    low, high = value if isinstance(value, (tuple, list)) else (value, value)
    if not low <= high:
        raise ValueError(f"`{name}` must be a number or a range (low, high). Received: {name}={value}")
    return float(low), float(high)
