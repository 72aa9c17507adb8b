"""Tests of `ml3_tf.baselines._behavior_cloning`."""

import keras
import numpy as np
import pytest

from ml3_tf.baselines._behavior_cloning import clone

GENERATOR = np.random.default_rng(0)
STATES = GENERATOR.normal(size=(4, 25, 3)).astype("float32")
GOALS = np.broadcast_to(GENERATOR.normal(size=(4, 1, 2)), (4, 25, 2)).astype("float32")
GAINS = GENERATOR.normal(size=(3, 2)).astype("float32")


def linear_policy(width=3):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((width,)), keras.layers.Dense(2)])


def test_a_linear_expert_is_recovered():
    policy = linear_policy()
    history = clone(policy, STATES, STATES @ GAINS, optimizer=keras.optimizers.Adam(0.05), epochs=60, verbose=0)
    np.testing.assert_allclose(policy.layers[0].kernel, GAINS, atol=0.02)
    assert len(history.history["loss"]) == 60


def test_a_policy_that_sees_the_goal_serves_several():
    """The expert's action depends on the goal: without it the error that is left is the spread of the goals."""
    actions = STATES @ GAINS + GOALS
    arguments = {"epochs": 60, "verbose": 0}
    blind = clone(linear_policy(), STATES, actions, optimizer=keras.optimizers.Adam(0.05), **arguments)
    policy = linear_policy(5)
    seeing = clone(policy, STATES, actions, GOALS, keras.optimizers.Adam(0.05), **arguments)
    np.testing.assert_allclose(blind.history["loss"][-1], GOALS.var(axis=(0, 1)).mean(), rtol=0.3)
    assert seeing.history["loss"][-1] < 1e-3
    np.testing.assert_allclose(policy.layers[0].kernel[3:], np.eye(2), atol=0.02)


@pytest.mark.parametrize("axes", [(100,), (4, 25), (2, 2, 25)], ids=["examples", "episodes", "targets"])
def test_how_trajectories_are_stacked_does_not_matter(axes):
    policy = linear_policy()
    clone(policy, STATES.reshape(*axes, 3), (STATES @ GAINS).reshape(*axes, 2), shuffle=False, verbose=0)
    same = linear_policy()
    clone(same, STATES, STATES @ GAINS, shuffle=False, verbose=0)
    np.testing.assert_array_equal(policy.layers[0].kernel, same.layers[0].kernel)


@pytest.mark.parametrize(
    ("width", "states", "actions", "goals", "words"),
    [
        (3, STATES, STATES[:2] @ GAINS, None, "`states`, `actions` must have the same leading axes"),
        (5, STATES, STATES @ GAINS, GOALS[:, 0], "`states`, `actions`, `goals` must have the same leading axes"),
        (3, STATES[:0], STATES[:0] @ GAINS, None, "hold an example"),
        (3, STATES, STATES @ GAINS, GOALS, "`policy` maps 3 numbers to 2. Received: 5 numbers"),
        (5, STATES, STATES @ GAINS, None, "`policy` maps 5 numbers to 2. Received: 3 numbers"),
        (3, STATES, STATES[..., :1], None, "1 of action"),
    ],
    ids=["episodes", "a goal per episode", "nothing", "goal not seen", "goal missing", "action width"],
)
def test_what_does_not_fit_is_refused(width, states, actions, goals, words):
    policy = linear_policy(width)
    before = policy.get_weights()
    with pytest.raises(ValueError, match=words):
        clone(policy, states, actions, goals)
    for one, two in zip(before, policy.get_weights()):
        np.testing.assert_array_equal(one, two)
