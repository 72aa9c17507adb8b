"""The losses without labels of `label_free.py`: entropy, information maximization, and a network to be learned.

Shape letters: B images of a batch, C classes.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

import ml3_tf
from parts.image_data import NUM_CLASSES


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
        """Returns the nearest such weights: a bias `[C * b]`, a kernel `[C * a, C * b]`, or one of the score `[C, 1]`."""
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
        input_gain: Factor of the first kernel.
        rate: First value of the rate that the loss learns.
    """
    same = SameForAllClasses()

    def hidden(units: int) -> keras.layers.Layer:
        return keras.layers.Dense(
            NUM_CLASSES * units,
            activation="silu",
            kernel_initializer=keras.initializers.VarianceScaling(),
            bias_initializer=keras.initializers.RandomNormal(stddev=0.1),
            kernel_constraint=same,
            bias_constraint=same,
        )

    output = keras.layers.Dense(
        1, use_bias=False, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0), kernel_constraint=same
    )
    network = keras.Sequential([keras.Input((NUM_CLASSES,)), *map(hidden, hidden_units)])
    pooled = keras.Input((NUM_CLASSES * hidden_units[-1],))
    score_network = keras.Sequential([pooled, *map(hidden, score_units), output])
    for variable in [*network.trainable_variables, *score_network.trainable_variables]:
        variable.assign(NUM_CLASSES * same(variable))  # the mean of blocks is smaller than a block
    first = network.layers[0].kernel
    first.assign(input_gain * first)
    output.kernel.assign(output_stddev / NUM_CLASSES * output.kernel)
    return ml3_tf.MetaLoss(
        network,
        score_network=score_network,
        mode="per_set",
        features={"y_pred": NUM_CLASSES},
        learning_rate=rate,
        name="label_free",
    )
