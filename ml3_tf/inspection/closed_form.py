"""A loss in one line: a short closed form fitted to its gradient, and the gradient itself."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from ml3_tf.arguments import LossLike
from ml3_tf.feature_layout import PER_OUTPUT
from ml3_tf.inspection.explanation import Explanation
from ml3_tf.meta_loss import MetaLoss

FixedFeatures: TypeAlias = Mapping[str, Sequence[float | None]]
"""The components of features by name; `None` where a component is free."""

GRID_SIZE = 41  # points to a side; odd, so that a symmetric range holds zero
MAX_TERMS = 4  # fit in one line, and all their subsets can be tried
MIN_GAIN = 0.01  # of R²: a term that adds less differs from one seed to the next
EXACT_SHARE = 0.1  # of the residual: a term that leaves at most this belongs to the form, however little it adds
TIE = 1e-3  # of R²: a subset that is ahead by less, and leaves more than half the residual, yields to a simpler one
ROUNDING = 1e-9  # of R²: the resolution of float32 gradients


class Term(NamedTuple):
    """A term of the closed form: how it is written, and its derivative with respect to the error `e`."""

    name: str
    derivative: Callable[[np.ndarray, np.ndarray], np.ndarray]  # (e, y_true) -> array


# Functions of the error e = y_pred - y_true.
_ERROR_TERMS = [
    Term("e²", lambda e, y: 2 * e),
    Term("|e|", lambda e, y: np.sign(e)),
    Term("|e|³", lambda e, y: 3 * e * np.abs(e)),
    Term("e⁴", lambda e, y: 4 * e**3),
    Term("|e|^1.5", lambda e, y: 1.5 * np.sign(e) * np.sqrt(np.abs(e))),
    Term("log(1 + |e|)", lambda e, y: np.sign(e) / (1 + np.abs(e))),
    Term("log(1 + e²)", lambda e, y: 2 * e / (1 + e**2)),
    Term("log(1 + (e/2)²)", lambda e, y: 2 * e / (4 + e**2)),
    Term("log(1 + (e/4)²)", lambda e, y: 2 * e / (16 + e**2)),
    Term("log cosh e", lambda e, y: np.tanh(e)),
    Term("log cosh(e/2)", lambda e, y: np.tanh(e / 2) / 2),
    Term("log cosh(e/4)", lambda e, y: np.tanh(e / 4) / 4),
]
# For an asymmetric loss, which prefers predictions to one side of the target.
_SIGNED_TERMS = [Term("e", lambda e, y: np.ones_like(e)), Term("e³", lambda e, y: 3 * e**2)]
# Binary cross-entropy is -log(1 - |e|) for targets 0 and 1; it exists where no error reaches 1.
_BELOW_ONE_TERMS = [Term("log(1 − |e|)", lambda e, y: -np.sign(e) / (1 - np.abs(e)))]


def explain(
    loss: LossLike,
    *,
    y_range: Sequence[float] = (-5.0, 5.0),
    targets: Sequence[float] | None = None,
    max_terms: int = 3,
    fixed: FixedFeatures | None = None,
) -> Explanation:
    """Returns the closed form of few terms whose gradient is nearest to that of a loss.

    A learner sees only the *gradient* of a loss with respect to the prediction, so the form is fitted to the gradient:
    two losses that differ by a function of `y_true` train the same model. The terms are powers of the error,
    logarithms, and their products with `|y_true|`.

    Of all subsets of one term, then of two, and so on, the one with the least squared residual is taken; of subsets
    that are about equally good, the simplest. (Greedy selection would keep a first term that stands for two others.) A
    longer subset is taken if each additional term adds 0.01 to R², or if at most a tenth of the residual is left. So
    the small terms of an exact form count, and those that only follow the wiggles of a network do not. R² is the share
    of the squared gradient that the terms account for. All points of the range count alike, whatever errors the
    learners made.

    Args:
        loss: A `MetaLoss`, or any Keras loss: an object, a function or a name.
        y_range: Pair `(low, high)`, the range of predictions and of targets, in their unit.
        targets: The values of the targets, such as the classes `(0, 1)`. Default `None`: every value in `y_range`.
        max_terms: The largest number of terms, from 1 to 4. Default 3: they fit in one line.
        fixed: For a loss of more than one target and one prediction, the other features; see `evaluate_on_plane`.

    Returns:
        An `Explanation`.

    Raises:
        ValueError: `y_range` or `max_terms` is not valid, the gradient is not finite somewhere on the range, or
            `evaluate_on_plane` refuses the loss.

    Example:

    >>> print(explain("mse"))
    loss ≈ 1.00·e² (R² = 1.000 for y in [-5, 5])
    >>> print(explain("binary_crossentropy", y_range=(0.01, 0.99), targets=(0, 1)))
    loss ≈ −1.00·log(1 − |e|) (R² = 1.000 for y_true in {0, 1}, y_pred in [0.01, 0.99])
    """
    low, high = check_range(y_range)
    if not isinstance(max_terms, int) or not 1 <= max_terms <= MAX_TERMS:
        raise ValueError(f"`max_terms` must be an integer from 1 to {MAX_TERMS}. Received: max_terms={max_terms!r}")
    predictions = np.linspace(low, high, GRID_SIZE)
    target_values = predictions if targets is None else np.asarray(targets, dtype=float)
    y_true, y_pred = (grid.ravel() for grid in np.meshgrid(target_values, predictions))
    _, gradient = evaluate_on_plane(loss, y_true=y_true, y_pred=y_pred, fixed=fixed)
    if not np.all(np.isfinite(gradient)):
        at = np.argmin(np.isfinite(gradient))
        raise ValueError(
            "`loss` must have a finite gradient everywhere on the range. Received: "
            f"{gradient[at]} at y_true={y_true[at]:g}, y_pred={y_pred[at]:g}. Choose another `y_range`."
        )
    error = y_pred - y_true
    family = _family(error)
    derivatives = np.stack([term.derivative(error, y_true) for term in family], axis=-1)
    chosen, coefficients, r_squared = _select(derivatives, gradient, max_terms)
    region = f"[{low:g}, {high:g}]"
    if targets is None:
        region = f"y in {region}"
    else:
        region = f"y_true in {{{', '.join(f'{target:g}' for target in targets)}}}, y_pred in {region}"
    return Explanation(tuple(family[i].name for i in chosen), tuple(coefficients), r_squared, region)


def evaluate_on_plane(
    loss: LossLike, *, y_true: ArrayLike, y_pred: ArrayLike, fixed: FixedFeatures | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the value and the gradient of a loss at points of the plane of one target and one prediction.

    Args:
        loss: A `MetaLoss`, or any Keras loss: an object, a function or a name.
        y_true: Array of any shape, the target.
        y_pred: Array of a shape that broadcasts with it, the prediction.
        fixed: For a `MetaLoss` of more features, a mapping from feature name to all its components. One component of
            the prediction and one of `y_true` stay free: a feature of width 1 that is not named, or a `None`, as in
            `{"y_pred": [None, 0.0], "state": [0.1, 0.2], "goal": [None, 1.0]}`. Default `None`: nothing is fixed.

    Returns:
        Pair `(value, gradient)` of float arrays in the shape of the points: the loss, and its derivative with respect
        to the prediction. A loss around one of classes, such as categorical crossentropy, is that of the first of two.

    Raises:
        ValueError: The loss scores examples together; `fixed` has an unknown feature or a wrong width, or does not
            leave one prediction and one target free.

    Example:

    >>> value, gradient = evaluate_on_plane("mse", y_true=[0.0, 1.0], y_pred=3.0)
    >>> value.tolist(), gradient.tolist()
    ([9.0, 4.0], [6.0, 4.0])
    """
    keras_loss: Any = keras.losses.get(loss)
    if isinstance(keras_loss, MetaLoss) and keras_loss.pools_examples:
        raise ValueError(
            "A loss that scores examples together has no value or gradient of one prediction and one target. "
            f"Received: '{keras_loss.name}' with mode='{keras_loss.mode}'. Draw it along a parameter of the learner "
            "instead, as recipes/shaped_sine.py does."
        )
    features = keras_loss.features if isinstance(keras_loss, MetaLoss) else {"y_pred": 1, "y_true": 1}
    y_true, y_pred = np.broadcast_arrays(np.asarray(y_true, dtype=float), np.asarray(y_pred, dtype=float))
    pred_template, true_template = _templates(features, fixed or {})
    targets, predictions = _fill(true_template, y_true), _fill(pred_template, y_pred)
    if isinstance(keras_loss, MetaLoss) and keras_loss.mode == PER_OUTPUT and keras_loss.base is not None:
        if keras_loss.base.is_of_classes:
            targets, predictions = (np.hstack([values, 1 - values]) for values in (targets, predictions))
    results = _value_and_gradient(keras_loss, targets, predictions)
    value, gradient = (np.asarray(values, dtype=float) for values in results)
    free = int(np.flatnonzero(np.isnan(pred_template))[0])
    return value.reshape(y_pred.shape), gradient[:, free].reshape(y_pred.shape)


def check_range(y_range: Sequence[float]) -> tuple[float, float]:
    """Returns `(low, high)` as floats; raises `ValueError` if they are not a range."""
    values = [float(value) for value in y_range]
    if len(values) != 2 or not -math.inf < values[0] < values[1] < math.inf:
        raise ValueError(f"`y_range` must be a pair (low, high) of finite numbers, low < high. Received: {y_range}")
    return values[0], values[1]


def _value_and_gradient(loss: Any, y_true: np.ndarray, y_pred: np.ndarray) -> tuple[Any, Any]:
    """Calls `MetaLoss.value_and_gradient`, or does the same with any other Keras loss, an object or a function."""
    if isinstance(loss, MetaLoss):
        return loss.value_and_gradient(y_true, y_pred)
    targets, predictions = (tf.constant(values, keras.config.floatx()) for values in (y_true, y_pred))
    with tf.GradientTape() as tape:
        tape.watch(predictions)
        value = (loss.call if isinstance(loss, keras.losses.Loss) else loss)(targets, predictions)
    return value, tape.gradient(value, predictions, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _family(error: np.ndarray) -> list[Term]:
    """Returns the terms that are defined at these errors."""
    products = [
        Term(f"|y|·{term.name}", lambda e, y, term=term: np.abs(y) * term.derivative(e, y)) for term in _ERROR_TERMS
    ]
    return [*_ERROR_TERMS, *_SIGNED_TERMS, *(_BELOW_ONE_TERMS if np.abs(error).max() < 1 else []), *products]


def _select(columns: np.ndarray, gradient: np.ndarray, max_terms: int) -> tuple[list[int], list[float], float]:
    """Returns the best subset of columns, the one that contributes most first, their coefficients and R²."""
    total = np.sum(gradient**2)
    if total == 0:
        return [], [], 1.0  # a loss without a gradient needs no term
    chosen: list[int] = []
    left = 1.0
    for num_terms in range(1, max_terms + 1):
        subset, residual = _best_subset(columns, gradient / np.sqrt(total), num_terms)
        if left - residual >= MIN_GAIN * (num_terms - len(chosen)) or residual <= EXACT_SHARE * left:
            chosen, left = subset, residual
    coefficients = np.linalg.lstsq(columns[:, chosen], gradient, rcond=None)[0]
    weight = np.abs(coefficients) * np.linalg.norm(columns[:, chosen], axis=0)
    order = np.argsort(-weight, kind="stable")
    return [chosen[i] for i in order], [float(coefficients[i]) for i in order], float(1 - left)


def _best_subset(columns: np.ndarray, gradient: np.ndarray, num_terms: int) -> tuple[list[int], float]:
    """Returns the subset that leaves the least squared residual of a unit vector, and that residual.

    Of subsets that are about equally good it takes the simplest.
    """
    norms = np.linalg.norm(columns, axis=0)
    usable = np.flatnonzero(norms)
    columns = columns[:, usable] / norms[usable]
    gram, product = columns.T @ columns, columns.T @ gradient
    subsets = np.array(list(itertools.combinations(range(len(usable)), num_terms)))  # simple terms first
    grams, products = gram[subsets[:, :, None], subsets[:, None, :]], product[subsets]
    # Normal equations: residual = 1 - b' G^-1 b. In a narrow range terms may coincide, hence the pseudo-inverse.
    explained = np.einsum("ni,nij,nj->n", products, np.linalg.pinv(grams, rcond=1e-10, hermitian=True), products)
    residuals = np.maximum(1 - explained, ROUNDING)
    best = residuals.min()
    first = np.argmax(residuals <= best + min(TIE, best))
    return usable[subsets[first]].tolist(), residuals[first]


def _templates(features: Mapping[str, int], fixed: FixedFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Returns the prediction and the other features as two vectors, with NaN where a component is free."""
    if unknown := sorted(set(fixed) - set(features)):
        raise ValueError(f"`fixed` must hold features of this loss: {list(features)}. Received: {unknown}")
    parts = {name: np.array(fixed.get(name, [None] * width), dtype=float) for name, width in features.items()}
    for name, width in features.items():
        if parts[name].shape != (width,):
            raise ValueError(f"`fixed[{name!r}]` must have the shape ({width},). Received: shape {parts[name].shape}.")
    first, *others = features
    prediction, rest = parts[first], np.concatenate([np.zeros(0), *(parts[name] for name in others)])
    if np.isnan(prediction).sum() != 1 or np.isnan(rest).sum() != min(
        1, len(others)
    ):  # a label-free loss has no others
        free = {name: int(np.isnan(part).sum()) for name, part in parts.items()}
        name = [*others, first][0]
        example = {name: [0.0] * (features[name] - 1) + ([None] if name == first else [0.0])}
        raise ValueError(
            f"A plane has one prediction and one target: expected one free component of {first!r}, and one of "
            f"{others} together. Received: {free} free. Fix the others, for example with fixed={example}; None leaves "
            "a component free."
        )
    return prediction, rest


def _fill(template: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the template once for each value, with the value as the free component: `[N, width]`."""
    return np.where(np.isnan(template), values.reshape(-1, 1), template)
