"""What rewards are worth: returns, and advantages over what was expected.

Shape letters: N tasks, E episodes of a task, T time; `...` any leading axes.
"""

import numpy as np
import tensorflow as tf


def discounted_sums(values, discount):
    """`y_t = sum_{l >= 0} discount^l x_{t + l}`: of rewards, the reward-to-go.

    Args:
        values: `[..., T]`.
        discount: Number between 0 and 1.

    Returns:
        `[..., T]`.

    Example:

    >>> discounted_sums([1.0, 1.0, 4.0], 0.5).numpy().tolist()
    [2.5, 3.0, 4.0]
    """
    values = tf.convert_to_tensor(values)
    ahead = np.subtract.outer(np.arange(values.shape[-1]), np.arange(values.shape[-1]))  # from t (column) to t + l
    weights = np.where(ahead >= 0, float(discount) ** np.maximum(ahead, 0), 0.0)
    return tf.tensordot(values, tf.constant(weights, values.dtype), 1)


def generalized_advantages(rewards, values, discount, gae_lambda, mask=None):
    """Generalized advantage estimates: `d_t = r_t + gamma V_{t+1} - V_t`, `A_t = sum_l (gamma lambda)^l d_{t+l}`.

    Args:
        rewards: `[..., T]`.
        values: `[..., T + 1]`, V of each state. The last is what an episode that reaches the horizon is worth after it:
            0 where the horizon is part of the task.
        discount: gamma.
        gae_lambda: lambda. 1: the reward-to-go less V_t; 0: the error of one step.
        mask: Optional, `[..., T]`, as in `Trajectory`. The end of an episode before the horizon is worth 0.

    Returns:
        `[..., T]`, 0 where the mask is 0.

    Source: Schulman et al., High-dimensional continuous control using generalized advantage estimation, ICLR 2016,
    eq. 16.

    Example:

    >>> generalized_advantages([1.0, 2.0], [0.5, 1.0, 4.0], discount=0.5, gae_lambda=0.5).numpy().tolist()
    [1.75, 3.0]
    """
    rewards, values = tf.convert_to_tensor(rewards), tf.convert_to_tensor(values)
    mask = tf.ones_like(rewards) if mask is None else tf.cast(mask, rewards.dtype)
    happens_next = tf.concat([mask[..., 1:], mask[..., -1:]], -1)
    errors = mask * (rewards + discount * happens_next * values[..., 1:] - values[..., :-1])
    return mask * discounted_sums(errors, discount * gae_lambda)


def normalized(values, mask):
    """Values with mean 0 and standard deviation 1 over the experience of each task.

    Args:
        values: `[N, E, T]`.
        mask: `[N, E, T]`, as in `Trajectory`.

    Returns:
        `[N, E, T]`, 0 where the mask is 0.

    Example:

    >>> normalized(tf.constant([[[1.0, 3.0, 9.0]]]), tf.constant([[[1.0, 1.0, 0.0]]])).numpy().tolist()
    [[[-1.0, 1.0, 0.0]]]
    """
    number = tf.reduce_sum(mask, [1, 2], keepdims=True)
    centered = values - tf.reduce_sum(mask * values, [1, 2], keepdims=True) / number
    std = tf.sqrt(tf.reduce_sum(mask * tf.square(centered), [1, 2], keepdims=True) / number)
    return mask * centered / (std + 1e-8)
