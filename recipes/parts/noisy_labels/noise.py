"""Labels that are wrong: for tasks of meta-training, and for the images that classifiers are tested on.

Shape letters: N tasks, S support points, C classes, n images.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ml3_tf.bench.image_data import NUM_CLASSES, Images

MAX_SYMMETRIC = 0.6  # share of wrong labels in meta-training
MAX_PAIRS = 0.45


def corrupt_support(y: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns one-hot labels `[N, S, C]` of which some are wrong, for `ml3_tf.datasets.tasks_from_arrays`.

    Half of the tasks have labels of any other class, up to 60 % of them, and half of the next class, up to 45 %.
    """
    seeds = tf.random.split(seed, 4)
    num_tasks, num_points, num_classes = y.shape
    is_pairs = tf.random.stateless_uniform([num_tasks, 1], seeds[0]) < 0.5
    rate = tf.random.stateless_uniform([num_tasks, 1], seeds[1])
    rate *= tf.where(is_pairs, MAX_PAIRS, MAX_SYMMETRIC)
    shift = tf.random.stateless_uniform([num_tasks, num_points], seeds[2], 1, num_classes, tf.int32)
    shift = tf.where(is_pairs, 1, shift)
    is_wrong = tf.random.stateless_uniform([num_tasks, num_points], seeds[3]) < rate
    labels = (tf.argmax(y, axis=-1, output_type=tf.int32) + tf.where(is_wrong, shift, 0)) % num_classes
    return tf.one_hot(labels, num_classes, dtype=y.dtype)


def flip_symmetric(images: Images, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Returns labels `[n]`, a share of which is any other class, drawn uniformly."""
    is_wrong = rng.random(len(images.y)) < rate
    return np.where(is_wrong, (images.y + rng.integers(1, NUM_CLASSES, len(images.y))) % NUM_CLASSES, images.y)


def flip_pairs(images: Images, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Returns labels `[n]`, a share of which is the next class."""
    return np.where(rng.random(len(images.y)) < rate, (images.y + 1) % NUM_CLASSES, images.y)


def flip_by_instance(images: Images, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Returns labels `[n]` that are wrong in a way that depends on the image.

    Algorithm 2 of Xia et al., "Part-dependent Label Noise", NeurIPS 2020: each image has a rate of its own, normally
    distributed around `rate` with a deviation of 0.1, and its wrong class is likelier the higher a random projection of
    the image, drawn for its true class, is for it.
    """
    rates = np.clip(rng.normal(rate, 0.1, len(images.y)), 0, 1)
    x = images.x.reshape(len(images.y), -1)
    projections = rng.normal(size=(NUM_CLASSES, x.shape[1], NUM_CLASSES))
    scores = np.einsum("np,npc->nc", x, projections[images.y], optimize=True)
    scores[np.arange(len(x)), images.y] = -np.inf
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    cumulative = np.cumsum(scores / scores.sum(axis=1, keepdims=True), axis=1)
    wrong = np.minimum((rng.random((len(x), 1)) > cumulative).sum(axis=1), NUM_CLASSES - 1)
    return np.where(rng.random(len(x)) < rates, wrong, images.y)


NOISES: dict[str, tuple[Callable[[Images, float, np.random.Generator], np.ndarray], float]] = {
    "clean": (flip_symmetric, 0.0),
    "symmetric_20": (flip_symmetric, 0.2),
    "symmetric_40": (flip_symmetric, 0.4),
    "symmetric_60": (flip_symmetric, 0.6),
    "pairs_40": (flip_pairs, 0.4),
    "instance_40": (flip_by_instance, 0.4),
}
"""Name -> function and share of wrong labels."""
