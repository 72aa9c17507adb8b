"""Files in the form of Fashion-MNIST, small ones, for tests."""

import gzip

import numpy as np


def write_fashion(folder, num_train=300, num_test=60):
    """Writes the four files of Fashion-MNIST with images of vertical bars, whose place is the class, and some noise."""
    generator = np.random.default_rng(0)
    for part, size in (("train", num_train), ("t10k", num_test)):
        y = np.arange(size, dtype=np.uint8) % 10
        x = generator.integers(0, 50, (size, 28, 28)).astype(np.uint8)
        for index, label in enumerate(y):
            x[index, :, 2 * label : 2 * label + 3] = 200
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", x)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", y)
    return folder


def write_idx(path, array):
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))
