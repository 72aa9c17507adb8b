"""Tests of `ml3_tf.outer_loop._guard`: what is not finite is not applied, and what explodes is told."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.outer_loop import _guard
from ml3_tf.outer_loop._guard import FiniteGuard, NormWatch

optimizers = keras.optimizers


def test_the_guard_steps_by_finite_gradients_alone():
    variable = keras.Variable([1.0, 2.0], name="phi")
    guard, optimizer = FiniteGuard([variable]), optimizers.SGD(1.0)
    guard.apply(optimizer, [tf.constant([0.5, 0.5])])
    guard.raise_if_non_finite(optimizer)
    for bad in ([np.nan, 0.0], [1e30, 1e30]):  # the square of the second overflows, and clipping divides by it
        guard.apply(optimizer, [tf.constant(bad, tf.float32)])
        guard.apply(optimizer, [tf.constant([1.0, 1.0])])  # nothing more is taken until somebody has been told
        with pytest.raises(FloatingPointError, match="The meta-gradient of phi is not finite after 1 outer steps"):
            guard.raise_if_non_finite(optimizer)
    np.testing.assert_array_equal(variable, [0.5, 1.5])
    guard.apply(optimizer, [tf.constant([0.5, 0.5])])
    np.testing.assert_array_equal(variable, [0.0, 1.0])


def record(watch, norms):
    for norm in norms:
        watch.record(tf.constant(norm))


def test_an_exploding_norm_is_told_once():
    watch = NormWatch()
    record(watch, [1.0, 2.0, 0.5, 3e7, 1.0, 1.0])
    with pytest.warns(
        UserWarning, match=r"its norm reached 3.0e\+07, usually it was 1.8e\+01.*`unroll`.*`lives`.*clip"
    ):
        watch.warn_and_forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.warn_and_forget()


def test_norms_that_fall_or_are_not_finite_are_no_explosion():
    watch = NormWatch()
    record(watch, [*np.geomspace(_guard.EXPLODES / 2, 1.0, 50), np.nan, np.inf, 0.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.warn_and_forget()


def test_norms_of_zero_throughout_are_told():
    watch = NormWatch()
    record(watch, [0.0, 0.0, np.nan])
    with pytest.warns(UserWarning, match="was zero in all 2 steps: the meta-loss has learned nothing.*dead units"):
        watch.warn_and_forget()
    record(watch, [0.0, 1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.warn_and_forget()
