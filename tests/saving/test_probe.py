"""Tests of `ml3_tf.saving._probe`: the self-test detects another function, or another gradient."""

import keras
import numpy as np
import pytest

from ml3_tf import MetaLoss
from ml3_tf.saving import _bundle, _probe, _safetensors
from ml3_tf.saving.errors import CorruptArtifactError

INPUTS = {"y_true": np.array([[0.1], [0.2]]), "y_pred": np.array([[0.3], [-0.3]])}


def record(loss):
    """The self-test of a loss, with the description and the weights of a bundle."""
    description = _bundle.describe(loss)
    weights = {name: np.asarray(variable) for name, variable in _bundle.get_weights(loss).items()}
    return description, weights, _probe.record(loss, _bundle.build_in("float64", description, weights), description)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"mode": "per_output"},
        {"mode": "per_output", "features": {"y_pred": 1, "way": 1, "speed": 1}},
        {"dtype": "float64"},
        {"input_scale": [1e5, 1e-5]},
    ],
)
def test_the_same_loss_passes(make_loss, kwargs):
    _probe.check(*record(make_loss(**kwargs)), "f")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_loss_smaller_than_its_rounding_passes(dtype):
    """The loss is the small difference of two nearly equal numbers, of which half precision keeps no digit."""
    loss = MetaLoss.mlp((2,), activation="tanh", dtype=dtype)
    for variable, values in zip(loss.trainable_variables, ([[1, 1], [1, 1]], [0, 2e-4], [[1], [-1]]), strict=True):
        variable.assign(np.array(values, dtype=np.float32))
    description, weights, data = record(loss)
    in_float64 = _bundle.build_in("float64", description, weights)
    exact, own = (same.value_and_gradient(**INPUTS)[0].astype(float) for same in (in_float64, loss))
    assert np.max(np.abs(own - exact)) > 0.1 * np.max(np.abs(exact))
    _probe.check(description, weights, data, "f")


def test_a_loss_of_rounding_errors_passes():
    """The loss is x - tanh(x) three times: the last result has hardly a correct digit on any backend."""
    layers = [keras.layers.Dense(1, "tanh_shrink", use_bias=False, kernel_initializer="ones") for _ in range(3)]
    loss = MetaLoss(keras.Sequential([keras.Input((2,)), *layers]))
    loss.network.layers[0].kernel.assign([[0.1], [0.1]])
    _probe.check(*record(loss), "f")


def test_a_saturated_loss_passes(make_loss):
    """Its slope is 0 in float32, and tiny in float64."""
    loss = make_loss(activation="tanh", output_activation="sigmoid")
    loss.network.layers[0].bias.assign(np.full(5, 30.0))
    description, weights, data = record(loss)
    assert not np.any(loss.value_and_gradient(np.ones((4, 1)), np.ones((4, 1)))[1])
    _probe.check(description, weights, data, "f")


@pytest.mark.parametrize("change", ["weights", "activation"])
def test_another_function_fails(make_loss, change):
    description, weights, data = record(make_loss())
    if change == "weights":
        weights["layers.0.kernel"] = weights["layers.0.kernel"] * 1.1
    else:
        description["network"]["layers"][0]["activation"] = "tanh"
    with pytest.raises(CorruptArtifactError, match="'f': the rebuilt loss does not reproduce 'loss' of the self-test"):
        _probe.check(description, weights, data, "f")


def test_another_gradient_fails(make_loss):
    description, weights, data = record(make_loss(features={"y_pred": 2, "y_true": 1}))
    shapes = {"y_true": (4, 1), "y_pred": (4, 2), "loss": (4,), "grad": (4, 2)}
    arrays = _safetensors.from_bytes(data, shapes, "f")
    data = _safetensors.to_bytes({**arrays, "grad": arrays["grad"][:, ::-1]})
    with pytest.raises(CorruptArtifactError, match="does not reproduce 'grad' of the self-test"):
        _probe.check(description, weights, data, "f")


@pytest.mark.parametrize("scale, dtype", [(1e6, "float32"), (30, "float16")])
def test_loss_that_is_not_finite_at_the_inputs_is_not_recorded(scale, dtype):
    rescaling = keras.layers.Rescaling(scale, dtype=dtype)
    output = keras.layers.Dense(1, "exponential", use_bias=False, kernel_initializer="ones", dtype=dtype)
    loss = MetaLoss(keras.Sequential([keras.Input((2,), dtype=dtype), rescaling, output]), dtype=dtype)
    with pytest.raises(ValueError, match="its 'loss' must be finite"):
        record(loss)
