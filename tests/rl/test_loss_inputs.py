"""Tests of `ml3_tf.rl.loss_inputs`: the features of a loss, and mini-batches of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf import LossInputs
from ml3_tf.rl.loss_inputs import (
    mini_batches,
    observation_and_action,
    observation_and_goal,
    with_response,
    with_return,
    with_reward_changes,
)
from ml3_tf.rl.rollouts import Trajectory

INPUTS = LossInputs(observation_and_action, {"mean_and_std": 4, "observation": 1, "action": 2})


def trajectory(num_tasks=2, num_episodes=3, horizon=4, mask=None):
    """Whose states count up, so that each time step can be told from all others."""
    shape = (num_tasks, num_episodes, horizon)
    states = np.arange(num_tasks * num_episodes * (horizon + 1), dtype="float32").reshape(*shape[:2], -1, 1)
    rewards = np.random.default_rng(0).normal(size=shape).astype("float32")
    mask = np.ones(shape, "float32") if mask is None else mask
    return Trajectory(
        *map(tf.constant, (states, 100 + np.repeat(states[:, :, :-1], 2, -1), rewards, states[:, :, 0], mask))
    )


def test_the_loss_sees_observation_and_action():
    inputs = observation_and_action(trajectory()).numpy()
    assert inputs.shape == (2, 3, 4, 3)
    np.testing.assert_array_equal(inputs[0, 1, 2], [7, 107, 107])


def test_the_loss_may_see_how_well_it_went():
    """The reward-to-go, with mean 0 and standard deviation 1 over the experience of each task, and 0 after its end."""
    mask = np.ones((2, 3, 4), "float32")
    mask[0, 1, 2:] = 0
    tau = trajectory(mask=mask)
    inputs = with_return(INPUTS, discount=0.5)(tau).numpy()
    np.testing.assert_array_equal(inputs[..., :3], observation_and_action(tau))
    to_go = np.zeros((2, 3, 5))
    for t in reversed(range(4)):
        to_go[..., t] = (tau.rewards * mask)[..., t] + 0.5 * to_go[..., t + 1]
    for task in range(2):
        happened = to_go[task, :, :-1][mask[task] == 1]
        expected = mask[task] * (to_go[task, :, :-1] - happened.mean()) / happened.std()
        np.testing.assert_allclose(inputs[task, ..., 3], expected, atol=1e-4)


def test_without_a_batch_size_all_experience_is_one_batch():
    [(x, y, sample_weight)] = mini_batches(trajectory(), observation_and_action, batch_size=None, seeds=None)
    assert (x.shape, y.shape, sample_weight.shape) == ((2, 12, 1), (2, 12, 3), (2, 12))


def test_mini_batches_are_an_epoch_of_each_task():
    batches = mini_batches(trajectory(), observation_and_action, batch_size=5, seeds=keras.random.SeedGenerator(0))
    assert len(batches) == 2  # 12 time steps: two are left out
    x, y, sample_weight = (np.concatenate(parts, axis=1) for parts in zip(*batches))
    assert sample_weight.shape == (2, 10)
    np.testing.assert_array_equal(y[..., 0], x[..., 0])
    orders = []
    for task, states in enumerate(x[..., 0]):
        assert len(set(states)) == 10
        assert set(states) <= set(trajectory().observations[task, :, :-1].numpy().ravel())
        orders.append(states - 15 * task)
    assert not np.array_equal(orders[0], orders[1])


def test_mini_batches_are_determined_by_the_seed():
    generators = map(keras.random.SeedGenerator, (0, 0, 1))
    draws = [mini_batches(trajectory(), INPUTS, batch_size=4, seeds=seeds)[0][0] for seeds in generators]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


@pytest.mark.parametrize("batch_size", [0, 13])
def test_more_than_there_is_cannot_be_a_batch(batch_size):
    with pytest.raises(ValueError, match=f"the number of time steps of a task, 12. Received: batch_size={batch_size}"):
        mini_batches(trajectory(), observation_and_action, batch_size=batch_size, seeds=None)


def test_the_loss_may_see_how_rewards_change():
    """From action to action, once and twice; nothing after the end counts."""
    mask = np.ones((2, 3, 4), "float32")
    mask[0, 1, 2:] = 0
    tau = trajectory(mask=mask)
    inputs = with_reward_changes(INPUTS)(tau).numpy()
    np.testing.assert_array_equal(inputs[..., :3], observation_and_action(tau))
    rewards = tau.rewards.numpy()
    expected = np.zeros((2, 3, 4, 2))
    expected[..., 1:, 0] = np.diff(rewards)
    expected[..., 2:, 1] = np.diff(rewards, 2)
    np.testing.assert_allclose(inputs[..., 3:], mask[..., np.newaxis] * expected, rtol=1e-4, atol=1e-5)


def test_a_single_action_has_no_change_of_reward():
    inputs = with_reward_changes(INPUTS)(trajectory(horizon=1))
    np.testing.assert_array_equal(inputs[..., -2:], np.zeros((2, 3, 1, 2)))


GAINS = np.float32([[1.0, -0.5], [0.3, 2.0]])  # of the motors of two tasks


def moved_by_motors(tau):
    """What motors of these gains do with actions, which they limit to 1."""
    return GAINS[:, np.newaxis, np.newaxis] * tf.clip_by_value(tau.actions, -1.0, 1.0)


def random_actions(horizon=20, mask=None):
    tau = trajectory(horizon=horizon, mask=mask)
    return tau._replace(actions=tf.constant(np.random.default_rng(0).normal(size=(2, 3, horizon, 2)), tf.float32))


@pytest.mark.parametrize("window", [1, 4, 100])
def test_the_loss_may_see_how_its_actions_move_the_robot(window):
    """The gains of the motors at all times, but for those after the end, which do not count."""
    mask = np.ones((2, 3, 20), "float32")
    mask[0, 1, 5:] = 0
    tau = random_actions(mask=mask)
    inputs = with_response(INPUTS, moved_by_motors, scale=(1.0, 1.0), limit=1.0, window=window)(tau).numpy()
    np.testing.assert_array_equal(inputs[..., :3], observation_and_action(tau))
    expected = mask[..., np.newaxis] * GAINS[:, np.newaxis, np.newaxis]
    np.testing.assert_allclose(inputs[..., 3:], expected, rtol=1e-4)


def test_the_response_is_the_slope_in_least_squares_over_all_episodes():
    tau = random_actions()
    motion = tf.constant(np.random.default_rng(1).normal(size=tau.actions.shape), tf.float32)
    seen = with_response(INPUTS, lambda _: motion, scale=(1.0, 1.0))(tau).numpy()[..., 3:]
    for task, joint in np.ndindex(2, 2):
        action, moved = (values.numpy()[task, ..., joint].reshape(-1, 1) for values in (tau.actions, motion))
        np.testing.assert_allclose(seen[task, ..., joint], np.linalg.lstsq(action, moved)[0].item(), rtol=1e-4)


def test_errors_of_sensors_average_out():
    """A second difference of positions, whose errors change their sign from step to step, and the same averaged."""
    tau = random_actions(horizon=65)
    errors = np.diff(np.random.default_rng(1).normal(size=(2, 3, 67, 2)), 2, axis=-2)
    noisy = lambda tau: moved_by_motors(tau) + tf.constant(errors, tf.float32)
    lacking = {
        window: np.abs(
            with_response(INPUTS, noisy, scale=(1.0, 1.0), limit=1.0, window=window)(tau)[:, 0, 0, 3:] - GAINS
        ).max()
        for window in (1, 8)
    }
    assert lacking[8] < 0.1 < 0.2 < lacking[1]


def test_without_actions_there_is_no_response():
    tau = trajectory()._replace(actions=tf.zeros((2, 3, 4, 2)))
    seen = with_response(INPUTS, lambda tau: tf.ones_like(tau.actions), scale=(1.0, 1.0))(tau)
    np.testing.assert_array_equal(seen[..., 3:], np.zeros((2, 3, 4, 2)))


def test_a_window_without_steps_is_refused():
    with pytest.raises(ValueError, match="`window` must be an integer of at least 1. Received: window=0"):
        with_response(INPUTS, moved_by_motors, scale=(1.0, 1.0), window=0)


def test_a_motion_that_would_be_broadcast_is_refused():
    one_for_all_motors = lambda tau: tf.reduce_sum(tau.actions, -1, keepdims=True)
    inputs = with_response(INPUTS, one_for_all_motors, scale=(1.0, 1.0))
    with pytest.raises(ValueError, match=r"a value for each action, \(2, 3, 20, 2\). Received: \(2, 3, 20, 1\)"):
        inputs(random_actions())


def test_the_loss_sees_observation_and_goal():
    trajectory = Trajectory(np.arange(12.0).reshape(2, 3, 2), np.zeros((2, 2, 1)), 0, np.ones((2, 1)), np.ones((2, 2)))
    expected = [[[0, 1, 1], [2, 3, 1]], [[6, 7, 1], [8, 9, 1]]]
    np.testing.assert_array_equal(observation_and_goal(trajectory._replace(goal=tf.ones((2, 1), tf.float64))), expected)


def test_features_and_scales_grow_with_the_inputs():
    scaled = LossInputs(observation_and_action, INPUTS.features, [1.0] * 5 + [2.0] * 2, "mine")
    extended = with_reward_changes(scaled, scale=(0.1, 0.2))
    assert extended.features == {**INPUTS.features, "reward_changes": 2}
    assert list(extended.scale) == [1.0] * 5 + [2.0] * 2 + [0.1, 0.2]
    assert extended.name is None
    answering = with_response(scaled, moved_by_motors, scale=(0.5, 1.0))
    assert answering.features == {**INPUTS.features, "response": 2}
    assert list(answering.scale) == [1.0] * 5 + [2.0] * 2 + [0.5, 1.0]
    plain = with_return(INPUTS, discount=1.0)
    assert (plain.features, plain.scale) == ({**INPUTS.features, "return": 1}, None)
