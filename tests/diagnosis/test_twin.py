"""Tests of `ml3_tf.diagnosis._twin`: the twin takes the steps of the trainer, in float64."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from planted_faults import batch, build_learner, make_trainer

from ml3_tf import MetaLoss
from ml3_tf.diagnosis._twin import in_float64, make_twin, same_random_state, without_warnings_of_tracing


@pytest.fixture(scope="module")
def tasks():
    return tf.nest.map_structure(tf.convert_to_tensor, batch())


def test_the_twin_has_the_meta_gradient_of_the_trainer(tasks):
    trainer = make_trainer(meta_loss=MetaLoss.around("mse", learning_rate=1.0))
    with in_float64():
        twin = make_twin(trainer, tasks, seed=0, dtype="float64")
        gradients, loss, _ = twin.trainer.meta_gradient(twin.learners, twin.batch)
    assert twin.dtype == "float64" and {v.dtype for v in twin.trainer.meta_loss.trainable_variables} == {"float64"}
    to_float32 = lambda value: tf.cast(value, tf.float32) if value.dtype == tf.float64 else value
    learners = tf.nest.map_structure(to_float32, twin.learners)
    expected, expected_loss, _ = trainer.meta_gradient(learners, tasks)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    for received, value in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(received, value, rtol=1e-3, atol=1e-6)


def test_the_twin_shares_no_variable_with_the_trainer(tasks):
    trainer = make_trainer(build_learner(layers.BatchNormalization))
    with in_float64():
        twin = make_twin(trainer, tasks, seed=0, dtype="float64")
    variables = lambda of: {id(v) for v in [*of.learner.model.variables, *of.meta_loss.trainable_variables]}
    assert not variables(twin.trainer) & variables(trainer)
    assert trainer.learner is not twin.trainer.learner and trainer.objective is not twin.trainer.objective


def test_what_a_training_pass_does_not_move_keeps_its_values(tasks):
    def build():
        scale = layers.Normalization()
        scale.adapt(np.linspace(0.0, 6.0, 50)[:, None])
        return keras.Sequential([keras.Input((1,)), scale, layers.Dense(1)])

    trainer = make_trainer(build)
    with in_float64():
        twin = make_twin(trainer, tasks, seed=0, dtype="float64")
    for rows, value in zip(twin.learners.parameters.non_trainable, trainer.learner.model.non_trainable_variables):
        np.testing.assert_allclose(rows[0], np.asarray(value))


def test_keras_is_back_in_its_dtype_after_an_error():
    with pytest.raises(RuntimeError), in_float64():
        assert keras.config.floatx() == "float64" and layers.Dense(1).compute_dtype == "float64"
        raise RuntimeError
    assert keras.config.floatx() == "float32" and layers.Dense(1).compute_dtype == "float32"


def test_global_generators_go_on_as_if_nothing_was_drawn():
    draw = lambda: (random.random(), np.random.rand(), float(keras.random.normal(())))
    keras.utils.set_random_seed(1)
    expected = draw()
    keras.utils.set_random_seed(1)
    with same_random_state():
        draw()
        layers.Dense(1)  # its initializers draw seeds
    assert draw() == expected


def test_only_warnings_of_tracing_are_silenced(caplog):
    logger = tf.get_logger()
    caplog.set_level("WARNING", logger=logger.name)  # other tests leave it higher
    logger.addHandler(caplog.handler)
    with without_warnings_of_tracing():
        logger.warning("5 out of the last 5 calls triggered tf.function retracing.")
        logger.warning("something else")
    logger.warning("retracing again")
    logger.removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"something else", "retracing again"}
