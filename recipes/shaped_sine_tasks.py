"""The learner and the tasks of `shaped_sine.py`: sines of one unknown frequency."""

import keras
import tensorflow as tf

FIRST_FREQUENCY = 0.1
NUM_POINTS = 64


class Sine(keras.layers.Layer):
    """f(x) = sin(omega x): one weight, which always starts at .1."""

    def build(self, input_shape):
        self.omega = self.add_weight(initializer=keras.initializers.Constant(FIRST_FREQUENCY), name="omega")

    def call(self, inputs):
        return keras.ops.sin(self.omega * inputs)


def build_learner():
    return keras.Sequential([keras.Input((1,)), Sine()])


def frequency_tasks(num_tasks, seed, with_x=True, frequency=(0.0, 5.0), noise=0.0):
    """Sines `y = sin(nu x)`, drawn without end; abs(nu) is uniform in `frequency`, its sign is random.

    What a loss may look at stands in `y_true`, `(y, x)` or `y`; the true nu `[N]`, for `L_extra`, under "frequency".
    """

    def draw(seed):
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


def task_seed(purpose, seed):
    """Training, tuning and test tasks come from streams of their own."""
    return 3 * seed + ["train", "tune", "test"].index(purpose)


def draw_tasks(num_tasks, purpose, seed, with_x, **kwargs):
    return next(iter(frequency_tasks(num_tasks, task_seed(purpose, seed), with_x, **kwargs)))
