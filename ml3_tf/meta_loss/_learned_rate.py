"""A learning rate that is learned with the loss."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("ml3_tf")
class LearnedRate(keras.layers.Layer):
    """A positive scalar that multiplies its input, learned as its logarithm.

    Args:
        initial: Positive float, the factor before any training.

    Raises:
        ValueError: `initial` is not positive and finite.

    Example:

    >>> LearnedRate(0.5)(ops.array([4.0, 2.0])).numpy().tolist()
    [2.0, 1.0]
    """

    def __init__(self, initial: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < initial < math.inf:
            raise ValueError(f"`initial` must be a positive finite number. Received: initial={initial}")
        self.initial: float = float(initial)
        self.log_rate: keras.Variable = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(math.log(self.initial)), name="log_rate"
        )
        self.built = True

    def call(self, inputs: Any) -> Any:
        return ops.exp(self.log_rate) * inputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial": self.initial}
