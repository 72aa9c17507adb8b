"""Images of handwritten digits, for the recipes that classify them.

`digits`: the 1,797 scans that ship with scikit-learn (8x8 pixels, 17 shades of gray), scaled up to 16x16 so that
    LeNet's two convolutions of 5x5 fit. 1,200 are for training, 597 for testing, divided at random, once for all.
`mnist`: the 60,000 and 10,000 images of MNIST (28x28), scaled down to 16x16, so that a run costs the same. Keras
    fetches them, or `path` names an `.npz` file with the arrays `x_train`, `y_train`, `x_test` and `y_test`.
"""

import zipfile
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

SIZE = 16  # pixels to a side
NUM_TRAIN = 1200  # of scikit-learn's 1,797
NUM_VIEWS = 8  # quarter turns of a digit and of its mirror image
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


class Images(NamedTuple):
    """Images `[n, SIZE, SIZE, 1]`, float32, 0 is paper and 1 is ink; and their digits `[n]`, 0 to 9."""

    x: np.ndarray
    y: np.ndarray


def load_images(data="digits", path=None):
    """Returns training images and test images; no image is in both.

    Args:
        data: `"digits"` or `"mnist"`.
        path: Optional `.npz` file of MNIST.

    Returns:
        Two `Images`.

    Raises:
        FileNotFoundError: There is no file at `path`.
        ValueError: The file does not hold MNIST's arrays; or `path` is given for data that needs no file.
        ConnectionError: MNIST is neither in Keras's cache nor to be fetched.

    Example:

    >>> train, test = load_images()
    >>> train.x.shape, test.x.shape
    ((1200, 16, 16, 1), (597, 16, 16, 1))
    """
    if data == "digits":
        if path is not None:
            raise ValueError(f"`path` is for data='mnist'; data='digits' needs no file. Received: path='{path}'")
        return _scikit_learn_digits()
    if data != "mnist":
        raise ValueError(f"Expected `data` 'digits' or 'mnist'. Received: data={data!r}")
    arrays = _fetch_mnist() if path is None else _read_npz(Path(path))
    return _prepare(*arrays[:2], white=255), _prepare(*arrays[2:], white=255)


def check_pairs(train_pair, test_pairs):
    """Raises unless each pair is of two different digits and no test pair shares a digit with the training pair."""
    if not test_pairs:
        raise ValueError("`test_pairs` is empty: give at least one pair of digits that the loss is tested on.")
    for pair in (train_pair, *test_pairs):
        if len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(range(10)):
            raise ValueError(f"A pair is two different digits from 0 to 9. Received: {tuple(pair)}")
    shared = [tuple(pair) for pair in test_pairs if set(pair) & set(train_pair)]
    if shared:
        raise ValueError(
            "A test pair must not share a digit with the pair that the loss is learned on. Received: "
            f"train_pair={tuple(train_pair)}, and of test_pairs {shared}"
        )


def split(images):
    """Two thirds of the images, and the others."""
    at = 2 * len(images.y) // 3
    return Images(images.x[:at], images.y[:at]), Images(images.x[at:], images.y[at:])


def one_hot(digits, classes):
    """Targets `[n, len(classes)]` of digits `[n]`; the order of `classes` is that of the outputs."""
    return (np.asarray(digits)[:, np.newaxis] == np.asarray(classes)).astype("float32")


def _scikit_learn_digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    parts = order[:NUM_TRAIN], order[NUM_TRAIN:]
    train, test = (_prepare(digits.images[part], digits.target[part], white=16) for part in parts)
    return train, test


def _fetch_mnist():
    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    except Exception as error:  # Keras raises a bare `Exception` where a download fails
        raise ConnectionError(
            "MNIST is not in Keras's cache and could not be fetched. Give a file with --data-path mnist.npz (arrays "
            f"{', '.join(ARRAYS)}), or use --data digits, which needs no download. Received: {error}"
        ) from error
    return x_train, y_train, x_test, y_test


def _read_npz(path):
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file '{path}'. Expected an .npz file with the arrays {', '.join(ARRAYS)}, as Keras keeps it "
            "in ~/.keras/datasets/mnist.npz."
        )
    try:
        with np.load(path, allow_pickle=False) as file:  # a pickle could run code
            arrays = {name: file[name] for name in ARRAYS if name in file.files}
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"'{path}' is no .npz file of plain arrays. Received: {error}") from error
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise ValueError(f"'{path}' lacks {', '.join(missing)}. Expected the arrays {', '.join(ARRAYS)}.")
    for part in ("train", "test"):
        _check(path, part, arrays[f"x_{part}"], arrays[f"y_{part}"])
    return [arrays[name] for name in ARRAYS]


def _check(path, part, x, y):
    shapes = f"x_{part} {x.dtype} {x.shape}, y_{part} {y.dtype} {y.shape}"
    if x.ndim != 3 or y.shape != x.shape[:1] or 0 in x.shape:
        raise ValueError(f"'{path}': expected images [n, height, width] and digits [n]. Received: {shapes}")
    if x.dtype != np.uint8 or y.dtype.kind not in "iu" or set(np.unique(y)) != set(range(10)):
        raise ValueError(
            f"'{path}': expected images of type uint8, 0 to 255, and integers for the digits from 0 to 9, all of them. "
            f"Received: {shapes}, digits {np.unique(y)[:12]}"
        )


def _prepare(x, y, white):
    x = tf.image.resize(x[..., np.newaxis].astype("float32") / white, (SIZE, SIZE), antialias=True)
    return Images(np.asarray(x), np.asarray(y, int))


def draw_task(support_pools, query_pools, num_support, num_query, rng):
    """Draws one task. The pools hold the images of each class; returns `{"support": (x, y), "query": (x, y)}`."""

    def draw(pools, size):
        x = [pool[rng.choice(len(pool), size, replace=False)] for pool in pools]
        classes = np.arange(len(pools))
        return np.concatenate(x), one_hot(np.repeat(classes, size), classes)

    return {"support": draw(support_pools, num_support), "query": draw(query_pools, num_query)}


def stack(tasks):
    """A list of tasks as one structure of arrays `[N, B, ...]`."""
    return tf.nest.map_structure(lambda *arrays: np.stack(arrays), *tasks)


def view(images, index):
    """One of the eight views of images: `index % 4` quarter turns, mirrored from 4 on."""
    turned = np.rot90(images, index % 4, axes=(1, 2))
    return turned[:, :, ::-1] if index >= 4 else turned


def meta_train_tasks(images_of_pair, num_classes, num_tasks, per_class, seed):
    """Endless tasks whose classes are views of two digits; no image is in both support and query of a task."""

    def draw(rng):
        halves = [np.array_split(rng.permutation(images), 2) for images in images_of_pair]
        classes = rng.permutation(2 * NUM_VIEWS)[:num_classes]
        pools = [[view(halves[index % 2][half], index // 2) for index in classes] for half in range(2)]
        return draw_task(*pools, per_class, per_class, rng)

    def generate():
        rng = np.random.default_rng(seed)
        while True:
            yield stack([draw(rng) for _ in range(num_tasks)])

    batch = (num_tasks, num_classes * per_class)
    x, y = tf.TensorSpec((*batch, SIZE, SIZE, 1)), tf.TensorSpec((*batch, num_classes))
    return tf.data.Dataset.from_generator(generate, output_signature={"support": (x, y), "query": (x, y)})


def draw_tasks(train, test, groups, per_class, learners, seed):
    """Tasks for `learners` LeNets of each group of digits: they train on images of `train`, are scored on `test`."""
    rng = np.random.default_rng(seed)
    pools = [[[images.x[images.y == digit] for digit in group] for images in (train, test)] for group in groups]
    sizes = [min(per_class, *(len(pool) for pair in pools for pool in pair[part])) for part in range(2)]
    return stack([draw_task(*pair, *sizes, rng) for pair in pools for _ in range(learners)])
