"""Tests of `ml3_tf.diagnosis._layers`: calls of layers are recorded, and their derivatives checked."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from planted_faults import Gated, Standardized

from ml3_tf.diagnosis._layers import _check, recorded

pytestmark = pytest.mark.usefixtures("float64")
X = tf.constant(np.random.default_rng(0).normal(size=(8, 4)))


@tf.custom_gradient
def one_sided(x):
    """A square whose gradient cannot be differentiated again."""
    return x**2, lambda upstream: upstream * tf.numpy_function(lambda values: 2 * values, [x], x.dtype)


def check(layer, x=X, **kwargs):
    with recorded([layer]) as calls:
        layer(x, **kwargs)
    return _check("learner", calls)


@pytest.mark.parametrize(
    ("make", "verdict"),
    [
        (lambda: layers.Dense(3, "tanh"), "agrees"),
        (lambda: layers.Dense(3, "relu"), "agrees"),
        (layers.LayerNormalization, "agrees"),
        (lambda: layers.Dropout(0.3, seed=0), "agrees"),
        (Gated, "first derivative is wrong"),
        (lambda: layers.Lambda(tf.stop_gradient), "first derivative is missing"),
        (Standardized, "second derivative is wrong"),
        (lambda: layers.Lambda(tf.sign), "zero"),
        (lambda: layers.Lambda(one_sided), "second derivative is missing"),
    ],
)
def test_the_derivatives_of_a_layer(make, verdict):
    keras.utils.set_random_seed(0)
    found = check(make(), training=True)
    assert found.verdict == verdict, found


def test_batch_normalization_is_right_here_as_in_steps():
    """TensorFlow's moments are replaced, as they are when learners train."""
    assert check(layers.BatchNormalization(), training=True).verdict == "agrees"


def test_an_operation_without_a_second_gradient_is_missing():
    found = check(layers.Lambda(lambda x: tf.math.igamma(tf.exp(x), tf.ones_like(x))))
    assert found.verdict.startswith("missing: ") and "IgammaGradA" in found.verdict


def test_a_layer_that_does_not_run_alone_is_not_checked():
    class OnlyOnce(keras.layers.Layer):
        was_run = False

        def call(self, inputs):
            if self.was_run:
                raise RuntimeError("only once")
            self.was_run = True
            return inputs

    assert check(OnlyOnce()).verdict == "not checked: only once"


def test_dead_units_are_counted_but_not_a_layer_of_zeros():
    dead = layers.Dense(4, "relu", bias_initializer=keras.initializers.Constant([-100.0, -100.0, -100.0, 0.0]))
    assert check(dead).share_off == 0.75
    assert check(layers.Dense(4, "relu", bias_initializer=keras.initializers.Constant(-100.0))).share_off == 1.0
    assert check(layers.Dense(4, kernel_initializer="zeros")).share_off == 0.0


def test_recording_leaves_no_trace():
    layer = layers.Dense(3)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layer(layer.__class__(4)(inputs)))
    with recorded([layer]) as calls:
        model(X)
        model(X)
    assert [call.layer for call in calls] == [layer] and calls[0].outputs.shape == (8, 3)
    assert "call" not in vars(layer)
