"""LeNet, and how fast a loss trains it."""

import keras
import numpy as np
import tensorflow as tf
from digit_images import SIZE

from ml3_tf.inner_loop import InnerLoop
from ml3_tf.learner import Learner


def build_lenet(num_classes):
    """LeNet-5 with the layer sizes of LeCun et al. (1998) and a softmax; its input is `SIZE` pixels to a side."""
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
            layers.Dense(num_classes, activation="softmax"),
        ]
    )


def learning_curves(loss, rate, tasks, steps, seed):
    """Trains fresh LeNets, one for each task, with any loss: every method takes this path.

    It is `ml3_tf.meta_test` with two scores in one pass.

    Args:
        loss: A learned loss, or the name of one of Keras's.
        rate: Learning rate of SGD.
        tasks: `{"support": (x, y), "query": (x, y)}` of N tasks.
        steps: Number of full-batch steps.
        seed: Determines the fresh LeNets.

    Returns:
        Array `[2, steps + 1, N]`: cross-entropy (nats) and accuracy on the query images, before the first step and
        after each.
    """
    x, y = tasks["query"]
    learner = Learner(lambda: build_lenet(y.shape[-1]), seed)
    loop = InnerLoop(learner, loss, keras.optimizers.SGD(rate))

    def scores(state):
        y_pred = loop.predict(state.parameters, x)
        cross_entropy = keras.losses.categorical_crossentropy(y, y_pred)
        accuracy = keras.metrics.categorical_accuracy(y, y_pred)
        return tf.stack([tf.reduce_mean(cross_entropy, axis=1), tf.reduce_mean(accuracy, axis=1)])

    @tf.function
    def step(state):
        state = loop.step(state, lambda _: tasks["support"])
        return state, scores(state)

    state = loop.start(len(x))
    curves = [scores(state)]
    for _ in range(steps):
        state, values = step(state)
        curves.append(values)
    return np.stack(curves, axis=1)


def steps_to(threshold, accuracy):
    """The first step at which each learner of `[steps + 1, N]` reaches the threshold; the last step if none does."""
    reached = accuracy >= threshold
    return np.where(reached.any(axis=0), reached.argmax(axis=0), len(accuracy) - 1)
