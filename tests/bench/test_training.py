"""Tests of the training that all losses share: it is that of Keras, and the same for all numbers of rates."""

import dataclasses

import keras
import numpy as np
import pytest

from ml3_tf.bench.task import Problems, Task, draw_order, measure
from ml3_tf.bench.training import OPTIMIZERS, Training


def draw(seed):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(2, 60, 3)).astype("float32")
    y = np.sin(x.sum(axis=-1, keepdims=True))
    counts = np.array([40, 40]), np.array([20, 20])
    return Problems((x[:, :40], y[:, :40]), (x[:, 40:], y[:, 40:]), *counts)


def build():
    layers = keras.layers
    return keras.Sequential([keras.Input((3,)), layers.Dense(5, "tanh"), layers.Dense(1, name="output")])


TASK = Task(("first", "second"), "regression", build, draw, num_steps=10, batch_size=8, horizons=(1, 2))


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_a_step_is_that_of_train_on_batch(optimizer):
    training = Training(TASK, "mse", optimizer, jit_compile=False)
    scores = training.run([0.03], seed=3, num_steps=10)
    assert scores.shape == (11, 2, 1)
    problems, model = draw(3), build()
    parameters = training._learner.draw(2, seed=3)
    order = draw_order(problems, 8, 10, np.random.default_rng(3))
    for variable, values in zip(model.trainable_variables, parameters.trainable, strict=True):
        variable.assign(values[1])
    own = OPTIMIZERS[optimizer]()
    own.learning_rate = 0.03
    model.compile(own, "mse")
    for rows in order[1]:
        model.train_on_batch(problems.support[0][1][rows], problems.support[1][1][rows])
    expected = measure("regression", problems.query[1][1], model(problems.query[0][1]).numpy())
    assert scores[-1, 1, 0] == pytest.approx(expected, abs=1e-4)


def test_rates_are_tried_side_by_side_from_the_same_models():
    training = Training(TASK, "mse", "SGD", jit_compile=False)
    several = training.run([0.0, 0.01, 1.0], seed=0, num_steps=20)
    assert several.shape == (21, 2, 3)
    np.testing.assert_array_equal(several[0, :, 0], several[0, :, 2])
    assert np.ptp(several[:, :, 0], axis=0).tolist() == [0, 0]
    alone = training.run([0.01], seed=0, num_steps=20)
    np.testing.assert_allclose(several[:, :, 1], alone[:, :, 0], atol=1e-5)
    chosen = training.run_choices([1.0, 0.01], seed=0, num_steps=20)
    np.testing.assert_allclose(chosen, np.stack([several[:, 0, 2], several[:, 1, 1]], axis=-1), atol=1e-5)


def test_problems_are_shared_among_names():
    one = dataclasses.replace(TASK, names=("both",))
    apart = Training(TASK, "mse", "SGD", jit_compile=False).run([0.01], seed=0, num_steps=10)
    together = Training(one, "mse", "SGD", jit_compile=False).run([0.01], seed=0, num_steps=10)
    np.testing.assert_allclose(together[:, 0], apart.mean(axis=1), atol=1e-6)
