"""A loss is its weights: whatever Keras builds a loss from, it has the same values."""

import copy
import json
import pickle

import keras
import numpy as np
import pytest

from ml3_tf import MetaLoss

X = np.linspace(-1, 1, 8, dtype="float32")[:, np.newaxis]
Y = 3 * X + 2


def build_model():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(1)])


@pytest.fixture
def compiled(make_loss):
    model = build_model()
    model.compile("sgd", loss=make_loss(learning_rate=0.3))
    return model


def clone(model):
    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    return copied


def from_compile_config(model):
    copied = build_model()
    copied.compile_from_config(model.get_compile_config())
    return copied


def from_json(model):
    copied = keras.models.model_from_json(model.to_json())
    copied.set_weights(model.get_weights())
    return copied


def saved(ending):
    def save_and_load(model, folder):
        model.save(folder / f"model{ending}")
        return keras.models.load_model(folder / f"model{ending}")

    return save_and_load


COPIES = {
    "clone_model": lambda model, folder: clone(model),
    "compile config": lambda model, folder: from_compile_config(model),
    "model_from_json": lambda model, folder: from_json(model),
    ".keras": saved(".keras"),
    ".h5": saved(".h5"),
    "pickle": lambda model, folder: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.parametrize("way", COPIES)
def test_a_copied_model_has_the_loss_of_the_first(compiled, way, tmp_path):
    copied = COPIES[way](compiled, tmp_path)
    expected = compiled.evaluate(X, Y, verbose=0)
    assert abs(expected) > 1e-3
    np.testing.assert_allclose(copied.evaluate(X, Y, verbose=0), expected, rtol=1e-6)
    assert copied.loss is not compiled.loss
    for model in (compiled, copied):
        model.compile("sgd", loss=model.loss)  # the optimizer of an .h5 file knows the variables of another model
        model.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    for received, wanted in zip(copied.get_weights(), compiled.get_weights()):
        np.testing.assert_allclose(received, wanted, rtol=1e-5)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
def test_a_copied_loss_has_the_same_values(make_loss, copied):
    loss = make_loss(mode="per_set", learning_rate=0.3)
    np.testing.assert_array_equal(copied(loss)(Y, X), loss(Y, X))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_weights_of_every_dtype_are_kept_to_the_bit(make_loss, dtype):
    loss = make_loss(dtype=dtype)
    again = MetaLoss.from_config(json.loads(json.dumps(loss.get_config())))
    for received, expected in zip(again.trainable_variables, loss.trainable_variables, strict=True):
        assert received.dtype == expected.dtype == dtype
        np.testing.assert_array_equal(received.numpy(), expected.numpy())


def test_a_configuration_without_its_weights_is_refused(make_loss):
    config = make_loss().get_config()
    config.pop("weights")
    with pytest.raises(ValueError, match="A learned loss is its weights, and this configuration has none"):
        MetaLoss.from_config(config)


def test_weights_of_another_loss_are_refused(make_loss):
    config = {**make_loss().get_config(), "weights": make_loss(hidden_units=(3,)).get_config()["weights"]}
    with pytest.raises(ValueError, match="do not fit its networks: expected the shapes"):
        MetaLoss.from_config(config)
