"""Tests of `ml3_tf.outer_loop._task_loss`: what counts, at which steps, and on which scale."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf import MetaLoss, MetaTrainer, TaskLoss, meta_test, sine_tasks
from ml3_tf.outer_loop import as_task_loss

layers, optimizers = keras.layers, keras.optimizers


def build_learner():
    return keras.Sequential([keras.Input((1,)), layers.Dense(8, activation="tanh"), layers.Dense(1)])


def make_trainer(loss, **arguments):
    keras.utils.set_random_seed(0)
    trainer = MetaTrainer(build_learner, MetaLoss.mlp((10,), learning_rate=0.5), seed=0, **arguments)
    trainer.compile(optimizers.Adam(0.01), loss, optimizers.SGD(0.1))
    return trainer


def batch_of(num_tasks=2):
    return next(iter(sine_tasks(num_tasks=num_tasks, num_support=10, num_query=10, seed=1)))


def curve(trainer, num_steps, **arguments):
    """The task loss before the first step and after each, `[num_steps + 1, N]`, of the learners that `fit` draws."""
    inner = optimizers.SGD(0.1)
    return meta_test(build_learner, trainer.meta_loss, inner, batch_of(), num_steps=num_steps, seed=0, **arguments)


@pytest.mark.parametrize(
    ("task_loss", "num_steps", "expected"),
    [
        (TaskLoss("mse"), 3, lambda losses: losses[-1]),
        (TaskLoss("mse", at="mean"), 3, lambda losses: losses[1:].mean(0)),
        (TaskLoss("mse", at="mean"), 7, lambda losses: losses[1:].mean(0)),
        (TaskLoss("mse", at=(1, 3), logarithm=True), 7, lambda losses: np.log(losses[[1, 3]]).mean(0)),
    ],
    ids=["end", "mean", "mean of a sweep", "logarithm at named steps"],
)
def test_what_counts(task_loss, num_steps, expected):
    """In `fit`, and in `evaluate`."""
    trainer = make_trainer(task_loss, inner_steps=num_steps)
    wanted = expected(curve(trainer, num_steps)).mean()
    tasks = tf.data.Dataset.from_tensors(batch_of())
    np.testing.assert_allclose(trainer.evaluate(tasks, verbose=0, return_dict=True)["loss"], wanted, rtol=1e-4)
    np.testing.assert_allclose(trainer.fit(tasks, verbose=0).history["loss"], wanted, rtol=1e-4)


@pytest.mark.parametrize(
    ("task_loss", "num_steps", "jit_compile"),
    [
        (TaskLoss("mse", at="mean"), 2, False),
        (TaskLoss("mse", at="mean"), 6, False),
        (TaskLoss("mse", at=(1, 6), logarithm=True), 6, True),
    ],
    ids=["mean", "mean of a sweep", "logarithm at named steps, XLA"],
)
def test_the_meta_gradient_is_that_of_finite_differences(task_loss, num_steps, jit_compile):
    trainer = make_trainer(task_loss, inner_steps=num_steps)
    trainer.compile(optimizers.SGD(0.1), task_loss, optimizers.SGD(0.1), jit_compile=jit_compile)
    learners, batch = trainer.inner_loop.start(2, trainer.learner.draw(2)), batch_of()
    gradients, _, _ = trainer._meta_gradient(learners, batch)
    phi = trainer.meta_loss.learned_rate.log_rate
    origin, losses, h = float(phi), [], 1e-2
    for value in (origin + h, origin - h):
        phi.assign(value)
        losses.append(float(trainer._meta_gradient(learners, batch)[1]))
    np.testing.assert_allclose(gradients[-1], (losses[0] - losses[1]) / (2 * h), rtol=2e-2, atol=1e-4)


def test_parts_of_a_life_add_up_to_it():
    """Each named step counts in the part of a life that it falls into."""
    whole = make_trainer(TaskLoss("mse", at=(1, 4)), inner_steps=4)
    parts = make_trainer(TaskLoss("mse", at=(1, 4)), inner_steps=4, unroll=2)
    learners, batch = parts.inner_loop.start(2, parts.learner.draw(2)), batch_of()
    _, total, _ = whole._meta_gradient(learners, batch)
    _, first, learners = parts._meta_gradient(learners, batch)
    _, second, _ = parts._meta_gradient(learners, batch)
    np.testing.assert_allclose(first + second, total, rtol=1e-5)


def test_a_loss_is_a_task_loss_at_the_end():
    assert as_task_loss("mse") == TaskLoss("mse") and as_task_loss(TaskLoss("mae", at="mean")).at == "mean"


@pytest.mark.parametrize("at", ["start", (), 5, (0, 3), (1.5,)], ids=str)
def test_wrong_steps_are_refused(at):
    with pytest.raises(ValueError, match="`at` must be"):
        TaskLoss("mse", at=at)


def test_a_step_beyond_a_life_is_refused():
    with pytest.raises(ValueError, match="taken after 9 steps, but a learner lives for 4"):
        make_trainer(TaskLoss("mse", at=(2, 9)), inner_steps=4)
    make_trainer(TaskLoss("mse", at=(2, 9)), inner_steps=4, lives=(4, 9))
