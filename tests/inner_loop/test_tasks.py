"""Tests of `ml3_tf.inner_loop._tasks`: the loss of each task, and how many there are."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.inner_loop import are_finite, count_tasks, expand_like, per_task_loss


def test_weights_reach_the_sets_of_a_per_set_loss(make_loss):
    """In each task the weighted loss is that of Keras on the task's examples; weights of zero leave an example out."""
    loss = make_loss(mode="per_set", reduction="mean_with_sample_weight")
    y_true, y_pred = np.random.default_rng(0).normal(size=(2, 3, 6, 1)).astype("float32")
    weights = np.array([[1, 0, 0, 2, 1, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]], "float32")
    values = per_task_loss(loss, y_true, tf.constant(y_pred), weights)
    np.testing.assert_allclose(values, [loss(*task) for task in zip(y_true, y_pred, weights)], rtol=1e-5)
    np.testing.assert_allclose(values[1], loss(y_true[1], y_pred[1]), rtol=1e-5)
    y_pred[0, 1:3] = 100.0
    np.testing.assert_allclose(per_task_loss(loss, y_true, tf.constant(y_pred), weights), values, rtol=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size", "mean_with_sample_weight"])
@pytest.mark.parametrize("shape", [(2, 5, 1), (2, 5, 3, 1)], ids=["vectors", "sequences"])
def test_a_loss_is_reduced_as_keras_reduces_a_batch(reduction, shape):
    rng = np.random.default_rng(0)
    y_true, y_pred, weights = rng.normal(size=shape), rng.normal(size=shape), rng.uniform(size=shape[:2])
    loss = keras.losses.MeanSquaredError(reduction=reduction, dtype="float64")
    values = per_task_loss(loss, y_true, tf.constant(y_pred), weights)
    for task in range(2):
        weight = np.broadcast_to(weights[task].reshape(5, *[1] * (len(shape) - 3)), shape[1:-1])
        np.testing.assert_allclose(values[task], loss(y_true[task], y_pred[task], sample_weight=weight))


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ((np.ones((1, 2, 1)), np.ones((1, 2, 1))), "Tasks are dictionaries .* Received: tuple"),
        ({"support": (np.ones((1, 2, 1)),) * 2}, r"Tasks are dictionaries .* Received: \['support'\]"),
        (
            {"support": (np.ones((2, 3, 1)),) * 2, "query": (np.ones((1, 3, 1)),) * 2},
            "same static, positive number of tasks",
        ),
        ({"support": (np.ones((2, 0, 1)),) * 2, "query": (np.ones((2, 3, 1)),) * 2}, "at least one example"),
    ],
)
def test_malformed_tasks_are_refused(tasks, words):
    with pytest.raises(ValueError, match=words):
        count_tasks(tasks)


def test_values_of_tasks_broadcast_over_what_tasks_have():
    like = tf.zeros((2, 3, 4))
    assert expand_like(tf.constant([1.0, 2.0]), like).shape == (2, 1, 1)
    assert expand_like(tf.zeros((2, 3)), like).shape == (2, 3, 1)
    np.testing.assert_array_equal((like + expand_like(tf.constant([1.0, 2.0]), like))[:, 1, 1], [1.0, 2.0])


def test_a_task_is_finite_if_all_its_numbers_are():
    numbers = {"a": tf.constant([[1.0, np.nan], [1.0, 2.0], [1.0, 2.0]]), "b": tf.constant([0.0, np.inf, 0.0])}
    np.testing.assert_array_equal(are_finite({**numbers, "count": tf.constant([1, 2, 3])}), [False, False, True])
