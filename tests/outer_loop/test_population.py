"""Tests of `ml3_tf.outer_loop._population`: learners that live on; more of them stands in `test_meta_trainer.py`."""

import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.inner_loop import LearnerState
from ml3_tf.learner import Parameters
from ml3_tf.outer_loop import Kept, Population


def learners_of(ages):
    ages = tf.constant(ages, tf.int32)
    return LearnerState(Parameters([tf.cast(ages, tf.float32)[:, tf.newaxis]], []), [ages])


def test_lives_are_log_uniform_between_two_numbers():
    count, steps = 4000, 2
    population = Population((10, 1000), steps=steps, num_groups=1, seed=0)
    fresh, batch = learners_of(np.zeros(count)), {"x": tf.zeros((count, 1))}
    population.renew(fresh, batch)
    left = population.kept.values[2]
    assert 0 < left.numpy().min() < 10 and left.numpy().max() <= 1000  # the first lives are cut
    left.assign(tf.fill([count], float(steps)))
    population.keep(learners_of(np.full(count, steps)))  # all lives end
    population.renew(fresh, batch)
    lives = left.numpy()
    assert 10 <= lives.min() < 10.2 and 980 < lives.max() <= 1000
    np.testing.assert_allclose(np.quantile(lives, [0.25, 0.5, 0.75]), [10**1.5, 100, 10**2.5], rtol=0.1)


def test_groups_live_and_die_together():
    population = Population((2, 50), steps=2, num_groups=2, seed=0)
    fresh, batch = learners_of(np.zeros(6)), {"x": tf.range(6.0)[:, tf.newaxis]}
    population.renew(fresh, batch)
    left = population.kept.values[2]
    np.testing.assert_array_equal(left[:3], left[3:])
    left.assign(tf.fill([6], 10.0))
    diverged = LearnerState(
        Parameters([tf.constant([[1.0], [np.nan], [1.0], [1.0], [1.0], [np.inf]])], []), fresh.slots
    )
    population.keep(diverged)
    np.testing.assert_array_equal(left, [8, 0, 0, 8, 0, 0])


@pytest.mark.parametrize("lives", [1, (1, 5), (5, 3), 0])
def test_lives_must_fit(lives):
    with pytest.raises(ValueError, match="`lives` must be a number of steps, or two in ascending order"):
        Population(lives, steps=2, num_groups=1, seed=0)


def test_what_is_kept_takes_the_shapes_of_the_values():
    kept = Kept()
    assert kept.values is None
    kept.assign({"a": tf.ones((2,)), "b": [tf.constant(3)]})
    np.testing.assert_array_equal(kept.values["a"], [1, 1])
    before = kept.values["a"]
    kept.assign({"a": tf.zeros((2,)), "b": [tf.constant(4)]})
    assert kept.values["a"] is before
    kept.assign({"a": tf.zeros((3,)), "b": [tf.constant(4)]})
    assert kept.values["a"].shape == (3,)
