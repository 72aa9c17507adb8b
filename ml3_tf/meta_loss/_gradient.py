"""The value and the gradient of a loss as arrays, by TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from keras import ops

if TYPE_CHECKING:
    from ml3_tf.arguments import TensorLike
    from ml3_tf.meta_loss._meta_loss import MetaLoss


def value_and_gradient(loss: MetaLoss, y_true: TensorLike, y_pred: TensorLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `MetaLoss.value_and_gradient` returns, and imports TensorFlow for it."""
    import tensorflow as tf

    y_true, y_pred = (tf.convert_to_tensor(values, dtype=loss.dtype) for values in (y_true, y_pred))
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = loss.call(y_true, y_pred)
    gradient = tape.gradient(value, y_pred, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return cast(Any, (ops.convert_to_numpy(value), ops.convert_to_numpy(gradient)))
