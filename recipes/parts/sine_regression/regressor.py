"""The regressor of the sine, and how fast a loss trains it."""

from typing import Any

import keras
import numpy as np

import ml3_tf
from parts.experiment import kept_learner


def build_regressor() -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((1,)),
            layers.Dense(40, activation="relu"),
            layers.Dense(40, activation="relu"),
            layers.Dense(1, name="output"),
        ]
    )


def train_regressors(
    loss: Any, optimizer: keras.optimizers.Optimizer, tasks: Any, num_steps: int, *, seed: int, jit_compile: bool
) -> np.ndarray:
    """Trains fresh regressors, one for each task, with any loss; every method takes this path.

    Args:
        loss: A learned loss, or the name of one of Keras's.
        optimizer: The optimizer of the regressors.
        tasks: `{"support": (x, y), "query": (x, y)}` of N tasks.
        num_steps: Number of full-batch steps.
        seed: Determines the fresh regressors.
        jit_compile: Whether to compile with XLA.

    Returns:
        Array `[num_steps + 1]`: the squared error on the query points before the first step and after each, mean over
        tasks.
    """
    learner = kept_learner(build_regressor)
    errors = ml3_tf.meta_test(learner, loss, optimizer, tasks, num_steps=num_steps, seed=seed, jit_compile=jit_compile)
    return errors.mean(axis=1)
