"""Tests of `ml3_tf.envs.pointmass`: the equations, and that environment and TensorFlow form are equal."""

import math

import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.envs.mountain_car import straight_through_clip
from ml3_tf.envs.pointmass import PointmassGoalEnv, pointmass_step


@pytest.fixture
def env():
    return PointmassGoalEnv()


def test_one_step_by_hand(env):
    env.reset(options={"state": [0.5, -0.5, 1.0, 0.0], "goal": [0.6, 0.5]})
    state, reward, *_ = env.step([-0.5, 2.0])  # the second is clipped to 1
    np.testing.assert_allclose(state, [0.595, -0.49, 0.95, 0.1], rtol=1e-6)
    assert reward == pytest.approx(-math.hypot(0.005, 0.99))


def test_tensorflow_form_equals_the_environment_over_1000_random_steps(env):
    generator = np.random.default_rng(0)
    step = tf.function(pointmass_step)
    met = np.zeros(4, bool)
    for n in range(1000):
        if n % 50 == 0:
            env.reset(options={"state": generator.uniform(-4, 4, 4)})
            states = tf.constant([env.state])
        action = generator.uniform(-1.5, 1.5, 2)
        env.step(action)
        states = step(states, tf.constant([action]))
        np.testing.assert_allclose(states[0], env.state, rtol=0, atol=1e-12)
        met |= np.abs(env.state) == 4
    assert np.all(met[:2])


def test_speed_limit_equals_the_environment(env):
    env.reset(options={"state": [0.0, 0.0, 4.0, -4.0]})
    env.step([1.0, -1.0])
    np.testing.assert_array_equal(env.state[2:], [4.0, -4.0])
    states = pointmass_step(tf.constant([0.0, 0.0, 4.0, -4.0], tf.float64), tf.constant([1.0, -1.0], tf.float64))
    np.testing.assert_allclose(states, env.state, atol=1e-12)


def test_every_goal_can_be_reached_and_stopped_at_within_an_episode(env):
    env.reset(options={"goal": [1.5, -1.5]})
    for t in range(25):
        state, _, _, _, info = env.step(np.sign(12.5 - t - 0.5) * np.array([1.0, -1.0]) * (1.5 / 1.56))
    assert info["distance"] < 0.02
    assert np.max(np.abs(state[2:])) < 0.11


def test_saturated_acceleration_has_a_gradient_only_straight_through():
    action = tf.constant([3.0, 0.5])
    gradients = []
    for clip in (tf.clip_by_value, straight_through_clip):
        with tf.GradientTape() as tape:
            tape.watch(action)
            speeds = pointmass_step(tf.zeros(4), action, action_clip=clip)[2:]
        gradients.append(tape.gradient(speeds, action))
    np.testing.assert_allclose(gradients, [[0.0, 0.1], [0.1, 0.1]], rtol=1e-6)


def test_leading_axes_are_free():
    states, actions = tf.random.stateless_normal((2, 3, 4), (0, 1)), tf.random.stateless_normal((2, 3, 2), (0, 2))
    expected = pointmass_step(tf.reshape(states, (6, 4)), tf.reshape(actions, (6, 2)))
    np.testing.assert_array_equal(tf.reshape(pointmass_step(states, actions), (6, 4)), expected)


def test_goals_are_drawn_from_all_of_the_plane(env):
    goals = np.array([env.reset(seed=seed)[1]["goal"] for seed in range(200)])
    assert np.all(np.min(goals, 0) < -1.4) and np.all(np.max(goals, 0) > 1.4)
