"""Corruptions of images `[n, height, width]` of values from 0 to 1: four to learn from, four others to be tested on."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from scipy import ndimage

Corrupt: TypeAlias = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
Families: TypeAlias = dict[str, tuple[Corrupt, tuple[float, ...]]]
"""Name of a corruption -> its function, and the sizes that it takes."""


def gaussian_noise(x: np.ndarray, size: float, generator: np.random.Generator) -> np.ndarray:
    """Adds noise; `size` is its standard deviation."""
    return x + size * generator.normal(size=x.shape)


def box_blur(x: np.ndarray, size: float, generator: np.random.Generator) -> np.ndarray:
    """Takes the mean of a square; `size` is its side in pixels."""
    return ndimage.uniform_filter(x, size=(0, int(size), int(size)))


def shear(x: np.ndarray, size: float, generator: np.random.Generator) -> np.ndarray:
    """Moves each row to the side; `size` is the shift for each row, in pixels, to the left or to the right."""
    sign = generator.choice([-1, 1])
    center = (x.shape[2] - 1) / 2
    matrix = np.array([[1, 0, 0], [0, 1, 0], [0, sign * size, 1]])
    return ndimage.affine_transform(x, matrix, offset=(0, 0, -sign * size * center), order=1)


def brightness(x: np.ndarray, size: float, generator: np.random.Generator) -> np.ndarray:
    """Adds `size` to every pixel."""
    return x + size


def salt_and_pepper(x: np.ndarray, size: float, generator: np.random.Generator) -> np.ndarray:
    """Turns a share `size` of the pixels black or white."""
    chance = generator.random(x.shape)
    return np.where(chance < size / 2, 0, np.where(chance < size, 1, x))


def motion_blur(x: np.ndarray, size: float, generator: np.random.Generator) -> np.ndarray:
    """Takes the mean along a diagonal of `size` pixels."""
    return ndimage.convolve(x, np.eye(int(size))[np.newaxis] / int(size), mode="constant")


def contrast(x: np.ndarray, size: float, generator: np.random.Generator) -> np.ndarray:
    """Shrinks the distance of every pixel from gray; `size` is the share that is lost."""
    return 0.5 + (1 - size) * (x - 0.5)


def rotation(x: np.ndarray, size: float, generator: np.random.Generator) -> np.ndarray:
    """Turns the images by `size` degrees, to the left or to the right."""
    return ndimage.rotate(x, size * generator.choice([-1, 1]), axes=(1, 2), reshape=False, order=1)


SEEN: Families = {
    "gaussian_noise": (gaussian_noise, (0.3, 0.5, 0.7)),
    "box_blur": (box_blur, (3, 5, 7)),
    "shear": (shear, (0.2, 0.4, 0.6)),
    "brightness": (brightness, (0.1, 0.2, 0.3)),
}
UNSEEN: Families = {
    "salt_and_pepper": (salt_and_pepper, (0.1, 0.2, 0.3)),
    "motion_blur": (motion_blur, (5, 8, 11)),
    "contrast": (contrast, (0.2, 0.4, 0.6)),
    "rotation": (rotation, (15, 30, 45)),
}
