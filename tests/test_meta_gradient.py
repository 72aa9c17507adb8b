"""Tests of `ml3_tf.meta_gradient`: a sweep equals one tape over all steps, whatever is kept and compiled."""

import numpy as np
import pytest
import tensorflow as tf

from ml3_tf import MetaLoss, meta_gradient
from ml3_tf.meta_gradient import complete_gradients, sweep

NUM_STEPS = 7


@pytest.fixture(scope="module")
def problem():
    """A step, an end, a first carry and variables, in float64. A part of the carry is an integer, and one is kept."""
    weights = tf.Variable(np.random.default_rng(0).normal(size=(3, 3)))
    unused, late = tf.Variable(1.0, dtype="float64"), tf.Variable(0.5, dtype="float64")

    def step(carry, i):
        x, (count, fixed) = carry
        x = tf.tanh(x @ weights + fixed) + 0.1 * tf.cast(count + i, x.dtype)
        return x, (count + 1, fixed)

    def end(carry):
        x, (count, fixed) = carry
        return tf.reduce_sum(late * x**2 * tf.cast(count, x.dtype)), (x + 1, (count, fixed))

    rng = np.random.default_rng(1)
    carry = tf.constant(rng.normal(size=(2, 3))), (tf.constant(3), tf.constant(rng.normal(size=(3,))))
    return step, end, carry, [weights, unused, late]


@pytest.fixture(scope="module")
def taped(problem):
    """Loss, last carry and gradients of `problem`, by one tape over all steps."""
    step, end, first, variables = problem
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(first[0])
        tape.watch(first[1][1])
        carry = first
        for i in range(NUM_STEPS):
            carry = step(carry, i)
        loss, last = end(carry)
    return loss, last, tape.gradient(loss, variables), [tape.gradient(loss, part) for part in (first[0], first[1][1])]


@pytest.mark.parametrize("recompute", ["auto", 1, 2, 3, 7, 10])
@pytest.mark.parametrize("jit_compile", [None, False, True], ids=["eager", "graph", "XLA"])
def test_a_sweep_equals_one_tape_over_all_steps(problem, taped, jit_compile, recompute):
    step, end, carry, variables = problem

    def differentiate():
        swept = sweep(step, end, carry, num_steps=NUM_STEPS, variables=variables, recompute=recompute)
        assert [gradient is None for gradient in swept.gradients] == [False, True, False]
        return swept._replace(gradients=[swept.gradients[0], swept.gradients[2]])

    swept = (differentiate if jit_compile is None else tf.function(differentiate, jit_compile=jit_compile))()
    loss, last, gradients, carry_gradients = taped
    expected = [loss, *tf.nest.flatten(last), gradients[0], gradients[2], *carry_gradients]
    for received, value in zip(tf.nest.flatten(swept), expected, strict=True):
        np.testing.assert_allclose(received, value, rtol=1e-14, atol=1e-15)


def test_a_sweep_without_steps_is_the_gradient_of_the_end(problem):
    _, end, carry, variables = problem
    swept = sweep(None, end, carry, num_steps=0, variables=variables)
    np.testing.assert_allclose(swept.carry_gradients[0], 2 * 0.5 * carry[0] * 3)
    assert swept.gradients[0] is None and swept.gradients[2] is not None


def test_large_carries_are_recomputed(problem, taped, monkeypatch):
    """Beyond a number of bytes every third of seven carries is kept, the root of their number."""
    step, end, carry, variables = problem
    num_bytes = 8 * (2 * 3 + 3) + 4
    for limit, length in ((NUM_STEPS * num_bytes, 1), (NUM_STEPS * num_bytes - 1, 3)):
        monkeypatch.setattr(meta_gradient, "MAX_KEPT_BYTES", limit)
        assert meta_gradient._segment_length(num_bytes, NUM_STEPS, "auto") == length
    swept = sweep(step, end, carry, num_steps=NUM_STEPS, variables=variables)
    np.testing.assert_allclose(swept.gradients[0], taped[2][0], rtol=1e-14)


@pytest.mark.parametrize("recompute", [0, -1, 1.5, "often"])
def test_a_wrong_recompute_is_refused(problem, recompute):
    step, end, carry, variables = problem
    with pytest.raises(ValueError, match="`recompute` must be an integer of at least 1"):
        sweep(step, end, carry, num_steps=2, variables=variables, recompute=recompute)


def test_missing_gradients_become_zeros_with_a_warning():
    loss = MetaLoss.mlp((3,))
    given = [tf.ones(v.shape) for v in loss.trainable_variables]
    for received, expected in zip(complete_gradients(given, loss), given, strict=True):
        np.testing.assert_array_equal(received, expected)
    with pytest.warns(UserWarning, match="The meta-gradient of .*bias is missing"):
        completed = complete_gradients([given[0], None, *given[2:]], loss)
    np.testing.assert_array_equal(completed[1], np.zeros(3))
    with pytest.raises(ValueError, match="There is no meta-gradient"):
        complete_gradients([None] * len(given), loss)
