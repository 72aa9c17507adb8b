"""Tests of `ml3_tf.rl.policies`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.learner import Learner
from ml3_tf.rl.policies import GaussianPolicy, Squash

STATES = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")


def make_policy(**arguments):
    keras.utils.set_random_seed(0)
    return GaussianPolicy(3, 2, hidden_units=(8,), **arguments)


def test_a_deterministic_policy_gives_its_action():
    policy = make_policy()
    assert policy(STATES).shape == (6, 2)
    np.testing.assert_array_equal(policy(STATES), policy.mean(STATES))
    assert not any("log_std" in variable.path for variable in policy.trainable_variables)


@pytest.mark.parametrize("state_dependent", [False, True], ids=["constant", "state-dependent"])
def test_mean_and_standard_deviation_lie_side_by_side(state_dependent):
    policy = make_policy(std=0.3, state_dependent_std=state_dependent)
    outputs = policy(STATES).numpy()
    np.testing.assert_array_equal(outputs[:, :2], policy.mean(STATES))
    np.testing.assert_allclose(outputs[:, 2:], 0.3, rtol=1e-6)
    assert policy.distribution(STATES).log_prob(policy.mean(STATES)).shape == (6,)


@pytest.mark.parametrize("state_dependent", [False, True], ids=["constant", "state-dependent"])
def test_stochastic_policies_are_vectorized_over_tasks(state_dependent):
    """Laid out task by task, 16 of them take XLA half a minute instead of six seconds."""
    learner = Learner(lambda: make_policy(std=0.3, state_dependent_std=state_dependent), seed=0)
    assert learner.is_vectorized(tf.zeros((4, 6, 3)))


def test_a_standard_deviation_may_be_fixed():
    policy = make_policy(std=0.3, learn_std=False)
    assert not any("log_std" in variable.path for variable in policy.trainable_variables)
    policy.compile(keras.optimizers.SGD(0.1), loss="mse")
    policy.fit(STATES, np.ones((6, 4)), verbose=0)
    np.testing.assert_allclose(policy(STATES)[:, 2:], 0.3, rtol=1e-6)
    copy = GaussianPolicy.from_config(policy.get_config())
    assert len(copy.trainable_variables) == len(policy.trainable_variables)


def test_the_standard_deviation_depends_on_the_state_once_it_is_trained():
    policy = make_policy(std=0.3, state_dependent_std=True)
    policy.get_layer("log_std").kernel.assign(np.ones((8, 2)))
    assert np.ptp(policy(STATES).numpy()[:, 2:]) > 0.01


def test_the_distribution_is_that_of_the_closed_form():
    policy = make_policy(std=0.5)
    actions = np.random.default_rng(1).normal(size=(6, 2)).astype("float32")
    mean = policy.mean(STATES).numpy()
    expected = np.sum(-0.5 * ((actions - mean) / 0.5) ** 2 - np.log(0.5 * np.sqrt(2 * np.pi)), axis=1)
    np.testing.assert_allclose(policy.distribution(STATES).log_prob(actions), expected, rtol=1e-5)


def test_samples_are_determined_by_their_seed():
    distribution = make_policy(std=0.5).distribution(STATES)
    samples = [distribution.sample(seed=[1, seed]).numpy() for seed in (0, 0, 1)]
    np.testing.assert_array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])


def test_actions_stay_within_their_limits_and_keep_their_gradients():
    z = tf.constant([[-10.0, 10.0]])
    with tf.GradientTape() as tape:
        tape.watch(z)
        actions = Squash([0.25, 2.0])(z)
    assert (np.abs(actions) < [0.25, 2.0]).all()
    # The slope limit / (1 + z^2)^(3/2); that of tanh(10) is 8e-9.
    np.testing.assert_allclose(tape.gradient(actions, z), [[0.25 / 101**1.5, 2 / 101**1.5]], rtol=1e-4)


def test_a_fresh_policy_acts_near_the_middle():
    policy = make_policy(action_limit=0.25)
    assert np.abs(policy(STATES)).max() < 0.05
    policy.set_weights([100 * weights for weights in policy.get_weights()])
    assert 0.1 < np.abs(policy(STATES)).max() <= 0.25


def test_states_are_scaled():
    scaled, plain = make_policy(state_scale=[1.0, 2.0, 4.0]), make_policy()
    np.testing.assert_allclose(scaled(STATES * [1.0, 2.0, 4.0]), plain(STATES), rtol=1e-5)


@pytest.mark.parametrize("state_dependent", [False, True], ids=["constant", "state-dependent"])
def test_it_saves_and_loads(tmp_path, state_dependent):
    policy = make_policy(
        action_limit=[1.0, 2.0],
        std=0.3,
        state_dependent_std=state_dependent,
        state_scale=[1.0, 2.0, 3.0],
        output_initializer=keras.initializers.RandomNormal(stddev=0.5),
        name="driver",
    )
    policy.save(tmp_path / "policy.keras")
    loaded = keras.models.load_model(tmp_path / "policy.keras")
    assert type(loaded) is GaussianPolicy
    assert loaded.name == "driver"
    assert loaded.arguments["std"] == 0.3
    np.testing.assert_array_equal(loaded(STATES), policy(STATES))
    np.testing.assert_array_equal(loaded.distribution(STATES).mean(), policy.distribution(STATES).mean())
    clone = keras.models.clone_model(policy)
    assert [weights.shape for weights in clone.get_weights()] == [weights.shape for weights in policy.get_weights()]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"state_size": 0}, "`state_size` must be an integer, at least 1. Received: state_size=0"),
        ({"action_size": 1.5}, "`action_size` must be an integer, at least 1"),
        ({"action_limit": -1.0}, r"`action_limit` needs 2 positive finite number\(s\). Received: action_limit=-1.0"),
        ({"action_limit": [1.0]}, r"`action_limit` needs 2 positive finite number\(s\)"),
        ({"state_scale": [1.0, 0.0, 1.0]}, r"`state_scale` needs 3 positive finite number\(s\)"),
        ({"std": 0.0}, "`std` must be a positive finite number, or None. Received: std=0.0"),
        (
            {"std": 0.5, "state_dependent_std": True, "learn_std": False},
            "has to be learned. Received: .*learn_std=False",
        ),
    ],
    ids=["state_size", "action_size", "limit", "limits", "scale", "std", "fixed"],
)
def test_what_does_not_fit_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        GaussianPolicy(**{"state_size": 3, "action_size": 2, **arguments})


def test_a_deterministic_policy_has_no_distribution():
    with pytest.raises(ValueError, match="is deterministic .* `GaussianPolicy\\(..., std=0.5\\)`"):
        make_policy().distribution(STATES)
