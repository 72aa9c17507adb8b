"""The losses of Keras that a meta-loss may start as, and a first layer that reads the error."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from ml3_tf.feature_layout import PER_OUTPUT

if TYPE_CHECKING:
    from ml3_tf.arguments import LossLike
    from ml3_tf.meta_loss._meta_loss import MetaLoss

# Functions of `keras.losses`, each with the arguments that are kept, and their defaults.
BASES: dict[str, dict[str, Any]] = {
    "mean_squared_error": {},
    "mean_absolute_error": {},
    "huber": {"delta": 1.0},
    "log_cosh": {},
    "binary_crossentropy": {"from_logits": False, "label_smoothing": 0.0},
    "categorical_crossentropy": {"from_logits": False, "label_smoothing": 0.0},
}
SCALES = 0.3, 3.0  # of the first layer: errors between a third and three reach the bend of its activation


@dataclasses.dataclass(frozen=True)
class Base:
    """A loss of Keras that a meta-loss adds to.

    Args:
        name: One of `BASES`.
        arguments: Its arguments.

    Raises:
        ValueError: Another name, or other arguments.

    Example:

    >>> Base("huber", {"delta": 2.0}).call(keras.ops.array([[0.0]]), keras.ops.array([[3.0]])).numpy().tolist()
    [4.0]
    """

    name: str
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.name not in BASES or self.arguments.keys() != BASES[self.name].keys():
            raise ValueError(
                f"A base is one of {BASES} with these arguments. Received: {self.name!r} with {dict(self.arguments)}"
            )

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each example, as Keras computes it: `[..., W] -> [...]`."""
        return getattr(keras.losses, self.name)(y_true, y_pred, **self.arguments)

    def get_config(self) -> dict[str, Any]:
        """Returns the name and all arguments in one dictionary."""
        return {"name": self.name, **self.arguments}


def get_base(base: LossLike | Base | Mapping[str, Any]) -> Base:
    """Returns a base, given itself, its configuration, or a Keras loss: an object, a function or a name such as "mse".

    Raises:
        ValueError: The loss is not one of `BASES`.
    """
    from ml3_tf.keras_internals import get_loss_function

    if isinstance(base, Base):
        return base
    if isinstance(base, Mapping):
        return Base(base.get("name", ""), {name: value for name, value in base.items() if name != "name"})
    function, given = get_loss_function(keras.losses.get(base))
    name = getattr(function, "__name__", None)
    if name not in BASES or getattr(keras.losses, name) is not function or given.get("axis", -1) != -1:
        raise ValueError(
            f"`base` must be one of {list(BASES)} along the last axis: a loss of Keras, or its name. Received: "
            f"base={base!r}"
        )
    return Base(name, {key: given.get(key, default) for key, default in BASES[name].items()})


def check_base(meta_loss: MetaLoss) -> None:
    """Raises `ValueError` unless the base of a loss can score the prediction against the first slice of `y_true`."""
    if meta_loss.base is None:
        return
    pred_width, true_width, *_ = meta_loss.features.values()
    if pred_width != true_width:
        raise ValueError(
            "`base` scores the prediction against the second feature: expected two first `features` of one width. "
            f"Received: features={meta_loss.features}"
        )
    if meta_loss.mode == PER_OUTPUT and meta_loss.base.name == "categorical_crossentropy":
        raise ValueError(
            "A per-output loss scores pairs, and categorical_crossentropy whole vectors: expected mode='per_sample' "
            "and `features` as wide as the classes, or base='binary_crossentropy'."
        )


def add_base(base: LossLike, meta_loss: MetaLoss) -> MetaLoss:
    """Returns a loss after its network, whose last layer is zero, was put beside a base and made to read the error."""
    if len(meta_loss.network.layers) + meta_loss.pools_examples < 2:
        raise ValueError("A network beside a base needs a hidden layer. Received: hidden_units=()")
    meta_loss.base = get_base(base)
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
