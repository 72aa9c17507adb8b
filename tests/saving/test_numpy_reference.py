"""Tests of `ml3_tf.saving._numpy_reference`: NumPy and Keras agree on every loss that can be described."""

import keras
import numpy as np
import pytest

from ml3_tf import MetaLoss
from ml3_tf.meta_loss import BASES
from ml3_tf.saving import _architecture, _bundle, _numpy_reference

layers = keras.layers


def assert_equals_keras(loss, width, seed=0):
    """Value and directional derivative of the reference, against the loss itself in float64."""
    for variable in _bundle.get_weights(loss).values():
        variable.assign(variable + np.random.default_rng(seed).normal(size=variable.shape))
    generator, num_slices = np.random.default_rng(1), len(loss.features) - 1 if loss.mode == "per_output" else 1
    y_true = generator.normal(size=(50, num_slices * width), scale=2.0)
    y_pred, direction = generator.normal(size=(2, 50, width), scale=2.0)
    values, gradient = loss.value_and_gradient(y_true, y_pred)
    weights = {name: np.asarray(variable) for name, variable in _bundle.get_weights(loss).items()}
    received = _numpy_reference.value_and_derivative(_bundle.describe(loss), weights, y_true, y_pred, direction)
    # TensorFlow keeps some constants (of gelu, of leaky_relu) in float32.
    np.testing.assert_allclose(received[0], values, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.sum(received[1]), np.sum(gradient * direction), rtol=1e-6, atol=1e-6)
    if not loss.pools_examples:
        np.testing.assert_allclose(received[1], np.sum(gradient * direction, axis=1), rtol=1e-6, atol=1e-6)


def test_it_covers_the_whole_vocabulary():
    assert set(_numpy_reference.ACTIVATIONS) == set(_architecture.ACTIVATIONS)
    assert set(_numpy_reference.BASES) == set(BASES)
    assert set(_numpy_reference.LAYERS) == set(_architecture.LAYERS)


@pytest.mark.parametrize("name", _numpy_reference.BASES)
@pytest.mark.parametrize("arguments", [{}, {"from_logits": True, "label_smoothing": 0.2}, {"delta": 0.5}], ids=str)
def test_bases(name, arguments):
    base = {"name": name, **BASES[name]}
    if not arguments.keys() <= base.keys():
        pytest.skip(f"{name} takes no {[*arguments]}")
    features = {"y_pred": 3, "y_true": 3}
    loss = MetaLoss.around({**base, **arguments}, features=features, dtype="float64")
    assert_equals_keras(loss, width=3)


@pytest.mark.parametrize("activation", _architecture.ACTIVATIONS)
def test_activations(activation):
    assert_equals_keras(MetaLoss.mlp((7,), activation=activation, dtype="float64"), width=1)


def test_sigmoid_keeps_its_digits_far_below_zero():
    x = np.array([-700.0, -50.0, -1.0, 0.0, 1.0, 50.0, 700.0])
    np.testing.assert_allclose(_numpy_reference.ACTIVATIONS["sigmoid"](x), 1 / (1 + np.exp(-x)), rtol=1e-15)


@pytest.mark.parametrize(
    "layer",
    [
        layers.LayerNormalization(dtype="float64"),
        layers.LayerNormalization(center=False, scale=False, epsilon=0.1, dtype="float64"),
        layers.Rescaling(0.3, 0.2, dtype="float64"),
        layers.Activation("softmax", dtype="float64"),
    ],
    ids=["normalization", "normalization without weights", "rescaling", "activation"],
)
def test_layers(layer):
    dense = [layers.Dense(units, dtype="float64") for units in (5, 1)]
    network = keras.Sequential([keras.Input((2,), dtype="float64"), dense[0], layer, dense[1]])
    assert_equals_keras(MetaLoss(network, dtype="float64"), width=1)


@pytest.mark.parametrize(
    "arguments, width",
    [
        ({"mode": "per_output"}, 3),
        ({"mode": "per_output", "learning_rate": "network", "input_scale": [2.0, 0.5]}, 3),
        ({"mode": "per_output", "features": {"y_pred": 1, "way": 1, "speed": 1}, "input_scale": [2.0, 0.5, 3.0]}, 3),
        ({"features": {"y_pred": 2, "y_true": 2}, "learning_rate": 0.1, "input_scale": [1.0, 2.0, 3.0, 4.0]}, 2),
        ({"learning_rate": "network"}, 1),
        ({"mode": "per_set"}, 1),
        ({"mode": "per_set", "learning_rate": "network", "input_scale": [3.0, 0.5]}, 1),
    ],
    ids=[
        "per output",
        "per output, rate by the network",
        "per output of three",
        "scalar rate",
        "rate by the network",
        "set",
        "set, rate",
    ],
)
def test_losses(make_loss, arguments, width):
    assert_equals_keras(make_loss((7,), dtype="float64", **arguments), width)


@pytest.mark.parametrize("activation", _architecture.ACTIVATIONS)
def test_extreme_values_do_not_overflow_where_keras_does_not(activation):
    x = np.array([[-700.0, -50.0, 0.0, 50.0, 700.0]])
    expected = keras.ops.convert_to_numpy(getattr(keras.activations, activation)(keras.ops.convert_to_tensor(x)))
    with np.errstate(all="ignore"):
        received = _numpy_reference.ACTIVATIONS[activation](x + 1e-30j)
    np.testing.assert_allclose(received.real, expected, rtol=1e-7, atol=1e-15)
    assert np.all(np.isfinite(received.imag))
