"""The features that a meta-loss reads: their layout, the check that networks and shapes fit it, and their pooling.

Shape letters: B examples of a set, W width of a feature, H learned features; `...` any leading axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

if TYPE_CHECKING:
    from ml3_tf.arguments import LossInputs
    from ml3_tf.meta_loss import MetaLoss

PER_SAMPLE = "per_sample"
PER_OUTPUT = "per_output"
PER_SET = "per_set"
MODES = (PER_SAMPLE, PER_OUTPUT, PER_SET)
FROM_NETWORK = "network"


def widths_and_scale(
    features: Mapping[str, int] | LossInputs | None,
) -> tuple[Mapping[str, int], Sequence[float] | None]:
    """Returns the width of each feature, by default one prediction and one target, and the scale of `LossInputs`."""
    if features is None:
        return {"y_pred": 1, "y_true": 1}, None
    return (features, None) if isinstance(features, Mapping) else (features.features, features.scale)


def check(meta_loss: MetaLoss) -> None:
    """Raises `ValueError` unless the arguments of a `MetaLoss` fit together."""
    if meta_loss.mode not in MODES:
        raise ValueError(f"Unknown `mode`. Expected one of {MODES}. Received: mode={meta_loss.mode!r}")
    widths = list(meta_loss.features.values())
    if not widths or any(not isinstance(width, int) or width < 1 for width in widths):
        raise ValueError(
            "`features` maps the name of the prediction, and those of the slices of `y_true`, to positive integer "
            f"widths. Received: features={meta_loss.features}"
        )
    if meta_loss.mode == PER_OUTPUT and set(widths) != {1}:
        raise ValueError(
            "A per-output loss scores y_pred[i] with the i-th column of each slice of y_true: expected `features` of "
            "width 1. "
            f"Received: features={meta_loss.features}. Use mode='per_sample' for wider features."
        )
    rate = meta_loss.learning_rate
    if not (rate is None or rate == FROM_NETWORK or (isinstance(rate, (int, float)) and 0 < rate < math.inf)):
        raise ValueError(f"Expected `learning_rate` None, a positive float or 'network'. Received: {rate!r}")
    _check_networks(meta_loss, sum(widths))
    scale = meta_loss.input_scale
    if scale is not None and (len(scale) != sum(widths) or any(not 0 < value < math.inf for value in scale)):
        raise ValueError(
            f"`input_scale` needs one positive finite divisor for each of the {sum(widths)} network inputs. "
            f"Received: input_scale={scale}"
        )


def prepare(meta_loss: MetaLoss, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Returns what a loss reads, `[..., width]` each, in its dtype: class indices are one-hot, unread targets left out.

    Raises:
        ValueError: See `check_shapes`.
    """
    y_pred = with_width(y_pred, meta_loss.dtype)
    y_true = y_pred[..., :0] if meta_loss.is_label_free else with_width(y_true, meta_loss.dtype)
    if meta_loss.base is not None and meta_loss.base.takes_labels:
        further = sum([*meta_loss.features.values()][2:])
        further *= (y_pred.shape[-1] or 1) if meta_loss.mode == PER_OUTPUT else 1  # None: an export takes any
        y_true = meta_loss.base.one_hot(y_true, y_pred, further)
    check_shapes(meta_loss, y_true, y_pred)
    return y_true, y_pred


def check_shapes(meta_loss: MetaLoss, y_true: Any, y_pred: Any) -> None:
    """Raises `ValueError` where Keras would broadcast."""
    features = meta_loss.features
    names = list(features)
    pred_width, true_width = features[names[0]], sum(features[name] for name in names[1:])
    shapes = f"y_true {tuple(y_true.shape)}, y_pred {tuple(y_pred.shape)}"
    if meta_loss.mode == PER_OUTPUT:
        sizes = y_true.shape[-1], y_pred.shape[-1]
        if None not in sizes and sizes[0] != true_width * sizes[1]:  # None: an export takes any number of outputs
            raise ValueError(
                f"A per-output loss needs {true_width} target(s) for each prediction on the last axis (one-hot labels, "
                f"not indices). Received: {shapes}."
            )
    elif y_pred.shape[-1] != pred_width or y_true.shape[-1] != true_width:
        raise ValueError(
            f"The last axes must have the widths of this loss's features {features}: {true_width} for y_true "
            f"({', '.join(names[1:])}, side by side) and {pred_width} for y_pred. Received: {shapes}."
        )
    pairs = list(zip(y_true.shape[:-1], y_pred.shape[:-1], strict=False))
    if len(y_true.shape) != len(y_pred.shape) or any(a is not None and b is not None and a != b for a, b in pairs):
        raise ValueError(f"y_true and y_pred must describe the same examples. Received: {shapes}.")
    if any(size == 0 for pair in pairs for size in pair):
        raise ValueError(f"The batch is empty: a loss needs at least one example. Received: {shapes}.")


def with_width(values: Any, dtype: str) -> Any:
    """Returns `values` in `dtype` with a feature axis: `[batch]` becomes `[batch, 1]`, as Keras does for targets."""
    values = ops.convert_to_tensor(values, dtype=dtype)
    if len(values.shape) == 0:
        raise ValueError("A loss scores batches: expected shape [batch, width]. Received a scalar.")
    return ops.expand_dims(values, -1) if len(values.shape) == 1 else values


def shape_of(tensor: Any) -> Any:
    """Returns the shape of a tensor. Sizes that a graph does not know are tensors themselves."""
    return ops.shape(tensor)


def apply_to_rows(network: keras.Model, inputs: Any) -> Any:
    """Applies a network of `[batch, width]` to `[..., width]`."""
    rank = len(inputs.shape)
    rows = inputs if rank == 2 else ops.reshape(inputs, (-1, inputs.shape[-1]))
    outputs: Any = network(rows)
    return outputs if rank == 2 else ops.reshape(outputs, (*shape_of(inputs)[:-1], outputs.shape[-1]))


def pool(features: Any, weights: Any = None) -> Any:
    """Returns the weighted mean of the features of each set.

    The weights of a set count in proportion to one another. A set whose weights are all zero has features of zero.

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
    total: Any = ops.sum(weights, axis=-1, keepdims=True)
    shares = weights / ops.where(total > 0, total, ops.ones_like(total))
    return ops.sum(ops.expand_dims(shares, -1) * features, axis=-2)


def example_weights(y_pred: Any, sample_weight: Any = None, mask: Any = None) -> Any:
    """Merges sample weights and a mask into one weight for each example.

    Args:
        y_pred: `[..., B, W]`, the predictions.
        sample_weight: Optional; one weight for each example, or for each entry of the leading axes, as Keras takes
            them: `[...]` or `[..., 1]`.
        mask: Optional, true where an example counts, of the same shapes.

    Returns:
        `[..., B]`, or `None` where there is neither.
    """
    given: list[Any] = [ops.cast(values, y_pred.dtype) for values in (sample_weight, mask) if values is not None]
    if not given:
        return None
    weights: Any = ops.ones_like(y_pred[..., 0])
    rank = len(weights.shape)
    values: Any
    for values in given:
        if len(values.shape) > rank:
            values = ops.squeeze(values, -1)
        weights = weights * ops.reshape(values, (*shape_of(values), *[1] * (rank - len(values.shape))))
    return weights


class WithCall(keras.losses.Loss):
    """A loss whose values a given function computes, reduced, weighted and masked by Keras.

    Args:
        call: Function `(y_true, y_pred) -> values`.
        reduction: As in every Keras loss.
        name: As in every Keras loss.
        dtype: As in every Keras loss.
    """

    def __init__(self, call: Callable[[Any, Any], Any], reduction: Any, name: str | None, dtype: Any) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.call: Callable[[Any, Any], Any] = call


def _check_networks(meta_loss: MetaLoss, num_inputs: int) -> None:
    _check_network(meta_loss.network, "network")
    rate = meta_loss.learning_rate
    outputs = 2 if rate == FROM_NETWORK else 1
    if (meta_loss.mode == PER_SET) != (meta_loss.score_network is not None):
        raise ValueError(
            "`score_network` scores the pooled features of a per-set loss: expected a network with mode='per_set', and "
            f"None with any other. Received: mode={meta_loss.mode!r}, score_network={meta_loss.score_network}"
        )
    if meta_loss.mode == PER_SET:
        _check_network(meta_loss.score_network, "score_network")
        num_features = meta_loss.network.output_shape[-1]
        _check_widths(meta_loss.network, "network", num_inputs, num_features, meta_loss)
        _check_widths(meta_loss.score_network, "score_network", num_features, outputs, meta_loss)
    else:
        _check_widths(meta_loss.network, "network", num_inputs, outputs, meta_loss)


def _check_network(network: Any, name: str) -> None:
    if not getattr(network, "built", False):
        raise ValueError(f"`{name}` has no weights yet. Give it a `keras.Input`, or call it once.")
    if not hasattr(network, "input_shape"):
        raise ValueError(
            f"`{name}` must be a Sequential or functional Keras model. "
            f"Received: {type(network).__name__}, whose widths and configuration Keras does not know."
        )


def _check_widths(network: Any, name: str, inputs: int, outputs: int, meta_loss: MetaLoss) -> None:
    what = "outputs of `network`" if name == "score_network" else f"widths of {meta_loss.features}"
    received = (network.input_shape[-1], network.output_shape[-1])
    if received != (inputs, outputs):
        raise ValueError(
            f"`{name}` must map {inputs} inputs (the {what}) to {outputs} output(s) with "
            f"learning_rate={meta_loss.learning_rate!r}. Received a network from {received[0]} to {received[1]}."
        )
