"""Tests of `ml3_tf.rl.loss_inputs`: what a loss sees, and mini-batches of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.rl.loss_inputs import mini_batches, state_action_and_return, state_and_action, with_reward_changes
from ml3_tf.rl.rollouts import Trajectory


def trajectory(num_tasks=2, num_episodes=3, horizon=4, mask=None):
    """Whose states count up, so that each time step can be told from all others."""
    shape = (num_tasks, num_episodes, horizon)
    states = np.arange(num_tasks * num_episodes * (horizon + 1), dtype="float32").reshape(*shape[:2], -1, 1)
    rewards = np.random.default_rng(0).normal(size=shape).astype("float32")
    mask = np.ones(shape, "float32") if mask is None else mask
    return Trajectory(
        *map(tf.constant, (states, 100 + np.repeat(states[:, :, :-1], 2, -1), rewards, states[:, :, 0], mask))
    )


def test_the_loss_sees_state_and_action():
    inputs = state_and_action(trajectory()).numpy()
    assert inputs.shape == (2, 3, 4, 3)
    np.testing.assert_array_equal(inputs[0, 1, 2], [7, 107, 107])


def test_the_loss_may_see_how_well_it_went():
    """The reward-to-go, with mean 0 and standard deviation 1 over the experience of each task, and 0 after its end."""
    mask = np.ones((2, 3, 4), "float32")
    mask[0, 1, 2:] = 0
    tau = trajectory(mask=mask)
    inputs = state_action_and_return(0.5)(tau).numpy()
    np.testing.assert_array_equal(inputs[..., :3], state_and_action(tau))
    to_go = np.zeros((2, 3, 5))
    for t in reversed(range(4)):
        to_go[..., t] = (tau.rewards * mask)[..., t] + 0.5 * to_go[..., t + 1]
    for task in range(2):
        happened = to_go[task, :, :-1][mask[task] == 1]
        expected = mask[task] * (to_go[task, :, :-1] - happened.mean()) / happened.std()
        np.testing.assert_allclose(inputs[task, ..., 3], expected, atol=1e-4)


def test_without_a_batch_size_all_experience_is_one_batch():
    [(x, y, sample_weight)] = mini_batches(trajectory(), state_and_action, None, None)
    assert (x.shape, y.shape, sample_weight.shape) == ((2, 12, 1), (2, 12, 3), (2, 12))


def test_mini_batches_are_an_epoch_of_each_task():
    batches = mini_batches(trajectory(), state_and_action, 5, keras.random.SeedGenerator(0))
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
    draws = [mini_batches(trajectory(), state_and_action, 4, keras.random.SeedGenerator(s))[0][0] for s in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


@pytest.mark.parametrize("batch_size", [0, 13])
def test_more_than_there_is_cannot_be_a_batch(batch_size):
    with pytest.raises(ValueError, match=f"the number of time steps of a task, 12. Received: batch_size={batch_size}"):
        mini_batches(trajectory(), state_and_action, batch_size, None)


def test_the_loss_may_see_how_rewards_change():
    """From action to action, once and twice; nothing after the end counts."""
    mask = np.ones((2, 3, 4), "float32")
    mask[0, 1, 2:] = 0
    tau = trajectory(mask=mask)
    inputs = with_reward_changes(state_and_action)(tau).numpy()
    np.testing.assert_array_equal(inputs[..., :3], state_and_action(tau))
    rewards = tau.rewards.numpy()
    expected = np.zeros((2, 3, 4, 2))
    expected[..., 1:, 0] = np.diff(rewards)
    expected[..., 2:, 1] = np.diff(rewards, 2)
    np.testing.assert_allclose(inputs[..., 3:], mask[..., np.newaxis] * expected, rtol=1e-4, atol=1e-5)


def test_a_single_action_has_no_change_of_reward():
    inputs = with_reward_changes(state_and_action)(trajectory(horizon=1))
    np.testing.assert_array_equal(inputs[..., -2:], np.zeros((2, 3, 1, 2)))
