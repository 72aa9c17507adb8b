"""The two kinds of tasks that a loss is drawn and explained for, with the range of predictions of each."""

from typing import Literal, TypeAlias

from ml3_tf.arguments import LossLike
from ml3_tf.feature_layout import PER_OUTPUT
from ml3_tf.meta_loss import MetaLoss

TaskKind: TypeAlias = Literal["regression", "classification"]

REGRESSION: TaskKind = "regression"
CLASSIFICATION: TaskKind = "classification"
# Probabilities stop short of 0 and 1, where the logarithms diverge.
RANGES: dict[TaskKind, tuple[float, float]] = {REGRESSION: (-5.0, 5.0), CLASSIFICATION: (0.01, 0.99)}
CLASSES: tuple[float, float] = (0.0, 1.0)


def kind_of(loss: LossLike) -> TaskKind:
    """Returns `"classification"` for a `MetaLoss` in mode `"per_output"`, `"regression"` for all others.

    A per-output loss that sees more than a prediction and a target is one for regression, too.

    >>> kind_of(MetaLoss.mlp(mode="per_output")), kind_of("mse")
    ('classification', 'regression')
    """
    scores_classes = isinstance(loss, MetaLoss) and loss.mode == PER_OUTPUT and len(loss.features) <= 2
    return CLASSIFICATION if scores_classes else REGRESSION
