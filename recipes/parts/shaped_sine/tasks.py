"""The learner and the tasks of `shaped_sine.py`: sines of one unknown frequency."""

from collections.abc import Mapping
from typing import Any, Literal

import keras
import tensorflow as tf

INNER_STEPS = 10  # of a learner in meta-training
INNER_RATE = 1.0  # of SGD, which takes them
FIRST_FREQUENCY = 0.1
NUM_POINTS = 64


class Sine(keras.layers.Layer):
    """f(x) = sin(omega x): one weight, which always starts at 0.1."""

    def build(self, input_shape: Any) -> None:
        self.omega = self.add_weight(initializer=keras.initializers.Constant(FIRST_FREQUENCY), name="omega")

    def call(self, inputs: Any) -> Any:
        return keras.ops.sin(self.omega * inputs)


def build_learner() -> keras.Model:
    return keras.Sequential([keras.Input((1,)), Sine()])


def frequency_tasks(
    num_tasks: int,
    *,
    seed: int,
    with_x: bool = True,
    frequency: tuple[float, float] = (0.0, 5.0),
    noise: float = 0.0,
) -> tf.data.Dataset:
    """Returns an endless dataset of sines `y = sin(nu x)`.

    Args:
        num_tasks: N, number of sines in an element.
        seed: Determines the sines.
        with_x: Whether `y_true`, which the loss sees, is `(y, x)` or `y` alone.
        frequency: Range of abs(nu), which is uniform in it. The sign is random.
        noise: Standard deviation of normal noise on the y to train on.

    Returns:
        Elements `{"support": (x, y_true), "query": (x, y), "frequency": nu}`; the true nu `[N]` is for `L_extra`.
    """

    def draw(seed: tf.Tensor) -> dict[str, Any]:
        seeds = tf.random.split(seed, 4)
        sign = tf.sign(tf.random.stateless_uniform((num_tasks,), seeds[0], -1, 1))
        nu = sign * tf.random.stateless_uniform((num_tasks,), seeds[1], *frequency)
        x = tf.random.stateless_uniform((num_tasks, 2 * NUM_POINTS, 1), seeds[2], -5, 5)
        y = tf.sin(nu[:, tf.newaxis, tf.newaxis] * x)
        noisy = y + noise * tf.random.stateless_normal(y.shape, seeds[3])
        y_true = tf.concat([noisy, x] if with_x else [noisy], axis=-1)
        return {
            "support": (x[:, :NUM_POINTS], y_true[:, :NUM_POINTS]),
            "query": (x[:, NUM_POINTS:], y[:, NUM_POINTS:]),
            "frequency": nu,
        }

    seeds = tf.data.Dataset.counter().map(lambda count: tf.stack([tf.constant(seed, count.dtype), count]))
    return seeds.map(draw).prefetch(tf.data.AUTOTUNE)


def task_seed(purpose: Literal["train", "tune", "test"], seed: int) -> int:
    """Returns the seed of the tasks: training, tuning and test tasks come from streams of their own."""
    return 3 * seed + ["train", "tune", "test"].index(purpose)


def draw_tasks(
    num_tasks: int,
    purpose: Literal["train", "tune", "test"],
    seed: int,
    *,
    with_x: bool,
    frequency: tuple[float, float] = (0.0, 5.0),
    noise: float = 0.0,
) -> Mapping[str, Any]:
    """Draws the first element of `frequency_tasks`."""
    seed = task_seed(purpose, seed)
    return next(iter(frequency_tasks(num_tasks, seed=seed, with_x=with_x, frequency=frequency, noise=noise)))
