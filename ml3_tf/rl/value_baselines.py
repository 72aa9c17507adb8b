"""Baselines of the policy gradient: the return to expect, which is subtracted from the return of an episode.

Shape letters: N tasks, E episodes of a task, T time, F features; `...` any leading axes.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from ml3_tf.arguments import TensorLike
from ml3_tf.rl.returns import normalize_columns
from ml3_tf.rl.rollouts import Trajectory, concat_goal

# Ridge of the least squares, as a share of the number of samples. Goals and other columns that do not vary leave the
# solution undetermined without one.
RIDGE = 1e-3


@dataclasses.dataclass(frozen=True)
class LinearFeatureBaseline:
    """A value function that is linear in features of observation, goal and time, fitted by ridge regression.

    The features are the columns of observation and goal, their squares, and time up to its third power.

    Args:
        products: Whether products of two columns are features too. They make the value quadratic, but their number
            grows with the square of the number of columns.

    References:
        Duan et al., Benchmarking deep reinforcement learning for continuous control, ICML 2016, section 3.1 of its
        supplement: `products=False`.

    Example:

    >>> observations, goal = tf.random.stateless_normal((1, 50, 3, 2), [0, 0]), tf.zeros((1, 50, 0))
    >>> trajectory = Trajectory(observations, tf.zeros((1, 50, 2, 1)), tf.zeros((1, 50, 2)), goal, tf.ones((1, 50, 2)))
    >>> squared_distance = tf.reduce_sum(observations**2, -1)[..., :-1]
    >>> values = LinearFeatureBaseline().fit_predict(trajectory, squared_distance)
    >>> bool(tf.reduce_max(tf.abs(values[..., :-1] - squared_distance)) < 0.1)
    True
    """

    products: bool = True

    def fit_predict(self, trajectory: Trajectory, returns: TensorLike) -> tf.Tensor:
        """Fits the value function to all episodes of the batch, and returns the value of each observation.

        Args:
            trajectory: `Trajectory` `[N, E, ...]`.
            returns: `[N, E, T]`, rewards-to-go.

        Returns:
            `[N, E, T + 1]`, in the unit of the returns. The last value is 0: nothing comes after the horizon.
        """
        weights, returns = tf.reshape(trajectory.mask, [-1, 1]), tf.reshape(returns, [-1, 1])
        features = normalize_columns(self._features(trajectory), weights)
        features = weights * tf.concat([features, tf.ones_like(features[:, :1])], -1)
        ridge = RIDGE * features.shape[0] * tf.eye(features.shape[1], dtype=features.dtype)
        gram = tf.matmul(features, features, transpose_a=True) + ridge
        moments = tf.matmul(features, weights * returns, transpose_a=True)
        values = tf.reshape(tf.matmul(features, tf.linalg.solve(gram, moments)), trajectory.mask.shape)
        return tf.concat([values, tf.zeros_like(values[..., :1])], -1)

    def _features(self, trajectory: Trajectory) -> tf.Tensor:
        """The features of each time step, `[N * E * T, F]`."""
        columns = concat_goal(trajectory)
        width = columns.shape[-1]
        first, second = np.triu_indices(width) if self.products else 2 * [np.arange(width)]
        squares = tf.gather(columns, first, axis=-1) * tf.gather(columns, second, axis=-1)
        time = tf.linspace(0.0, 1.0, columns.shape[-2] + 1)[:-1, tf.newaxis]
        time = tf.broadcast_to(tf.cast(time, columns.dtype), [*columns.shape[:-1], 1])
        features = tf.concat([columns, squares, time, time**2, time**3], -1)
        return tf.reshape(features, [-1, features.shape[-1]])


def other_episodes_mean(returns: tf.Tensor) -> tf.Tensor:
    """Returns the mean over the other episodes of the same task, at each time.

    The own episode is left out: a mean that holds the own reward would take its part away from the gradient.

    Args:
        returns: `[N, E, T]`.

    Returns:
        `[N, E, T]`, in the unit of the returns.

    Raises:
        ValueError: A task has a single episode.

    Example:

    >>> other_episodes_mean(tf.constant([[[1.0], [3.0], [8.0]]])).numpy().tolist()
    [[[5.5], [4.5], [2.0]]]
    """
    num_episodes = returns.shape[1]
    if num_episodes < 2:
        raise ValueError(
            "baseline='episodes' is the mean of a task's other episodes: expected at least 2 episodes for each task. "
            f"Received: {num_episodes}. Use baseline='quadratic' or None."
        )
    return (tf.reduce_sum(returns, 1, keepdims=True) - returns) / (num_episodes - 1)
