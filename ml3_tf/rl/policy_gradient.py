"""The policy gradient of stochastic policies: surrogates, and their weights.

Shape letters: N tasks, E episodes of a task, T time, A action, P outputs of a policy; `...` any leading axes.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import tensorflow as tf

from ml3_tf.arguments import TensorLike
from ml3_tf.rl.action_distributions import ActionDistribution
from ml3_tf.rl.returns import discounted_sums, generalized_advantages, normalize_columns
from ml3_tf.rl.rollouts import Trajectory
from ml3_tf.rl.value_baselines import LinearFeatureBaseline, other_episodes_mean

Baseline: TypeAlias = Literal["episodes", "squares", "quadratic"] | None

BASELINES = (None, "episodes", "squares", "quadratic")
FITTED = ("squares", "quadratic")


def policy_gradient_surrogate(y_true: tf.Tensor, y_pred: TensorLike, distribution: ActionDistribution) -> tf.Tensor:
    """Returns `W log pi(a | s)`: its gradient is the policy gradient, as long as the policy is the one that acted.

    Args:
        y_true: `[..., A + 2]`, action, its log-probability when it was taken (unused), and W, e.g. an advantage.
        y_pred: `[..., P]`, the outputs of the policy.
        distribution: `ActionDistribution` of the policy.

    Returns:
        `[...]`, the objective to maximize, for each time step.

    Example:

    >>> from ml3_tf.rl import GaussianActions
    >>> y_true = tf.constant([[0.0, 0.0, 2.0]])
    >>> print(policy_gradient_surrogate(y_true, [[0.0, 1.0]], GaussianActions(1)).numpy().round(4))  # -log(2 pi)
    [-1.8379]
    """
    return y_true[..., -1] * distribution.log_prob(y_pred, y_true[..., :-2])


def ppo_clip_surrogate(
    y_true: tf.Tensor, y_pred: TensorLike, distribution: ActionDistribution, *, clip_range: float
) -> tf.Tensor:
    """Returns `min(r W, clip(r, 1 - eps, 1 + eps) W)`, `r = pi(a | s) / pi_old(a | s)`: for several steps on one batch.

    As long as the policy is the one that acted, its gradient is that of `policy_gradient_surrogate`. The gradient
    vanishes once the policy has moved so far that the experience says little about it.

    Args:
        y_true: `[..., A + 2]`, action, its log-probability when it was taken, and W, e.g. an advantage.
        y_pred: `[..., P]`, the outputs of the policy.
        distribution: `ActionDistribution` of the policy.
        clip_range: eps, positive.

    Returns:
        `[...]`, the objective to maximize, for each time step.

    References:
        Schulman et al., Proximal policy optimization algorithms, 2017, eq. 7.

    Example:

    >>> import math
    >>> from ml3_tf.rl import CategoricalActions
    >>> y_true = tf.constant([[1.0, 0.0, math.log(0.5), 2.0]])  # the first of two actions; it had the probability 0.5
    >>> now = tf.math.log([[0.55, 0.45]])
    >>> print(ppo_clip_surrogate(y_true, now, CategoricalActions(2), clip_range=0.2).numpy().round(4))  # 1.1 W
    [2.2]
    """
    actions, old_log_prob, weights = y_true[..., :-2], y_true[..., -2], y_true[..., -1]
    ratio = tf.exp(distribution.log_prob(y_pred, actions) - old_log_prob)
    return tf.minimum(ratio * weights, tf.clip_by_value(ratio, 1.0 - clip_range, 1.0 + clip_range) * weights)


class PolicyGradient:
    """The task loss of model-free meta-training: a surrogate whose gradient is that of the expected return.

    Eq. 8 of ML3: `L_T = -E[sum_t W_t log pi(a_t | s_t)]`. W is data: no gradient flows through rewards, actions or
    observations. In the paper's form W is the return of the whole episode. The other options have less noise; but for
    `discount`, `gae_lambda` and `normalize`, they have the same expected gradient.

    Args:
        discount: gamma, the factor by which a reward counts less with each step, between 0 and 1.
        gae_lambda: lambda of `generalized_advantages`. Below 1 it needs a fitted baseline, and trades noise for the
            errors of that baseline.
        reward_to_go: Whether W leaves out the rewards before `t`, which the action could not change.
        baseline: The number that is subtracted from a return. `None`: 0. `"episodes"`: the mean over the other episodes
            of the task at that time. `"quadratic"`: the value that a `LinearFeatureBaseline` predicts, fitted to all
            episodes of the batch. `"squares"`: the same without products of two columns, for observations of many
            columns.
        normalize: Whether W is shifted and scaled to mean 0 and standard deviation 1 over the batch.
        clip_range: eps of `ppo_clip_surrogate`, which then takes the place of `W log pi`. It is needed if the same
            rollouts serve several outer steps, see `outer_epochs` of `ModelFreeTrainer`. `None`: `W log pi`.

    Raises:
        ValueError: Unknown options, or options that do not fit together.

    References:
        Duan et al., Benchmarking deep reinforcement learning for continuous control, ICML 2016, section 3.1 of its
        supplement: the baseline "squares".

    Example:

    >>> rewards = tf.constant([[[1.0, 2.0], [3.0, 4.0]]])
    >>> observations, goal = tf.zeros((1, 2, 3, 1)), tf.zeros((1, 2, 0))
    >>> episodes = Trajectory(observations, tf.zeros((1, 2, 2, 1)), rewards, goal, tf.ones((1, 2, 2)))
    >>> PolicyGradient(baseline=None, normalize=False).weights(episodes).numpy().tolist()
    [[[3.0, 2.0], [7.0, 4.0]]]
    """

    def __init__(
        self,
        *,
        discount: float = 1.0,
        gae_lambda: float = 1.0,
        reward_to_go: bool = True,
        baseline: Baseline = "quadratic",
        normalize: bool = True,
        clip_range: float | None = None,
    ) -> None:
        for name, value in (("discount", discount), ("gae_lambda", gae_lambda)):
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` must lie between 0 and 1. Received: {name}={value}")
        _check_baseline(baseline, gae_lambda, reward_to_go)
        if clip_range is not None and not clip_range > 0:
            raise ValueError(f"`clip_range` must be positive, or None. Received: clip_range={clip_range!r}")
        self.discount: float = float(discount)
        self.gae_lambda: float = float(gae_lambda)
        self.reward_to_go: bool = reward_to_go
        self.baseline: Baseline = baseline
        self.normalize: bool = normalize
        self.clip_range: float | None = clip_range

    def __call__(self, y_true: tf.Tensor, y_pred: TensorLike, distribution: ActionDistribution) -> tf.Tensor:
        """Returns the loss of each time step: minus the surrogate.

        Args:
            y_true: `[..., A + 2]`, action, its log-probability when it was taken, and W.
            y_pred: `[..., P]`, the outputs of the policy.
            distribution: `ActionDistribution` of the policy.

        Returns:
            `[...]`.
        """
        if self.clip_range is None:
            return -policy_gradient_surrogate(y_true, y_pred, distribution)
        return -ppo_clip_surrogate(y_true, y_pred, distribution, clip_range=self.clip_range)

    def weights(self, trajectory: Trajectory) -> tf.Tensor:
        """Returns W, the factor of each log-probability.

        Args:
            trajectory: `Trajectory` `[N, E, ...]`.

        Returns:
            `[N, E, T]`, 0 where the mask is 0.

        Raises:
            ValueError: The baseline is "episodes", and each task has a single episode.
        """
        mask = tf.convert_to_tensor(trajectory.mask)
        rewards = trajectory.rewards * mask
        to_go = discounted_sums(rewards, self.discount)
        if self.baseline in FITTED:
            values = LinearFeatureBaseline(products=self.baseline == "quadratic").fit_predict(trajectory, to_go)
            weights = generalized_advantages(
                rewards, values, discount=self.discount, gae_lambda=self.gae_lambda, mask=mask
            )
        else:
            weights = to_go if self.reward_to_go else tf.broadcast_to(to_go[..., :1], to_go.shape)
        if self.baseline == "episodes":
            weights -= other_episodes_mean(weights)
        if self.normalize:
            columns = normalize_columns(tf.reshape(weights, [-1, 1]), tf.reshape(mask, [-1, 1]))
            weights = tf.reshape(columns, weights.shape)
        return mask * weights


def _check_baseline(baseline: Baseline, gae_lambda: float, reward_to_go: bool) -> None:
    if baseline not in BASELINES:
        raise ValueError(f"`baseline` must be one of {BASELINES}. Received: baseline={baseline!r}")
    if gae_lambda < 1 and baseline not in FITTED:
        raise ValueError(
            f"`gae_lambda` below 1 replaces late rewards by a fitted value: expected a baseline in {FITTED}. "
            f"Received: gae_lambda={gae_lambda}, baseline={baseline!r}"
        )
    if not reward_to_go and baseline in FITTED:
        raise ValueError(
            "Value functions are fitted to rewards-to-go: with `reward_to_go=False`, expected baseline='episodes' or "
            f"None. Received: baseline={baseline!r}"
        )
