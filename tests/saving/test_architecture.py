"""Tests of `ml3_tf.saving._architecture`: chains of known layers are rebuilt, all other networks are refused."""

import keras
import numpy as np
import pytest

from ml3_tf.saving import _architecture
from ml3_tf.saving.errors import ArtifactError, UnsafeArtifactError

layers = keras.layers


def sequential(*chain, width=2):
    return keras.Sequential([keras.Input((width,)), *chain])


def functional(*chain):
    inputs = outputs = keras.Input((2,))
    for layer in chain:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


class MyDense(layers.Dense):
    pass


HONEST = {
    "dense": lambda: sequential(layers.Dense(3, "tanh"), layers.Dense(1, use_bias=False)),
    "functional": lambda: functional(layers.Dense(3), layers.Activation("gelu"), layers.Dense(1)),
    "normalized": lambda: sequential(
        layers.Rescaling(0.5, -1), layers.LayerNormalization(epsilon=0.1, scale=False), layers.Dense(1)
    ),
    "nested": lambda: functional(
        sequential(layers.Dense(3, name="twin")), sequential(layers.Dense(1, name="twin"), width=3)
    ),
    "frozen": lambda: sequential(layers.Dense(3, trainable=False), layers.Dense(1)),
    "mixed": lambda: sequential(layers.Dense(3, dtype="mixed_float16"), layers.Dense(1)),
}


@pytest.mark.parametrize("kind", HONEST)
def test_described_networks_are_rebuilt(kind):
    network = HONEST[kind]()
    description = _architecture.describe(network)
    _architecture.check(description, "f")
    rebuilt = _architecture.build(description)
    weights = _architecture.get_weights(network)
    shapes = _architecture.weight_shapes(description)
    assert {name: tuple(variable.shape) for name, variable in weights.items()} == shapes
    assert list(_architecture.get_weights(rebuilt)) == list(weights)
    for name, variable in _architecture.get_weights(rebuilt).items():
        variable.assign(weights[name])
    x = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    np.testing.assert_array_equal(rebuilt(x), network(x))
    assert len(rebuilt.trainable_variables) == len(network.trainable_variables)


@pytest.mark.parametrize("activation", _architecture.ACTIVATIONS)
def test_every_activation_is_rebuilt(activation):
    description = _architecture.describe(sequential(layers.Activation(activation), layers.Dense(1)))
    assert description["layers"][0]["activation"] == activation
    assert _architecture.build(description).layers[0].activation is getattr(keras.activations, activation)


def shared():
    layer = layers.Dense(2)
    return functional(layer, layer)


def branched():
    inputs = keras.Input((2,))
    return keras.Model(inputs, layers.Add()([inputs, layers.Dense(2)(inputs)]))


def low_rank():
    network = sequential(layers.Dense(2))
    network.layers[0].enable_lora(1)
    return network


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: sequential(layers.Lambda(lambda x: x)), "layer '.*' is a Lambda of keras"),
        (lambda: sequential(MyDense(1)), "is a MyDense of .*test_architecture"),
        (lambda: sequential(layers.Dropout(0.5)), "is a Dropout"),
        (lambda: sequential(layers.Dense(1, lambda x: x * x)), "activation='<lambda> .not the one of Keras.'"),
        (lambda: sequential(layers.Rescaling([1.0, 2.0])), "scale=.*expected a finite number"),
        (lambda: sequential(layers.Dense(1, name="a\tb")), "name='a.tb', expected a text"),
        (branched, "is one chain|has 2 inputs"),
        (shared, "uses one layer twice"),
        (low_rank, "lora_enabled=True"),
    ],
)
def test_other_networks_are_refused_with_what_is_allowed(make, words):
    with pytest.raises(UnsafeArtifactError, match=f"(?s){words}.*one chain of Dense, Activation, .*silu"):
        _architecture.describe(make())


def change(**kwargs):
    return lambda network: network["layers"][0].update(kwargs)


@pytest.mark.parametrize(
    "edit, words",
    [
        (change(type="Lambda"), "expected 'type' of layer 0 to be one of"),
        (change(type=["Dense"]), "expected 'type' of layer 0"),
        (change(activation="os.system"), "expected 'activation' of layer 0"),
        (change(activation={"class_name": "Lambda"}), "expected 'activation' of layer 0"),
        (change(dtype="string"), "expected 'dtype'"),
        (change(units=10**9), "expected 'units'"),
        (change(units=2.5), "expected 'units'"),
        (change(module="os"), "unknown keys .'module'"),
        (change(kernel_initializer="zeros"), "unknown keys"),
        (lambda network: network.update(layers=[]), "a network of 0 layers"),
        (lambda network: network.update(layers=network["layers"] * 40), "a network of 80 layers"),
        (lambda network: network["layers"].append(None), "expected 'type' of layer 2"),
        (lambda network: [layer.update(units=60_000) for layer in network["layers"]], "3600240000 parameters"),
    ],
)
def test_hostile_descriptions_are_refused_unbuilt(edit, words, monkeypatch):
    description = _architecture.describe(sequential(layers.Dense(3), layers.Dense(1)))
    edit(description)
    monkeypatch.setattr(keras.layers.Layer, "__init__", None)
    with pytest.raises(ArtifactError, match=words):
        _architecture.check(description, "f")
