"""Tests of `ml3_tf.feature_layout`: shapes that fit and that do not; the arguments of a loss are tested in `test_meta_loss`."""

import numpy as np
import pytest

from ml3_tf import MetaLoss, feature_layout

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


@pytest.mark.parametrize("mode", ["per_sample", "per_set"])
def test_an_empty_set_is_refused(mode):
    with pytest.raises(ValueError, match="The batch is empty"):
        feature_layout.check_shapes(MODES[mode], np.zeros((3, 0, 4)), np.zeros((3, 0, 2)))


def test_numbers_become_columns_and_a_scalar_is_refused():
    assert feature_layout.with_width([1.0, 2.0], "float64").shape == (2, 1)
    assert feature_layout.with_width(np.zeros((3, 4, 1)), "float32").shape == (3, 4, 1)
    with pytest.raises(ValueError, match="Received a scalar"):
        feature_layout.with_width(1.0, "float32")
