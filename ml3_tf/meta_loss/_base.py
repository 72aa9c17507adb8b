"""The losses that a meta-loss may start as, and a first layer that reads the error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from ml3_tf.feature_layout import FROM_NETWORK, PER_OUTPUT, shape_of
from ml3_tf.meta_loss._forward_correction import compare_frequencies, correct_forward

if TYPE_CHECKING:
    from ml3_tf.arguments import LossLike
    from ml3_tf.meta_loss._meta_loss import MetaLoss

# Functions of `keras.losses`, and one of our own, each with the arguments that are kept, and their defaults.
BASES: dict[str, dict[str, Any]] = {
    "mean_squared_error": {},
    "mean_absolute_error": {},
    "huber": {"delta": 1.0},
    "log_cosh": {},
    "binary_crossentropy": {"from_logits": False, "label_smoothing": 0.0},
    "categorical_crossentropy": {"from_logits": False, "label_smoothing": 0.0},
    "sparse_categorical_crossentropy": {"from_logits": False},
    "categorical_generalized_cross_entropy": {"q": 0.5},
    "forward_corrected_cross_entropy": {"q": 0.5, "prior_count": 5.0, "balance": 1.0},
}
# With their ranges, whose ends every dtype holds exactly: a parameter that has reached one is not beyond it.
LEARNABLE = {
    "delta": (2**-10, math.inf),
    "label_smoothing": (0.0, 0.875),
    "q": (2**-7, 1.0),
    "prior_count": (2**-10, math.inf),
    "balance": (0.0, math.inf),
}
OF_CLASSES = (
    *("categorical_crossentropy", "sparse_categorical_crossentropy"),
    *("categorical_generalized_cross_entropy", "forward_corrected_cross_entropy"),
)
OF_LABELS = OF_CLASSES[1:]  # they take class indices, too
SCALES = 0.3, 3.0  # of the first layer: errors between a third and three reach the bend of its activation


@keras.saving.register_keras_serializable("ml3_tf")
class Base(keras.layers.Layer):
    """A loss that a meta-loss adds to. Its own parameters, if it has any, are learned with the network.

    Args:
        name: One of `BASES`.
        arguments: Its arguments. One of `LEARNABLE` is what the learned one starts from.
        **kwargs: Those of every Keras layer.

    Raises:
        ValueError: Another name, other arguments, or a parameter outside of its range.

    Example:

    >>> base = Base("huber", {"delta": 2.0})
    >>> base.call(keras.ops.array([[0.0]]), keras.ops.array([[3.0]])).numpy().tolist()
    [4.0]
    >>> [variable.name for variable in base.trainable_variables]
    ['delta']
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], **kwargs: Any) -> None:
        if name not in BASES or arguments.keys() != BASES[name].keys():
            raise ValueError(
                f"A base is one of {BASES} with these arguments. Received: {name!r} with {dict(arguments)}"
            )
        super().__init__(name=name, **kwargs)
        self._arguments = dict(arguments)
        # In this order in every process, for runs that are resumed.
        for parameter in (key for key in BASES[name] if key in LEARNABLE):
            low, high = LEARNABLE[parameter]
            if not low <= (initial := float(arguments[parameter])) <= high:
                raise ValueError(f"`{parameter}` of '{name}' must be from {low:g} to {high:g}. Received: {initial}")
            self._arguments[parameter] = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(initial),
                constraint=lambda value, low=low, high=high: ops.clip(value, low, high),
                name=parameter,
            )
        self.built = True

    @property
    def is_of_classes(self) -> bool:
        """Whether it scores the probabilities of all classes together."""
        return self.name in OF_CLASSES

    @property
    def takes_labels(self) -> bool:
        """Whether targets may be class indices."""
        return self.name in OF_LABELS

    @property
    def pools_examples(self) -> bool:
        """Whether the value of an example depends on the others of its set."""
        return self.name == "forward_corrected_cross_entropy"

    def call(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Returns the loss of each example, as Keras computes it: `[..., W] -> [...]`.

        Classes are one-hot. What follows the target in `y_true` is left out. The weights are those of `MetaLoss.call`.
        """
        if self.is_of_classes and y_pred.shape[-1] == 1:
            raise ValueError(f"{self.name} needs a prediction for each class. Received: y_pred {tuple(y_pred.shape)}")
        y_true, arguments = y_true[..., : y_pred.shape[-1]], dict(self._arguments)
        imbalance: Any = 0.0
        if self.pools_examples:
            imbalance = arguments["balance"] * compare_frequencies(y_true, y_pred, sample_weight)
            y_pred = correct_forward(y_true, y_pred, arguments["prior_count"], sample_weight)
        if "q" in arguments:
            # As Keras's, but that probabilities stay above zero, where the slope would be infinite.
            q, p = arguments["q"], ops.maximum(ops.sum(y_true * y_pred, axis=-1), keras.config.epsilon())
            return (1 - ops.power(p, q)) / q + imbalance  # pyright: ignore[reportOperatorIssue]
        if self.takes_labels:
            y_true = ops.argmax(y_true, axis=-1)
        smoothing: Any = arguments.pop("label_smoothing", None)
        score = lambda targets: getattr(keras.losses, self.name)(targets, y_pred, **arguments)
        if smoothing is None:
            return score(y_true)
        num_classes: Any = ops.cast(shape_of(y_pred)[-1] if self.is_of_classes else 2, y_pred.dtype)
        # The loss is linear in the smoothing: its derivative is a difference, and the value is that of Keras.
        # TensorFlow's softmax cross-entropy has no second derivative with respect to targets: it would be zero.
        smoothing = ops.convert_to_tensor(smoothing)
        fixed: Any = ops.stop_gradient(smoothing)
        slope = score(ops.ones_like(y_true) / num_classes) - score(y_true)
        return score(y_true * (1.0 - fixed) + fixed / num_classes) + (smoothing - fixed) * slope

    def one_hot(self, y_true: Any, y_pred: Any, further: int = 0) -> Any:
        """Returns `y_true` with class indices, if it has such, as one-hot vectors; an index out of range as NaN.

        Args:
            y_true: `[..., classes + further]`; or with an index, `[..., 1 + further]`; or indices `[...]`.
            y_pred: `[..., classes]`.
            further: Width of what follows the one-hot vector.
        """
        if len(y_true.shape) == len(y_pred.shape) - 1:
            y_true = ops.expand_dims(y_true, -1)
        num_classes = y_pred.shape[-1]
        if y_true.shape[-1] != 1 + further:
            return y_true
        labels = y_true[..., 0]
        vectors: Any = ops.one_hot(ops.cast(labels, "int32"), num_classes, dtype=y_true.dtype)
        is_class = (labels >= 0) & (labels < num_classes)
        vectors = ops.where(ops.expand_dims(is_class, -1), vectors, math.nan)
        return ops.concatenate([vectors, y_true[..., 1:]], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns the name and all arguments, learned ones as they are now, in one dictionary."""
        learned = LEARNABLE.keys() & self._arguments.keys()
        return {
            "name": self.name,
            **{key: float(value) if key in learned else value for key, value in self._arguments.items()},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Base:
        return get_base(config)


def get_base(base: LossLike | Base | Mapping[str, Any], dtype: str | None = None) -> Base:
    """Returns a base, given itself, its configuration, or a Keras loss: an object, a function or a name such as "mse".

    Raises:
        ValueError: The loss is not one of `BASES`.
    """
    from ml3_tf.keras_internals import get_loss_function

    if isinstance(base, Base):
        return base
    if isinstance(base, str) and base in BASES:  # also those whose names Keras does not look up
        return Base(base, BASES[base], dtype=dtype)
    if isinstance(base, Mapping):
        return Base(base.get("name", ""), {name: base[name] for name in base if name != "name"}, dtype=dtype)
    function, given = get_loss_function(keras.losses.get(base))
    name = getattr(function, "__name__", None)
    is_plain = given.get("axis", -1) == -1 and given.get("ignore_class") is None
    if name not in BASES or getattr(keras.losses, name) is not function or not is_plain:
        raise ValueError(
            f"`base` must be one of {list(BASES)} along the last axis, with no class ignored: a loss of Keras, or its "
            f"name. Received: base={base!r}"
        )
    return Base(name, {key: given.get(key, default) for key, default in BASES[name].items()}, dtype=dtype)


def check_base(meta_loss: MetaLoss) -> None:
    """Raises `ValueError` unless the base of a loss can score the prediction against the first slice of `y_true`."""
    if meta_loss.base is None:
        return
    pred_width, true_width, *_ = [*meta_loss.features.values(), None]
    if pred_width != true_width:
        raise ValueError(
            "`base` scores the prediction against the second feature: expected two first `features` of one width, that "
            f"of one-hot vectors for classes. Received: features={meta_loss.features}"
        )
    if meta_loss.base.is_of_classes and pred_width < 2 and meta_loss.mode != PER_OUTPUT:
        raise ValueError(
            f"{meta_loss.base.name} scores whole vectors: expected mode='per_output', or `features` as wide as the "
            f"classes. Received: mode={meta_loss.mode!r}, features={meta_loss.features}"
        )
    if meta_loss.learning_rate == FROM_NETWORK:
        raise ValueError("With a `base`, `learning_rate` is None or a number. Received: learning_rate='network'")


def add_base(base: LossLike | Mapping[str, Any], meta_loss: MetaLoss) -> MetaLoss:
    """Returns a loss after its network, whose last layer is zero, was put beside a base and made to read the error."""
    if len(meta_loss.network.layers) + meta_loss.pools_examples < 2:
        raise ValueError("A network beside a base needs a hidden layer. Received: hidden_units=()")
    meta_loss.base = get_base(base, meta_loss.dtype)
    check_base(meta_loss)
    first = meta_loss.network.layers[0]
    scale = np.reshape(meta_loss.input_scale or [1.0], (-1, 1))
    first.kernel.assign(scale * error_kernel([*meta_loss.features.values()], first.units))
    return meta_loss


def error_kernel(widths: Sequence[int], units: int) -> np.ndarray:
    """Returns a first kernel `[sum of widths, units]` that reads the error: prediction minus target.

    A random kernel would mix the two, and show a late, small error as next to nothing. Here the units see the error
    along random directions, at scales spread evenly on a logarithmic axis, and a little of target and further features.

    >>> error_kernel([1, 1], 8).shape
    (2, 8)
    """
    width = widths[0]
    draw = lambda rows: np.asarray(keras.ops.convert_to_numpy(keras.random.normal((rows, units))))
    directions = draw(width)
    directions *= np.geomspace(*SCALES, units) / np.linalg.norm(directions, axis=0)
    rest = SCALES[0] * draw(sum(widths) - width)
    rest[:width] -= directions
    return np.concatenate([directions, rest])
