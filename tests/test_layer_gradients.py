"""The meta-gradient through Keras's layers agrees with finite differences."""

import inspect
import re
from pathlib import Path

import keras
import layer_cases
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from layer_cases import LAYERS, Case

from ml3_tf.keras_internals import second_derivatives
from ml3_tf.learner._recurrent import rnn_by_scan

# Classes of `keras.layers` that are in neither table.
REFUSED = {"SpectralNormalization"}  # see `tests/learner/test_learner.py`
PARTS_OF_OTHERS = {"Layer", "InputLayer", "Wrapper", "SimpleRNNCell", "StackedRNNCells"}
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

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("name", LAYERS)
def test_the_meta_gradient_is_that_of_finite_differences(name):
    case = Case(*LAYERS[name], num_steps=3)
    assert case.relative_error(case.gradients("eager")) < 1e-6


def test_no_layer_of_keras_is_forgotten():
    """A new one belongs into a table of `layer_cases`, or among those that are left out for a reason."""
    source = Path(layer_cases.__file__).read_text(encoding="utf-8")
    classes = {c for c in vars(layers).values() if inspect.isclass(c) and issubclass(c, layers.Layer)}
    tried = {getattr(layers, name) for name in re.findall(r"layers\.([A-Z]\w+)", source)}
    names = {c.__name__ for c in classes - tried if not c.__name__.startswith("Random")}
    assert names == REFUSED | PARTS_OF_OTHERS | NOT_IN_FLOAT64 | OF_OTHER_FRAMEWORKS | PREPARING


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
