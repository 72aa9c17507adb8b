"""Losses that others have made for wrong labels, as Keras losses of one-hot labels and probabilities `[B, C]`."""

from typing import Any

import keras
from keras import ops

import ml3_tf

LOG_OF_ZERO = -4.0  # what symmetric cross-entropy takes for it


class SymmetricCrossEntropy(keras.losses.Loss):
    """`alpha` times cross-entropy, plus the same with prediction and label exchanged.

    Source: Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", ICCV 2019, eq. 6.
    """

    def __init__(self, alpha: float):
        super().__init__(name="symmetric")
        self.alpha = alpha

    def call(self, y_true: Any, y_pred: Any) -> Any:
        reverse = -LOG_OF_ZERO * (1 - ops.sum(y_true * y_pred, axis=-1))
        return self.alpha * keras.losses.categorical_crossentropy(y_true, y_pred) + reverse


class Bootstrapping(keras.losses.Loss):
    """Cross-entropy with targets of which a share `1 - beta` is what the classifier itself would say.

    Source: Reed et al., "Training Deep Neural Networks on Noisy Labels with Bootstrapping", 2014, section 3.3 ("hard").
    """

    def __init__(self, beta: float):
        super().__init__(name="bootstrapping")
        self.beta = beta

    def call(self, y_true: Any, y_pred: Any) -> Any:
        own = ops.one_hot(ops.argmax(y_pred, axis=-1), y_pred.shape[-1], dtype=y_pred.dtype)
        target = self.beta * y_true + (1 - self.beta) * own
        return keras.losses.categorical_crossentropy(target, y_pred)


def build_generalized(q: float) -> keras.losses.Loss:
    """Generalized cross-entropy (Zhang and Sabuncu, 2018), which in Keras takes class indices alone."""
    return ml3_tf.MetaLoss.around(keras.losses.CategoricalGeneralizedCrossEntropy(q=q), mode="per_output")


def build_forward(q: float, prior_count: float, balance: float) -> ml3_tf.MetaLoss:
    """The base that the learned loss starts as, see `ml3_tf.MetaLoss.around`."""
    base = {"name": "forward_corrected_cross_entropy", "q": q, "prior_count": prior_count, "balance": balance}
    return ml3_tf.MetaLoss.around(base, mode="per_output", name="noisy_labels")
