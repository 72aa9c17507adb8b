"""Tests of `ml3_tf.rl.action_distributions`: densities, samples and entropies against TensorFlow Probability."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions

from ml3_tf.rl.action_distributions import (
    CategoricalActions,
    GaussianActions,
    categorical_log_prob,
    check_deterministic,
    gaussian_log_prob,
    get_action_distribution,
    is_categorical,
)
from ml3_tf.rl.policies import CategoricalPolicy, GaussianPolicy, MLPPolicy

GENERATOR = np.random.default_rng(0)
MEAN, STD = GENERATOR.normal(size=(4, 3)), GENERATOR.uniform(0.1, 2, (4, 3))
MEAN_AND_STD = np.concatenate([MEAN, STD], 1)
LOG_PROBABILITIES = tf.math.log_softmax(GENERATOR.normal(size=(4, 3)))
CHOICES = np.array([2, 0, 1, 1])


def own_policy(units, activation=None):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation)])


def test_the_log_density_of_a_gaussian_is_that_of_tfp():
    actions = GENERATOR.normal(size=(4, 3))
    expected = distributions.MultivariateNormalDiag(MEAN, STD).log_prob(actions)
    np.testing.assert_allclose(gaussian_log_prob(MEAN_AND_STD, actions), expected, rtol=1e-12)
    np.testing.assert_array_equal(
        GaussianActions(3).log_prob(MEAN_AND_STD, actions), gaussian_log_prob(MEAN_AND_STD, actions)
    )


def test_the_log_probability_of_a_choice_is_that_of_tfp():
    actions = np.eye(3)[CHOICES]
    expected = distributions.Categorical(logits=LOG_PROBABILITIES).log_prob(CHOICES)
    np.testing.assert_allclose(categorical_log_prob(LOG_PROBABILITIES, actions), expected, rtol=1e-12)
    np.testing.assert_allclose(CategoricalActions(3).log_prob(LOG_PROBABILITIES, actions), expected, rtol=1e-12)


def test_the_slope_of_the_log_probability_in_closed_form():
    """With respect to logits z: one-hot minus probabilities."""
    logits = tf.Variable(GENERATOR.normal(size=(4, 3)))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(categorical_log_prob(tf.math.log_softmax(logits), np.eye(3)[CHOICES]))
    np.testing.assert_allclose(tape.gradient(value, logits), np.eye(3)[CHOICES] - tf.nn.softmax(logits), rtol=1e-10)


@pytest.mark.parametrize(
    ("distribution", "outputs", "expected"),
    [
        (GaussianActions(3), MEAN_AND_STD, distributions.MultivariateNormalDiag(MEAN, STD)),
        (CategoricalActions(3), LOG_PROBABILITIES, distributions.Categorical(logits=LOG_PROBABILITIES)),
    ],
    ids=["gaussian", "categorical"],
)
def test_the_entropy_is_that_of_tfp(distribution, outputs, expected):
    np.testing.assert_allclose(distribution.entropy(tf.constant(outputs)), expected.entropy(), rtol=1e-12)


def test_choices_come_as_often_as_they_are_likely():
    categorical = CategoricalActions(3)
    outputs = tf.cast(tf.repeat(LOG_PROBABILITIES[:, tf.newaxis], 20_000, 1), tf.float32)
    noise = categorical.noise((4, 20_000), keras.random.SeedGenerator(0))
    assert np.isfinite(noise).all()
    actions = categorical.sample(outputs, noise)
    np.testing.assert_array_equal(tf.reduce_sum(actions, -1), np.ones((4, 20_000)))
    np.testing.assert_allclose(tf.reduce_mean(actions, 1), tf.exp(LOG_PROBABILITIES), atol=0.015)  # 4 standard errors


def test_without_noise_the_most_likely_action_is_taken():
    outputs = tf.cast(LOG_PROBABILITIES, tf.float32)
    categorical, gaussian = CategoricalActions(3), GaussianActions(3)
    expected = np.eye(3)[np.argmax(outputs, 1)]
    np.testing.assert_array_equal(categorical.sample(outputs, categorical.no_noise([4])), expected)
    np.testing.assert_array_equal(
        gaussian.sample(MEAN_AND_STD.astype("float32"), gaussian.no_noise([4])), MEAN.astype("float32")
    )


@pytest.mark.parametrize("distribution", [GaussianActions(2), CategoricalActions(2)], ids=str)
def test_noise_is_determined_by_its_seed(distribution):
    draws = [distribution.noise((3, 4), keras.random.SeedGenerator(seed)).numpy() for seed in (0, 0, 1)]
    assert draws[0].shape == (3, 4, 2)
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


@pytest.mark.parametrize("distribution", [GaussianActions(2), CategoricalActions(2)], ids=str)
def test_a_policy_that_diverged_takes_no_action(distribution):
    """An argmax of NaN would be a choice like any other, and nobody would notice."""
    outputs = np.zeros((2, 4 if isinstance(distribution, GaussianActions) else 2), "float32")
    outputs[1, 0] = np.nan
    actions = distribution.sample(outputs, distribution.no_noise([2])).numpy()
    assert np.isfinite(actions[0]).all() and np.isnan(actions[1]).any()


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (lambda: GaussianPolicy(4, 3), GaussianActions(3)),
        (lambda: own_policy(6), GaussianActions(3)),
        (lambda: CategoricalPolicy(4, 3), CategoricalActions(3)),
        (lambda: own_policy(6, "log_softmax"), CategoricalActions(6)),
        (lambda: keras.models.clone_model(CategoricalPolicy(4, 2)), CategoricalActions(2)),
    ],
    ids=["gaussian", "own-gaussian", "categorical", "own-categorical", "clone"],
)
def test_the_last_activation_tells_how_a_policy_acts(policy, expected):
    assert get_action_distribution(policy()) == expected
    assert is_categorical(policy()) == isinstance(expected, CategoricalActions)


@pytest.mark.parametrize(
    ("policy", "received"),
    [
        (lambda: MLPPolicy(4, 2), r"MLPPolicy with output shape \(None, 2\)"),
        (lambda: own_policy(3), r"Sequential with output shape \(None, 3\)"),
        (lambda: own_policy(2, "softmax"), r"Sequential with output shape \(None, 2\)"),
    ],
    ids=["deterministic", "odd", "probabilities"],
)
def test_a_policy_without_a_distribution_is_refused(policy, received):
    words = f"mean and standard deviation side by side.*`GaussianPolicy`.*log-probabilities.*Received: {received}"
    with pytest.raises(ValueError, match=words):
        get_action_distribution(policy())


def test_an_action_has_a_width():
    with pytest.raises(ValueError, match="`size` must be an integer of at least 1. Received: size=0"):
        CategoricalActions(0)


@pytest.mark.parametrize(
    "policy", [lambda: GaussianPolicy(4, 2), lambda: CategoricalPolicy(4, 2)], ids=["normal", "choice"]
)
def test_a_distribution_is_not_an_action(policy):
    with pytest.raises(ValueError, match="as an `MLPPolicy` does: it is so. Received: .*Policy, which returns a dist"):
        check_deterministic(policy(), "it is so.")


def test_an_action_is_an_action():
    check_deterministic(MLPPolicy(4, 2), "")
    check_deterministic(own_policy(2), "")
