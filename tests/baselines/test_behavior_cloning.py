"""Tests of `ml3_tf.baselines._behavior_cloning`."""

import keras
import numpy as np
import pytest

from ml3_tf.baselines import behavior_cloning
from ml3_tf.rl import CategoricalPolicy

GENERATOR = np.random.default_rng(0)
OBSERVATIONS = GENERATOR.normal(size=(4, 25, 3)).astype("float32")
GOALS = np.broadcast_to(GENERATOR.normal(size=(4, 1, 2)), (4, 25, 2)).astype("float32")
GAINS = GENERATOR.normal(size=(3, 2)).astype("float32")
ACTIONS = OBSERVATIONS @ GAINS


def linear_policy(width=3):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((width,)), keras.layers.Dense(2)])


def test_a_linear_expert_is_recovered():
    policy = linear_policy()
    optimizer = keras.optimizers.Adam(0.05)
    history = behavior_cloning(policy, OBSERVATIONS, ACTIONS, optimizer=optimizer, epochs=60, verbose=0)
    np.testing.assert_allclose(policy.layers[0].kernel, GAINS, atol=0.02)
    assert len(history.history["loss"]) == 60


def test_a_policy_that_sees_the_goal_serves_several():
    """The expert's action depends on the goal: a policy without it is wrong by the spread of the goals."""
    actions, common = ACTIONS + GOALS, {"epochs": 60, "verbose": 0}
    optimizer = keras.optimizers.Adam(0.05)
    blind = behavior_cloning(linear_policy(), OBSERVATIONS, actions, optimizer=optimizer, **common)
    policy = linear_policy(5)
    optimizer = keras.optimizers.Adam(0.05)
    seeing = behavior_cloning(policy, OBSERVATIONS, actions, goals=GOALS, optimizer=optimizer, **common)
    np.testing.assert_allclose(blind.history["loss"][-1], GOALS.var(axis=(0, 1)).mean(), rtol=0.3)
    assert seeing.history["loss"][-1] < 1e-3
    np.testing.assert_allclose(policy.layers[0].kernel[3:], np.eye(2), atol=0.02)


def test_the_choices_of_an_expert_are_recovered():
    """The loss is minus the mean log-probability of the expert's choices: log 2 at first, where both are as likely."""
    choices = np.eye(2, dtype="float32")[(OBSERVATIONS @ GAINS[:, 0] > 0).astype(int)]
    keras.utils.set_random_seed(0)
    policy = CategoricalPolicy(3, 2, hidden_units=(), output_initializer="zeros")
    optimizer = keras.optimizers.Adam(0.1)
    history = behavior_cloning(policy, OBSERVATIONS, choices, optimizer=optimizer, epochs=60, batch_size=100, verbose=0)
    np.testing.assert_allclose(history.history["loss"][0], np.log(2), rtol=1e-5)
    agree = np.mean(policy.mode(OBSERVATIONS.reshape(-1, 3)) == choices.reshape(-1, 2))
    assert agree > 0.95 and history.history["loss"][-1] < 0.3


@pytest.mark.parametrize("axes", [(100,), (4, 25), (2, 2, 25)], ids=["examples", "episodes", "targets"])
def test_leading_axes_do_not_matter(axes):
    policy = linear_policy()
    behavior_cloning(policy, OBSERVATIONS.reshape(*axes, 3), ACTIONS.reshape(*axes, 2), shuffle=False, verbose=0)
    same = linear_policy()
    behavior_cloning(same, OBSERVATIONS, ACTIONS, shuffle=False, verbose=0)
    np.testing.assert_array_equal(policy.layers[0].kernel, same.layers[0].kernel)


@pytest.mark.parametrize(
    ("width", "observations", "actions", "goals", "words"),
    [
        (3, OBSERVATIONS, ACTIONS[:2], None, "`observations`, `actions` must have the same leading axes"),
        (5, OBSERVATIONS, ACTIONS, GOALS[:, 0], "`actions`, `goals` must have the same leading axes"),
        (3, OBSERVATIONS[:0], ACTIONS[:0], None, "hold at least one example"),
        (3, OBSERVATIONS, ACTIONS, GOALS, r"map 5 numbers \(observation and goal\).* that maps 3 numbers to 2"),
        (5, OBSERVATIONS, ACTIONS, None, r"map 3 numbers \(observation, without `goals`\).* that maps 5 numbers to 2"),
        (3, OBSERVATIONS, ACTIONS[..., :1], None, r"to 1 \(action\). Received"),
    ],
    ids=["episodes", "a goal per episode", "nothing", "policy without goal", "no goals", "action width"],
)
def test_arrays_that_do_not_fit_are_refused(width, observations, actions, goals, words):
    policy = linear_policy(width)
    before = policy.get_weights()
    with pytest.raises(ValueError, match=words):
        behavior_cloning(policy, observations, actions, goals=goals)
    for one, two in zip(before, policy.get_weights()):
        np.testing.assert_array_equal(one, two)
