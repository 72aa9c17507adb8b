"""The policy gradient of Gaussian policies: log-probabilities, surrogates, baselines.

Shape letters: N tasks, E episodes of a task, T time, S state, A action, G goal; `...` any leading axes.
"""

import math

import numpy as np
import tensorflow as tf

from ml3_tf.rl.loss_inputs import state_and_goal
from ml3_tf.rl.returns import discounted_sums, generalized_advantages

BASELINES = (None, "episodes", "squares", "quadratic")
FITTED = ("squares", "quadratic")
# Ridge of the least-squares baseline, a share of the number of samples: goals and other columns that do not vary leave
# the solution undetermined without one.
RIDGE = 1e-3


def gaussian_log_prob(mean_and_std, actions):
    """Log-density of actions, `-sum_i (z_i^2 / 2 + log sigma_i + log(2 pi) / 2)`, `z = (a - mu) / sigma`.

    Args:
        mean_and_std: `[..., 2A]`, mean and standard deviation side by side, as a stochastic policy returns them.
        actions: `[..., A]`.

    Returns:
        `[...]`.

    Example:

    >>> print(gaussian_log_prob([0.0, 1.0], [0.0]).numpy().round(4))  # -log(2 pi) / 2
    -0.9189
    """
    mean, std = tf.split(mean_and_std, 2, -1)
    z = (actions - mean) / std
    return -tf.reduce_sum(0.5 * tf.square(z) + tf.math.log(std) + 0.5 * math.log(2 * math.pi), -1)


def surrogate(y_true, y_pred, clip_range=None):
    """What is climbed at each time step: `W log pi(a | s)`, or `min(r W, clip(r, 1 - eps, 1 + eps) W)`.

    `r = pi(a | s) / pi_old(a | s)`. Where the policy is still the one that acted, both have the same gradient. That of
    the second, which more than one step may climb, vanishes where the policy has gone so far that the experience says
    little about it.

    Args:
        y_true: `[..., A + 2]`, action, its log-probability when it was taken, and W, e.g. an advantage.
        y_pred: `[..., 2A]`, mean and standard deviation.
        clip_range: eps. `None`: the first.

    Returns:
        `[...]`.

    Source: Schulman et al., Proximal policy optimization algorithms, 2017, eq. 1 and 7.

    Example:

    >>> y_true = tf.constant([[0.5, 0.0, 2.0]])
    >>> y_true -= [0.0, 0.5 * math.log(2 * math.pi), 0.0]  # the log-probability of the mean: now 1/8 lower
    >>> print(surrogate(y_true, [[0.0, 1.0]], clip_range=0.2).numpy().round(4))  # W exp(-1/8)
    [1.765]
    """
    actions, old_log_prob, weights = y_true[..., :-2], y_true[..., -2], y_true[..., -1]
    log_prob = gaussian_log_prob(y_pred, actions)
    if clip_range is None:
        return weights * log_prob
    ratio = tf.exp(log_prob - old_log_prob)
    return tf.minimum(ratio * weights, tf.clip_by_value(ratio, 1.0 - clip_range, 1.0 + clip_range) * weights)


class PolicyGradient:
    """The task loss of model-free meta-training: a surrogate whose gradient is that of the expected return.

    Eq. 8 of ML3: `L_T = -E[sum_t W_t log pi(a_t | s_t)]`. W is data: no gradient flows through rewards, actions or how
    the states came about. In the paper's form W is the return of the whole episode; what the options put in its place
    has, but for `discount`, `gae_lambda` and `normalize`, the same expected gradient and less noise.

    Args:
        discount: gamma, of rewards that come later.
        gae_lambda: lambda of `generalized_advantages`. Below 1 it needs a fitted baseline, and trades noise for the
            errors of that baseline.
        reward_to_go: Whether W leaves out the rewards before `t`, which the action could not move.
        baseline: What is subtracted: `None`; `"episodes"`, the mean over the other episodes of the task at that time;
            or a value function of state, goal and time, fitted to all episodes of the batch by least squares:
            `"quadratic"`, or `"squares"`, the same without products of two columns, for states of many columns.
        normalize: Whether W is shifted and scaled to mean 0 and standard deviation 1 over the batch.
        clip_range: `None`, or the eps of `surrogate`, which takes the place of `W log pi`: needed where the
            same rollouts serve several outer steps, see `outer_epochs` of `ModelFreeTrainer`.

    Raises:
        ValueError: Options that do not exist, or do not fit together.

    Source: "squares" follows Duan et al., Benchmarking deep reinforcement learning for continuous control, ICML
    2016, section 3.1 of its supplement.

    Example:

    >>> from ml3_tf.rl.rollouts import Trajectory
    >>> rewards = tf.constant([[[1.0, 2.0], [3.0, 4.0]]])
    >>> states, goal = tf.zeros((1, 2, 3, 1)), tf.zeros((1, 2, 0))
    >>> episodes = Trajectory(states, tf.zeros((1, 2, 2, 1)), rewards, goal, tf.ones((1, 2, 2)))
    >>> PolicyGradient(baseline=None, normalize=False).weights(episodes).numpy().tolist()
    [[[3.0, 2.0], [7.0, 4.0]]]
    """

    def __init__(
        self,
        discount=1.0,
        gae_lambda=1.0,
        reward_to_go=True,
        baseline="quadratic",
        normalize=True,
        clip_range=None,
    ):
        for name, value in (("discount", discount), ("gae_lambda", gae_lambda)):
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` must lie between 0 and 1. Received: {name}={value}")
        if baseline not in BASELINES:
            raise ValueError(f"`baseline` must be one of {BASELINES}. Received: baseline={baseline!r}")
        if gae_lambda < 1 and baseline not in FITTED:
            raise ValueError(
                f"`gae_lambda` below 1 replaces late rewards by the value of a state: expected a baseline in {FITTED}. "
                f"Received: gae_lambda={gae_lambda}, baseline={baseline!r}"
            )
        if not reward_to_go and baseline in FITTED:
            raise ValueError(
                "Value functions are fitted to rewards-to-go: with `reward_to_go=False` expected baseline='episodes' "
                f"or None. Received: baseline={baseline!r}"
            )
        if clip_range is not None and not clip_range > 0:
            raise ValueError(f"`clip_range` must be positive, or None. Received: clip_range={clip_range!r}")
        self.discount, self.gae_lambda, self.reward_to_go = float(discount), float(gae_lambda), reward_to_go
        self.baseline, self.normalize, self.clip_range = baseline, normalize, clip_range

    def __call__(self, y_true, y_pred):
        """`-W log pi(a | s)` of each time step, or what `clip_range` puts in its place.

        Args:
            y_true: `[..., A + 2]`, action, its log-probability when it was taken, and W.
            y_pred: `[..., 2A]`, mean and standard deviation.

        Returns:
            `[...]`.
        """
        return -surrogate(y_true, y_pred, self.clip_range)

    def weights(self, trajectory):
        """W, the factor of each log-probability.

        Args:
            trajectory: `Trajectory` `[N, E, ...]`.

        Returns:
            `[N, E, T]`, 0 where the mask is 0.

        Raises:
            ValueError: The baseline "episodes" with one episode for each task.
        """
        mask = tf.convert_to_tensor(trajectory.mask)
        rewards = trajectory.rewards * mask
        to_go = discounted_sums(rewards, self.discount)
        if self.baseline in FITTED:
            values = fitted_values(trajectory, to_go, products=self.baseline == "quadratic")
            weights = generalized_advantages(rewards, values, self.discount, self.gae_lambda, mask)
        else:
            weights = to_go if self.reward_to_go else tf.broadcast_to(to_go[..., :1], to_go.shape)
        if self.baseline == "episodes":
            weights -= _mean_of_the_others(weights)
        return mask * (_normalized(weights, mask) if self.normalize else weights)


def fitted_values(trajectory, targets, products=True):
    """A value function that is quadratic in the columns of state and goal and cubic in time, by ridge regression.

    Args:
        trajectory: `Trajectory` `[N, E, ...]`.
        targets: `[N, E, T]`, rewards-to-go.
        products: Whether products of two columns are among the features, beside squares.

    Returns:
        `[N, E, T + 1]`, the value of each state; of the last one 0: nothing comes after the horizon.
    """
    weights, targets = tf.reshape(trajectory.mask, [-1, 1]), tf.reshape(targets, [-1, 1])
    features = _standardized(_features(trajectory, products), weights)
    features = weights * tf.concat([features, tf.ones_like(features[:, :1])], -1)
    ridge = RIDGE * features.shape[0] * tf.eye(features.shape[1], dtype=features.dtype)
    gram = tf.matmul(features, features, transpose_a=True) + ridge
    moments = tf.matmul(features, weights * targets, transpose_a=True)
    values = tf.reshape(tf.matmul(features, tf.linalg.solve(gram, moments)), trajectory.mask.shape)
    return tf.concat([values, tf.zeros_like(values[..., :1])], -1)


def _features(trajectory, products):
    """What values are linear in, `[N * E * T, F]`."""
    columns = state_and_goal(trajectory)
    first, second = np.triu_indices(columns.shape[-1]) if products else 2 * [np.arange(columns.shape[-1])]
    squares = tf.gather(columns, first, axis=-1) * tf.gather(columns, second, axis=-1)
    time = tf.linspace(0.0, 1.0, columns.shape[-2] + 1)[:-1, tf.newaxis]
    time = tf.broadcast_to(tf.cast(time, columns.dtype), [*columns.shape[:-1], 1])
    features = tf.concat([columns, squares, time, time**2, time**3], -1)
    return tf.reshape(features, [-1, features.shape[-1]])


def _standardized(columns, weights):
    """Columns `[B, F]` with mean 0 and standard deviation 1; those that do not vary become 0."""
    mean = tf.reduce_sum(weights * columns, 0) / tf.reduce_sum(weights)
    centered = columns - mean
    variance = tf.reduce_sum(weights * tf.square(centered), 0) / tf.reduce_sum(weights)
    is_constant = variance <= 1e-8 * (1.0 + tf.square(mean))  # but for the rounding of float32; NaN stays NaN
    return tf.where(is_constant, 0.0, centered * tf.math.rsqrt(tf.where(is_constant, 1.0, variance)))


def _normalized(weights, mask):
    return tf.reshape(_standardized(tf.reshape(weights, [-1, 1]), tf.reshape(mask, [-1, 1])), weights.shape)


def _mean_of_the_others(values):
    """Of the other episodes of the same task: an own reward would take its own part away from the gradient."""
    num_episodes = values.shape[1]
    if num_episodes < 2:
        raise ValueError(
            "baseline='episodes' is the mean of a task's other episodes: expected at least 2 episodes for each task. "
            f"Received: {num_episodes}. Use baseline='quadratic' or None."
        )
    return (tf.reduce_sum(values, 1, keepdims=True) - values) / (num_episodes - 1)
