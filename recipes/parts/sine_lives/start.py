"""A learned loss that starts as the mean squared error."""

import keras
import numpy as np
import tensorflow as tf

import ml3_tf

BATCH_SIZE = 1024
OUTER_RATE = 5e-3
Y_RANGE = 6.0  # targets lie between minus and plus this
LOG_ERRORS = -2.5, 1.0  # powers of ten between which errors are drawn
SMALLEST_ERROR = 0.02  # below, the gradient need not be relatively right


def build_loss(name: str, num_steps: int, *, seed: int) -> ml3_tf.MetaLoss:
    """Returns a loss that starts as the mean squared error, and of which the last layer and the rate are learned.

    These are 41 numbers. Evolution strategies with few pairs cannot tell the influence of thousands apart.
    """
    network = ml3_tf.MetaLoss.mlp((40, 40)).network
    fit_to_squared_error(network, num_steps, seed=seed)
    for layer in network.layers[:-1]:
        layer.trainable = False
    # The last layer gets weights of about 1, and the rate their size.
    kernel = network.layers[-1].kernel
    size = float(np.sqrt(np.mean(np.square(kernel))))
    kernel.assign(kernel / size)
    return ml3_tf.MetaLoss(network, learning_rate=size, name=name)


def fit_to_squared_error(network: keras.Model, num_steps: int, *, seed: int) -> float:
    """Fits a loss's network, so that its gradient for y_pred is `2 (y_pred - y)`; returns the last squared misfit.

    The misfit is relative to the size of the error, for errors of all sizes.
    """
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(OUTER_RATE, num_steps))
    optimizer.build(network.trainable_variables)

    def step(i: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        draw = lambda number, low, high: tf.random.stateless_uniform((BATCH_SIZE, 1), [seed, 3 * i + number], low, high)
        y, error = draw(0, -Y_RANGE, Y_RANGE), tf.sign(draw(1, -1.0, 1.0)) * 10 ** draw(2, *LOG_ERRORS)
        with tf.GradientTape() as tape:
            with tf.GradientTape() as inner_tape:
                inner_tape.watch(error)
                loss = tf.reduce_sum(network(tf.concat([y + error, y], axis=1)))
            slope = inner_tape.gradient(loss, error)
            misfit = tf.reduce_mean(((slope - 2 * error) / (tf.abs(error) + SMALLEST_ERROR)) ** 2)
        optimizer.apply(tape.gradient(misfit, network.trainable_variables), network.trainable_variables)
        return i + 1, misfit

    @tf.function(autograph=False, jit_compile=True)
    def fit() -> tf.Tensor:
        return tf.while_loop(lambda i, _: i < num_steps, step, (0, tf.zeros(())))[1]

    return float(fit())
