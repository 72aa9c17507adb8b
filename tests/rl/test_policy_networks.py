"""Tests of `ml3_tf.rl.policy_networks`: the network of policies and its layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.rl.policy_networks import Squash, StandardDeviation, build_network

SETTINGS = {
    "observation_size": 3,
    "action_size": 2,
    "hidden_units": (8,),
    "activation": "tanh",
    "action_limit": None,
    "observation_scale": None,
    "output_initializer": None,
}


def test_actions_stay_within_their_limits_and_have_gradients():
    z = tf.constant([[-10.0, 10.0]])
    with tf.GradientTape() as tape:
        tape.watch(z)
        actions = Squash([0.25, 2.0])(z)
    assert (np.abs(actions) < [0.25, 2.0]).all()
    # The slope limit / (1 + z^2)^(3/2); that of tanh(10) is 8e-9.
    np.testing.assert_allclose(tape.gradient(actions, z), [[0.25 / 101**1.5, 2 / 101**1.5]], rtol=1e-4)


def test_the_standard_deviation_lies_beside_the_mean():
    layer, mean = StandardDeviation(0.5), tf.constant([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(layer(mean), [[1.0, 2.0, 0.5, 0.5], [3.0, 4.0, 0.5, 0.5]], rtol=1e-6)
    changed = layer(mean, tf.math.log([[2.0, 4.0], [1.0, 1.0]]))
    np.testing.assert_allclose(changed[:, 2:], [[1.0, 2.0], [0.5, 0.5]], rtol=1e-6)


@pytest.mark.parametrize("layer", [Squash([0.25, 2.0]), StandardDeviation(0.5, trainable=False)], ids=["squash", "std"])
def test_a_layer_is_rebuilt_from_its_configuration(layer):
    rebuilt, inputs = type(layer).from_config(layer.get_config()), tf.constant([[0.3, -0.2]])
    np.testing.assert_array_equal(rebuilt(inputs), layer(inputs))
    assert len(rebuilt.trainable_weights) == len(layer.trainable_weights) == 0


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["dense", "mean"]),
        ({"action_limit": 1.0}, ["dense", "mean", "squash"]),
        ({"observation_scale": [1.0, 2.0, 3.0]}, ["rescaling", "dense", "mean"]),
        ({"output_activation": "log_softmax"}, ["dense", "log_softmax"]),
    ],
    ids=["plain", "limited", "scaled", "choices"],
)
def test_the_layers_of_a_network(changes, names):
    inputs, hidden, outputs = build_network(**{**SETTINGS, **changes})
    model = keras.Model(inputs, [hidden, outputs])
    assert [layer.name.rsplit("_", 1)[0] if layer.name[-1].isdigit() else layer.name for layer in model.layers][
        1:
    ] == names
    assert [tuple(part.shape) for part in (hidden, outputs)] == [(None, 8), (None, 2)]
