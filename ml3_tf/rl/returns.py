"""Returns of rewards, advantages over the expected return, and their normalization.

Shape letters: N tasks, E episodes of a task, T time, B examples, F columns; `...` any leading axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ml3_tf.arguments import TensorLike


def discounted_sums(values: TensorLike, discount: float) -> tf.Tensor:
    """Returns `y_t = sum_{l >= 0} discount^l x_{t + l}`: for rewards x, this is the reward-to-go.

    Args:
        values: x, `[..., T]`.
        discount: Number between 0 and 1.

    Returns:
        `[..., T]`, in the unit of `values`.

    Example:

    >>> discounted_sums([1.0, 1.0, 4.0], 0.5).numpy().tolist()
    [2.5, 3.0, 4.0]
    """
    values = tf.convert_to_tensor(values)
    ahead = np.subtract.outer(np.arange(values.shape[-1]), np.arange(values.shape[-1]))  # from t (column) to t + l
    weights = np.where(ahead >= 0, float(discount) ** np.maximum(ahead, 0), 0.0)
    return tf.tensordot(values, tf.constant(weights, values.dtype), 1)


def generalized_advantages(
    rewards: TensorLike, values: TensorLike, *, discount: float, gae_lambda: float, mask: TensorLike | None = None
) -> tf.Tensor:
    """Returns generalized advantage estimates, `A_t = sum_l (gamma lambda)^l d_{t+l}`.

    `d_t = r_t + gamma V_{t+1} - V_t` is the error of one step.

    Args:
        rewards: r, `[..., T]`.
        values: V of each observation, `[..., T + 1]`. The last is the value after an episode that reaches the horizon:
            0 where the horizon is part of the task.
        discount: gamma, between 0 and 1.
        gae_lambda: lambda, between 0 and 1. 1: the reward-to-go minus V_t; 0: the error of one step.
        mask: Optional, `[..., T]`, as in `Trajectory`. An episode that ends before the horizon has the value 0 after
            its end.

    Returns:
        `[..., T]`, in the unit of the rewards; 0 where the mask is 0.

    References:
        Schulman et al., High-dimensional continuous control using generalized advantage estimation, ICLR 2016, eq. 16.

    Example:

    >>> generalized_advantages([1.0, 2.0], [0.5, 1.0, 4.0], discount=0.5, gae_lambda=0.5).numpy().tolist()
    [1.75, 3.0]
    """
    r: Any = tf.convert_to_tensor(rewards)
    v: Any = tf.convert_to_tensor(values)
    happens: Any = tf.ones_like(r) if mask is None else tf.cast(mask, r.dtype)
    happens_next = tf.concat([happens[..., 1:], happens[..., -1:]], -1)
    errors = happens * (r + discount * happens_next * v[..., 1:] - v[..., :-1])
    return happens * discounted_sums(errors, discount * gae_lambda)


def normalize(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Shifts and scales the values of each task to mean 0 and standard deviation 1.

    Args:
        values: `[N, E, T]`.
        mask: `[N, E, T]`, as in `Trajectory`: only values where it is 1 count.

    Returns:
        `[N, E, T]`, 0 where the mask is 0.

    Example:

    >>> normalize(tf.constant([[[1.0, 3.0, 9.0]]]), tf.constant([[[1.0, 1.0, 0.0]]])).numpy().tolist()
    [[[-1.0, 1.0, 0.0]]]
    """
    number = tf.reduce_sum(mask, [1, 2], keepdims=True)
    centered = values - tf.reduce_sum(mask * values, [1, 2], keepdims=True) / number
    std = tf.sqrt(tf.reduce_sum(mask * tf.square(centered), [1, 2], keepdims=True) / number)
    return mask * centered / (std + 1e-8)


def normalize_columns(columns: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Shifts and scales each column to mean 0 and standard deviation 1; a constant column becomes 0.

    Args:
        columns: `[B, F]`.
        weights: `[B, 1]`, the weight of each row in mean and standard deviation.

    Returns:
        `[B, F]`.

    Example:

    >>> normalize_columns(tf.constant([[1.0, 2.0], [1.0, 4.0]]), tf.ones((2, 1))).numpy().tolist()
    [[0.0, -1.0], [0.0, 1.0]]
    """
    mean = tf.reduce_sum(weights * columns, 0) / tf.reduce_sum(weights)
    centered = columns - mean
    variance = tf.reduce_sum(weights * tf.square(centered), 0) / tf.reduce_sum(weights)
    is_constant = variance <= 1e-8 * (1.0 + tf.square(mean))  # up to the rounding of float32; NaN stays NaN
    return tf.where(is_constant, 0.0, centered * tf.math.rsqrt(tf.where(is_constant, 1.0, variance)))
