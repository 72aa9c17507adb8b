"""Fresh values of a variable for many tasks, by its own initializer."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ml3_tf.keras_internals import get_initializer


def is_seed(variable: Any) -> bool:
    """Whether a variable is the state of a `keras.random.SeedGenerator`: a seed and a counter."""
    return "int" in variable.dtype and tuple(variable.shape) == (2,)


def repeat(value: Any, num_tasks: int) -> tf.Tensor:
    return tf.repeat(tf.convert_to_tensor(value)[tf.newaxis], num_tasks, axis=0)


def make_drawer(variable: Any, seeds: Any) -> Callable[[int], tf.Tensor]:
    """Returns a function `num_tasks -> [N, *shape]` that draws independent values of one variable."""
    initializers = keras.initializers
    initializer, shape, dtype = get_initializer(variable), tuple(variable.shape), variable.dtype
    if is_seed(variable):
        return lambda n: tf.pad(keras.random.randint((n, 1), 0, 2**31 - 1, dtype=dtype, seed=seeds), [[0, 0], [0, 1]])
    config = initializer.get_config() if isinstance(initializer, initializers.Initializer) else {}
    if "seed" not in config:  # not random: the same value for each task
        return lambda n: repeat(initializer(shape, dtype=dtype), n)
    if isinstance(initializer, initializers.VarianceScaling) and len(shape) > 1:
        # One draw for all tasks. A leading axis n multiplies the fans, and thereby divides the variance, by n.
        def draw(n: int) -> tf.Tensor:
            return initializers.VarianceScaling(
                n * initializer.scale, initializer.mode, initializer.distribution, seeds
            )((n, *shape), dtype=dtype)

        return draw
    seeded = type(initializer).from_config({**config, "seed": seeds})
    return lambda n: tf.stack([seeded(shape, dtype=dtype) for _ in range(n)])
