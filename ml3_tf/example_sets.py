"""Sets of examples: how a per-set loss pools the features of many examples into those of one set."""

import keras
from keras import ops


def pool(features, weights=None):
    """The weighted mean of the features of each set.

    The weights of a set count in proportion to one another; without any weight at all its features are zero.

    Args:
        features: `[..., B, H]`.
        weights: Optional, `[..., B]`, not negative. `None`: all alike.

    Returns:
        `[..., H]`.

    Example:

    >>> pool(ops.array([[1.0], [2.0], [6.0]]), ops.array([1.0, 1.0, 0.0])).numpy().tolist()
    [1.5]
    """
    if weights is None:
        return ops.mean(features, axis=-2)
    total = ops.sum(weights, axis=-1, keepdims=True)
    shares = weights / ops.where(total > 0, total, ops.ones_like(total))
    return ops.sum(ops.expand_dims(shares, -1) * features, axis=-2)


def weights_of_examples(y_pred, sample_weight=None, mask=None):
    """Merges sample weights and a mask into one weight for each example.

    Args:
        y_pred: `[..., B, W]`, the predictions.
        sample_weight: Optional; one weight for each example, or for each entry of the leading axes, as Keras takes
            them: `[...]` or `[..., 1]`.
        mask: Optional, true where an example counts, of the same shapes.

    Returns:
        `[..., B]`, or `None` where there is neither.
    """
    given = [ops.cast(values, y_pred.dtype) for values in (sample_weight, mask) if values is not None]
    if not given:
        return None
    weights = ops.ones_like(y_pred[..., 0])
    rank = len(weights.shape)
    for values in given:
        if len(values.shape) > rank:
            values = ops.squeeze(values, -1)
        weights = weights * ops.reshape(values, (*ops.shape(values), *[1] * (rank - len(values.shape))))
    return weights


class WithCall(keras.losses.Loss):
    """A loss whose values a given function computes, reduced, weighted and masked by Keras.

    Args:
        call: Function `(y_true, y_pred) -> values`.
        **kwargs: Arguments of every Keras loss.
    """

    def __init__(self, call, **kwargs):
        super().__init__(**kwargs)
        self.call = call
