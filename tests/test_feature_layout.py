"""Tests of `ml3_tf.feature_layout`: shapes, weights and pooling; `test_meta_loss` tests the arguments of a loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from ml3_tf import MetaLoss, feature_layout
from ml3_tf.feature_layout import WithCall, example_weights, pool

FEATURES = np.random.default_rng(0).normal(size=(3, 5, 2))
WEIGHTS = np.random.default_rng(1).uniform(size=(3, 5))

MODES = {
    "per_sample": MetaLoss.mlp(features={"y_pred": 2, "state": 3, "goal": 1}),
    "per_output": MetaLoss.mlp(mode="per_output"),
    "per_set": MetaLoss.mlp(mode="per_set", features={"y_pred": 2, "state": 3, "goal": 1}),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_built_loss_fits(mode):
    feature_layout.check(MODES[mode])


@pytest.mark.parametrize("leading", [(5,), (3, 5), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_shapes_that_fit_pass(mode, leading):
    pred_width = 4 if mode == "per_output" else 2
    feature_layout.check_shapes(MODES[mode], np.zeros((*leading, 4)), np.zeros((*leading, pred_width)))


@pytest.mark.parametrize("mode", ["per_sample", "per_set"])
def test_a_wrong_width_is_refused_naming_the_features(mode):
    with pytest.raises(ValueError, match=r"4 for y_true \(state, goal, side by side\) and 2 for y_pred"):
        feature_layout.check_shapes(MODES[mode], np.zeros((5, 3)), np.zeros((5, 2)))


def test_each_slice_of_a_per_output_loss_has_a_column_for_each_output():
    loss = MetaLoss.mlp(mode="per_output", features={"torque": 1, "way": 1, "speed": 1})
    feature_layout.check_shapes(loss, np.zeros((5, 6)), np.zeros((5, 3)))
    for width in (3, 5):
        words = rf"needs 2 target\(s\) for each prediction on the last axis .*y_true \(5, {width}\), y_pred \(5, 3\)"
        with pytest.raises(ValueError, match=words):
            feature_layout.check_shapes(loss, np.zeros((5, width)), np.zeros((5, 3)))


@pytest.mark.parametrize("mode", ["per_sample", "per_set"])
def test_an_empty_set_is_refused(mode):
    with pytest.raises(ValueError, match="The batch is empty"):
        feature_layout.check_shapes(MODES[mode], np.zeros((3, 0, 4)), np.zeros((3, 0, 2)))


def test_numbers_become_columns_and_a_scalar_is_refused():
    assert feature_layout.with_width([1.0, 2.0], "float64").shape == (2, 1)
    assert feature_layout.with_width(np.zeros((3, 4, 1)), "float32").shape == (3, 4, 1)
    with pytest.raises(ValueError, match="Received a scalar"):
        feature_layout.with_width(1.0, "float32")


# Sets


def test_pooling_is_the_mean_over_each_set():
    np.testing.assert_allclose(pool(ops.array(FEATURES)), FEATURES.mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 1e-20, 1e20])
def test_weighted_pooling_is_the_weighted_mean_whatever_the_scale_of_the_weights(factor):
    expected = [np.average(features, axis=0, weights=weights) for features, weights in zip(FEATURES, WEIGHTS)]
    pooled = pool(ops.array(FEATURES, "float32"), ops.array(factor * WEIGHTS, "float32"))
    np.testing.assert_allclose(pooled, expected, rtol=1e-4)


def test_a_set_without_any_weight_has_the_features_zero():
    weights = WEIGHTS * [[1.0], [0.0], [1.0]]
    pooled = pool(ops.array(FEATURES), ops.array(weights))
    np.testing.assert_array_equal(pooled[1], [0.0, 0.0])
    assert np.all(np.isfinite(pooled))


@pytest.mark.parametrize(
    ("pred_shape", "weight_shape"),
    [((5, 1), (5,)), ((5, 1), (5, 1)), ((3, 5, 2), (3, 5)), ((3, 5, 2), (3, 5, 1))],
    ids=str,
)
def test_weights_of_single_examples_come_in_two_shapes(pred_shape, weight_shape):
    given = np.random.default_rng(2).uniform(size=weight_shape).astype("float32")
    weights = example_weights(tf.zeros(pred_shape), given)
    np.testing.assert_array_equal(weights, given.reshape(pred_shape[:-1]))


def test_weights_of_whole_sets_hold_for_each_of_their_examples():
    weights = example_weights(tf.zeros((3, 5, 1)), np.array([0.0, 1.0, 2.0]))
    np.testing.assert_array_equal(weights, [[0.0] * 5, [1.0] * 5, [2.0] * 5])


def test_a_mask_takes_examples_away():
    mask = np.array([True, False, True])
    np.testing.assert_array_equal(example_weights(tf.zeros((3, 1)), None, mask), [1.0, 0.0, 1.0])
    np.testing.assert_array_equal(example_weights(tf.zeros((3, 1)), [2.0, 2.0, 0.5], mask), [2.0, 0.0, 0.5])


def test_without_weights_and_mask_there_is_nothing_to_weigh():
    assert example_weights(tf.zeros((3, 1))) is None


def test_free_axes_of_a_graph_are_kept():
    function = tf.function(example_weights, input_signature=[tf.TensorSpec((None, None, 1)), tf.TensorSpec((None,))])
    np.testing.assert_array_equal(function(tf.zeros((2, 3, 1)), tf.constant([1.0, 4.0])), [[1.0] * 3, [4.0] * 3])


def test_a_given_call_is_reduced_by_keras():
    loss = WithCall(lambda y_true, y_pred: ops.mean(ops.square(y_pred - y_true), axis=-1), "sum", "given", "float32")
    y_true, y_pred, weights = np.random.default_rng(3).normal(size=(3, 4, 1))
    expected = keras.losses.MeanSquaredError(reduction="sum")(y_true, y_pred, weights[:, 0])
    np.testing.assert_allclose(loss(y_true, y_pred, weights[:, 0]), expected, rtol=1e-6)
