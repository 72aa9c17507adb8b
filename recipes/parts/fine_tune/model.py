"""The pretrained classifier, its frozen part, and the part that is fine-tuned."""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import ml3_tf
from ml3_tf.bench.image_data import SIDE

NUM_FEATURES = 128
NUM_HIDDEN = 64
LAST_HIDDEN = "last_hidden"
LOGITS = np.linspace(-10, 10, 81)  # at which a learned loss is drawn
CROSS_ENTROPY = keras.losses.CategoricalCrossentropy(from_logits=True)


def frozen_layers() -> list[keras.layers.Layer]:
    """Returns the layers that only pretraining trains."""
    layers = keras.layers
    return [
        layers.Conv2D(16, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(NUM_FEATURES, activation="relu"),
    ]


def trained_layers(num_classes: int) -> list[keras.layers.Layer]:
    """Returns the layers that fine-tuning trains: the last hidden one, and a head of logits that starts at zero."""
    return [
        keras.layers.Dense(NUM_HIDDEN, activation="relu", name=LAST_HIDDEN),
        keras.layers.Dense(num_classes, kernel_initializer="zeros", name="output"),  # Muon leaves it to AdamW
    ]


def pretrain(images: np.ndarray, epochs: int, seed: int, verbose: int) -> keras.Model:
    """Trains a classifier from nothing.

    Args:
        images: `[classes, n, 28, 28, 1]`.
        epochs: Number of epochs.
        seed: Determines the first weights and the batches.
        verbose: Whether to show Keras's progress bar.
    """
    keras.utils.set_random_seed(seed)
    num_classes, per_class = images.shape[:2]
    model = keras.Sequential([keras.Input((SIDE, SIDE, 1)), *frozen_layers(), *trained_layers(num_classes)])
    model.compile(keras.optimizers.Adam(1e-3), loss=CROSS_ENTROPY, metrics=["accuracy"])
    y = np.repeat(np.eye(num_classes, dtype="float32"), per_class, axis=0)
    model.fit(images.reshape(-1, *images.shape[2:]), y, batch_size=64, epochs=epochs, verbose=verbose)
    return model


def features_of(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns what the frozen layers make of images `[classes, n, 28, 28, 1]`: `[classes, n, NUM_FEATURES]`.

    They are constants while the other layers are fine-tuned, so they are computed once.
    """
    frozen = keras.Sequential([keras.Input((SIDE, SIDE, 1)), *model.layers[: -len(trained_layers(2))]])
    features = frozen.predict(images.reshape(-1, *images.shape[2:]), batch_size=500, verbose=0)
    return features.reshape(*images.shape[:2], NUM_FEATURES)


def build_tail(num_classes: int) -> keras.Model:
    """Returns the part that is fine-tuned, from features to logits."""
    return keras.Sequential([keras.Input((NUM_FEATURES,)), *trained_layers(num_classes)])


def start_of(model: keras.Model, num_classes: int) -> keras.Model:
    """Returns the weights that fine-tuning starts from: the pretrained hidden layer, and a new head."""
    tail = build_tail(num_classes)
    tail.get_layer(LAST_HIDDEN).set_weights(model.get_layer(LAST_HIDDEN).get_weights())
    return tail


def fine_tune(
    loss: Any, optimizer: keras.optimizers.Optimizer, start: keras.Model, tasks: dict[str, Any], num_steps: int
) -> np.ndarray:
    """Fine-tunes one model for each task by full-batch steps, with any loss; every method takes this path.

    Args:
        loss: A learned loss, or any of Keras.
        optimizer: The optimizer.
        start: The weights that all start from, see `start_of`.
        tasks: `{"support": (x, y), "query": (x, y)}` of N tasks.
        num_steps: Number of steps.

    Returns:
        Array `[2, num_steps + 1, N]`: accuracy and cross-entropy (nats) on the query, before the first step and after
        each.
    """
    learner, metrics = tested_learner(num_classes=tasks["query"][1].shape[-1])
    curves = ml3_tf.meta_test(
        learner,
        loss,
        optimizer,
        tasks,
        num_steps=num_steps,
        task_loss=CROSS_ENTROPY,
        metrics=metrics,
        parameters=start,
    )
    return np.stack([curves["accuracy"], curves["loss"]])


@functools.cache
def tested_learner(num_classes: int) -> tuple[ml3_tf.Learner, dict[str, Any]]:
    """Returns the models that are tested and their metrics: the same, so that all rates share what is compiled."""
    learner = ml3_tf.Learner(lambda: build_tail(num_classes))

    def accuracy(parameters: ml3_tf.Parameters, tasks: dict[str, Any]) -> tf.Tensor:
        x, y = tasks["query"]
        return tf.reduce_mean(keras.metrics.categorical_accuracy(y, learner.predict(parameters, x)), axis=1)

    return learner, {"accuracy": accuracy}


def added_gradient(meta_loss: ml3_tf.MetaLoss, num_classes: int) -> np.ndarray:
    """Returns what the network adds to the gradient of cross-entropy, `[2, len(LOGITS)]`: true class, another class.

    The network sees one logit at a time, so what it adds to the gradient of a logit depends on no other. Therefore all
    logits may have one value, where the gradient of cross-entropy is `1/C - y`.
    """
    y_pred = np.repeat(LOGITS[:, np.newaxis], num_classes, axis=1).astype("float32")
    y_true = np.zeros_like(y_pred)
    y_true[:, 0] = 1
    gradient = meta_loss.value_and_gradient(y_true, y_pred)[1] - (1 / num_classes - y_true)
    return gradient[:, :2].T
