"""The losses without labels of `label_free.py`: entropy, information maximization, and a network to be learned.

Shape letters: B images of a batch, C classes.
"""

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import ml3_tf
from ml3_tf.bench.image_data import NUM_CLASSES


@keras.saving.register_keras_serializable("label_free")
class Entropy(keras.losses.Loss):
    """The entropy of each prediction, in nats; with `diversity` minus that of the batch's mean prediction.

    `diversity=0` is entropy minimization (Grandvalet and Bengio, 2004; TENT by Wang et al., 2021), `diversity=1`
    information maximization (SHOT-IM by Liang et al., 2020), which keeps a batch from ending in one class.
    """

    def __init__(self, diversity: float = 0.0, name: str = "entropy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.diversity = diversity

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each example, `[..., B, C] -> [..., B]`; `y_true` is not read."""
        return entropy(y_pred) - self.diversity * entropy(ops.mean(y_pred, axis=-2, keepdims=True))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "diversity": self.diversity}


@keras.saving.register_keras_serializable("label_free")
class NoLoss(keras.losses.Loss):
    """Zero: only what is no gradient moves, the statistics of batch normalization."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return 0.0 * ops.sum(y_pred, axis=-1)


def entropy(probabilities: Any) -> Any:
    """Returns the entropy along the last axis, in nats."""
    return -ops.sum(probabilities * ops.log(ops.maximum(probabilities, keras.config.epsilon())), axis=-1)


@keras.saving.register_keras_serializable("label_free")
class SameForAllClasses(keras.constraints.Constraint):
    """Keeps a kernel or a bias from telling one class from another.

    Units come in blocks of the same size, one block for each class. Of the parts of a kernel that lead from one block
    to another, those from a class to itself are all alike, and so are those between different classes. These are all
    the linear layers that do not care for the order of classes (Zaheer et al., "Deep Sets", 2017).
    """

    def __call__(self, weights: Any) -> Any:
        """Returns the nearest such weights: a bias `[C * b]`, a kernel `[C * a, C * b]`, or the last `[C * a, 1]`."""
        weights = ops.convert_to_tensor(weights)
        shape = tuple(weights.shape)
        if len(shape) == 1 or shape[1] == 1:
            blocks = ops.reshape(weights, (NUM_CLASSES, -1))
            mean = ops.mean(blocks, axis=0, keepdims=True)
            return ops.reshape(ops.broadcast_to(mean, blocks.shape), shape)
        a, b = (size // NUM_CLASSES for size in shape)
        blocks = ops.reshape(weights, (NUM_CLASSES, a, NUM_CLASSES, b))
        is_same = ops.reshape(ops.eye(NUM_CLASSES, dtype=weights.dtype), (NUM_CLASSES, 1, NUM_CLASSES, 1))
        mean = lambda chosen: ops.sum(blocks * chosen, axis=(0, 2), keepdims=True) / ops.sum(chosen)
        is_other = 1 - is_same
        return ops.reshape(mean(is_same) * is_same + mean(is_other) * is_other, shape)


def build_loss(
    hidden_units: Sequence[int], score_units: Sequence[int], *, output_stddev: float, input_gain: float, rate: float
) -> ml3_tf.MetaLoss:
    """Returns a label-free loss of whole batches, whose networks treat all classes alike.

    Args:
        hidden_units: Widths, for each class, of the layers in front of the pooling over the batch.
        score_units: The same for the layers behind it.
        output_stddev: Spread of the last weights.
        input_gain: Spread of the first kernel.
        rate: First value of the rate that the loss learns.
    """
    same = SameForAllClasses()

    def chain(width: int, units: Sequence[int], last: Sequence[keras.layers.Layer]) -> keras.Sequential:
        hidden = [
            keras.layers.Dense(NUM_CLASSES * number, "silu", kernel_constraint=same, bias_constraint=same)
            for number in units
        ]
        return keras.Sequential([keras.Input((NUM_CLASSES * width,)), *hidden, *last])

    score = keras.layers.Dense(1, use_bias=False, kernel_constraint=same)
    networks = chain(1, hidden_units, []), chain(hidden_units[-1], score_units, [score])
    normal = lambda stddev, *shape: stddev * np.asarray(keras.random.normal(shape))
    width, gain = 1, input_gain
    for layer, units in zip([*networks[0].layers, *networks[1].layers], [*hidden_units, *score_units]):
        # At first no class sees another, up to the sum of their scores.
        layer.kernel.assign(np.kron(np.eye(NUM_CLASSES), normal(gain / width**0.5, width, units)))
        layer.bias.assign(np.tile(normal(0.3, units), NUM_CLASSES))
        width, gain = units, 1.0
    score.kernel.assign(np.tile(normal(output_stddev / width**0.5, width, 1), (NUM_CLASSES, 1)))
    return ml3_tf.MetaLoss(
        networks[0],
        score_network=networks[1],
        mode="per_set",
        features={"y_pred": NUM_CLASSES},
        learning_rate=rate,
        name="label_free",
    )


def start_as(meta_loss: ml3_tf.MetaLoss, loss: Any, *, num_steps: int, seed: int) -> list[float]:
    """Fits a loss to another one, by the gradients that both give to logits of random batches.

    Args:
        meta_loss: The loss to fit.
        loss: The loss that it shall start as.
        num_steps: Number of steps of Adam.
        seed: Determines the batches.

    Returns:
        For each step, the squared error as a share of the squared gradient.
    """
    generator = keras.random.SeedGenerator(seed)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, num_steps))

    def logits() -> Any:
        """Ten batches from unsure to sure, and from balanced ones to those of few classes."""
        draw = functools.partial(keras.random.normal, seed=generator)
        sureness, imbalance = (draw((10, 1, 1), stddev=stddev) for stddev in (5.0, 3.0))
        return sureness * draw((10, 100, NUM_CLASSES)) + imbalance * draw((10, 1, NUM_CLASSES))

    def gradient(of: Any, values: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(values)
            y_pred = tf.nn.softmax(values)
            score = tf.reduce_sum(of.call(y_pred[..., :0], y_pred))
        return tape.gradient(score, values)

    @tf.function(autograph=False)
    def step() -> Any:
        values = logits()
        wanted = gradient(loss, values)
        with tf.GradientTape() as tape:
            error = tf.reduce_mean(tf.square(gradient(meta_loss, values) - wanted)) / tf.reduce_mean(tf.square(wanted))
        variables = meta_loss.trainable_variables
        optimizer.apply(tape.gradient(error, variables), variables)
        return error

    optimizer.build(meta_loss.trainable_variables)
    return [float(step()) for _ in range(num_steps)]
