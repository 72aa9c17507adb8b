"""Tests of `ml3_tf.inspection.task_kinds`: a loss of single outputs is one for classes."""

import pytest

from ml3_tf import MetaLoss
from ml3_tf.inspection.task_kinds import CLASSES, RANGES, kind_of


@pytest.mark.parametrize(
    "loss, kind",
    [
        (MetaLoss.mlp((3,), mode="per_output"), "classification"),
        (MetaLoss.mlp((3,), mode="per_output", features={"torque": 1, "way": 1, "speed": 1}), "regression"),
        (MetaLoss.mlp((3,)), "regression"),
        ("binary_crossentropy", "regression"),
    ],
)
def test_the_mode_of_a_loss_gives_the_kind(loss, kind):
    assert kind_of(loss) == kind


def test_the_range_of_probabilities_lies_between_the_classes():
    low, high = RANGES["classification"]
    assert CLASSES[0] < low < high < CLASSES[1]
