"""The types that public arguments share, and the check of those that count something."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import keras

if TYPE_CHECKING:  # a learned loss runs on JAX and PyTorch, where there is no TensorFlow
    import numpy as np
    import tensorflow as tf

Mode: TypeAlias = Literal["per_sample", "per_output", "per_set"]
Reduction: TypeAlias = Literal["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none"] | None
TensorLike: TypeAlias = "tf.Tensor | np.ndarray | Sequence[Any] | float"
Batch: TypeAlias = Mapping[str, Any]
"""One element of a dataset of tasks: structures of tensors `[N, ...]` by name, such as "support" and "query"."""
ModelLike: TypeAlias = keras.Model | Callable[[], keras.Model]
LossLike: TypeAlias = keras.losses.Loss | str | Callable[[Any, Any], Any]
OptimizerLike: TypeAlias = keras.optimizers.Optimizer | str
InitializerLike: TypeAlias = keras.initializers.Initializer | str


def check_counts(**counts: object) -> None:
    """Raises `ValueError` unless every argument is an integer of at least 1.

    Args:
        **counts: The arguments to check, by the names that the error shall use.

    Raises:
        ValueError: A value is not an integer, or is below 1.

    Example:

    >>> check_counts(horizon=65, num_steps=0)
    Traceback (most recent call last):
    ValueError: `num_steps` must be an integer of at least 1. Received: num_steps=0
    """
    for name, count in counts.items():
        if not isinstance(count, Integral) or count < 1:
            raise ValueError(f"`{name}` must be an integer of at least 1. Received: {name}={count!r}")
