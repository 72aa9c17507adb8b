"""Tests of `ml3_tf.arguments`: counts, and the inputs of a loss."""

import numpy as np
import pytest

from ml3_tf import LossInputs, MetaLoss
from ml3_tf.arguments import check_counts


def test_integers_of_python_and_numpy_are_counts():
    check_counts(steps=1, tasks=np.int64(3))


@pytest.mark.parametrize("count", [0, -1, 2.0, "2", None])
def test_values_that_are_not_counts_are_named(count):
    with pytest.raises(ValueError) as refused:
        check_counts(tasks=3, steps=count)
    assert str(refused.value) == f"`steps` must be an integer of at least 1. Received: steps={count!r}"


def test_loss_inputs_give_their_features_and_scale_to_a_loss():
    inputs = LossInputs(lambda trajectory: trajectory * 2, {"action": 2, "state": 1}, [1.0, 1.0, 4.0], "mine")
    loss = MetaLoss.mlp(features=inputs)
    assert (loss.features, loss.input_scale) == ({"action": 2, "state": 1}, [1.0, 1.0, 4.0])
    assert inputs(21) == 42
    inputs.check_fits(loss)
    inputs.check_fits("mse")
    with pytest.raises(ValueError, match=r"Received: {'action'"):
        inputs.check_fits(MetaLoss.mlp())


@pytest.mark.parametrize(("function", "features"), [("mse", {"a": 1, "b": 1}), (len, {"a": 1})])
def test_loss_inputs_that_describe_nothing_are_refused(function, features):
    with pytest.raises(ValueError, match="`LossInputs` need a function of a trajectory or None"):
        LossInputs(function, features)


def test_loss_inputs_of_data_sets_see_no_trajectory():
    with pytest.raises(ValueError, match="no function of a trajectory"):
        LossInputs(None, {"y_pred": 1, "y_true": 1})(None)
