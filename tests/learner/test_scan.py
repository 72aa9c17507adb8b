"""Tests of `ml3_tf.learner.scan`: derivatives of any order are those of TensorFlow's loop."""

import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.learner import scan

LENGTH = 6


def draw(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape) / 2)


WEIGHTS, STATE, INPUTS = draw(3, 3), draw(2, 3, seed=1), draw(LENGTH, 2, 3, seed=2)


def derivatives(*values, swept, order=3):
    """The first derivatives of a cost for weights, state and inputs; and those of a function of these; and so on."""
    if order == 0:
        weights, state, inputs = values

        def step(carry, at_one_time):
            new = tf.tanh(carry[0] @ weights + at_one_time[0])
            return [new], [at_one_time[0] * new**2]

        spec, sources = tf.TensorSpec((2, 3), tf.float64), [weights] if swept else None
        [last], [outputs] = scan(step, [state], [inputs], outputs=[spec], length=LENGTH, sources=sources)
        return [last**3, tf.sin(outputs)]
    with tf.GradientTape() as tape:
        tape.watch(values)
        lower = derivatives(*values, swept=swept, order=order - 1)
        total = tf.add_n([tf.reduce_sum(tf.sin(value)) for value in lower])
    return [*tape.gradient(total, values), *lower]


@pytest.mark.parametrize("jit_compile", [None, False, True], ids=["eager", "graph", "XLA"])
def test_derivatives_of_third_order_are_those_of_the_loop(jit_compile):
    function = lambda *values: derivatives(*values, swept=True)
    if jit_compile is not None:
        function = tf.function(function, jit_compile=jit_compile)
    received = function(WEIGHTS, STATE, INPUTS)
    expected = derivatives(WEIGHTS, STATE, INPUTS, swept=False)
    assert np.abs(expected[0]).max() > 1  # of third order
    for value, right in zip(received, expected, strict=True):
        np.testing.assert_allclose(value, right, rtol=1e-9, atol=1e-12)


def test_the_second_derivative_of_a_power():
    """A step multiplies by sin(w): x sin(w)^4."""
    w, x = 0.7, 1.3
    weights = tf.constant(w, tf.float64)
    step = lambda carry, _: ([carry[0] * tf.sin(weights)], [])
    with tf.GradientTape() as outer:
        outer.watch(weights)
        with tf.GradientTape() as inner:
            inner.watch(weights)
            [end], _ = scan(step, [tf.constant(x, tf.float64)], [], outputs=[], length=4, sources=[weights])
        slope = inner.gradient(end, weights)
    np.testing.assert_allclose(slope, 4 * x * np.sin(w) ** 3 * np.cos(w))
    np.testing.assert_allclose(
        outer.gradient(slope, weights), 4 * x * (3 * np.sin(w) ** 2 * np.cos(w) ** 2 - np.sin(w) ** 4)
    )


def test_the_gradient_reaches_variables_that_a_step_reads():
    factor = tf.Variable(2.0)
    step = lambda carry, _: ([carry[0] * factor], [carry[0]])
    with tf.GradientTape() as tape:
        [end], [visited] = scan(step, [tf.constant(3.0)], [], outputs=[tf.TensorSpec(())], length=5, sources=[])
    np.testing.assert_allclose(visited, 3 * 2.0 ** np.arange(5))
    np.testing.assert_allclose(tape.gradient(end, factor), 3 * 5 * 2.0**4)


def test_a_scan_takes_a_step():
    with pytest.raises(ValueError, match="`length` must be an integer of at least 1. Received: length=0"):
        scan(lambda carry, _: (carry, []), [STATE], [], outputs=[], length=0)
