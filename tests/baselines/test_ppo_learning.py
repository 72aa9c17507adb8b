"""Tests of `ml3_tf.baselines._ppo_learning`: the objective and the moments of observations, by hand."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions

from ml3_tf.baselines import ClippedObjective
from ml3_tf.baselines._ppo_learning import MAX_NORMALIZED, ObservationStatistics
from ml3_tf.rl import GaussianActions, Trajectory, gaussian_log_prob

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "moves"),
    [(1.1, 2.0, -2.2, True), (1.5, 2.0, -2.4, False), (0.5, 2.0, -1.0, True), (0.5, -2.0, 1.6, False)],
    ids=["within", "above, rising", "below, rising", "below, falling"],
)
def test_the_objective_by_hand(ratio, advantage, expected, moves):
    """With eps = 0.2; beyond it, a step further away has no gradient."""
    y_pred, actions = tf.constant([[0.1, -0.2, 0.5, 0.6]]), tf.constant([[0.3, 0.4]])
    old = gaussian_log_prob(y_pred, actions) - np.log(ratio)
    y_true = tf.concat([actions, old[:, tf.newaxis], [[advantage]]], -1)
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        loss = ClippedObjective(GaussianActions(2), clip_range=0.2)(y_true, y_pred)
    np.testing.assert_allclose(loss, [expected], rtol=1e-5)
    assert (np.abs(tape.gradient(loss, y_pred)).max() > 0) == moves


def test_the_entropy_counts_by_its_weight():
    std = np.array([[0.5, 0.6], [1.0, 2.0]])
    y_pred, y_true = tf.constant(np.concatenate([np.zeros((2, 2)), std], 1)), tf.zeros((2, 4), tf.float64)
    losses = [
        ClippedObjective(GaussianActions(2), entropy_weight=weight)(y_true, y_pred).numpy() for weight in (0.0, 0.1)
    ]
    entropies = distributions.MultivariateNormalDiag(np.zeros((2, 2)), std).entropy()
    np.testing.assert_allclose(losses[1] - losses[0], -0.1 * entropies)


def test_running_moments_are_those_of_all_observations():
    """The mask leaves out observations after the end of an episode."""
    observations = GENERATOR.normal(3, 2, size=(2, 2, 5, 7, 3)).astype("float32")
    mask = np.ones((2, 2, 5, 6), "float32")
    mask[1, 0, 1, 4:] = 0
    statistics = ObservationStatistics.start(num_tasks=2, observation_size=3)
    for rollouts in range(2):
        trajectory = Trajectory(observations[rollouts], None, None, None, tf.constant(mask[rollouts]))
        statistics = statistics.updated(trajectory)
    for task in range(2):
        happened = observations[:, task, :, :-1][mask[:, task] == 1]
        np.testing.assert_allclose(statistics.mean[task, 0, 0], happened.mean(0), rtol=1e-5)
        np.testing.assert_allclose(statistics.variance[task, 0, 0], happened.var(0), rtol=1e-4)
        assert statistics.num_observations[task, 0, 0, 0] == len(happened)


def test_normalized_observations_have_the_moments_taken_out():
    statistics = ObservationStatistics(tf.fill((2, 1, 1, 3), 4.0), tf.fill((2, 1, 1, 3), 9.0), tf.ones((2, 1, 1, 1)))
    for shape in [(2, 5, 3), (2, 5, 7, 3)]:  # of one point in time, and of a trajectory
        np.testing.assert_allclose(statistics.normalize(tf.fill(shape, 10.0)), np.full(shape, 2.0), rtol=1e-6)
    far = statistics.normalize(tf.fill((2, 5, 3), -1e6))
    np.testing.assert_array_equal(far, np.full(far.shape, -MAX_NORMALIZED))


@pytest.mark.parametrize("values", [{"clip_range": 0.0}, {"entropy_weight": -1.0}], ids=["clip", "entropy"])
def test_numbers_out_of_range_are_refused(values):
    [(name, value)] = values.items()
    words = f"`clip_range` must be positive, and `entropy_weight` must not be negative. Received: .*{name}={value}"
    with pytest.raises(ValueError, match=words):
        ClippedObjective(GaussianActions(2), **values)
