"""The meta-gradient through Keras's layers agrees with finite differences, in float64."""

import inspect
import re
from pathlib import Path

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
IMAGE, SEQUENCE, VECTOR, WORDS = (6, 6, 4), (5, 4), (4,), (5,)
NUM_WORDS = 7
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
    "Embedding": (WORDS, lambda: layers.Embedding(NUM_WORDS, 3)),
    "Embedding with a mask": (WORDS, lambda: pooled(layers.Embedding(NUM_WORDS, 3, mask_zero=True))),
    "MultiHeadAttention": (SEQUENCE, lambda: with_itself(layers.MultiHeadAttention(2, 2))),
    "GroupQueryAttention": (SEQUENCE, lambda: with_itself(layers.GroupQueryAttention(2, 2, 1))),
    "Attention": (SEQUENCE, lambda: side_by_side(layers.Attention(use_scale=True))),
    "AdditiveAttention": (SEQUENCE, lambda: side_by_side(layers.AdditiveAttention())),
    "Add": (VECTOR, lambda: side_by_side(layers.Add())),
    "Multiply": (VECTOR, lambda: side_by_side(layers.Multiply())),
    "Maximum": (VECTOR, lambda: beside_its_negative(layers.Maximum())),
    "Average": (VECTOR, lambda: side_by_side(layers.Average())),
    "Concatenate": (VECTOR, lambda: side_by_side(layers.Concatenate())),
    "Dot": (SEQUENCE, lambda: side_by_side(layers.Dot(axes=2))),
    "Dropout": (VECTOR, lambda: layers.Dropout(0.3, seed=0)),
    "SpatialDropout1D": (SEQUENCE, lambda: layers.SpatialDropout1D(0.3, seed=0)),
    "AlphaDropout": (VECTOR, lambda: layers.AlphaDropout(0.3, seed=0)),
    "GaussianNoise": (VECTOR, lambda: layers.GaussianNoise(0.3, seed=0)),
    "GaussianDropout": (VECTOR, lambda: layers.GaussianDropout(0.3, seed=0)),
    "Conv3D": ((4, 4, 4, 2), lambda: layers.Conv3D(2, 2, **SMOOTH)),
    "DepthwiseConv1D": (SEQUENCE, lambda: layers.DepthwiseConv1D(2, **SMOOTH)),
    "Conv1DTranspose": (SEQUENCE, lambda: layers.Conv1DTranspose(2, 2, **SMOOTH)),
    "MaxPooling1D": (SEQUENCE, lambda: layers.MaxPooling1D(2)),
    "GlobalMaxPooling1D": (SEQUENCE, layers.GlobalMaxPooling1D),
    "Reshape": (SEQUENCE, lambda: layers.Reshape((2, 10))),
    "LSTM of sequences": (SEQUENCE, lambda: layers.LSTM(3, return_sequences=True)),
    "GRU that is unrolled": (SEQUENCE, lambda: layers.GRU(3, unroll=True)),
    "RNN of two cells": (SEQUENCE, lambda: layers.RNN([layers.GRUCell(2), layers.LSTMCell(2)])),
    "ConvLSTM1D": ((3, 4, 2), lambda: layers.ConvLSTM1D(2, 2)),
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


VOLUME = (4, 4, 4, 2)
# The others, by `make test-long` alone.
FURTHER_LAYERS = {
    "Subtract": (VECTOR, lambda: side_by_side(layers.Subtract())),
    "Minimum": (VECTOR, lambda: beside_its_negative(layers.Minimum())),
    "ELU": (VECTOR, layers.ELU),
    "LeakyReLU": (VECTOR, layers.LeakyReLU),
    "ReLU": (VECTOR, layers.ReLU),
    "Identity": (VECTOR, layers.Identity),
    "Lambda": (VECTOR, lambda: layers.Lambda(lambda values: values**2)),
    "Rescaling": (VECTOR, lambda: layers.Rescaling(2.0, 0.1)),
    "Normalization": (VECTOR, lambda: layers.Normalization(mean=0.2, variance=2.0)),
    "ActivityRegularization": (VECTOR, lambda: layers.ActivityRegularization(l2=0.1)),
    "Masking": (SEQUENCE, lambda: lambda values: layers.GRU(3)(layers.Masking(0.0)(values))),
    "ReversibleEmbedding": (WORDS, lambda: layers.ReversibleEmbedding(NUM_WORDS, 3)),
    "SeparableConv1D": (SEQUENCE, lambda: layers.SeparableConv1D(3, 2, **SMOOTH)),
    "Conv3DTranspose": (VOLUME, lambda: layers.Conv3DTranspose(2, 2, **SMOOTH)),
    "ConvLSTM2D": ((3, 4, 4, 2), lambda: layers.ConvLSTM2D(2, 2)),
    "ConvLSTM3D": ((2, 3, 3, 3, 2), lambda: layers.ConvLSTM3D(1, 2)),
    "AveragePooling1D": (SEQUENCE, lambda: layers.AveragePooling1D(2)),
    "AdaptiveAveragePooling1D": (SEQUENCE, lambda: layers.AdaptiveAveragePooling1D(2)),
    "AdaptiveAveragePooling2D": (IMAGE, lambda: layers.AdaptiveAveragePooling2D(2)),
    "AdaptiveMaxPooling1D": (SEQUENCE, lambda: layers.AdaptiveMaxPooling1D(2)),
    "AdaptiveMaxPooling2D": (IMAGE, lambda: layers.AdaptiveMaxPooling2D(2)),
    "GlobalAveragePooling3D": (VOLUME, layers.GlobalAveragePooling3D),
    "GlobalMaxPooling2D": (IMAGE, layers.GlobalMaxPooling2D),
    "GlobalMaxPooling3D": (VOLUME, layers.GlobalMaxPooling3D),
    "Cropping1D": (SEQUENCE, lambda: layers.Cropping1D(1)),
    "Cropping3D": (VOLUME, lambda: layers.Cropping3D(1)),
    "ZeroPadding1D": (SEQUENCE, lambda: layers.ZeroPadding1D(1)),
    "ZeroPadding3D": (VOLUME, lambda: layers.ZeroPadding3D(1)),
    "UpSampling1D": (SEQUENCE, lambda: layers.UpSampling1D(2)),
    "UpSampling3D": (VOLUME, lambda: layers.UpSampling3D(2)),
    "SpatialDropout2D": (IMAGE, lambda: layers.SpatialDropout2D(0.3, seed=0)),
    "SpatialDropout3D": (VOLUME, lambda: layers.SpatialDropout3D(0.3, seed=0)),
}
# Classes of `keras.layers` that are in neither table.
REFUSED = {"SpectralNormalization"}  # see `tests/learner/test_learner.py`
PARTS_OF_OTHERS = {"InputLayer", "Wrapper", "SimpleRNNCell", "StackedRNNCells"}
# TensorFlow has no kernels for float64.
NOT_IN_FLOAT64 = {"AveragePooling3D", "MaxPooling3D", "AdaptiveAveragePooling3D", "AdaptiveMaxPooling3D"}
OF_OTHER_FRAMEWORKS = {"FlaxLayer", "JaxLayer", "TorchModuleWrapper", "TFSMLayer"}
# Without weights to learn: they prepare data, before a learner.
PREPARING = {
    *("AugMix", "AutoContrast", "CenterCrop", "ContrastLimitedAdaptiveHistogramEqualization", "CutMix", "Equalization"),
    *("MaxNumBoundingBoxes", "MelSpectrogram", "MixUp", "Pipeline", "RandAugment", "Resizing", "STFTSpectrogram"),
    *("Solarization", "CategoryEncoding", "Discretization", "HashedCrossing", "Hashing", "IntegerLookup"),
    *("StringLookup", "TextVectorization"),
}

# XLA draws other random numbers from the same seed.
RANDOM = (
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
    *("AlphaDropout", "GaussianNoise", "GaussianDropout"),
)
# In float64, XLA has no second derivative of these, and TensorFlow says so.
NOT_BY_XLA = "MaxPooling1D", "MaxPooling2D", "AdaptiveMaxPooling1D", "AdaptiveMaxPooling2D"

pytestmark = pytest.mark.usefixtures("float64")


def build_learner(shape, layer):
    """A layer between two dense ones, so that its gradients depend on weights before and behind it."""
    inputs = keras.Input(shape, dtype="int32" if shape == WORDS else None)
    hidden = inputs if shape == WORDS else layers.Dense(shape[-1], "tanh")(inputs)
    hidden = layers.Activation("tanh")(layer()(hidden))
    return keras.Model(inputs, layers.Dense(1)(layers.Flatten()(hidden)))


def with_itself(layer):
    return lambda values: layer(values, values)


def side_by_side(layer):
    """The layer of two tensors: `values`, and what a dense layer makes of them."""
    return lambda values: layer([values, layers.Dense(values.shape[-1], "tanh")(values)])


def beside_its_negative(layer):
    return lambda values: layer([values, -values])


def pooled(layer):
    """The mean over what the layer has not masked."""
    return lambda values: layers.GlobalAveragePooling1D()(layer(values))


class Case:
    """Two tasks of learners with a layer, whose meta-gradient is taken in several ways."""

    def __init__(self, shape, layer, *, num_steps):
        keras.utils.set_random_seed(0)
        self._generator = np.random.default_rng(0)
        draw = self._generator
        x = draw.integers(0, NUM_WORDS, (2, 6, *shape)) if shape == WORDS else draw.normal(size=(2, 6, *shape))
        y = draw.normal(size=(2, 6, 1))
        meta_loss = MetaLoss.mlp((5,), activation="tanh")
        loop = InnerLoop(Learner(lambda: build_learner(shape, layer), seed=0), meta_loss, keras.optimizers.SGD(0.3))
        start = loop.start(2)
        support = lambda parameters, *_: (x, y)
        score = lambda learners: tf.reduce_mean((loop.predict(learners.parameters, x) - y) ** 2, axis=[1, 2])
        self.variables = meta_loss.trainable_variables
        self._differentiate = lambda: (
            loop.differentiate(start, support, score, num_steps=num_steps, variables=self.variables).gradients
        )
        self._total = lambda: tf.reduce_mean(score(loop.run(start, support, num_steps)))
        self.has_loop = loop.learner.has_loop

    def gradients(self, mode):
        """The meta-gradient: "eager", in a "graph", or by "XLA"."""
        if mode == "eager":
            return self._differentiate()
        return tf.function(self._differentiate, autograph=False, jit_compile=mode == "XLA")()

    def relative_error(self, gradients, *, mode="graph"):
        """The error of the derivative along a direction of phi, as a share of it.

        The direction is random, and uphill: along the slope, a derivative would be small, and its share large.
        """
        total = tf.function(self._total, autograph=False, jit_compile=mode == "XLA")
        length = float(tf.linalg.global_norm(gradients))
        directions = [self._generator.normal(size=g.shape) + 5 * np.asarray(g) / length for g in gradients]
        totals = []
        for step in (STEP, -2 * STEP, STEP):  # there and back, past the start
            for variable, direction in zip(self.variables, directions):
                variable.assign_add(step * direction)
            totals.append(float(total()))
        derivative = sum(float(tf.reduce_sum(g * d)) for g, d in zip(gradients, directions))
        return abs(derivative - (totals[0] - totals[1]) / (2 * STEP)) / abs(derivative)


@pytest.mark.parametrize("name", LAYERS)
def test_the_meta_gradient_is_that_of_finite_differences(name):
    case = Case(*LAYERS[name], num_steps=3)
    assert case.relative_error(case.gradients("eager")) < 1e-6


def test_no_layer_of_keras_is_forgotten():
    """A new one belongs into a table, or among those that are left out for a reason."""
    source = Path(__file__).read_text(encoding="utf-8")
    classes = {c for c in vars(layers).values() if inspect.isclass(c) and issubclass(c, layers.Layer)}
    tried = {getattr(layers, name) for name in re.findall(r"layers\.([A-Z]\w+)", source)}
    names = {c.__name__ for c in classes - tried if not c.__name__.startswith("Random")}
    assert names == REFUSED | PARTS_OF_OTHERS | NOT_IN_FLOAT64 | OF_OTHER_FRAMEWORKS | PREPARING


@pytest.mark.long
@pytest.mark.parametrize("num_steps", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_it_is_right_in_a_graph(name, num_steps):
    case = Case(*LAYERS[name], num_steps=num_steps)
    assert case.relative_error(case.gradients("graph")) < 1e-6


@pytest.mark.long
@pytest.mark.parametrize("name", [*LAYERS, *FURTHER_LAYERS])
def test_it_is_right_over_many_steps_and_by_xla(name):
    """Through many steps, the gradient is a sweep."""
    case = Case(*{**LAYERS, **FURTHER_LAYERS}[name], num_steps=8)
    expected = case.gradients("graph")
    assert case.relative_error(expected) < 1e-6
    if case.has_loop or name in NOT_BY_XLA:  # for loops see `InnerLoop.compile`
        return
    received = case.gradients("XLA")
    if name in RANDOM:
        assert case.relative_error(received, mode="XLA") < 1e-6
        return
    for ours, theirs in zip(received, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)


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
