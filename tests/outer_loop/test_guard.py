"""Tests of `ml3_tf.outer_loop._guard`: what is not finite is not applied, and what explodes is told."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from resumed_runs import make_trainer, sines

from ml3_tf.outer_loop import _guard
from ml3_tf.outer_loop._guard import FiniteGuard, MotionWatch, NormWatch

optimizers = keras.optimizers


def test_the_guard_steps_by_finite_gradients_alone():
    variable = keras.Variable([1.0, 2.0], name="phi")
    guard, optimizer = FiniteGuard([variable]), optimizers.SGD(1.0)
    take = lambda gradient: guard.apply(optimizer, [tf.constant(gradient, tf.float32)])
    take([0.5, 0.5])
    for bad in ([np.nan, 0.0], [1e30, 1e30]):  # the square of the second overflows, and clipping divides by it
        take(bad)
        take([0.25, 0.25])
        guard.raise_if_in_a_row(optimizer)
    np.testing.assert_array_equal(variable, [0.0, 1.0])
    with pytest.warns(UserWarning, match="2 of 5 steps of the meta-loss were left out: .* not finite.*clipnorm"):
        guard.finish(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard.finish(optimizer)


def test_steps_that_fail_in_a_row_are_an_error():
    variables = [keras.Variable([1.0], name=name) for name in ("good", "bad")]
    guard, optimizer = FiniteGuard(variables), optimizers.SGD(1.0)
    guard.apply(optimizer, [tf.constant([0.5])] * 2)
    for _ in range(_guard.PATIENCE):
        guard.raise_if_in_a_row(optimizer)
        guard.apply(optimizer, [tf.constant([0.5]), tf.constant([np.inf])])
    words = r"The meta-gradient of bad is not finite in 4 step\(s\) in a row, after 1 outer steps"
    with pytest.raises(FloatingPointError, match=words):
        guard.raise_if_in_a_row(optimizer)
    guard.raise_if_in_a_row(optimizer)  # it has been told
    np.testing.assert_array_equal(variables, [[0.5], [0.5]])


def test_a_run_without_a_single_step_is_an_error():
    guard, optimizer = FiniteGuard([keras.Variable([1.0], name="phi")]), optimizers.SGD(1.0)
    guard.apply(optimizer, [tf.constant([np.nan])])
    with pytest.raises(FloatingPointError, match=r"of phi is not finite in 1 step\(s\) in a row, after 0 outer"):
        guard.finish(optimizer)


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


def move(watch, factors):
    """Records that learners of size 1 move by these distances."""
    before = [tf.ones((len(factors), 1)), tf.zeros((len(factors), 2, 1))]
    watch.record(before, [before[0] + tf.constant(factors)[:, tf.newaxis], before[1]])


@pytest.mark.parametrize("factors", [[1e-12, 1e-2], [1e5, 1e-2], [np.nan, 1.0]], ids=["one stands", "one runs", "nan"])
def test_some_learners_may_stand_or_run_away(factors):
    watch = MotionWatch()
    move(watch, factors)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.warn_and_forget(was_run=True)
        watch.warn_and_forget(was_run=False)


@pytest.mark.parametrize(
    ("distances", "message"),
    [([1e-8, 0.0], "hardly moved: by 0.0e.00"), ([0.0, 0.0], "hardly moved"), ([1e5, 1e4], "run away: .* by 5.0e.03")],
)
def test_learners_that_all_stand_or_run_away_are_told(distances, message):
    watch = MotionWatch()
    move(watch, distances)
    move(watch, [0.0, 0.0])  # the first step counts
    with pytest.warns(UserWarning, match=f"The learners {message}.*inner learning rate"):
        watch.warn_and_forget(was_run=True)


@pytest.mark.parametrize(("rate", "message"), [(1e-12, "hardly moved"), (1e6, "run away")])
def test_a_trainer_tells_of_an_inner_rate_that_is_far_off(rate, message):
    trainer = make_trainer(inner_optimizer=optimizers.SGD(rate))
    with pytest.warns(UserWarning, match=f"The learners {message}"):
        trainer.fit(sines(), steps_per_epoch=2, verbose=0)
