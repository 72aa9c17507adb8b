"""Tests of `ml3_tf.learner._recurrent`: recurrent layers keep their values, and have right second derivatives."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from ml3_tf.keras_internals import second_derivatives
from ml3_tf.learner._recurrent import rnn_by_scan
from ml3_tf.learner._scan import NAME

SEQUENCES = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")
MASK = np.array([[1, 1, 1, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]], "float32")[..., np.newaxis]
VIDEOS = np.random.default_rng(0).normal(size=(2, 4, 6, 6, 2)).astype("float32")
LAYERS = {
    "LSTM": lambda: layers.LSTM(3),
    "SimpleRNN": lambda: layers.SimpleRNN(3, return_sequences=True),
    "GRU, sequences": lambda: layers.GRU(3, return_sequences=True),
    "states": lambda: layers.LSTM(3, return_state=True),
    "backwards": lambda: layers.GRU(3, go_backwards=True, return_sequences=True),
    "both ways": lambda: layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
    "stacked cells": lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], return_sequences=True),
    "ConvLSTM": lambda: layers.ConvLSTM2D(2, 3),
    "masked": lambda: keras.Sequential([layers.Masking(), layers.LSTM(3, return_sequences=True, return_state=True)]),
    "masked, both ways": lambda: keras.Sequential(
        [layers.Masking(), layers.Bidirectional(layers.GRU(3, return_sequences=True))]
    ),
}


def by_scan(layer):
    def call(x):
        with second_derivatives(rnn_by_scan):
            return layer(x)

    return tf.function(call)


def scans_of(function, x):
    graph = function.get_concrete_function(x).graph
    return [op for op in graph.get_operations() if NAME in op.name]


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_keeps_its_values(name):
    x = VIDEOS if name == "ConvLSTM" else SEQUENCES * (MASK if "masked" in name else 1)
    layer = LAYERS[name]()
    expected = layer(x)
    function = by_scan(layer)
    assert scans_of(function, x)
    for value, right in zip(tf.nest.flatten(function(x)), tf.nest.flatten(expected), strict=True):
        assert value.shape == right.shape
        np.testing.assert_allclose(value, right, rtol=1e-6, atol=1e-7)


def second_order(layer, call, x):
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            cost = tf.reduce_sum(tf.sin(call(x)))
        slopes = inner.gradient(cost, layer.trainable_variables)
        total = tf.add_n([tf.reduce_sum(tf.sin(slope)) for slope in slopes])
    return [*slopes, *outer.gradient(total, layer.trainable_variables)]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "XLA"])
def test_second_derivatives_are_those_of_an_unrolled_layer(jit_compile):
    x = tf.constant(SEQUENCES, "float64")
    layer = layers.GRU(3, return_sequences=True)
    unrolled = layers.GRU(3, return_sequences=True, unroll=True)
    for each in (layer, unrolled):
        each.build(x.shape)
    unrolled.set_weights(layer.get_weights())
    function = by_scan(layer)
    compiled = tf.function(lambda: second_order(layer, function, x), jit_compile=jit_compile)
    for value, right in zip(compiled(), second_order(unrolled, unrolled, x), strict=True):
        np.testing.assert_allclose(value, right, rtol=1e-9, atol=1e-12)


def test_the_gradient_of_a_stateless_call_reaches_its_values():
    """Not those of the layer, which the step of a gradient would find once the scope of the call has ended."""
    layer = layers.GRU(3)
    layer.build(SEQUENCES.shape)
    values = [2.0 * variable.value for variable in layer.trainable_variables]
    seeds = [variable.value for variable in layer.non_trainable_variables]

    def differentiate(values):
        with second_derivatives(rnn_by_scan), tf.GradientTape() as tape:
            tape.watch(values)
            cost = tf.reduce_sum(layer.stateless_call(values, seeds, tf.constant(SEQUENCES))[0] ** 2)
        return tape.gradient(cost, values)

    for value, right in zip(tf.function(differentiate)(values), differentiate(values), strict=True):
        assert np.abs(right).max() > 0.1
        np.testing.assert_allclose(value, right, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["unknown length", "dropout", "eager"])
def test_what_is_no_plain_loop_is_left_to_keras(kind):
    layer, x = layers.LSTM(3, dropout=0.5, seed=1), SEQUENCES
    layer(x)
    if kind == "dropout":
        assert not scans_of(by_scan(lambda x: layer(x, training=True)), x)
        assert scans_of(by_scan(layer), x)
    elif kind == "unknown length":
        assert not scans_of(by_scan(layer), tf.TensorSpec((3, None, 4)))
    else:
        with second_derivatives(rnn_by_scan):
            np.testing.assert_allclose(layer(x), tf.function(lambda: layer(x))(), rtol=1e-6)


def test_code_that_does_not_ask_for_it_has_keras_s_loop():
    layer = layers.LSTM(3)
    by_scan(layer)(SEQUENCES)
    assert not scans_of(tf.function(lambda x: layer(x)), SEQUENCES)
