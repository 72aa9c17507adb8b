"""Classes of digits and clothes, and few-shot tasks of them.

Shape letters: N tasks, C classes of a task, B examples of a task.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.bench.image_data import load_digits, load_fashion
from parts.fine_tune.model import features_of, pretrain, start_of

if TYPE_CHECKING:
    from fine_tune import Settings

PER_CLASS = 500  # images of each class: as many as there are of a digit
NUM_TUNING_IMAGES = 200  # of each class of meta-training, kept out of it
NAMES = (
    *map(str, range(10)),
    *("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
)
Pools = Sequence[np.ndarray]
"""For each class an array `[n, ...]` of its images, or of what a model makes of them."""


def load_classes(folder: Path | None = None) -> np.ndarray:
    """Returns the images of 20 classes, `[20, PER_CLASS, 28, 28, 1]`, from 0 to 1; `NAMES` has their names.

    Args:
        folder: Optional folder of the files of Fashion-MNIST.
    """
    digits, clothes = load_digits(), load_fashion(folder)[0]
    classes = [images.x[images.y == label][:PER_CLASS] for images in (digits, clothes) for label in range(10)]
    return np.stack(classes)[..., np.newaxis]


def check_classes(groups: Mapping[str, Sequence[int]], num_classes: int) -> None:
    """Raises `ValueError` unless the groups share no class, and each but the first has enough classes for a task."""
    for name, classes in groups.items():
        if len(set(classes)) != len(classes) or not set(classes) <= set(range(len(NAMES))):
            raise ValueError(
                f"`{name}` must be different classes from 0 to {len(NAMES) - 1}: the digits, and from 10 on clothes. "
                f"Received: {name}={tuple(classes)}"
            )
    shared = sorted(c for c in range(len(NAMES)) if sum(c in classes for classes in groups.values()) > 1)
    if shared:
        raise ValueError(f"{', '.join(groups)} must not share a class. Received: {shared} in more than one of them")
    for name, classes in list(groups.items())[1:]:
        if not 2 <= num_classes <= len(classes):
            raise ValueError(
                f"`num_classes` must be from 2 to the number of classes in `{name}`. Received: "
                f"num_classes={num_classes}, {name}={tuple(classes)}"
            )


def prepare(
    images: np.ndarray, settings: "Settings", seed: int, verbose: int
) -> tuple[keras.Model, np.ndarray, dict[str, Any]]:
    """Returns pretrained weights to start from, the features that go with them of all images, and tuning tasks."""
    pretrained = pretrain(images[[*settings.pretrain_classes]], settings.pretrain_epochs, seed, verbose)
    features = features_of(pretrained, images)
    kept_out = features[[*settings.meta_train_classes], -NUM_TUNING_IMAGES:]
    tasks = draw_tasks(kept_out, settings.num_tuning_tasks, settings.task_sizes, [seed, 1])
    return start_of(pretrained, settings.num_classes), features, tasks


def draw_task(
    pools: Pools, num_classes: int, num_support: int, num_query: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Draws one task, `{"support": (x, y), "query": (x, y)}`; no image is in both.

    Args:
        pools: The classes to choose from.
        num_classes: C, number of classes, in random order.
        num_support: Number of images of a class to train on.
        num_query: Number of other images of a class to score on.
        rng: Draws the task.
    """
    size = num_support + num_query
    chosen = [rng.permutation(pools[index])[:size] for index in rng.permutation(len(pools))[:num_classes]]
    targets = np.eye(num_classes, dtype="float32")

    def take(part: slice, number: int) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate([images[part] for images in chosen]), np.repeat(targets, number, axis=0)

    return {"support": take(slice(num_support), num_support), "query": take(slice(num_support, None), num_query)}


def draw_tasks(
    pools: Pools, num_tasks: int, sizes: tuple[int, int, int], seed: int | Sequence[int] | np.random.Generator
) -> dict[str, Any]:
    """Draws N tasks, as arrays `[N, B, ...]`; `sizes` are the three numbers of `draw_task`."""
    rng = np.random.default_rng(seed)  # a generator goes on
    tasks = [draw_task(pools, *sizes, rng) for _ in range(num_tasks)]
    return tf.nest.map_structure(lambda *arrays: np.stack(arrays), *tasks)


def meta_train_tasks(
    pools: Pools, num_tasks: int, sizes: tuple[int, int, int], seed: int | Sequence[int]
) -> tf.data.Dataset:
    """Returns endless tasks; the arguments are those of `draw_tasks`, and the seed that determines them."""

    def generate():
        rng = np.random.default_rng(seed)
        while True:
            yield draw_tasks(pools, num_tasks, sizes, rng)

    num_classes, *numbers = sizes
    shapes = [(num_tasks, num_classes * number) for number in numbers]
    parts = [(tf.TensorSpec((*b, *pools[0].shape[1:])), tf.TensorSpec((*b, num_classes))) for b in shapes]
    return tf.data.Dataset.from_generator(generate, output_signature=dict(zip(("support", "query"), parts)))
