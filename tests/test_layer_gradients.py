"""The meta-gradient through Keras's layers agrees with finite differences, in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from ml3_tf import MetaLoss
from ml3_tf.inner_loop import InnerLoop
from ml3_tf.keras_internals import second_derivatives
from ml3_tf.learner import Learner
from ml3_tf.learner._recurrent import rnn_by_scan

STEP = 1e-6
IMAGE, SEQUENCE, VECTOR = (6, 6, 4), (5, 4), (4,)
SMOOTH = {"activation": "tanh"}
LAYERS = {
    "BatchNormalization": (VECTOR, lambda: layers.BatchNormalization(momentum=0.5)),
    "BatchNormalization of images": (IMAGE, layers.BatchNormalization),
    "GroupNormalization": (IMAGE, lambda: layers.GroupNormalization(2)),
    "LayerNormalization": (VECTOR, layers.LayerNormalization),
    "LayerNormalization of images": (IMAGE, lambda: layers.LayerNormalization(axis=[1, 2])),
    "RMSNormalization": (VECTOR, layers.RMSNormalization),
    "UnitNormalization": (VECTOR, layers.UnitNormalization),
    "Dense": (VECTOR, lambda: layers.Dense(3, **SMOOTH)),
    "EinsumDense": (SEQUENCE, lambda: layers.EinsumDense("abc,cd->abd", output_shape=(5, 3), **SMOOTH)),
    "PReLU": (VECTOR, layers.PReLU),
    "Conv1D": (SEQUENCE, lambda: layers.Conv1D(3, 2, **SMOOTH)),
    "Conv2D": (IMAGE, lambda: layers.Conv2D(3, 3, **SMOOTH)),
    "DepthwiseConv2D": (IMAGE, lambda: layers.DepthwiseConv2D(3, **SMOOTH)),
    "SeparableConv2D": (IMAGE, lambda: layers.SeparableConv2D(3, 3, **SMOOTH)),
    "Conv2DTranspose": (IMAGE, lambda: layers.Conv2DTranspose(2, 2, strides=2, **SMOOTH)),
    "AveragePooling2D": (IMAGE, lambda: layers.AveragePooling2D(2)),
    "MaxPooling2D": (IMAGE, lambda: layers.MaxPooling2D(2)),
    "GlobalAveragePooling2D": (IMAGE, layers.GlobalAveragePooling2D),
    "UpSampling2D": (IMAGE, lambda: layers.UpSampling2D(2)),
    "ZeroPadding2D": (IMAGE, lambda: layers.ZeroPadding2D(1)),
    "Cropping2D": (IMAGE, lambda: layers.Cropping2D(1)),
    "LSTM": (SEQUENCE, lambda: layers.LSTM(3)),
    "GRU": (SEQUENCE, lambda: layers.GRU(3)),
    "SimpleRNN": (SEQUENCE, lambda: layers.SimpleRNN(3)),
    "Bidirectional": (SEQUENCE, lambda: layers.Bidirectional(layers.GRU(2))),
    "TimeDistributed": (SEQUENCE, lambda: layers.TimeDistributed(layers.Dense(2, **SMOOTH))),
    "Permute": (SEQUENCE, lambda: layers.Permute((2, 1))),
    "RepeatVector": (VECTOR, lambda: layers.RepeatVector(3)),
    "Softmax": (VECTOR, layers.Softmax),
    "regularizers": (VECTOR, lambda: layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l2", **SMOOTH)),
}


pytestmark = pytest.mark.usefixtures("float64")


def build_learner(shape, layer):
    """A layer between two dense ones, so that its gradients depend on weights before and behind it."""
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Dense(4, "tanh"),
            layer(),
            layers.Activation("tanh"),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )


def relative_error(shape, layer, *, num_steps, in_graph=False):
    """The error of the derivative along a random direction of phi, as a share of it."""
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 6, *shape)), generator.normal(size=(2, 6, 1))
    meta_loss = MetaLoss.mlp((5,), activation="tanh")
    loop = InnerLoop(Learner(lambda: build_learner(shape, layer), seed=0), meta_loss, keras.optimizers.SGD(0.3))
    start = loop.start(2)
    support = lambda parameters, *_: (x, y)
    score = lambda learners: tf.reduce_mean((loop.predict(learners.parameters, x) - y) ** 2, axis=[1, 2])
    variables = meta_loss.trainable_variables

    def differentiate():
        return loop.differentiate(start, support, score, num_steps=num_steps, variables=variables).gradients

    def total():
        return tf.reduce_mean(score(loop.run(start, support, num_steps)))

    if in_graph:
        differentiate, total = tf.function(differentiate), tf.function(total)
    gradients = differentiate()
    directions = [generator.normal(size=variable.shape) for variable in variables]
    totals = []
    for step in (STEP, -2 * STEP):  # there and back, past the start
        for variable, direction in zip(variables, directions):
            variable.assign_add(step * direction)
        totals.append(float(total()))
    derivative = sum(float(tf.reduce_sum(g * d)) for g, d in zip(gradients, directions))
    return abs(derivative - (totals[0] - totals[1]) / (2 * STEP)) / abs(derivative)


@pytest.mark.parametrize("name", LAYERS)
def test_the_meta_gradient_is_that_of_finite_differences(name):
    assert relative_error(*LAYERS[name], num_steps=3) < 1e-6


@pytest.mark.parametrize("num_steps", [1, 8])
@pytest.mark.parametrize("name", ["BatchNormalization", "GroupNormalization", "LayerNormalization"])
def test_normalization_is_right_over_one_and_many_steps(name, num_steps):
    assert relative_error(*LAYERS[name], num_steps=num_steps, in_graph=num_steps > 1) < 1e-6


# What `tf.nn.moments` gets wrong


def second_derivative_of_variance():
    x = tf.constant([1.0, 2.0, 4.0], "float64")
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            variance = keras.ops.moments(x, axes=[0])[1]
        slope = inner.gradient(variance, x)
    return outer.jacobian(slope, x, experimental_use_pfor=False).numpy()


def test_moments_are_exact_where_they_are_asked_for_and_keras_s_elsewhere():
    of_keras = second_derivative_of_variance()
    with second_derivatives(rnn_by_scan):
        exact = second_derivative_of_variance()
    np.testing.assert_allclose(exact, 2 / 3 * np.eye(3) - 2 / 9, rtol=1e-12)
    np.testing.assert_allclose(of_keras, 2 / 3 * np.eye(3), rtol=1e-12)  # if this fails, TensorFlow has mended it
    np.testing.assert_array_equal(second_derivative_of_variance(), of_keras)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axes", [[0], [0, 2]])
def test_second_derivatives_have_the_values_of_keras(axes, keepdims):
    x = tf.constant(np.random.default_rng(0).normal(size=(3, 4, 5)))
    expected = keras.ops.moments(x, axes=axes, keepdims=keepdims)
    with second_derivatives(rnn_by_scan):
        received = keras.ops.moments(x, axes=axes, keepdims=keepdims)
    for ours, theirs in zip(received, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
