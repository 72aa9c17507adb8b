"""Tests of `ml3_tf.envs.mountain_car`: the environment, and that the TensorFlow form equals it."""

import math

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf.envs  # noqa: F401 - registers the environments
from ml3_tf.envs import mountain_car
from ml3_tf.envs.mountain_car import MountainCarGoalEnv, mountain_car_step, straight_through_clip

NAME = "ml3_tf/MountainCarGoal-v0"


@pytest.fixture
def env():
    return MountainCarGoalEnv()


def test_episode_starts_in_the_valley_and_lasts_35_steps():
    env = gymnasium.make(NAME)
    state, info = env.reset()
    np.testing.assert_allclose(state, [-0.55, 0.0])
    np.testing.assert_allclose(info["goal"], [0.5, 1.0375])
    ends = [env.step([0.0])[2:4] for _ in range(35)]
    assert ends == [(False, False)] * 34 + [(False, True)]


def test_one_step_by_hand(env):
    env.reset(options={"state": [-0.6, 0.3]})
    state, *_ = env.step([0.1])
    velocity = 0.3 + (-9.8 * 0.2 * math.cos(-1.8) + 0.1 / 0.2 - 0.3 * 0.3) * 0.1  # the formula of the paper's reference
    np.testing.assert_allclose(state, [-0.6 + 0.1 * velocity, velocity], rtol=1e-6)


def test_reward_is_minus_the_distance_to_the_goal(env):
    _, info = env.reset(options={"state": [-0.5, 0.2], "goal": [0.0, 0.1]})
    assert info["distance"] == pytest.approx(math.hypot(0.5, 0.1))
    state, reward, *_, info = env.step([0.2])
    assert reward == -info["distance"] == pytest.approx(-np.hypot(*(state - [0.0, 0.1])), rel=1e-5)


def test_tensorflow_form_equals_the_environment_over_1000_random_steps(env):
    generator = np.random.default_rng(0)
    step = tf.function(mountain_car_step)
    env.reset(seed=0)
    states = tf.constant([env.state])
    limits = set()
    for n in range(1000):
        if n % 50 == 0:  # from anywhere, so that every limit is met
            env.reset(options={"state": generator.uniform([-1.2, -1.5], [0.5, 1.5])})
            states = tf.constant([env.state])
        action = generator.uniform(-0.5, 0.5, size=1)  # half of them beyond the limit
        env.step(action)
        states = step(states, tf.constant([action]))
        np.testing.assert_allclose(states[0], env.state, rtol=0, atol=1e-12)
        limits |= {limit for limit in (-1.2, 0.5) if env.state[0] == limit}
        limits |= {"stopped"} if tuple(env.state) == (-1.2, 0.0) else set()
    assert limits == {-1.2, 0.5, "stopped"}


def test_speed_limit_equals_the_environment(env):
    env.reset(options={"state": [-0.1, -1.5]})
    env.step([-0.25])
    states = mountain_car_step(tf.constant([[-0.1, -1.5]], tf.float64), tf.constant([[-0.25]], tf.float64))
    np.testing.assert_allclose(states[0], env.state, atol=1e-12)
    assert env.state[1] == -1.5


def test_leading_axes_are_free():
    states, actions = tf.random.stateless_normal((2, 3, 4, 2), (0, 1)), tf.random.stateless_normal((2, 3, 4, 1), (0, 2))
    expected = mountain_car_step(tf.reshape(states, (-1, 2)), tf.reshape(actions, (-1, 1)))
    np.testing.assert_array_equal(mountain_car_step(states, actions), tf.reshape(expected, (2, 3, 4, 2)))
    assert mountain_car_step(states[0, 0, 0], actions[0, 0, 0]).shape == (2,)


def test_jacobian_equals_finite_differences():
    state, action = tf.constant([-0.5, 0.3], tf.float64), tf.constant([0.1], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch([state, action])
        result = mountain_car_step(state, action)
    jacobian = tf.concat(tape.jacobian(result, [state, action]), -1)
    for column in range(3):
        h = 1e-6 * np.eye(3)[column]
        ahead, behind = (mountain_car_step(state + s * h[:2], action + s * h[2:]) for s in (1, -1))
        np.testing.assert_allclose(jacobian[:, column], (ahead - behind) / 2e-6, atol=1e-8)


def force_gradient(action_clip):
    action = tf.constant([0.4])
    with tf.GradientTape() as tape:
        tape.watch(action)
        velocity = mountain_car_step(tf.constant([-0.5, 0.0]), action, action_clip=action_clip)[1]
    return velocity.numpy(), tape.gradient(velocity, action).numpy().item()


def test_saturated_force_has_a_gradient_only_straight_through():
    velocity, gradient = force_gradient(tf.clip_by_value)
    assert gradient == 0.0
    assert force_gradient(straight_through_clip) == (
        pytest.approx(velocity),
        pytest.approx(mountain_car.TIME_STEP / mountain_car.MASS),
    )
