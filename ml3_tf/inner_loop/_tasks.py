"""Tasks in a batch: how many, and the loss of each.

Shape letters: N tasks, B examples of a task.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ml3_tf.keras_internals import get_loss_function, get_mask
from ml3_tf.meta_loss import LossPerHead

_MEAN = "sum_over_batch_size"  # Keras's default reduction
# Losses of Keras whose targets have another shape than the predictions, by design.
_OF_OTHER_SHAPES = "sparse_categorical_crossentropy", "circle", "ctc"


def per_task_loss(
    loss: keras.losses.Loss | Callable[[Any, Any], Any] | LossPerHead,
    y_true: Any,
    y_pred: Any,
    sample_weight: Any = None,
) -> tf.Tensor:
    """Reduces the values of a loss over the examples of each task, as Keras reduces a batch.

    What Keras's layers have masked in `y_pred` is left out, as in `fit`.

    Args:
        loss: A `keras.losses.Loss`, a function `(y_true, y_pred) -> values`, or a `LossPerHead`, whose targets and
            predictions are structures.
        y_true: `[N, B, ...]`.
        y_pred: `[N, B, ...]`.
        sample_weight: Optional, `[N, B]`, or one weight for each value: `[N, B, ...]`.

    Returns:
        `[N]`.

    Raises:
        ValueError: Targets or weights that would be broadcast.
    """
    if isinstance(loss, LossPerHead):
        parts = [
            weight * per_task_loss(part, *found) for weight, part, found in loss.match(y_true, y_pred, sample_weight)
        ]
        return tf.add_n([tf.cast(part, parts[0].dtype) for part in parts])
    _check_targets(loss, y_true, y_pred)
    sample_weight = leave_out_masked(y_pred, sample_weight, reduction=getattr(loss, "reduction", _MEAN))
    dtype = getattr(loss, "dtype", y_pred.dtype)
    # The weights of a per-set loss weigh its sets, too.
    weights = {"sample_weight": sample_weight} if getattr(loss, "pools_examples", False) else {}
    values: Any = getattr(loss, "call", loss)(tf.cast(y_true, dtype), tf.cast(y_pred, dtype), **weights)  # [N, B, ...]
    over_examples = list(range(1, values.shape.rank))
    reduction = getattr(loss, "reduction", _MEAN)
    if sample_weight is not None:
        sample_weight = _expand_weights(tf.cast(sample_weight, values.dtype), values)
        values *= sample_weight
    if reduction == "sum":
        return tf.reduce_sum(values, over_examples)
    if reduction == "mean_with_sample_weight" and sample_weight is not None:
        weights = tf.reduce_sum(tf.broadcast_to(sample_weight, values.shape), over_examples)
        return tf.math.divide_no_nan(tf.reduce_sum(values, over_examples), weights)
    return tf.reduce_mean(values, over_examples)


def no_targets(loss: Any, y_pred: tf.Tensor) -> tf.Tensor:
    """Returns targets of width zero for examples without, which only a label-free loss can score."""
    if not getattr(loss, "is_label_free", False):
        raise ValueError(
            f"The loss '{getattr(loss, 'name', loss)}' needs targets: expected examples (x, y). Received: inputs "
            "alone, which are for losses whose only feature is the prediction."
        )
    return y_pred[..., :0]


def leave_out_masked(y_pred: tf.Tensor, sample_weight: Any = None, *, reduction: str | None = "sum") -> Any:
    """Merges the mask that Keras's layers have left on predictions into the sample weights, as a loss in `fit` does.

    Args:
        y_pred: `[N, B, ...]`.
        sample_weight: Optional, `[N, B]` or `[N, B, ...]`.
        reduction: How the values will be reduced. A mean is one over what is left of a task.

    Returns:
        `[N, B, ...]`; where there is no mask, the `sample_weight` as it is.
    """
    mask = get_mask(y_pred)
    if mask is None:
        return sample_weight
    weights = tf.cast(mask, y_pred.dtype)
    if reduction in ("mean", _MEAN):
        share_left = tf.reduce_mean(weights, list(range(1, weights.shape.rank)))
        weights *= expand_like(tf.math.reciprocal_no_nan(share_left), weights)
    if sample_weight is None:
        return weights
    return weights * _expand_weights(tf.cast(sample_weight, weights.dtype), weights)


def _expand_weights(sample_weight: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns weights that multiply values `[N, B, ...]` of the same rank."""
    shape, rank = list(sample_weight.shape), values.shape.rank
    if len(shape) == rank + 1 and shape[-1] == 1:  # `[batch, 1]` is `[batch]` to Keras
        shape = shape[:-1]
    fits = shape[:2] == values.shape[:2] and all(a in (1, b) for a, b in zip(shape[2:], values.shape[2:]))
    if not 1 < len(shape) <= rank or not fits:
        raise ValueError(
            "`sample_weight` needs one weight for each example, [N, B], or for each value of the loss. Received: shape "
            f"{tuple(sample_weight.shape)} for values of the shape {tuple(values.shape)}"
        )
    return tf.reshape(sample_weight, [*shape, *[1] * (rank - len(shape))])


def _check_targets(loss: Any, y_true: tf.Tensor, y_pred: tf.Tensor) -> None:
    """Raises `ValueError` where a loss would broadcast targets `[N, B, ...]` against predictions."""
    true, pred = list(y_true.shape), list(y_pred.shape)
    function = get_loss_function(loss)[0]
    name = getattr(function, "__name__", "")
    is_of_pairs = getattr(keras.losses, name, None) is function and name not in _OF_OTHER_SHAPES
    if true[:2] != pred[:2] or (is_of_pairs and true != pred and [*true, 1] != pred and true != [*pred, 1]):
        raise ValueError(
            f"The loss '{name or getattr(loss, 'name', loss)}' needs a target for each prediction. Received: targets "
            f"of the shape {tuple(true)} for predictions of the shape {tuple(pred)} (tasks, examples, ...)"
        )


def expand_like(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Returns values of each task, `[N]` or `[N, B]`, with axes of size one, as many as `like` `[N, ...]` has."""
    return tf.reshape(values, [*values.shape, *[1] * (like.shape.rank - values.shape.rank)])


def are_finite(structure: Any) -> tf.Tensor:
    """Returns for each task, `[N]`, whether all its numbers in a structure of tensors `[N, ...]` are finite."""
    finite = lambda values: tf.reduce_all(tf.math.is_finite(tf.reshape(values, [values.shape[0], -1])), axis=1)
    all_values = tf.nest.flatten(structure)
    integers = tf.fill(all_values[0].shape[:1], True)
    return tf.reduce_all([integers, *(finite(values) for values in all_values if values.dtype.is_floating)], axis=0)


def at_step(batch: Any, ages: tf.Tensor, i: Any = 0) -> Any:
    """Returns a batch whose support is the mini-batch of a step of learners; without mini-batches, as it is.

    Args:
        batch: Tasks; "minibatches" are the examples that each step takes, `[N, steps, examples]`, over and over.
        ages: The number of steps that each learner has taken, `[N]`.
        i: The number of steps since then.
    """
    if "minibatches" not in batch:
        return batch
    rows = batch["minibatches"]
    step = tf.math.floormod(ages + tf.cast(i, ages.dtype), tf.cast(tf.shape(rows)[1], ages.dtype))
    rows = tf.gather(rows, step, batch_dims=1)
    take = lambda values: tf.gather(values, rows, batch_dims=1)
    return {**batch, "support": tf.nest.map_structure(take, batch["support"])}


def count_tasks(batch: Any) -> int:
    """Returns N of `{"support": ..., "query": ...}`, after a check of its form."""
    if not isinstance(batch, dict) or not {"support", "query"} <= set(batch):
        received = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
        raise ValueError(
            "Tasks are dictionaries {'support': (x, y), 'query': (x, y), ...} of arrays [N, B, ...]; `fit` and "
            "`evaluate` take a `tf.data.Dataset` of them, `meta_test` one of them: next(iter(dataset)). Received: "
            f"{received}"
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
