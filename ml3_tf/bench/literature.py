"""Losses from the literature, written from their equations.

Shape letters: B examples, C classes. Targets are one-hot, predictions are probabilities: `[B, C]`.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

SMALLEST = 1e-7  # of a probability, as in Keras


def _clip(y_pred: Any, smallest: float) -> Any:
    return ops.clip(y_pred, smallest, 1.0)


def _mean(values: Any) -> Any:
    return ops.mean(values, axis=-1)


def _dot(y_true: Any, y_pred: Any) -> Any:
    return ops.sum(y_true * y_pred, axis=-1)


class GeneralizedCrossEntropy(keras.losses.Loss):
    """`(1 - p^q) / q` of the probability p of the right class; Keras's own takes class indices alone.

    Source: Zhang and Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels",
    NeurIPS 2018; q = 0.7 as there.

    >>> float(GeneralizedCrossEntropy(q=1.0)(ops.array([[1.0, 0.0]]), ops.array([[0.25, 0.75]])))
    0.75
    """

    def __init__(self, q: float = 0.7) -> None:
        super().__init__(name="generalized_cross_entropy")
        self.q: float = q

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "q": self.q}

    def call(self, y_true: Any, y_pred: Any) -> Any:
        right = _dot(y_true, _clip(y_pred, SMALLEST))
        return (1 - right**self.q) / self.q


class SymmetricCrossEntropy(keras.losses.Loss):
    """`alpha` times cross-entropy plus `beta` times the same with prediction and label exchanged.

    Source: Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", ICCV 2019, eq. 6. As the
    authors' code has for CIFAR-10, alpha = 0.1, beta = 1, and a label of zero counts as 1e-4
    (https://github.com/YisenWang/symmetric_cross_entropy_for_noisy_labels).

    >>> loss = SymmetricCrossEntropy(alpha=0.0, smallest_label=1e-2)
    >>> round(float(loss(ops.array([[1.0, 0.0]]), ops.array([[0.5, 0.5]]))), 3)  # -log(0.01) / 2
    2.303
    """

    def __init__(self, alpha: float = 0.1, beta: float = 1.0, smallest_label: float = 1e-4) -> None:
        super().__init__(name="symmetric_cross_entropy")
        self.alpha: float = alpha
        self.beta: float = beta
        self.smallest_label: float = smallest_label

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta, "smallest_label": self.smallest_label}

    def call(self, y_true: Any, y_pred: Any) -> Any:
        # - sum_i p_i log y_i, where log 1 = 0
        reverse = -math.log(self.smallest_label) * (1 - _dot(y_true, y_pred))
        forward: Any = keras.losses.categorical_crossentropy(y_true, y_pred)
        return self.alpha * forward + self.beta * reverse


class Baikal(keras.losses.Loss):
    """`-(log p - y / p)`, mean over classes: the loss that genetic programming found for MNIST.

    Source: Gonzalez and Miikkulainen, "Improved Training Speed, Accuracy, and Data Utilization Through Loss Function
    Optimization", CEC 2020 (arXiv 1905.11528). Probabilities are kept `smallest` away from the pole at 0, a choice of
    ours. The form without tuned coefficients; its equation was checked against a public implementation.

    >>> float(Baikal()(ops.array([[1.0, 0.0]]), ops.array([[0.5, 0.5]])))
    1.6931...
    """

    def __init__(self, smallest: float = 1e-3) -> None:
        super().__init__(name="baikal")
        self.smallest: float = smallest

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "smallest": self.smallest}

    def call(self, y_true: Any, y_pred: Any) -> Any:
        p = _clip(y_pred, self.smallest)
        return _mean(y_true / p - ops.log(p))


# The file is experiments/oneShot/CIFAR10ResNet_LossFromMNIST.json of https://github.com/cognizant-ai-labs/TaylorGLO.
FOUND_ON_MNIST = (-10.9408, 7.5216, 8.2896, 0.2415, 7.8726, 8.9666, 2.0184, 7.0513)


class TaylorPolynomial(keras.losses.Loss):
    """A polynomial of third order in the label y and the prediction p, mean over classes, negated:

    `c2 (p - c1) + c3 (p - c1)^2 + c4 (p - c1)^3 + c5 (y - c0)(p - c1) + c6 (y - c0)(p - c1)^2 + c7 (y - c0)^2 (p - c1)`

    Source: Gonzalez and Miikkulainen, "Optimizing Loss Functions Through Multivariate Taylor Polynomial
    Parameterization" (TaylorGLO), GECCO 2021. Terms without p do not move a learner, and are left out. Factorials are
    part of the coefficients. The default ones were evolved on MNIST: the authors' repository holds them, in an
    experiment that takes the loss to CIFAR-10.

    >>> loss = TaylorPolynomial((0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    >>> float(loss(ops.array([[1.0, 0.0]]), ops.array([[0.25, 0.75]])))
    -0.5
    """

    def __init__(self, coefficients: Sequence[float] = FOUND_ON_MNIST) -> None:
        super().__init__(name="taylor_polynomial")
        if len(coefficients) != 8:
            raise ValueError(f"`coefficients` must be eight numbers, c0 to c7. Received: {coefficients}")
        self.coefficients: tuple[float, ...] = tuple(coefficients)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "coefficients": self.coefficients}

    def call(self, y_true: Any, y_pred: Any) -> Any:
        c0, c1, c2, c3, c4, c5, c6, c7 = self.coefficients
        y, p = y_true - c0, y_pred - c1
        terms = c2 * p + c3 * p**2 + c4 * p**3 + c5 * y * p + c6 * y * p**2 + c7 * y**2 * p
        return _mean(-terms)


@keras.saving.register_keras_serializable(package="ml3_tf")
def smooth_leaky_relu(x: Any, leak: float = 0.01, sharpness: float = 10.0) -> Any:
    """Returns `leak x + (1 - leak) softplus(sharpness x) / sharpness`, the activation of AdaLFL's loss network.

    Source: Raymond et al., "Meta-Learning Adaptive Loss Functions" (AdaLFL), arXiv 2301.13247. The form was checked
    against later code of its authors; leak and sharpness could not be checked.

    >>> [round(float(smooth_leaky_relu(x)), 3) for x in (-5.0, 0.0, 5.0)]
    [-0.05, 0.069, 5.0]
    """
    softplus: Any = ops.softplus(sharpness * x)
    return leak * x + (1 - leak) * softplus / sharpness
