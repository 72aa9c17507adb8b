"""Tests of `ml3_tf.inner_loop._tasks`: the loss of each task, and how many there are."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.inner_loop import are_finite, count_tasks, expand_like, leave_out_masked, per_task_loss


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


def masked(values, mask):
    tensor = tf.constant(values)
    tensor._keras_mask = tf.constant(mask)
    return tensor


@pytest.mark.parametrize("weights", [None, "per example", "per step"])
@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size", "mean_with_sample_weight"])
def test_what_keras_masks_is_left_out_as_keras_leaves_it_out(reduction, weights):
    rng = np.random.default_rng(0)
    y_true, y_pred = rng.normal(size=(2, 2, 5, 3, 1))
    mask = rng.uniform(size=(2, 5, 3)) > 0.4
    weight = None if weights is None else rng.uniform(size=(2, 5) if weights == "per example" else (2, 5, 3))
    loss = keras.losses.MeanSquaredError(reduction=reduction, dtype="float64")
    values = per_task_loss(loss, y_true, masked(y_pred, mask), weight)
    for task in range(2):
        of_task = None if weight is None else np.broadcast_to(weight[task].reshape(5, -1), (5, 3))
        expected = loss(y_true[task], masked(y_pred[task], mask[task]), sample_weight=of_task)
        np.testing.assert_allclose(values[task], expected)


def test_masked_predictions_have_weights():
    y_pred, weights = masked(np.ones((1, 2, 2)), [[[True, False], [True, True]]]), np.array([[2.0, 3.0]])
    np.testing.assert_array_equal(leave_out_masked(y_pred), [[[1, 0], [1, 1]]])
    np.testing.assert_array_equal(leave_out_masked(y_pred, weights), [[[2, 0], [3, 3]]])
    np.testing.assert_allclose(leave_out_masked(y_pred, reduction="mean"), np.array([[[1, 0], [1, 1]]]) * 4 / 3)
    assert leave_out_masked(tf.ones((1, 2, 2))) is None and leave_out_masked(tf.ones((1, 2, 2)), weights) is weights


def test_a_mask_that_leaves_nothing_leaves_a_loss_of_zero():
    y_pred = masked(np.ones((1, 2, 2)), np.zeros((1, 2), bool))
    np.testing.assert_array_equal(per_task_loss(keras.losses.MeanSquaredError(), np.zeros((1, 2, 2)), y_pred), [0])


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 1)])
def test_one_weight_for_each_example_may_have_an_axis_of_its_own(shape):
    y_true, y_pred = np.random.default_rng(0).normal(size=(2, 2, 4, 3))
    weights = np.random.default_rng(1).uniform(size=(2, 4))
    loss = keras.losses.MeanSquaredError(dtype="float64")
    values = per_task_loss(loss, y_true, tf.constant(y_pred), weights.reshape(shape))
    np.testing.assert_allclose(values, np.mean(weights * np.mean((y_true - y_pred) ** 2, -1), axis=1))


@pytest.mark.parametrize("shape", [(4,), (2, 3), (3, 4), (4, 4), (2, 4, 3), (2, 1)])
def test_weights_that_would_be_broadcast_are_refused(shape):
    with pytest.raises(ValueError, match="`sample_weight` needs one weight for each example"):
        per_task_loss(keras.losses.MeanSquaredError(), np.ones((2, 4, 1)), tf.ones((2, 4, 1)), np.ones(shape))


@pytest.mark.parametrize("loss", [keras.losses.MeanSquaredError(), keras.losses.huber], ids=["object", "function"])
@pytest.mark.parametrize("shape", [(2, 4, 3), (2, 1, 1), (2, 3, 1), (1, 4, 1)])
def test_targets_that_would_be_broadcast_are_refused(loss, shape):
    with pytest.raises(ValueError, match=rf"needs a target for each prediction. Received: .*\({shape[0]}, {shape[1]}"):
        per_task_loss(loss, np.ones(shape), tf.ones((2, 4, 1)))


def test_targets_of_another_rank_and_of_classes_are_taken_as_keras_takes_them():
    y_pred = tf.constant(np.random.default_rng(0).uniform(size=(2, 4, 3)))
    squared = keras.losses.mean_squared_error
    np.testing.assert_allclose(
        per_task_loss(squared, np.ones((2, 4)), y_pred[..., :1]), tf.reduce_mean((y_pred[..., 0] - 1) ** 2, 1)
    )
    classes = np.array([[0, 1, 2, 0], [1, 1, 1, 1]])
    expected = -np.log(
        np.take_along_axis(y_pred.numpy() / y_pred.numpy().sum(-1, keepdims=True), classes[..., None], -1)
    )
    for y_true in (classes, classes[..., np.newaxis]):
        values = per_task_loss(keras.losses.sparse_categorical_crossentropy, y_true, y_pred)
        np.testing.assert_allclose(values, expected.mean(axis=(1, 2)))
    quantiles = lambda y_true, y_pred: tf.reduce_mean(tf.abs(y_true - y_pred), -1)  # a target for three predictions
    assert per_task_loss(quantiles, np.ones((2, 4, 1)), y_pred).shape == (2,)


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
