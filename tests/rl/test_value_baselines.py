"""Tests of `ml3_tf.rl.value_baselines`: values of a known form, and means by hand."""

import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.rl.rollouts import Trajectory
from ml3_tf.rl.value_baselines import LinearFeatureBaseline, other_episodes_mean

GENERATOR = np.random.default_rng(0)


def make_trajectory(observations, goal=None, mask=None):
    shape = (*observations.shape[:2], observations.shape[2] - 1)
    goal = np.zeros((*shape[:2], 0)) if goal is None else goal
    parts = observations, np.zeros((*shape, 1)), np.zeros(shape), goal, np.ones(shape) if mask is None else mask
    return Trajectory(*(tf.constant(part, tf.float32) for part in parts))


@pytest.mark.parametrize("products", [True, False], ids=["quadratic", "squares"])
def test_a_value_of_its_form_is_found(products):
    observations = GENERATOR.normal(size=(4, 20, 6, 2))
    x, y = observations[..., :-1, 0], observations[..., :-1, 1]
    returns = (1 + 2 * x - 3 * y**2 + np.linspace(0, 1, 5) + (3 * x * y if products else 0)).astype("float32")
    values = LinearFeatureBaseline(products=products).fit_predict(make_trajectory(observations), returns)
    np.testing.assert_allclose(values[..., :-1], returns, atol=0.05)
    np.testing.assert_array_equal(values[..., -1], np.zeros((4, 20)))


def test_squares_know_no_products():
    observations = GENERATOR.normal(size=(4, 20, 6, 2))
    returns = (3 * observations[..., :-1, 0] * observations[..., :-1, 1]).astype("float32")
    values = LinearFeatureBaseline(products=False).fit_predict(make_trajectory(observations), returns)
    assert np.sqrt(np.mean((values[..., :-1] - returns) ** 2)) > 1


def test_the_goal_is_among_the_features():
    observations, goal = GENERATOR.normal(size=(4, 20, 6, 1)), GENERATOR.normal(size=(4, 20, 1))
    returns = ((observations[..., :-1, 0] - goal) ** 2).astype("float32")
    values = LinearFeatureBaseline().fit_predict(make_trajectory(observations, goal), returns)
    np.testing.assert_allclose(values[..., :-1], returns, atol=0.05)


def test_returns_after_the_end_of_an_episode_do_not_count():
    observations, mask = GENERATOR.normal(size=(1, 20, 6, 1)), np.ones((1, 20, 5))
    mask[:, ::2, 3:] = 0
    returns = observations[..., :-1, 0].astype("float32")
    spoiled = np.where(mask == 1, returns, 1000.0).astype("float32")
    values = LinearFeatureBaseline().fit_predict(make_trajectory(observations, mask=mask), spoiled)
    np.testing.assert_allclose(values[..., :-1] * mask, returns * mask, atol=0.05)


def test_the_mean_of_the_other_episodes_by_hand():
    returns = tf.constant([[[1.0, 2.0], [3.0, 4.0], [8.0, 0.0]]])
    np.testing.assert_allclose(other_episodes_mean(returns), [[[5.5, 2.0], [4.5, 1.0], [2.0, 3.0]]])


def test_one_episode_has_no_others():
    with pytest.raises(ValueError, match="expected at least 2 episodes for each task. Received: 1"):
        other_episodes_mean(tf.ones((2, 1, 3)))
