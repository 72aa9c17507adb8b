"""LeNet, and how fast a loss trains it."""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import ml3_tf
from parts.digits.images import SIZE


def build_lenet(num_classes: int) -> keras.Model:
    """Returns LeNet-5 with the layer sizes of LeCun et al. (1998) and a softmax; its input has `SIZE` pixels a side."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 1)),
            layers.Conv2D(6, 5, padding="same", activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(120, activation="tanh"),
            layers.Dense(84, activation="tanh"),
            layers.Dense(num_classes, activation="softmax", name="output"),
        ]
    )


def learning_curves(
    loss: Any, optimizer: keras.optimizers.Optimizer, tasks: dict[str, Any], num_steps: int, seed: int
) -> np.ndarray:
    """Trains fresh LeNets, one for each task, with any loss; every method takes this path.

    Args:
        loss: A learned loss, or the name of one of Keras's.
        optimizer: The optimizer of the LeNets.
        tasks: `{"support": (x, y), "query": (x, y)}` of N tasks.
        num_steps: Number of full-batch steps.
        seed: Determines the fresh LeNets.

    Returns:
        Array `[2, num_steps + 1, N]`: cross-entropy (nats) and accuracy on the query images, before the first step and
        after each.
    """
    learner, metrics = tested_learner(num_classes=tasks["query"][1].shape[-1])
    curves = ml3_tf.meta_test(
        learner,
        loss,
        optimizer,
        tasks,
        num_steps=num_steps,
        task_loss="categorical_crossentropy",
        metrics=metrics,
        seed=seed,
        jit_compile=False,  # on a CPU, XLA's convolutions are five times slower
    )
    return np.stack([curves["loss"], curves["accuracy"]])


@functools.cache
def tested_learner(num_classes: int) -> tuple[ml3_tf.Learner, dict[str, Any]]:
    """Returns the LeNets that are tested and their metrics: the same, so that all rates share what is compiled."""
    learner = ml3_tf.Learner(lambda: build_lenet(num_classes))

    def accuracy(parameters: ml3_tf.Parameters, tasks: dict[str, Any]) -> tf.Tensor:
        x, y = tasks["query"]
        return tf.reduce_mean(keras.metrics.categorical_accuracy(y, learner.predict(parameters, x)), axis=1)

    return learner, {"accuracy": accuracy}
