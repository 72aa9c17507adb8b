"""One update of PPO: its objective, the running moments of observations, and the steps of policy and value.

Shape letters: N tasks, E episodes of a task, T time, O observation, A action, P outputs of a policy, B time steps of
a task.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from ml3_tf.arguments import TensorLike
from ml3_tf.inner_loop import InnerLoop, LearnerState
from ml3_tf.learner import Parameters
from ml3_tf.rl.action_distributions import ActionDistribution
from ml3_tf.rl.loss_inputs import learning_batch
from ml3_tf.rl.policy_gradient import ppo_clip_surrogate
from ml3_tf.rl.returns import generalized_advantages, normalize
from ml3_tf.rl.rollouts import Trajectory

# Normalized observations are clipped there, as is usual: a first observation may be far from all others.
MAX_NORMALIZED = 10.0


class ClippedObjective:
    """PPO's loss of a policy: `-min(r A, clip(r, 1 - eps, 1 + eps) A) - c H`, `r = pi(a | s) / pi_old(a | s)`.

    Args:
        distribution: `ActionDistribution` of the policy.
        clip_range: eps, positive.
        entropy_weight: c, the weight of the policy's entropy H; not negative.

    Raises:
        ValueError: `clip_range` is not positive, or `entropy_weight` is negative.

    Example:

    >>> from ml3_tf.rl import GaussianActions, gaussian_log_prob
    >>> objective = ClippedObjective(GaussianActions(1), clip_range=0.2)
    >>> old, mean_and_std = gaussian_log_prob([[0.0, 1.0]], [[0.5]]), [[0.5, 1.0]]
    >>> y_true = tf.concat([[[0.5]], old[:, tf.newaxis], [[2.0]]], -1)
    >>> print(objective(y_true, tf.constant(mean_and_std)).numpy().round(4))  # the ratio is exp(1/8), below 1.2
    [-2.2663]

    References:
        Schulman et al., Proximal policy optimization algorithms, 2017, eq. 7 and 9.
    """

    def __init__(
        self, distribution: ActionDistribution, *, clip_range: float = 0.2, entropy_weight: float = 0.0
    ) -> None:
        if not clip_range > 0 or not entropy_weight >= 0:
            raise ValueError(
                "`clip_range` must be positive, and `entropy_weight` must not be negative. Received: "
                f"clip_range={clip_range}, entropy_weight={entropy_weight}"
            )
        self.distribution: ActionDistribution = distribution
        self.clip_range: float = clip_range
        self.entropy_weight: float = entropy_weight

    def __call__(self, y_true: tf.Tensor, y_pred: TensorLike) -> tf.Tensor:
        """Returns the loss of each time step.

        Args:
            y_true: `[..., A + 2]`, action, its log-probability when it was taken, and advantage.
            y_pred: `[..., P]`, the outputs of the policy.

        Returns:
            `[...]`.
        """
        surrogate = ppo_clip_surrogate(y_true, y_pred, self.distribution, clip_range=self.clip_range)
        return -surrogate - self.entropy_weight * self.distribution.entropy(y_pred)


class ObservationStatistics(NamedTuple):
    """Running moments of the observations of each task.

    Attributes:
        mean: `[N, 1, 1, O]`.
        variance: `[N, 1, 1, O]`.
        num_observations: `[N, 1, 1, 1]`, the number of observations so far.
    """

    mean: tf.Tensor
    variance: tf.Tensor
    num_observations: tf.Tensor

    @classmethod
    def start(cls, num_tasks: int, observation_size: int) -> ObservationStatistics:
        """Returns the moments before the first observation, mean 0 and variance 1."""
        shape = (num_tasks, 1, 1, observation_size)
        return cls(tf.zeros(shape), tf.ones(shape), tf.zeros((num_tasks, 1, 1, 1)))

    def normalize(self, observations: tf.Tensor) -> tf.Tensor:
        """Shifts and scales observations `[N, E, T, O]`, or `[N, E, O]` of one point in time, by the moments."""
        mean, variance, _ = self
        if observations.shape.rank == 3:
            mean, variance = mean[:, 0], variance[:, 0]
        scaled = (observations - mean) * tf.math.rsqrt(variance + 1e-8)
        return tf.clip_by_value(scaled, -MAX_NORMALIZED, MAX_NORMALIZED)

    def updated(self, trajectory: Trajectory) -> ObservationStatistics:
        """Returns the moments after the observations of one more trajectory; Chan et al., 1979, eq. 2.1."""
        mask = trajectory.mask[..., tf.newaxis]
        number = tf.reduce_sum(mask, [1, 2], keepdims=True)
        observations = trajectory.observations[..., :-1, :]
        mean = tf.reduce_sum(mask * observations, [1, 2], keepdims=True) / number
        squares = tf.reduce_sum(mask * tf.square(observations - mean), [1, 2], keepdims=True)
        total, difference = self.num_observations + number, mean - self.mean
        squares += self.variance * self.num_observations + difference**2 * self.num_observations * number / total
        return ObservationStatistics(self.mean + difference * number / total, squares / total, total)


class PPOState(NamedTuple):
    """Everything that PPO learns.

    Attributes:
        policy: `LearnerState` of the policies.
        value: `LearnerState` of their value networks.
        statistics: `ObservationStatistics`.
    """

    policy: LearnerState
    value: LearnerState
    statistics: ObservationStatistics


class PPOLearning(NamedTuple):
    """The update of PPO, as pure functions of a `PPOState`.

    Attributes:
        policy: `InnerLoop` of the policies, with `ClippedObjective`.
        value: `InnerLoop` of the value networks.
        discount: gamma.
        gae_lambda: lambda of `generalized_advantages`.
        bootstrap: Whether the last observation of an episode has a value.
        normalize_observations: Whether policy and value see normalized observations.
    """

    policy: InnerLoop
    value: InnerLoop
    discount: float
    gae_lambda: float
    bootstrap: bool
    normalize_observations: bool

    def start(self, num_tasks: int, parameters: Parameters | None) -> PPOState:
        """Returns the `PPOState` of fresh policies, or of policies with the given `Parameters`."""
        model: Any = self.policy.learner.model
        statistics = ObservationStatistics.start(num_tasks, model.input_shape[-1])
        return PPOState(self.policy.start(num_tasks, parameters), self.value.start(num_tasks), statistics)

    def predict(self, state: PPOState, observations: tf.Tensor) -> tf.Tensor:
        """Returns the outputs of the policies `[N, ..., P]` for observations `[N, ..., O]`."""
        return _predict(self.policy, state.policy, self._normalized(state, observations))

    def improve(self, state: PPOState, trajectory: Trajectory, batches: tf.Tensor) -> PPOState:
        """Takes one step of policy and value with each mini-batch.

        Args:
            state: `PPOState`.
            trajectory: `Trajectory` `[N, E, ...]` of the current policies.
            batches: `[number of steps, N, batch_size]`, indices of time steps.

        Returns:
            The new `PPOState`.
        """
        examples = self._examples(state, trajectory)

        def body(
            i: tf.Tensor, policy: LearnerState, value: LearnerState
        ) -> tuple[tf.Tensor, LearnerState, LearnerState]:
            x, scored, targets, mask = (tf.gather(values, batches[i], batch_dims=1) for values in examples)
            policy = self.policy.step(policy, lambda _: (x, scored, mask))
            return i + 1, policy, self.value.step(value, lambda _: (x, targets, mask))

        number = batches.shape[0]
        loop = (0, state.policy, state.value)
        _, policy, value = tf.while_loop(lambda i, *_: i < number, body, loop, maximum_iterations=number)
        return PPOState(policy, value, state.statistics.updated(trajectory))

    def _normalized(self, state: PPOState, observations: tf.Tensor) -> tf.Tensor:
        return state.statistics.normalize(observations) if self.normalize_observations else observations

    def _examples(self, state: PPOState, trajectory: Trajectory) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns observations, `y_true` of `ClippedObjective`, targets of the value, and mask: `[N, E * T, ...]`."""
        observations, mask = self._normalized(state, trajectory.observations), trajectory.mask
        values = _predict(self.value, state.value, observations)[..., 0]
        if not self.bootstrap:
            values = tf.concat([values[..., :-1], tf.zeros_like(values[..., -1:])], -1)
        advantages = generalized_advantages(
            trajectory.rewards, values, discount=self.discount, gae_lambda=self.gae_lambda, mask=mask
        )
        outputs = _predict(self.policy, state.policy, observations[..., :-1, :])
        log_prob = self.policy.loss.distribution.log_prob(outputs, trajectory.actions)
        columns = tf.stack([log_prob, normalize(advantages, mask), advantages + values[..., :-1]], -1)
        seen = trajectory._replace(observations=observations)
        x, y, mask = learning_batch(seen, lambda seen: tf.concat([seen.actions, columns], -1))
        return x, y[..., :-1], y[..., -1:], mask


def _predict(loop: InnerLoop, learners: LearnerState, inputs: tf.Tensor) -> tf.Tensor:
    """Returns predictions for inputs `[N, ..., O]` with any number of axes."""
    flat = tf.reshape(inputs, [inputs.shape[0], -1, inputs.shape[-1]])
    outputs = loop.predict(learners.parameters, flat)
    return tf.reshape(outputs, [*inputs.shape[:-1], outputs.shape[-1]])
