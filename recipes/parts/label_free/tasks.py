"""The images, classifiers and tasks of `label_free.py`.

Shape letters: N tasks, B images of a batch, Q further images, C classes.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import ml3_tf
from ml3_tf.bench.image_data import NUM_CLASSES, Images, halve, load_digits, load_fashion, one_hot
from ml3_tf.datasets import tasks_from_arrays
from parts.label_free.corruptions import Families

SIDE = 14  # pixels that a classifier sees: the mean of four each
NUM_IMAGES = 5_000
PARTS = {"train": 2_500, "meta_train": 1_000, "tune": 500, "test": 1_000}
HIDDEN_UNITS = 64, 64
Normalization = Literal["layer", "batch"]


class Tasks(NamedTuple):
    """Corrupted batches and how they were corrupted.

    Attributes:
        batch: `{"support": (x, y), "query": (x, y)}` of N tasks, with one-hot targets.
        families: The corruption of each task, `[N]`.
    """

    batch: dict[str, tuple[np.ndarray, np.ndarray]]
    families: list[str]


def load_parts(data: Literal["digits", "fashion"], data_path: Path | None, seed: int) -> dict[str, Images]:
    """Returns 5,000 images in the `PARTS`, which share none; the seed divides them."""
    images = load_images(data, data_path)
    order = np.random.default_rng(seed).permutation(len(images.y))[:NUM_IMAGES]
    ends = np.cumsum([*PARTS.values()])
    return {name: images.take(rows) for name, rows in zip(PARTS, np.split(order, ends[:-1]))}


@functools.cache
def load_images(data: Literal["digits", "fashion"], data_path: Path | None) -> Images:
    """Returns all digits, or the training images of Fashion-MNIST; they are read once."""
    return load_digits() if data == "digits" else load_fashion(data_path)[0]


def build_classifier(normalization: Normalization = "layer", *, affine_only: bool = False) -> keras.Model:
    """Returns a classifier of two normalized layers, with a softmax.

    Args:
        normalization: The kind of its normalization.
        affine_only: Whether only gain and offset of the normalization may be trained, as TENT does.
    """
    layers = keras.layers
    stack = [keras.Input((SIDE, SIDE)), layers.Flatten()]
    for units in HIDDEN_UNITS:
        # A momentum of 0.5, so that a few steps on a batch renew the statistics.
        normalize = layers.LayerNormalization() if normalization == "layer" else layers.BatchNormalization(momentum=0.5)
        stack += [layers.Dense(units, trainable=not affine_only), normalize, layers.Activation("relu")]
    return keras.Sequential([*stack, layers.Dense(NUM_CLASSES, activation="softmax", trainable=not affine_only)])


def train_classifier(images: Images, normalization: Normalization, epochs: int, seed: int) -> keras.Model:
    """Returns a classifier that was trained on clean images."""
    keras.utils.set_random_seed(seed)
    model = build_classifier(normalization)
    model.compile(keras.optimizers.Adam(2e-3), "categorical_crossentropy", metrics=["accuracy"])
    model.fit(as_inputs(images.x), one_hot(images.y), batch_size=64, epochs=epochs, verbose=0)
    return model


def as_inputs(x: np.ndarray) -> np.ndarray:
    """Returns images `[n, 28, 28]` as classifiers see them: within 0 and 1, the mean of each four pixels."""
    return halve(np.clip(x, 0, 1))


def meta_train_tasks(
    images: Images, families: Families, num_tasks: int, batch_size: int, num_query: int, seed: int
) -> tf.data.Dataset:
    """Returns a dataset of tasks: batches of one corruption without labels, and others of it with labels."""
    generator = np.random.default_rng([seed, 1])
    tables = [as_inputs(corrupt(images.x, size, generator)) for corrupt, sizes in families.values() for size in sizes]
    tasks = tasks_from_arrays(
        tables,
        [one_hot(images.y)] * len(tables),
        num_tasks,
        num_support=batch_size,
        num_query=num_query,
        seed=seed,
    )
    return tasks.map(lambda batch: {**batch, "support": batch["support"][:1]})


def draw_tasks(
    images: Images, families: Families, num_batches: int, batch_size: int, num_query: int, seed: list[int]
) -> Tasks:
    """Returns so many batches of each size of each corruption, and further images of the same."""
    generator = np.random.default_rng(seed)
    drawn, names = [], []
    for name, (corrupt, sizes) in families.items():
        for size in sizes:
            for _ in range(num_batches):
                chosen = images.take(generator.permutation(len(images.y))[: batch_size + num_query])
                drawn.append((as_inputs(corrupt(chosen.x, size, generator)), one_hot(chosen.y)))
                names.append(name)
    x, y = (np.stack(values) for values in zip(*drawn))
    part = lambda rows: (x[:, rows], y[:, rows])
    return Tasks({"support": part(slice(batch_size)), "query": part(slice(batch_size, None))}, names)


def adapt(
    model: keras.Model,
    normalization: Normalization,
    loss: Any,
    optimizer: keras.optimizers.Optimizer,
    tasks: Tasks,
    num_steps: int,
    *,
    affine_only: bool = False,
    has_labels: bool = False,
) -> np.ndarray:
    """Adapts a classifier to each batch alone; every method takes this path.

    Args:
        model: The classifier that was trained on clean images.
        normalization: The kind of its normalization.
        loss: A learned loss, or any other.
        optimizer: The optimizer.
        tasks: The batches.
        num_steps: Number of steps.
        affine_only: Whether only gain and offset of the normalization move.
        has_labels: Whether the loss sees the labels of the batch; otherwise targets are zero.

    Returns:
        `[num_steps + 1, N]`, the accuracy on the further images before the first step and after each.
    """
    learner, metrics = tested_learner(normalization, affine_only)
    x, y = tasks.batch["support"]
    start = learner.model
    start.set_weights(model.get_weights())
    curves = ml3_tf.meta_test(
        learner,
        loss,
        optimizer,
        {**tasks.batch, "support": (x, y if has_labels else np.zeros_like(y))},
        num_steps=num_steps,
        task_loss="categorical_crossentropy",
        metrics=metrics,
        parameters=start,
        jit_compile=False,  # XLA takes longer to compile than the steps take
    )
    return curves["accuracy"]


@functools.cache
def tested_learner(normalization: Normalization, affine_only: bool) -> tuple[ml3_tf.Learner, Mapping[str, Any]]:
    """Returns the learner and its metrics: the same for all rates and seeds, which share what is compiled."""
    learner = ml3_tf.Learner(lambda: build_classifier(normalization, affine_only=affine_only))

    def accuracy(parameters: ml3_tf.Parameters, tasks: dict[str, Any]) -> tf.Tensor:
        x, y = tasks["query"]
        return tf.reduce_mean(keras.metrics.categorical_accuracy(y, learner.predict(parameters, x)), axis=1)

    return learner, {"accuracy": accuracy}
