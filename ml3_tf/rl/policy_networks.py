"""The network of policies, and the layers that make it a bounded action or a distribution.

Shape letters: B examples, O observation, A action.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from ml3_tf.arguments import InitializerLike, check_counts

PerColumn: TypeAlias = float | Sequence[float]

SERIALIZABLE = keras.saving.register_keras_serializable("ml3_tf")


@SERIALIZABLE
class Squash(keras.layers.Layer):
    """Bounds its input smoothly: `limit * z / sqrt(1 + z^2)`.

    Its slope falls with the cube of the input. A clip has no slope beyond its limit, and the slope of tanh falls
    exponentially: at z = 10 it is 8e-9, where this one is 1e-3. So a policy that saturates can still be trained back.

    Args:
        limit: Positive number, or one for each column, in the unit of the output.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    >>> Squash(0.25)(ops.array([[0.0, 1e6]])).numpy().tolist()
    [[0.0, 0.25]]
    """

    def __init__(self, limit: PerColumn, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.limit: PerColumn = limit
        self.built = True

    def call(self, inputs: Any) -> Any:
        square: Any = ops.square(inputs)
        return ops.convert_to_tensor(self.limit, dtype=inputs.dtype) * inputs * ops.rsqrt(1 + square)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "limit": self.limit}


@SERIALIZABLE
class StandardDeviation(keras.layers.Layer):
    """Puts a positive standard deviation beside a mean: `[B, A] -> [B, 2A]`, learned as its logarithm.

    Args:
        initial: Positive number, the standard deviation before any training, in the unit of an action.
        **kwargs: Arguments of `keras.layers.Layer`; `trainable=False` keeps the standard deviation as it is.

    Example:

    >>> StandardDeviation(0.5)(ops.array([[1.0, 2.0]])).numpy().tolist()
    [[1.0, 2.0, 0.5, 0.5]]
    """

    def __init__(self, initial: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial: float = initial

    def build(self, input_shape: Sequence[int | None]) -> None:
        constant = keras.initializers.Constant(math.log(self.initial))
        self.log_std: keras.Variable = self.add_weight(shape=(input_shape[-1],), initializer=constant, name="log_std")

    def call(self, mean: Any, change: Any = None) -> Any:
        """Returns `[mean, exp(log_std + change)]`.

        Args:
            mean: `[B, A]`.
            change: Optional, `[B, A]`, the part of `log_std` that depends on the observation.
        """
        # Side by side by products with the halves of an identity: a concatenation cannot be vectorized over tasks.
        left, right = (ops.convert_to_tensor(h, dtype=mean.dtype) for h in np.split(np.eye(2 * mean.shape[-1]), 2))
        log_std = ops.expand_dims(self.log_std, 0) if change is None else self.log_std + change
        left_half: Any = ops.matmul(mean, left)
        return left_half + ops.matmul(ops.exp(log_std), right)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial": self.initial}


def build_network(
    observation_size: int,
    action_size: int,
    hidden_units: Sequence[int],
    activation: str,
    action_limit: PerColumn | None,
    observation_scale: Sequence[float] | None,
    output_initializer: InitializerLike | None,
    *,
    use_bias: bool = True,
    output_activation: str | None = None,
) -> tuple[Any, Any, Any]:
    """Builds the network of a policy: its symbolic input `[B, O]`, last hidden layer, and output `[B, A]`."""
    check_counts(observation_size=observation_size, action_size=action_size)
    _check_positive("action_limit", action_limit, action_size)
    _check_positive("observation_scale", observation_scale, observation_size)
    # The initializer is built before the layers: each takes the next of the seeds that Keras draws.
    if output_initializer is None:
        output_initializer = keras.initializers.VarianceScaling(0.01, "fan_avg", "uniform")
    dense = functools.partial(keras.layers.Dense, use_bias=use_bias)
    inputs = hidden = keras.Input((observation_size,))
    if observation_scale is not None:
        hidden = keras.layers.Rescaling([1 / scale for scale in observation_scale])(hidden)
    for units in hidden_units:
        hidden = dense(units, activation=activation)(hidden)
    name = "mean" if output_activation is None else output_activation
    last = dense(action_size, activation=output_activation, kernel_initializer=output_initializer, name=name)
    outputs = last(hidden)
    if action_limit is not None:
        outputs = Squash(action_limit, name="squash")(outputs)
    return inputs, hidden, outputs


def _check_positive(name: str, value: PerColumn | None, size: int) -> None:
    """Raises `ValueError` unless `value` is `None`, or holds positive numbers for `size` columns."""
    if value is None:
        return
    values: Any = value if isinstance(value, (list, tuple)) else [value] * size
    if len(values) != size or not all(0 < v < math.inf for v in values):
        raise ValueError(f"`{name}` needs {size} positive finite number(s). Received: {name}={value!r}")
