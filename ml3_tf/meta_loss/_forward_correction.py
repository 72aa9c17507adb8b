"""What a set of examples says of how labels are wrong.

Shape letters: B examples of a set, C classes; `...` any leading axes.
"""

from typing import Any

import keras
from keras import ops


def correct_forward(y_true: Any, y_pred: Any, prior_count: Any, sample_weight: Any = None) -> Any:
    """Returns the probabilities of the labels that classes are given, where labels may be wrong.

    `T[c, k]`, the share of examples of class c with the label k, is counted in the set itself, by the predicted
    probabilities, next to `prior_count` right labels of each class. An example has the label k with the probability
    `sum_c p[c] T[c, k]`. No gradient flows through T.

    Args:
        y_true: One-hot labels `[..., B, C]`.
        y_pred: Probabilities `[..., B, C]`.
        prior_count: Number of right labels of each class to add, a scalar.
        sample_weight: Optional `[..., B]`: how much each example counts in its set.

    Returns:
        `[..., B, C]`.

    Source: forward correction of Patrini et al., "Making Deep Neural Networks Robust to Label Noise", CVPR 2017; they
    estimate T beforehand, with another network.
    """
    counted: Any = ops.stop_gradient(y_pred)
    counted = counted if sample_weight is None else ops.expand_dims(sample_weight, -1) * counted
    counts = ops.maximum(ops.matmul(ops.swapaxes(counted, -1, -2), y_true), 0.0)
    per_count = y_pred / ops.expand_dims(prior_count + ops.sum(counts, axis=-1), -2)
    return ops.matmul(per_count, counts) + prior_count * per_count


def compare_frequencies(y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
    """Returns how far the classes are predicted from as often as they are labels, one number for each set, `[..., 1]`.

    `KL(r | s) = sum_k r[k] log(r[k] / s[k])`, where r is the mean label of the set, and s the mean prediction. With
    counted labels alone, two classes that are alike may become one: all of the second are taken for wrong labels of the
    first. Then s is zero for it. Labels that are wrong hardly change r, unless some classes lose many.

    Args:
        y_true: One-hot labels `[..., B, C]`.
        y_pred: Probabilities `[..., B, C]`.
        sample_weight: Optional `[..., B]`: how much each example counts in its set.

    Source: Tanaka et al., "Joint Optimization Framework for Learning with Noisy Labels", CVPR 2018, eq. 8, where r is
    known beforehand.
    """
    weight: Any = ops.ones_like(y_pred[..., :1]) if sample_weight is None else ops.expand_dims(sample_weight, -1)
    total: Any = ops.maximum(ops.sum(weight, axis=-2), keras.config.epsilon())
    labels, predicted = (ops.divide(ops.sum(weight * values, axis=-2), total) for values in (y_true, y_pred))
    above_zero = lambda values: ops.maximum(values, keras.config.epsilon())
    log_ratio: Any = ops.log(ops.divide(above_zero(labels), above_zero(predicted)))
    return ops.sum(labels * log_ratio, axis=-1, keepdims=True)
