"""Distributions of actions: the only place that knows how a stochastic policy acts by its outputs.

Shape letters: A action, P outputs of a policy; `...` any leading axes (tasks, episodes, time).
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ml3_tf.arguments import TensorLike, check_counts
from ml3_tf.rl.policies import GaussianPolicy, MLPPolicy

# The smallest uniform number whose logarithm is finite in float32.
SMALLEST = 1.2e-38


@dataclasses.dataclass(frozen=True)
class ActionDistribution(abc.ABC):
    """How a stochastic policy acts: what its outputs mean.

    An action is a function of outputs and noise, so that rollouts with the same noise are the same. Without noise, i.e.
    with zeros, it is the action that the policy is most likely to take.

    Args:
        size: A, width of an action.

    Raises:
        ValueError: `size` is not a positive integer.
    """

    size: int

    def __post_init__(self) -> None:
        check_counts(size=self.size)

    @abc.abstractmethod
    def noise(self, shape: Sequence[int], seeds: keras.random.SeedGenerator) -> tf.Tensor:
        """Draws the noise of actions, `[*shape, A]`, by a `SeedGenerator`."""

    @abc.abstractmethod
    def sample(self, outputs: TensorLike, noise: TensorLike) -> tf.Tensor:
        """Returns actions `[..., A]`, of the outputs of a policy `[..., P]` and noise `[..., A]`."""

    @abc.abstractmethod
    def log_prob(self, outputs: TensorLike, actions: TensorLike) -> tf.Tensor:
        """Returns the log-probability, or log-density, `[...]` of actions `[..., A]`, nats."""

    @abc.abstractmethod
    def entropy(self, outputs: TensorLike) -> tf.Tensor:
        """Returns the entropy `[...]` of the distributions with the outputs `[..., P]`, nats."""

    def no_noise(self, shape: Sequence[int]) -> tf.Tensor:
        """Returns the noise of policies that take their most likely action: zeros, `[*shape, A]`."""
        return tf.zeros((*shape, self.size))


class GaussianActions(ActionDistribution):
    """Continuous actions: the policy returns mean and standard deviation side by side, `[..., 2A]`.

    Example:

    >>> gaussian = GaussianActions(1)
    >>> gaussian.sample([[2.0, 0.5]], [[1.0]]).numpy().tolist()  # one standard deviation above the mean
    [[2.5]]
    """

    def noise(self, shape: Sequence[int], seeds: keras.random.SeedGenerator) -> tf.Tensor:
        return keras.random.normal((*shape, self.size), seed=seeds)

    def sample(self, outputs: TensorLike, noise: TensorLike) -> tf.Tensor:
        # a = mu + sigma z
        mean, std = tf.split(outputs, 2, -1)
        return mean + std * noise

    def log_prob(self, outputs: TensorLike, actions: TensorLike) -> tf.Tensor:
        return gaussian_log_prob(outputs, actions)

    def entropy(self, outputs: TensorLike) -> tf.Tensor:
        # H = sum_i (log sigma_i + (1 + log(2 pi)) / 2)
        std = tf.split(outputs, 2, -1)[1]
        return tf.reduce_sum(tf.math.log(std) + 0.5 * (1 + math.log(2 * math.pi)), -1)


class CategoricalActions(ActionDistribution):
    """Discrete actions, one-hot: the policy returns the log-probability of each, `[..., A]`.

    Example:

    >>> categorical, log_probabilities = CategoricalActions(2), tf.math.log([[0.2, 0.8]])
    >>> categorical.sample(log_probabilities, [[2.0, 0.0]]).numpy().tolist()  # log 0.2 + 2 > log 0.8
    [[1.0, 0.0]]
    """

    def noise(self, shape: Sequence[int], seeds: keras.random.SeedGenerator) -> tf.Tensor:
        # Gumbel's distribution: -log(-log u), u uniform.
        uniform = keras.random.uniform((*shape, self.size), minval=SMALLEST, seed=seeds)
        return -tf.math.log(-tf.math.log(uniform))

    def sample(self, outputs: TensorLike, noise: TensorLike) -> tf.Tensor:
        # argmax_i (log p_i + g_i) has the probabilities p, if each g_i has Gumbel's distribution.
        actions = tf.one_hot(tf.argmax(tf.add(outputs, noise), -1), self.size)
        diverged = tf.reduce_any(tf.math.is_nan(outputs), -1, keepdims=True)
        return tf.where(diverged, math.nan, actions)  # as Gaussian actions are then

    def log_prob(self, outputs: TensorLike, actions: TensorLike) -> tf.Tensor:
        return categorical_log_prob(outputs, actions)

    def entropy(self, outputs: TensorLike) -> tf.Tensor:
        # H = -sum_i p_i log p_i
        return -tf.reduce_sum(tf.exp(outputs) * outputs, -1)


def gaussian_log_prob(mean_and_std: TensorLike, actions: TensorLike) -> tf.Tensor:
    """Returns the log-density of actions, `-sum_i (z_i^2 / 2 + log sigma_i + log(2 pi) / 2)`, `z = (a - mu) / sigma`.

    Args:
        mean_and_std: `[..., 2A]`, mean and standard deviation side by side, as a `GaussianPolicy` returns them.
        actions: `[..., A]`.

    Returns:
        `[...]`, nats.

    Example:

    >>> print(gaussian_log_prob([0.0, 1.0], [0.0]).numpy().round(4))  # -log(2 pi) / 2
    -0.9189
    """
    mean, std = tf.split(mean_and_std, 2, -1)
    z = (actions - mean) / std
    return -tf.reduce_sum(0.5 * tf.square(z) + tf.math.log(std) + 0.5 * math.log(2 * math.pi), -1)


def categorical_log_prob(log_probabilities: TensorLike, actions: TensorLike) -> tf.Tensor:
    """Returns the log-probability of discrete actions, `sum_i a_i log p_i`.

    Args:
        log_probabilities: `[..., A]`, as a `CategoricalPolicy` returns them.
        actions: `[..., A]`, one-hot.

    Returns:
        `[...]`, nats.

    Example:

    >>> print(categorical_log_prob(tf.math.log([0.2, 0.8]), [0.0, 1.0]).numpy().round(4))  # log 0.8
    -0.2231
    """
    return tf.reduce_sum(tf.multiply(actions, log_probabilities), -1)


def get_action_distribution(policy: keras.Model) -> ActionDistribution:
    """Returns how a stochastic policy acts.

    Args:
        policy: Keras model `[B, O] -> [B, P]`. It is categorical if the activation of its last layer is
            `"log_softmax"`. Otherwise it is Gaussian, and returns mean and standard deviation side by side.

    Raises:
        ValueError: The policy is an `MLPPolicy`, without a distribution; it returns an odd number of columns; or
            probabilities.

    Example:

    >>> from ml3_tf.rl import CategoricalPolicy, GaussianPolicy
    >>> get_action_distribution(GaussianPolicy(4, 2)), get_action_distribution(CategoricalPolicy(4, 3))
    (GaussianActions(size=2), CategoricalActions(size=3))
    """
    width = policy.output_shape[-1]
    if is_categorical(policy):
        return CategoricalActions(width)
    size, odd = divmod(width, 2)
    if odd or isinstance(policy, MLPPolicy) or _last_activation(policy) is keras.activations.softmax:
        raise ValueError(
            "Model-free learning needs a stochastic policy. For continuous actions it returns mean and standard "
            "deviation side by side, [B, 2A]: use `GaussianPolicy`. For discrete actions it returns log-probabilities, "
            "[B, A], by the activation 'log_softmax' of its last layer: use `CategoricalPolicy`. "
            f"Received: {type(policy).__name__} with output shape {policy.output_shape}"
        )
    return GaussianActions(size)


def is_categorical(policy: keras.Model) -> bool:
    """Returns whether a policy returns log-probabilities of discrete actions, see `get_action_distribution`."""
    return _last_activation(policy) is keras.activations.log_softmax


def check_deterministic(policy: keras.Model, reason: str) -> None:
    """Raises `ValueError`, with the reason, if a policy returns a distribution and not an action."""
    if isinstance(policy, GaussianPolicy) or is_categorical(policy):
        raise ValueError(
            f"`policy` must return an action, as an `MLPPolicy` does: {reason} Received: {type(policy).__name__}, "
            "which returns a distribution. Learn by sampling: `ModelFreeTrainer`, then `meta_test_on_policy`."
        )


def _last_activation(policy: keras.Model) -> Any:
    """Returns the activation of the last layer: one of `keras.activations`, or `None`."""
    return getattr(policy.layers[-1], "activation", None) if policy.layers else None
