"""The computation of a described loss in NumPy: the self-test of an artifact needs no backend and no compilation.

Each function is piecewise analytic and takes complex numbers; the real part chooses the branch. So one pass gives value
and derivative at once, by the complex step: for a tiny h, `f(x + i h v) = f(x) + i h f'(x) v` to the last digit, since
nothing is subtracted.

Source: Squire and Trapp, "Using Complex Variables to Estimate Derivatives of Real Functions", SIAM Review 40 (1998).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from ml3_tf.feature_layout import FROM_NETWORK, PER_OUTPUT, PER_SET

Array: TypeAlias = Any  # a NumPy array, real or complex; the type hints of NumPy have no `real` of both
STEP = 1e-30


def value_and_derivative(
    description: dict[str, Any],
    weights: Mapping[str, Array],
    y_true: Array,
    y_pred: Array,
    direction: Array,
) -> tuple[Array, Array]:
    """Returns the loss of each example, and its derivative along a direction of `y_pred`.

    Args:
        description: A checked description of a loss, see `ml3_tf.saving._bundle`.
        weights: Its arrays, by the names of `ml3_tf.saving._bundle`.
        y_true: Array `[B, width]`.
        y_pred: Array `[B, width]`.
        direction: Array like `y_pred`.

    Returns:
        Two arrays `[B]`.
    """
    with np.errstate(all="ignore"):  # an overflow is not finite, which the caller checks
        losses = _loss(description, weights, y_true, y_pred + 1j * STEP * direction)
    return losses.real, losses.imag / STEP


def _loss(description: dict[str, Any], weights: Mapping[str, Array], y_true: Array, y_pred: Array) -> Array:
    """The values of a `MetaLoss`, `[B]`."""
    num_features = len(description["features"])
    if num_features == 1:
        y_true = y_true[:, :0]
    if description["mode"] == PER_OUTPUT:
        slices = [] if num_features == 1 else np.split(y_true, num_features - 1, axis=-1)
        values = np.mean(_score(description, weights, np.stack([y_pred, *slices], axis=-1)), axis=-1)
    else:
        values = _score(description, weights, np.concatenate([y_pred, y_true], axis=-1))
    if (base := description["base"]) is not None:
        values = values + BASES[base["name"]](y_true[:, : y_pred.shape[-1]], y_pred, base)
    return values * np.exp(np.float64(weights["log_rate"])) if "log_rate" in weights else values


def _score(description: dict[str, Any], weights: Mapping[str, Array], inputs: Array) -> Array:
    """What the networks of a `MetaLoss` give: `[..., F] -> [...]`; each example of a set has the one score."""
    scaled = inputs if description["input_scale"] is None else inputs / np.array(description["input_scale"])
    outputs = _network(description["network"], weights, "", scaled)
    if description["mode"] == PER_SET:
        outputs = _network(description["score_network"], weights, "score.", np.mean(outputs, axis=0, keepdims=True))
        outputs = np.broadcast_to(outputs, (len(inputs), outputs.shape[-1]))
    if description["learning_rate"] == FROM_NETWORK:
        return outputs[..., 0] * _softplus(outputs[..., 1].real)  # no gradient flows from the rate
    return outputs[..., 0]


def _network(description: dict[str, Any], weights: Mapping[str, Array], prefix: str, x: Array) -> Array:
    for index, layer in enumerate(description["layers"]):
        start = f"{prefix}layers.{index}."
        own = {name.removeprefix(start): w.astype(np.float64) for name, w in weights.items() if name.startswith(start)}
        x = LAYERS[layer["type"]](layer, own, x)
    return x


def _dense(layer: dict[str, Any], weights: dict[str, Array], x: Array) -> Array:
    return ACTIVATIONS[layer["activation"]](x @ weights["kernel"] + weights.get("bias", 0.0))


def _layer_normalization(layer: dict[str, Any], weights: dict[str, Array], x: Array) -> Array:
    x = x - np.mean(x, axis=-1, keepdims=True)
    x = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + layer["epsilon"])  # x * x: conjugates are not analytic
    return x * weights.get("gamma", 1.0) + weights.get("beta", 0.0)


LAYERS: dict[str, Callable[[dict[str, Any], dict[str, Array], Array], Array]] = {
    "Dense": _dense,
    "Activation": lambda layer, weights, x: ACTIVATIONS[layer["activation"]](x),
    "LayerNormalization": _layer_normalization,
    "Rescaling": lambda layer, weights, x: layer["scale"] * x + layer["offset"],
}


def _abs(x: Array) -> Array:
    return np.where(x.real < 0, -x, x)


def _clip(x: Array, low: float, high: float) -> Array:
    return np.where(x.real < low, low, np.where(x.real > high, high, x))


def _elu(x: Array) -> Array:
    return np.where(x.real > 0, x, np.expm1(np.where(x.real > 0, 0, x)))


def _erf(x: Array) -> Array:
    """`erf(a + i h) = erf(a) + i h 2/sqrt(pi) exp(-a^2)` to first order, which is exact for the complex step."""
    value = np.vectorize(math.erf, otypes=[float])(x.real)
    return value + 1j * x.imag * 2 / math.sqrt(math.pi) * np.exp(-(x.real**2))


def _log_softmax(x: Array) -> Array:
    x = x - np.max(x.real, axis=-1, keepdims=True)
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))


def _sigmoid(x: Array) -> Array:
    small = np.exp(-_abs(x))  # 1 + tanh(x / 2) would lose all digits for x far below 0
    return np.where(x.real < 0, small, 1) / (1 + small)


def _softplus(x: Array) -> Array:
    return np.where(x.real > 0, x, 0) + np.log1p(np.exp(-_abs(x)))


def _sparse_plus(x: Array) -> Array:
    return np.where(x.real <= -1, 0, np.where(x.real < 1, (x + 1) ** 2 / 4, x))


# Keras's activations with their default arguments.
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.where(x.real > 0, x, 0),
    "relu6": lambda x: _clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x.real > 0, x, 0.2 * x),
    "elu": _elu,
    "selu": lambda x: 1.0507009873554805 * np.where(x.real > 0, x, 1.6732632423543772 * _elu(x)),
    "celu": _elu,
    "gelu": lambda x: x * (1 + _erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x * _sigmoid(x),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + _abs(x)),
    "squareplus": lambda x: (x + np.sqrt(x * x + 4)) / 2,
    "sparse_plus": _sparse_plus,
    "tanh": np.tanh,
    "tanh_shrink": lambda x: x - np.tanh(x),
    "hard_tanh": lambda x: _clip(x, -1, 1),
    "sigmoid": _sigmoid,
    "hard_sigmoid": lambda x: _clip(x + 3, 0, 6) / 6,
    "log_sigmoid": lambda x: -_softplus(-x),
    "hard_silu": lambda x: x * _clip(x + 3, 0, 6) / 6,
    "hard_shrink": lambda x: np.where(np.abs(x.real) > 0.5, x, 0),
    "soft_shrink": lambda x: x - _clip(x, -0.5, 0.5),
    "exponential": np.exp,
    "softmax": lambda x: np.exp(_log_softmax(x)),
    "log_softmax": _log_softmax,
}


def _huber(y_true: Array, y_pred: Array, base: dict[str, Any]) -> Array:
    error, delta = _abs(y_pred - y_true), base["delta"]
    return np.mean(np.where(error.real <= delta, error * error / 2, delta * (error - delta / 2)), axis=-1)


def _binary_crossentropy(y_true: Array, y_pred: Array, base: dict[str, Any]) -> Array:
    y_true = y_true * (1 - base["label_smoothing"]) + base["label_smoothing"] / 2
    if base["from_logits"]:
        return np.mean(_softplus(y_pred) - y_true * y_pred, axis=-1)
    y_pred = _clip(y_pred, EPSILON, 1 - EPSILON)
    return -np.mean(y_true * np.log(y_pred) + (1 - y_true) * np.log(1 - y_pred), axis=-1)


def _categorical_crossentropy(y_true: Array, y_pred: Array, base: dict[str, Any]) -> Array:
    y_true = y_true * (1 - base["label_smoothing"]) + base["label_smoothing"] / y_true.shape[-1]
    if base["from_logits"]:
        # TensorFlow's derivative is softmax - y_true, as if the targets added up to 1.
        logits = y_pred.real
        slope = np.exp(_log_softmax(logits)) - y_true.real
        return np.sum(-y_true.real * _log_softmax(logits) + 1j * y_pred.imag * slope, axis=-1)
    y_pred = _clip(y_pred / np.sum(y_pred, axis=-1, keepdims=True), EPSILON, 1 - EPSILON)
    return -np.sum(y_true * np.log(y_pred), axis=-1)


def _sparse_categorical_crossentropy(y_true: Array, y_pred: Array, base: dict[str, Any]) -> Array:
    logits = y_pred if base["from_logits"] else np.log(_clip(y_pred, EPSILON, 1 - EPSILON))
    labels = np.argmax(y_true.real, axis=-1)[..., np.newaxis]
    return -np.take_along_axis(_log_softmax(logits), labels, axis=-1)[..., 0]


def _generalized_cross_entropy(y_true: Array, y_pred: Array, base: dict[str, Any]) -> Array:
    p = np.sum(y_true * y_pred, axis=-1)
    return (1 - np.where(p.real > EPSILON, p, EPSILON) ** base["q"]) / base["q"]


def _forward_corrected_cross_entropy(y_true: Array, y_pred: Array, base: dict[str, Any]) -> Array:
    counts = np.maximum(y_pred.real.T @ y_true, 0) + base["prior_count"] * np.eye(y_true.shape[1])
    labels, predicted = np.mean(y_true, axis=0), np.mean(y_pred, axis=0)
    log = lambda values: np.log(np.where(values.real > EPSILON, values, EPSILON))
    imbalance = base["balance"] * np.sum(labels * (log(labels) - log(predicted)))
    corrected = y_pred @ (counts / np.sum(counts, axis=-1, keepdims=True))
    return _generalized_cross_entropy(y_true, corrected, base) + imbalance


EPSILON = 1e-7  # Keras's, which keeps logarithms of probabilities finite
# Keras's losses that a meta-loss may start as; functions of y_true, y_pred and the description of the loss.
BASES: dict[str, Callable[[Array, Array, dict[str, Any]], Array]] = {
    "mean_squared_error": lambda y_true, y_pred, base: np.mean((y_pred - y_true) ** 2, axis=-1),
    "mean_absolute_error": lambda y_true, y_pred, base: np.mean(_abs(y_pred - y_true), axis=-1),
    "huber": _huber,
    "log_cosh": lambda y_true, y_pred, base: np.mean(
        y_pred - y_true + _softplus(-2 * (y_pred - y_true)) - math.log(2), axis=-1
    ),
    "binary_crossentropy": _binary_crossentropy,
    "categorical_crossentropy": _categorical_crossentropy,
    "sparse_categorical_crossentropy": _sparse_categorical_crossentropy,
    "categorical_generalized_cross_entropy": _generalized_cross_entropy,
    "forward_corrected_cross_entropy": _forward_corrected_cross_entropy,
}
