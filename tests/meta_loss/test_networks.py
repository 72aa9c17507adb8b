"""The fully connected networks of a meta-loss."""

import keras
import pytest

from ml3_tf.meta_loss._networks import build_networks

ARGUMENTS = {"activation": "tanh", "output_activation": None, "output_initializer": "zeros", "dtype": "float32"}


def units(network):
    return [layer.units for layer in network.layers]


def test_without_pooling_there_is_one_network():
    network, score_network = build_networks(3, (5, 4), None, num_outputs=2, **ARGUMENTS)
    assert score_network is None
    assert network.input_shape == (None, 3) and units(network) == [5, 4, 2]
    assert [layer.use_bias for layer in network.layers] == [True, True, False]
    assert [layer.activation.__name__ for layer in network.layers] == ["tanh", "tanh", "linear"]


def test_with_pooling_the_output_stands_behind_it():
    network, score_network = build_networks(3, (5, 4), (6,), num_outputs=1, **ARGUMENTS)
    assert units(network) == [5, 4]
    assert score_network.input_shape == (None, 4) and units(score_network) == [6, 1]


def test_a_pooling_needs_something_to_pool():
    with pytest.raises(ValueError, match="at least one width in `hidden_units`"):
        build_networks(3, (), (6,), num_outputs=1, **ARGUMENTS)


def test_all_layers_have_the_dtype():
    network, _ = build_networks(3, (5,), None, num_outputs=1, **ARGUMENTS | {"dtype": "float64"})
    assert {variable.dtype for variable in network.variables} == {"float64"}
    assert keras.backend.standardize_dtype(network.inputs[0].dtype) == "float64"
