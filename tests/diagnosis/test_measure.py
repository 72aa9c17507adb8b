"""Tests of `ml3_tf.diagnosis._measure`: each measurement, beside one that is made in another way."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from planted_faults import batch, make_trainer, with_constant_targets, with_queries_of_others

from ml3_tf import MetaLoss, TaskLoss, meta_test
from ml3_tf.diagnosis import _measure as measure
from ml3_tf.diagnosis._twin import in_float64, make_twin


def twin_of(trainer, tasks=None):
    tasks = tf.nest.map_structure(tf.convert_to_tensor, batch() if tasks is None else tasks)
    return make_twin(trainer, tasks, seed=0, dtype="float64")


@pytest.fixture(scope="module")
def twin():
    with in_float64():
        yield twin_of(make_trainer(inner_steps=3))


def test_meta_gradients_are_those_of_the_trainer(twin):
    found = measure.meta_gradients(twin)
    assert list(found) == [1, 2, 3]
    expected = twin.trainer.meta_gradient(twin.learners, twin.batch, num_steps=2)[0]
    for received, value in zip(found[2], expected, strict=True):
        np.testing.assert_allclose(received, value, rtol=1e-10, atol=1e-16)
    assert measure.norm(found[2]) == pytest.approx(float(tf.linalg.global_norm(expected)))
    assert measure.norm([None, tf.constant([3.0, 4.0])]) == 5.0 and measure.norm([None]) == 0.0


def test_drift_is_that_of_a_meta_test(twin):
    losses, after = measure.drift(twin, 3)
    assert list(losses) == [0, 3, 9, 30]
    curves = meta_test(
        twin.trainer.learner,
        twin.trainer.meta_loss,
        keras.optimizers.SGD(0.02),
        twin.batch,
        num_steps=9,
        parameters=twin.learners.parameters,
        jit_compile=False,
    )
    np.testing.assert_allclose([losses[age] for age in (0, 3, 9)], curves[[0, 3, 9]].mean(axis=1), rtol=1e-6)
    assert int(after.age[0]) == 3
    assert 0 < measure.motion(twin.learners, after) < 0.1 and measure.motion(after, after) == 0.0


def test_the_query_is_compared_with_those_of_others(twin):
    own = measure.check_query(twin)
    other = measure.check_query(twin_of(make_trainer(), with_queries_of_others(batch())))
    assert own.support[1] < 0.5 * own.support[0] and own.query[1] < 0.5 * own.query[0] and own.share_misplaced == 0
    assert other.query[1] > 0.9 * other.query[0] and other.share_misplaced > 0.5


def test_constant_targets_are_named(twin):
    assert measure.constant_targets(twin) == ()
    tasks = {**batch(), "query": with_constant_targets(batch())["query"]}
    assert measure.constant_targets(twin_of(make_trainer(), tasks)) == ("query",)


def test_learners_are_scored_after_the_last_step_whatever_counts():
    """Fresh learners reach no late age, and their meta-gradient would be zero."""
    trainer = make_trainer(inner_steps=2)
    trainer.compile(loss=TaskLoss("mse", at=(2,)), inner_optimizer=keras.optimizers.SGD(0.02))
    with in_float64():
        norms = {count: measure.norm(values) for count, values in measure.meta_gradients(twin_of(trainer)).items()}
    assert norms[1] > 0 and norms[2] > norms[1]


def test_known_cuts_are_named(twin):
    assert measure.known_cuts(twin) == []
    rated = make_trainer(meta_loss=MetaLoss.mlp((5,), learning_rate="network"))
    assert ["network" in cut for cut in measure.known_cuts(twin_of(rated))] == [True]
