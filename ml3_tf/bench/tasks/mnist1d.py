"""MNIST-1D: ten short curves that stand for the digits, moved, bent, and drowned in noise.

Source: Greydanus and Kobak, "Scaling Down Deep Learning with MNIST-1D", ICML 2024. The corners of the curves, the sizes
of all changes and their order are those of https://github.com/greydanus/mnist1d (license Apache-2.0). The code and the
draws are our own: each seed has other examples. With the published ones, a network as here reaches 68 %.
"""

import functools

import keras
import numpy as np

from ml3_tf.bench.task import Problems, Task, stack_problems
from ml3_tf.extras import needed_for

# Heights of the digits 0 to 9 at twelve points. Each begins at zero, and has a standard deviation of 1/6.
HEIGHTS: np.ndarray = np.array(
    [
        [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
        [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
        [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
        [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
        [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
        [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
        [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
        [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
    ]
)
TEMPLATES: np.ndarray = (HEIGHTS - HEIGHTS[:, :1]) / HEIGHTS.std(axis=1, keepdims=True) / 6
PADDING = (36, 60)  # points
SCALE = 0.4
LARGEST_SHIFT = 48  # points
CORRELATED_NOISE, WHITE_NOISE, LARGEST_SLOPE = 0.25, 0.02, 0.75
SMOOTHING = 2.0  # points, of the correlated noise
LENGTH = 40  # points
NUM_TRAIN, NUM_TEST = 4000, 1000


def draw_curve(label: int, generator: np.random.Generator) -> np.ndarray:
    """Draws a curve `[40]` of a class.

    >>> draw_curve(3, np.random.default_rng(0)).shape
    (40,)
    """
    with needed_for("MNIST-1D", "SciPy", extra="recipes"):
        from scipy.ndimage import gaussian_filter1d

    padding = int(generator.integers(PADDING[0], PADDING[1] + 1))
    dilate = lambda values: _resample(np.pad(values, (0, padding)), TEMPLATES.shape[1] + PADDING[1])
    curve = dilate(TEMPLATES[label]) * (1 + SCALE * generator.uniform(-0.5, 0.5))
    noise = gaussian_filter1d(CORRELATED_NOISE * generator.normal(size=len(curve)), SMOOTHING)
    shift = int(generator.integers(LARGEST_SHIFT))
    is_digit = dilate(np.ones(TEMPLATES.shape[1])) > 0
    curve = np.where(np.roll(is_digit, shift), np.roll(curve, shift), noise)
    curve += WHITE_NOISE * generator.normal(size=len(curve))
    curve -= LARGEST_SLOPE * generator.uniform(-0.5, 0.5) * np.linspace(-0.5, 0.5, len(curve))
    return _resample(curve, LENGTH)


def _resample(curve: np.ndarray, length: int) -> np.ndarray:
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(curve)), curve)


@functools.lru_cache(maxsize=1)
def draw_curves(seed: int) -> Problems:
    """Draws 4,000 curves to train on and 1,000 that score, standardized by the former."""
    generator = np.random.default_rng([seed, 40])
    y = np.arange(NUM_TRAIN + NUM_TEST) % len(TEMPLATES)
    x = np.array([draw_curve(int(label), generator) for label in y])
    x = (x - x[:NUM_TRAIN].mean()) / x[:NUM_TRAIN].std()
    targets = np.eye(len(TEMPLATES))[y]
    return stack_problems([(x[:NUM_TRAIN], targets[:NUM_TRAIN])], [(x[NUM_TRAIN:], targets[NUM_TRAIN:])])


def build_classifier() -> keras.Model:
    """Returns a network with two hidden layers of 100 units, as the paper has."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((LENGTH,)),
            layers.Dense(100, "relu"),
            layers.Dense(100, "relu"),
            layers.Dense(len(TEMPLATES), "softmax", name="output"),
        ]
    )


MNIST1D = Task(("mnist1d",), "classification", build_classifier, draw_curves, num_steps=400, batch_size=100)
