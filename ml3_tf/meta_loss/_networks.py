"""The fully connected networks of a meta-loss."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras


def build_networks(
    num_inputs: int,
    hidden_units: Sequence[int],
    score_units: Sequence[int] | None,
    *,
    num_outputs: int,
    activation: str,
    output_activation: str | None,
    output_initializer: Any,
    dtype: str,
) -> tuple[keras.Sequential, keras.Sequential | None]:
    """Returns the network of a loss; for a per-set loss, the one before the pooling and the one behind it.

    Args:
        num_inputs: Width of all features.
        hidden_units: Widths of the hidden layers. In front of a pooling, the last is what is pooled.
        score_units: Widths of the hidden layers behind the pooling; `None` without one.
        num_outputs: Number of outputs of the last layer, which has no bias.
        activation: Activation of the hidden layers.
        output_activation: Activation of the last layer.
        output_initializer: Initializer of the last layer.
        dtype: The dtype of inputs and layers.

    Raises:
        ValueError: There is nothing to pool.
    """
    dense = functools.partial(keras.layers.Dense, dtype=dtype)

    def chain(num_inputs: int, units: Sequence[int], last: list[keras.layers.Layer]) -> keras.Sequential:
        hidden = [dense(number, activation=activation) for number in units]
        return keras.Sequential([keras.Input((num_inputs,), dtype=dtype), *hidden, *last])

    output = dense(num_outputs, output_activation, use_bias=False, kernel_initializer=output_initializer)
    if score_units is None:
        return chain(num_inputs, hidden_units, [output]), None
    if not hidden_units:
        raise ValueError(
            "A per-set loss pools the outputs of its last hidden layer: expected at least one width in "
            f"`hidden_units`. Received: hidden_units={hidden_units}"
        )
    return chain(num_inputs, hidden_units, []), chain(hidden_units[-1], score_units, [output])
