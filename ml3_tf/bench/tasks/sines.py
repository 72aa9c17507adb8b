"""Sines: ten regressors of a seed, each of a sine with another amplitude and phase."""

import keras
import numpy as np

from ml3_tf.bench.task import Problems, Task
from ml3_tf.datasets import sine_tasks

NUM_SINES = 10


def build_regressor() -> keras.Model:
    """Returns the regressor of figure 2 of ML3: two layers of 40 units."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((1,)),
            layers.Dense(40, "relu"),
            layers.Dense(40, "relu"),
            layers.Dense(1, name="output"),
        ]
    )


def draw_sines(seed: int) -> Problems:
    """Draws sines, the same as `meta_test` of the recipe `sine_regression.py` has for this seed."""
    batch = next(iter(sine_tasks(NUM_SINES, num_query=100, seed=3 * seed + 2)))
    (x, y), (query_x, query_y) = ([np.asarray(part) for part in batch[name][:2]] for name in ("support", "query"))
    counts = [np.full(NUM_SINES, values.shape[1]) for values in (x, query_x)]
    return Problems((x, y), (query_x, query_y), *counts)


SINES = Task(("sines",), "regression", build_regressor, draw_sines, num_steps=100)
