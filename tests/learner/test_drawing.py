"""Tests of `ml3_tf.learner._drawing`: fresh values have the distribution of the layers' own initializers."""

import keras
import numpy as np
import pytest

from ml3_tf.learner import Learner

layers = keras.layers
initializers = keras.initializers


def dense(**arguments):
    return lambda: keras.Sequential([keras.Input((30,)), layers.Dense(20, **arguments)])


@pytest.mark.parametrize(
    "initializer",
    [
        "glorot_uniform",
        "he_normal",
        "lecun_uniform",
        initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        initializers.RandomNormal(stddev=0.3),
        initializers.RandomUniform(-0.1, 0.3),
        initializers.TruncatedNormal(stddev=0.2),
        "orthogonal",
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_draws_have_the_distribution_of_the_initializer(initializer):
    values = np.asarray(Learner(dense(kernel_initializer=initializer), seed=0).draw(16).trainable[0])
    expected = np.stack([initializers.get(_reseeded(initializer, seed))((30, 20)) for seed in range(16)])
    assert values.shape == (16, 30, 20)
    np.testing.assert_allclose(values.mean(), expected.mean(), atol=0.01)
    np.testing.assert_allclose(values.std(), expected.std(), rtol=0.03)
    np.testing.assert_allclose(values.max(), expected.max(), rtol=0.15)


def _reseeded(initializer, seed):
    initializer = initializers.get(initializer)
    return type(initializer).from_config({**initializer.get_config(), "seed": seed})


def test_a_convolution_keeps_its_scale():
    build = lambda: keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(32, 5), layers.Flatten(), layers.Dense(1)])
    kernels = np.asarray(Learner(build, seed=0).draw(8).trainable[0])
    np.testing.assert_allclose(
        kernels.std(), np.sqrt(2 / (25 * 3 + 25 * 32)), rtol=0.02
    )  # Glorot: 2 / (fan_in + fan_out)


def test_constants_are_constant():
    build = dense(kernel_initializer=initializers.Constant(0.5), bias_initializer="ones")
    kernel, bias = Learner(build).draw(2).trainable
    np.testing.assert_array_equal(kernel, np.full((2, 30, 20), 0.5))
    np.testing.assert_array_equal(bias, np.ones((2, 20)))


def test_lstm_keeps_its_forget_bias():
    build = lambda: keras.Sequential([keras.Input((4, 2)), layers.LSTM(3)])
    bias = Learner(build).draw(2).trainable[2]
    np.testing.assert_array_equal(bias, [[0] * 3 + [1] * 3 + [0] * 6] * 2)
