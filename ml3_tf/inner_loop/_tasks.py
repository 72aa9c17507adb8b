"""Tasks in a batch: how many, and the loss of each.

Shape letters: N tasks, B examples of a task.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def per_task_loss(
    loss: keras.losses.Loss | Callable[[Any, Any], Any], y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: Any = None
) -> tf.Tensor:
    """Reduces the values of a loss over the examples of each task, as Keras reduces a batch.

    Args:
        loss: A `keras.losses.Loss`, or a function `(y_true, y_pred) -> values`.
        y_true: `[N, B, ...]`.
        y_pred: `[N, B, ...]`.
        sample_weight: Optional, `[N, B]`.

    Returns:
        `[N]`.
    """
    dtype = getattr(loss, "dtype", y_pred.dtype)
    # The weights of a per-set loss weigh its sets, too.
    weights = {"sample_weight": sample_weight} if getattr(loss, "pools_examples", False) else {}
    values: Any = getattr(loss, "call", loss)(tf.cast(y_true, dtype), tf.cast(y_pred, dtype), **weights)  # [N, B, ...]
    over_examples = list(range(1, values.shape.rank))
    reduction = getattr(loss, "reduction", "sum_over_batch_size")
    if sample_weight is not None:
        sample_weight = expand_like(tf.cast(sample_weight, values.dtype), values)
        values *= sample_weight
    if reduction == "sum":
        return tf.reduce_sum(values, over_examples)
    if reduction == "mean_with_sample_weight" and sample_weight is not None:
        weights = tf.reduce_sum(tf.broadcast_to(sample_weight, values.shape), over_examples)
        return tf.math.divide_no_nan(tf.reduce_sum(values, over_examples), weights)
    return tf.reduce_mean(values, over_examples)


def expand_like(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Returns values of each task, `[N]` or `[N, B]`, with axes of size one, as many as `like` `[N, ...]` has."""
    return tf.reshape(values, [*values.shape, *[1] * (like.shape.rank - values.shape.rank)])


def are_finite(structure: Any) -> tf.Tensor:
    """Returns for each task, `[N]`, whether all its numbers in a structure of tensors `[N, ...]` are finite."""
    finite = lambda values: tf.reduce_all(tf.math.is_finite(tf.reshape(values, [values.shape[0], -1])), axis=1)
    floats = [values for values in tf.nest.flatten(structure) if values.dtype.is_floating]
    return tf.reduce_all([finite(values) for values in floats], axis=0)


def count_tasks(batch: Any) -> int:
    """Returns N of `{"support": ..., "query": ...}`, after a check of its form."""
    if not isinstance(batch, dict) or not {"support", "query"} <= set(batch):
        received = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
        raise ValueError(
            "Tasks are dictionaries {'support': (x, y), 'query': (x, y), ...} of arrays [N, B, ...]; `fit` and "
            f"`evaluate` take a `tf.data.Dataset` of them. Received: {received}"
        )
    shapes = {tuple(tensor.shape) for tensor in tf.nest.flatten([batch["support"], batch["query"]])}
    sizes: set[Any] = {shape[0] if shape else None for shape in shapes}
    if len(sizes) != 1 or None in sizes or any(0 in shape for shape in shapes):
        raise ValueError(
            "All arrays of 'support' and 'query' need the same static, positive number of tasks as their first axis "
            "(batch a dataset with drop_remainder=True), and at least one example. "
            f"Received shapes: {sorted(shapes, key=str)}"
        )
    return sizes.pop()
