"""Tests of `ml3_tf.rl.policy_gradient`: eq. 8 against closed forms and finite differences, its weights by hand."""

import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.rl.action_distributions import GaussianActions, gaussian_log_prob
from ml3_tf.rl.policy_gradient import PolicyGradient, policy_gradient_surrogate, ppo_clip_surrogate
from ml3_tf.rl.rollouts import Trajectory
from ml3_tf.rl.simulators import Simulator, simulate

GENERATOR = np.random.default_rng(0)
ESTIMATES = {
    "the paper's": {"reward_to_go": False, "baseline": None},
    "paper's, other episodes": {"reward_to_go": False, "baseline": "episodes"},
    "to go": {"baseline": None},
    "to go, other episodes": {"baseline": "episodes"},
    "to go, squares": {"baseline": "squares"},
    "to go, quadratic": {"baseline": "quadratic"},
}


def episodes(rewards, mask=None):
    """A `Trajectory` `[N, E, ...]` with these rewards."""
    rewards = np.asarray(rewards, "float32")
    observations = np.zeros((*rewards.shape[:2], rewards.shape[2] + 1, 1), "float32")
    mask = np.ones_like(rewards) if mask is None else np.asarray(mask, "float32")
    actions, goal = np.zeros((*rewards.shape, 1), "float32"), np.zeros((*rewards.shape[:2], 0), "float32")
    return Trajectory(*map(tf.constant, (observations, actions, rewards, goal, mask)))


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"baseline": None}, [[3, 2], [7, 4]]),
        ({"baseline": None, "discount": 0.5}, [[2, 2], [5, 4]]),
        ({"baseline": None, "reward_to_go": False}, [[3, 3], [7, 7]]),
        ({"baseline": "episodes"}, [[-4, -2], [4, 2]]),
        ({"baseline": "episodes", "reward_to_go": False}, [[-4, -4], [4, 4]]),
    ],
    ids=["to-go", "discounted", "whole", "other-episodes", "whole-other-episodes"],
)
def test_weights_by_hand(options, expected):
    weights = PolicyGradient(**{"normalize": False, **options}).weights(episodes([[[1, 2], [3, 4]]]))
    np.testing.assert_allclose(weights, [expected])


def test_normalized_weights_have_mean_0_and_standard_deviation_1_over_the_mask():
    mask = [[[1, 1, 1], [1, 1, 0]]]
    weights = PolicyGradient(baseline=None).weights(episodes([[[1, 2, 5], [3, 4, 0]]], mask=mask)).numpy()
    assert weights[0, 1, 2] == 0
    happened = weights[np.array(mask) == 1]
    np.testing.assert_allclose([happened.mean(), happened.std()], [0, 1], atol=1e-6)


def test_constant_rewards_have_no_weight():
    weights = PolicyGradient(baseline=None, discount=0.0).weights(episodes(np.full((2, 2, 3), -0.3)))
    np.testing.assert_array_equal(weights, np.zeros((2, 2, 3)))


def scored(actions, weights, old_log_prob=None):
    old_log_prob = tf.zeros_like(weights) if old_log_prob is None else old_log_prob
    return tf.concat([actions, tf.stack([old_log_prob, weights], -1)], -1)


def test_surrogates_by_hand():
    """The log-probability is -1/8 below the old one, so the ratio is exp(-1/8) = 0.88, or its inverse, 1.13."""
    y_pred, log_prob = tf.constant([[0.0, 1.0]]), -0.125 - 0.5 * np.log(2 * np.pi)
    y_true = tf.constant([[0.5, log_prob + 0.125, 2.0]], tf.float32)
    np.testing.assert_allclose(policy_gradient_surrogate(y_true, y_pred, GaussianActions(1)), [2 * log_prob], rtol=1e-6)
    for shift, weight, clip_range, expected in (
        (0.125, 2.0, 0.2, 2 * np.exp(-0.125)),
        (0.125, 2.0, 0.1, 2 * np.exp(-0.125)),  # the smaller of 0.88 and 0.9
        (0.125, -2.0, 0.1, -2 * 0.9),
        (-0.125, 2.0, 0.1, 2 * 1.1),
    ):
        y_true = tf.constant([[0.5, log_prob + shift, weight]], tf.float32)
        np.testing.assert_allclose(
            ppo_clip_surrogate(y_true, y_pred, GaussianActions(1), clip_range=clip_range), [expected], rtol=1e-6
        )


def test_the_clipped_surrogate_starts_with_the_slope_of_eq_8():
    """And has none where the policy has already gone as far as it may; checked in both directions."""
    actions, weights = GENERATOR.normal(size=(1, 6, 5, 2)), GENERATOR.normal(size=(1, 6, 5))
    actions, weights = (tf.constant(values, tf.float32) for values in (actions, weights))
    outputs = tf.concat([0.3 * tf.ones_like(actions), 0.7 * tf.ones_like(actions)], -1)
    log_prob = gaussian_log_prob(outputs, actions)

    def slope(loss, old_log_prob):
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            value = tf.reduce_sum(loss(scored(actions, weights, old_log_prob), outputs, GaussianActions(2)))
        return tape.gradient(value, outputs)

    plain, clipped = PolicyGradient(), PolicyGradient(clip_range=0.2)
    np.testing.assert_allclose(slope(clipped, log_prob), slope(plain, log_prob), rtol=1e-4, atol=1e-5)
    for shift, is_flat in ((0.5, weights > 0), (-0.5, weights < 0)):  # far more, and far less, likely than it was
        received = np.any(slope(clipped, log_prob - shift) != 0, -1)
        np.testing.assert_array_equal(received, ~is_flat.numpy())


@pytest.mark.parametrize("options", ESTIMATES.values(), ids=ESTIMATES.keys())
def test_the_gradient_of_a_gaussian_bandit(options):
    """Reward -(a - 1)^2, a ~ N(mu, sigma^2): J = -(mu - 1)^2 - sigma^2, dJ/dmu = -2 (mu - 1), dJ/dsigma = -2 sigma."""
    mu, sigma, number = 0.4, 0.5, 200_000
    actions = mu + sigma * np.random.default_rng(1).normal(size=(1, number, 1, 1)).astype("float32")
    loss = PolicyGradient(**options, normalize=False)
    weights = loss.weights(episodes(-((actions[..., 0] - 1) ** 2))._replace(actions=actions))
    y_pred = tf.Variable([mu, sigma])
    with tf.GradientTape() as tape:
        outputs = tf.broadcast_to(y_pred, [1, number, 1, 2])
        value = tf.reduce_mean(loss(scored(actions, weights), outputs, GaussianActions(1)))
    np.testing.assert_allclose(tape.gradient(value, y_pred), [2 * (mu - 1), 2 * sigma], atol=0.02)


WALK = Simulator(
    step=lambda states, actions: 0.9 * states + 0.3 * actions + 0.1 * tf.sin(states),
    reward=lambda states, actions, goal: -tf.square(states[..., 0] - 1.0) - 0.1 * tf.square(actions[..., 0]),
)


def gaussian(parameters):
    """A policy with mean `k s + b` and a standard deviation; each task has its own, `[N, 3]`."""

    def outputs(states):
        shape = [-1, *[1] * (states.shape.rank - 1)]
        k, b, std = (tf.reshape(column, shape) for column in tf.unstack(parameters, axis=1))
        return tf.concat([k * states + b, tf.broadcast_to(std, states.shape)], -1)

    return outputs


@pytest.mark.parametrize("options", ESTIMATES.values(), ids=ESTIMATES.keys())
def test_the_gradient_is_that_of_the_expected_return(options):
    """Against central differences of the mean return with the same noise: 40 estimates from 2,500 episodes each."""
    groups, number = 40, 2_500
    parameters = tf.repeat([[-0.5, 0.2, 0.6]], groups, 0)
    noise = tf.random.stateless_normal((groups, number, 5, 1), [0, 1])
    tasks = {"state": tf.random.stateless_normal((groups, number, 1), [0, 2]), "goal": tf.zeros((groups, number, 0))}
    roll_out = tf.function(
        lambda parameters: simulate(
            gaussian(parameters), WALK, tasks=tasks, noise=noise, distribution=GaussianActions(1)
        )
    )

    def mean_return(parameters):
        return tf.reduce_sum(roll_out(parameters).rewards) / (groups * number)

    steps = 0.01 * np.eye(3, dtype="float32")
    expected = [(mean_return(parameters + h) - mean_return(parameters - h)) / 0.02 for h in steps]
    trajectory, loss = roll_out(parameters), PolicyGradient(**options, normalize=False)
    y_true = scored(trajectory.actions, loss.weights(trajectory))
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        value = (
            tf.reduce_sum(loss(y_true, gaussian(parameters)(trajectory.observations[..., :-1, :]), GaussianActions(1)))
            / number
        )
    estimates = -tape.gradient(value, parameters).numpy()
    error = estimates.std(0) / np.sqrt(groups)
    assert (error < 0.1 * np.abs(expected)).all()  # enough samples to tell
    np.testing.assert_array_less(np.abs(estimates.mean(0) - expected), 4 * error)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"discount": 1.1}, "`discount` must lie between 0 and 1. Received: discount=1.1"),
        ({"gae_lambda": -0.1}, "`gae_lambda` must lie between 0 and 1. Received: gae_lambda=-0.1"),
        ({"baseline": "value"}, "`baseline` must be one of .* Received: baseline='value'"),
        ({"gae_lambda": 0.9, "baseline": None}, "expected a baseline in .* Received: gae_lambda=0.9"),
        ({"reward_to_go": False}, "with `reward_to_go=False`, expected .* Received: baseline='quadratic'"),
        ({"clip_range": 0.0}, "`clip_range` must be positive, or None. Received: clip_range=0.0"),
    ],
    ids=["discount", "lambda", "baseline", "lambda-without-values", "whole-with-values", "clip-range"],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PolicyGradient(**options)


def test_one_episode_has_no_other_episodes():
    with pytest.raises(ValueError, match="expected at least 2 episodes for each task. Received: 1"):
        PolicyGradient(baseline="episodes").weights(episodes(np.ones((2, 1, 3))))
