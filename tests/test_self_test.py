"""Tests of `ml3_tf.self_test`: another function, or another gradient, is found."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf import MetaLoss, self_test
from ml3_tf.errors import CorruptArtefactError


@pytest.mark.parametrize("kwargs", [{}, {"mode": "per_output"}, {"dtype": "float64"}, {"input_scale": [1e5, 1e-5]}])
def test_the_same_loss_passes(make_loss, kwargs):
    loss = make_loss(**kwargs)
    self_test.check(loss, self_test.record(loss), "f")


def test_gradient_is_that_of_each_example(make_loss):
    loss = make_loss()
    y_true, y_pred = tf.constant([[1.0], [2.0]]), tf.constant([[0.5], [-1.0]])
    values, gradient = self_test.value_and_gradient(loss, y_true, y_pred)
    step = 1e-2
    difference = (loss.call(y_true, y_pred + step) - loss.call(y_true, y_pred - step)) / (2 * step)
    np.testing.assert_array_equal(values, loss.call(y_true, y_pred))
    np.testing.assert_allclose(gradient[:, 0], difference, rtol=1e-2)


@pytest.mark.parametrize("change", ["weights", "activation"])
def test_another_function_fails(make_loss, change):
    loss = make_loss()
    data = self_test.record(loss)
    if change == "weights":
        loss.network.layers[0].kernel.assign(loss.network.layers[0].kernel * 1.1)
    else:
        loss.network.layers[0].activation = keras.activations.tanh
    with pytest.raises(CorruptArtefactError, match="'f': the rebuilt loss does not reproduce 'loss' of the self-test"):
        self_test.check(loss, data, "f")


def test_loss_that_is_not_finite_at_the_inputs_is_not_recorded():
    network = keras.Sequential(
        [keras.Input((2,)), keras.layers.Rescaling(1e6), keras.layers.Dense(1, "exponential", use_bias=False)]
    )
    with pytest.raises(ValueError, match="its 'loss' is not finite"):
        self_test.record(MetaLoss(network))
