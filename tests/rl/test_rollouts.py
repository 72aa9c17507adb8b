"""Tests of `ml3_tf.rl.rollouts`: the loop over time against a rollout written out, and real environments."""

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf.envs  # noqa: F401 - registers the environments
from ml3_tf.envs.mountain_car import mountain_car_step
from ml3_tf.rl.rollouts import Trajectory, concat_goal, rollout_env, rollout_model

STARTS = np.random.default_rng(0).normal(size=(3, 2, 2))
WEIGHTS = np.random.default_rng(1).normal(size=(2, 1))


def linear(weights):
    # Not `@`: XLA cannot compile the second derivative of a matmul that broadcasts.
    return lambda states: tf.tanh(tf.tensordot(states, weights, 1))


def pendulum(states, actions):
    angle, speed = states[..., :1], states[..., 1:]
    speed += 0.1 * (actions - tf.sin(angle))
    return tf.concat([angle + 0.1 * speed, speed], -1)


def written_out(policy, states, horizon):
    visited, actions = [states], []
    for _ in range(horizon):
        actions.append(policy(visited[-1]))
        visited.append(pendulum(visited[-1], actions[-1]))
    return tf.stack(visited, -2), tf.stack(actions, -2)


@pytest.mark.parametrize("horizon", [1, 2, 7, 9])
def test_a_rollout_equals_one_written_out(horizon):
    policy = linear(WEIGHTS)
    trajectory = rollout_model(policy, pendulum, STARTS, horizon=horizon)
    states, actions = written_out(policy, tf.constant(STARTS), horizon)
    assert trajectory.observations.shape == (3, 2, horizon + 1, 2)
    assert trajectory.actions.shape == (3, 2, horizon, 1)
    np.testing.assert_allclose(trajectory.observations, states, rtol=1e-12)
    np.testing.assert_allclose(trajectory.actions, actions, rtol=1e-12)
    assert (trajectory.mask.numpy() == 1).all()
    assert trajectory.goal.shape == (3, 2, 0)


def second_order(rollout, weights, starts):
    """The gradient of a step along the gradient, which goes through the loop over time twice."""
    with tf.GradientTape() as outer:
        outer.watch(weights)
        with tf.GradientTape() as inner:
            inner.watch(weights)
            cost = tf.reduce_sum(rollout(linear(weights), starts)[0] ** 2)
        moved = weights - 0.01 * inner.gradient(cost, weights)
        cost = tf.reduce_sum(rollout(linear(moved), starts)[0] ** 2)
    return cost, outer.gradient(cost, weights)


@pytest.mark.parametrize("jit_compile", [True, False], ids=["XLA", "graph"])
def test_second_order_gradients_equal_those_of_the_unrolled_graph(jit_compile):
    looped = lambda policy, starts: rollout_model(policy, pendulum, starts, horizon=7)
    expected = second_order(lambda *args: written_out(*args, 7), tf.constant(WEIGHTS), tf.constant(STARTS))
    compiled = tf.function(lambda *args: second_order(looped, *args), jit_compile=jit_compile)
    received = compiled(tf.constant(WEIGHTS), tf.constant(STARTS))
    np.testing.assert_allclose(received[0], expected[0], rtol=1e-10)
    np.testing.assert_allclose(received[1], expected[1], rtol=1e-9)


@pytest.mark.parametrize("horizon", [1, 2, 9])
@pytest.mark.parametrize("jit_compile", [None, False, True], ids=["eager", "graph", "XLA"])
def test_a_sweep_over_time_gives_the_gradient_of_the_loop(jit_compile, horizon):
    """For weights, initial states, and a variable of the dynamics."""
    damping = keras.Variable(0.3, dtype="float64")
    damped = lambda states, actions: pendulum(states, actions) * (1.0 - 0.1 * damping)

    def differentiate(weights, starts, *, swept):
        with tf.GradientTape() as tape:
            tape.watch([weights, starts])
            policy = lambda states: tf.tanh(tf.tensordot(states, weights, 1))
            trajectory = rollout_model(policy, damped, starts, horizon=horizon, weights=[weights] if swept else ())
            cost = tf.reduce_sum(trajectory.observations**2) + tf.reduce_sum(tf.sin(3.0 * trajectory.actions))
        return tape.gradient(cost, [weights, starts, damping.value])

    values = tf.constant(WEIGHTS), tf.constant(STARTS)
    function = lambda *values: differentiate(*values, swept=True)
    if jit_compile is not None:
        function = tf.function(function, jit_compile=jit_compile)
    expected = differentiate(*values, swept=False)
    assert abs(expected[2]) > 0.01
    for received, value in zip(function(*values), expected, strict=True):
        np.testing.assert_allclose(received, value, rtol=1e-12)


def test_the_graph_does_not_grow_with_the_horizon():
    def num_nodes(horizon):
        function = tf.function(
            lambda starts: rollout_model(linear(WEIGHTS), pendulum, starts, horizon=horizon).observations
        )
        graph = function.get_concrete_function(tf.constant(STARTS)).graph.as_graph_def()
        return len(graph.node) + sum(len(part.node_def) for part in graph.library.function)

    assert num_nodes(10) == num_nodes(100)


def test_rewards_see_the_state_that_an_action_led_to_and_the_goal():
    goal = np.ones((3, 2, 2))
    reward = lambda states, actions, goal: -tf.norm(states - goal, axis=-1) - actions[..., 0]
    trajectory = rollout_model(lambda states: states @ WEIGHTS, pendulum, STARTS, horizon=4, goal=goal, reward=reward)
    states, actions = trajectory.observations.numpy(), trajectory.actions.numpy()
    np.testing.assert_allclose(trajectory.rewards, -np.linalg.norm(states[..., 1:, :] - 1, axis=-1) - actions[..., 0])
    np.testing.assert_array_equal(trajectory.goal, goal)


def test_observations_and_goal_lie_side_by_side():
    observations, goal = np.arange(24.0).reshape(2, 4, 3), np.array([[100.0], [200.0]])
    trajectory = Trajectory(tf.constant(observations), tf.zeros((2, 3, 1)), tf.zeros((2, 3)), tf.constant(goal), None)
    expected = [np.insert(episode[:-1], 3, *value, axis=1) for episode, value in zip(observations, goal)]
    np.testing.assert_array_equal(concat_goal(trajectory), expected)


@pytest.mark.parametrize("horizon", [0, -1, 2.5])
def test_an_invalid_horizon_is_refused(horizon):
    with pytest.raises(ValueError, match="`horizon` must be an integer of at least 1. Received: "):
        rollout_model(lambda states: states, pendulum, STARTS, horizon=horizon)


def test_states_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"`policy` does not take observations of shape \(3, 5\). .* of width 5"):
        rollout_model(lambda states: states @ WEIGHTS, pendulum, np.zeros((3, 5)), horizon=2)


def test_dynamics_that_change_the_shape_are_refused():
    with pytest.raises(ValueError, match=r"`dynamics` must return .* \(3, 2, 2\). Received: shape \(3, 2, 3\)"):
        rollout_model(lambda s: s, lambda s, a: tf.concat([s, a[..., :1]], -1), STARTS, horizon=2)


# Real environments


@pytest.fixture
def cars():
    env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=3, vectorization_mode="sync")
    yield env
    env.close()


def push(states):
    return 0.2 * np.sign(states[:, 1:] + 1e-6)


def test_a_real_rollout_equals_that_in_the_same_model(cars):
    cars.set_attr("task", [{"state": [x, 0.1]} for x in (-0.6, -0.5, -0.4)])
    real = rollout_env(push, cars, horizon=30)
    starts = tf.constant([[-0.6, 0.1], [-0.5, 0.1], [-0.4, 0.1]], tf.float64)
    model = rollout_model(lambda states: 0.2 * tf.sign(states[:, 1:] + 1e-6), mountain_car_step, starts, horizon=30)
    assert real.observations.shape == (3, 31, 2)
    np.testing.assert_allclose(real.observations, model.observations, atol=1e-5)
    np.testing.assert_allclose(real.actions, model.actions, atol=1e-6)
    np.testing.assert_allclose(real.goal, [[0.5, 1.0375]] * 3)
    distances = np.linalg.norm(real.observations[:, 1:] - real.goal[:, np.newaxis], axis=-1)
    np.testing.assert_allclose(real.rewards, -distances, atol=1e-5)
    assert real.mask.all()


def test_nothing_of_the_next_episode_gets_in(cars):
    """An episode of the environment lasts 35 steps, and the vector then starts the next one by itself."""
    trajectory = rollout_env(push, cars, horizon=40)
    np.testing.assert_array_equal(trajectory.mask, [[1.0] * 35 + [0.0] * 5] * 3)
    np.testing.assert_array_equal(
        trajectory.observations[:, 36:], np.repeat(trajectory.observations[:, 35:36], 5, axis=1)
    )
    assert (trajectory.rewards[:, 35:] == 0).all()


def test_an_environment_that_disagrees_with_the_policy_is_refused(cars):
    with pytest.raises(ValueError, match=r"`policy` does not take observations of shape \(3, 2\). .* of width 2"):
        rollout_env(lambda states: tf.constant(states) @ tf.zeros((4, 1)), cars, horizon=5)
    with pytest.raises(ValueError, match=r"must return actions of shape \(3, 1\) .* Received: shape \(3, 2\)"):
        rollout_env(lambda states: states, cars, horizon=5)
    with pytest.raises(ValueError, match="`horizon` must be an integer of at least 1"):
        rollout_env(push, cars, horizon=0)
