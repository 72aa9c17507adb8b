"""Tests of `ml3_tf.rl.policies`."""

import re
import sys

import keras
import numpy as np
import pytest

from ml3_tf.learner import Learner
from ml3_tf.rl._probability import import_distributions
from ml3_tf.rl.policies import CategoricalPolicy, GaussianPolicy, MLPPolicy

OBSERVATIONS = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
STD_MODES = ("learned", "fixed", "per_observation")


def make_policy(**arguments):
    keras.utils.set_random_seed(0)
    return GaussianPolicy(3, 2, hidden_units=(8,), **arguments)


def make_mlp(**arguments):
    keras.utils.set_random_seed(0)
    return MLPPolicy(3, 2, hidden_units=(8,), **arguments)


@pytest.mark.parametrize("arguments", [{}, {"action_limit": 0.5, "observation_scale": [1.0, 2.0, 3.0]}])
def test_a_deterministic_policy_returns_the_mean_of_the_stochastic_one(arguments):
    policy = make_mlp(**arguments)
    assert policy(OBSERVATIONS).shape == (6, 2)
    np.testing.assert_array_equal(policy(OBSERVATIONS), make_policy(**arguments).mean(OBSERVATIONS))


def test_the_weights_of_policies_keep_their_names_and_order():
    paths = lambda policy: [re.sub(r"^dense_\d+", "dense", weights.path) for weights in policy.weights]
    names = ["dense/kernel", "dense/bias", "mean/kernel", "mean/bias"]
    assert paths(make_mlp()) == names
    assert paths(make_mlp(use_bias=False)) == ["dense/kernel", "mean/kernel"]
    assert paths(make_policy()) == [*names, "std/log_std"]
    assert paths(make_policy(std_mode="per_observation")) == [*names, "log_std/kernel", "log_std/bias", "std/log_std"]


@pytest.mark.parametrize("std_mode", STD_MODES)
def test_mean_and_standard_deviation_lie_side_by_side(std_mode):
    policy = make_policy(std=0.3, std_mode=std_mode)
    outputs = policy(OBSERVATIONS).numpy()
    np.testing.assert_array_equal(outputs[:, :2], policy.mean(OBSERVATIONS))
    np.testing.assert_allclose(outputs[:, 2:], 0.3, rtol=1e-6)
    assert policy.distribution(OBSERVATIONS).log_prob(policy.mean(OBSERVATIONS)).shape == (6,)


@pytest.mark.parametrize("std_mode", STD_MODES)
def test_stochastic_policies_are_vectorized_over_tasks(std_mode):
    """If each task had its own part of the graph, XLA would take half a minute for 16 of them, instead of 6 s."""
    learner = Learner(lambda: make_policy(std=0.3, std_mode=std_mode), seed=0)
    assert learner.vectorized


def test_a_fixed_standard_deviation_is_not_trained():
    policy = make_policy(std=0.3, std_mode="fixed")
    assert not any("log_std" in variable.path for variable in policy.trainable_variables)
    policy.compile(keras.optimizers.SGD(0.1), loss="mse")
    policy.fit(OBSERVATIONS, np.ones((6, 4)), verbose=0)
    np.testing.assert_allclose(policy(OBSERVATIONS)[:, 2:], 0.3, rtol=1e-6)
    copy = GaussianPolicy.from_config(policy.get_config())
    assert len(copy.trainable_variables) == len(policy.trainable_variables)


def test_the_standard_deviation_depends_on_the_observation_after_training():
    policy = make_policy(std=0.3, std_mode="per_observation")
    policy.get_layer("log_std").kernel.assign(np.ones((8, 2)))
    assert np.ptp(policy(OBSERVATIONS).numpy()[:, 2:]) > 0.01


def test_the_distribution_has_the_density_of_the_closed_form():
    policy = make_policy(std=0.5)
    actions = np.random.default_rng(1).normal(size=(6, 2)).astype("float32")
    mean = policy.mean(OBSERVATIONS).numpy()
    expected = np.sum(-0.5 * ((actions - mean) / 0.5) ** 2 - np.log(0.5 * np.sqrt(2 * np.pi)), axis=1)
    np.testing.assert_allclose(policy.distribution(OBSERVATIONS).log_prob(actions), expected, rtol=1e-5)


def test_samples_are_determined_by_their_seed():
    distribution = make_policy(std=0.5).distribution(OBSERVATIONS)
    samples = [distribution.sample(seed=[1, seed]).numpy() for seed in (0, 0, 1)]
    np.testing.assert_array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])


def test_a_fresh_policy_acts_near_the_middle():
    policy = make_mlp(action_limit=0.25)
    assert np.abs(policy(OBSERVATIONS)).max() < 0.05
    policy.set_weights([100 * weights for weights in policy.get_weights()])
    assert 0.1 < np.abs(policy(OBSERVATIONS)).max() <= 0.25


def test_observations_are_scaled():
    scaled, plain = make_mlp(observation_scale=[1.0, 2.0, 4.0]), make_mlp()
    np.testing.assert_allclose(scaled(OBSERVATIONS * [1.0, 2.0, 4.0]), plain(OBSERVATIONS), rtol=1e-5)


@pytest.mark.parametrize("std_mode", [None, *STD_MODES], ids=["mlp", *STD_MODES])
def test_a_policy_saves_and_loads(tmp_path, std_mode):
    arguments = {
        "action_limit": [1.0, 2.0],
        "observation_scale": [1.0, 2.0, 3.0],
        "output_initializer": keras.initializers.RandomNormal(stddev=0.5),
        "name": "driver",
    }
    policy = make_policy(std=0.3, std_mode=std_mode, **arguments) if std_mode else make_mlp(use_bias=False, **arguments)
    policy.save(tmp_path / "policy.keras")
    loaded = keras.models.load_model(tmp_path / "policy.keras")
    assert type(loaded) is type(policy)
    assert loaded.name == "driver"
    np.testing.assert_array_equal(loaded(OBSERVATIONS), policy(OBSERVATIONS))
    clone = keras.models.clone_model(policy)
    assert [weights.shape for weights in clone.get_weights()] == [weights.shape for weights in policy.get_weights()]
    assert len(clone.trainable_variables) == len(policy.trainable_variables)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"observation_size": 0}, "`observation_size` must be an integer of at least 1. Received: observation_size=0"),
        ({"action_size": 1.5}, "`action_size` must be an integer of at least 1"),
        ({"action_limit": -1.0}, r"`action_limit` needs 2 positive finite number\(s\). Received: action_limit=-1.0"),
        ({"action_limit": [1.0]}, r"`action_limit` needs 2 positive finite number\(s\)"),
        ({"observation_scale": [1.0, 0.0, 1.0]}, r"`observation_scale` needs 3 positive finite number\(s\)"),
        ({"std": 0.0}, "`std` must be a positive finite number. Received: std=0.0"),
        ({"std": None}, "Received: std=None. A policy without noise is an `MLPPolicy`"),
        ({"std_mode": "constant"}, r"`std_mode` must be one of \('learned', .*\). Received: std_mode='constant'"),
    ],
    ids=["observation_size", "action_size", "limit", "limits", "scale", "std", "no-std", "std_mode"],
)
def test_invalid_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        GaussianPolicy(**{"observation_size": 3, "action_size": 2, **arguments})


def test_an_error_names_the_extra_that_distributions_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_probability", None)  # importing it raises ImportError
    with pytest.raises(ImportError, match=r"needs TensorFlow Probability and tf_keras.*pip install 'ml3_tf\[rl\]'"):
        make_policy().distribution(OBSERVATIONS)
    with pytest.raises(ImportError, match="Install what is missing"):
        import_distributions()


# Choices


def make_categorical(**arguments):
    keras.utils.set_random_seed(0)
    return CategoricalPolicy(3, 4, **{"hidden_units": (8,), **arguments})


def test_a_categorical_policy_returns_log_probabilities():
    outputs = make_categorical(output_initializer="he_normal")(OBSERVATIONS).numpy()
    assert outputs.shape == (6, 4) and np.ptp(outputs) > 0.1
    np.testing.assert_allclose(np.exp(outputs).sum(1), np.ones(6), rtol=1e-6)


def test_the_choices_of_a_fresh_policy_are_about_equally_likely():
    np.testing.assert_allclose(np.exp(make_categorical()(OBSERVATIONS)), np.full((6, 4), 0.25), atol=0.04)


def test_the_distribution_of_choices_is_that_of_the_outputs():
    policy = make_categorical(output_initializer="he_normal")
    outputs, distribution = policy(OBSERVATIONS).numpy(), policy.distribution(OBSERVATIONS)
    assert isinstance(distribution, import_distributions().Categorical)
    choices = np.array([0, 1, 2, 3, 0, 1])
    np.testing.assert_allclose(distribution.log_prob(choices), outputs[np.arange(6), choices], rtol=1e-5)
    np.testing.assert_array_equal(policy.mode(OBSERVATIONS), np.eye(4)[np.argmax(outputs, 1)])
    np.testing.assert_array_equal(distribution.mode(), np.argmax(policy.mode(OBSERVATIONS), 1))


def test_a_categorical_policy_is_vectorized_over_tasks():
    assert Learner(make_categorical, seed=0).vectorized


def test_a_categorical_policy_saves_and_loads(tmp_path):
    initializer = keras.initializers.RandomNormal(stddev=0.5)
    policy = make_categorical(observation_scale=[1.0, 2.0, 3.0], output_initializer=initializer, name="driver")
    policy.save(tmp_path / "policy.keras")
    loaded = keras.models.load_model(tmp_path / "policy.keras")
    assert type(loaded) is CategoricalPolicy and loaded.name == "driver"
    np.testing.assert_array_equal(loaded(OBSERVATIONS), policy(OBSERVATIONS))


@pytest.mark.parametrize(
    "number, words", [(0, "must be an integer of at least 1"), (1, "must be at least 2: there is")]
)
def test_there_must_be_something_to_choose(number, words):
    with pytest.raises(ValueError, match=f"`num_actions` {words}.* Received: num_actions={number}"):
        CategoricalPolicy(3, number)
