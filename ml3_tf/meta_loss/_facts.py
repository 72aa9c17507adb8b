"""What a loss was learned with, kept with it, and a check whether it is used like that."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

if TYPE_CHECKING:
    from ml3_tf.arguments import TensorLike

NUM_EXAMPLES = 256  # that a check predicts
RATE_FACTOR = 3.0  # by which a rate may differ
MARGIN = 0.5  # by which targets may lie outside of those seen, as a share of their range
Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class TrainingFacts:
    """What a loss was learned with.

    Args:
        optimizer: The class of the inner optimizer, e.g. "SGD".
        learning_rates: The lowest and the highest rate of it; `None`: a schedule.
        outputs: "probabilities" if the learners ended in a softmax or sigmoid, "numbers" otherwise.
        targets: The lowest and the highest target that was seen; `None`: it is not known.

    Example:

    >>> facts = TrainingFacts("SGD", (1e-3, 1e-3), "numbers", (-5.0, 5.0))
    >>> facts.merge(TrainingFacts("SGD", (1e-2, 1e-2), "numbers", (0.0, 8.0))).targets
    (-5.0, 8.0)
    """

    optimizer: str
    learning_rates: Range | None = None
    outputs: Literal["probabilities", "numbers"] = "numbers"
    targets: Range | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TrainingFacts:
        """Returns the facts of a configuration as JSON holds it: ranges are lists there."""
        arguments: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in config.items()}
        return cls(**arguments)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return dataclasses.asdict(self)

    def merge(self, other: TrainingFacts | None) -> TrainingFacts:
        """Returns these facts, widened by those of a training before with the same optimizer and kind of outputs."""
        if other is None or (other.optimizer, other.outputs) != (self.optimizer, self.outputs):
            return self
        join = lambda a, b: None if a is None or b is None else (min(a[0], b[0]), max(a[1], b[1]))
        rates, targets = join(self.learning_rates, other.learning_rates), join(self.targets, other.targets)
        return dataclasses.replace(self, learning_rates=rates, targets=targets)

    def differences_of_optimizer(self, optimizer: Any) -> list[str]:
        """Returns in words how an optimizer differs, a sentence for each difference."""
        found, name = [], type(optimizer).__name__
        if name != self.optimizer:
            found.append(f"It was learned for the optimizer {self.optimizer}. Received: {name}.")
        config = optimizer.get_config().get("learning_rate")
        if self.learning_rates is not None and isinstance(config, (int, float)):
            low, high = self.learning_rates
            if not low / RATE_FACTOR <= config <= high * RATE_FACTOR:
                expected = f"{low:g}" if low == high else f"{low:g} to {high:g}"
                found.append(f"It was learned for a learning rate of {expected}. Received: {config:g}.")
        return found

    def differences_of_data(self, y_true: np.ndarray, y_pred: np.ndarray) -> list[str]:
        """Returns in words how targets and predictions differ, a sentence for each difference."""
        for name, values in {"targets": y_true, "predictions": y_pred}.items():
            if not np.all(np.isfinite(values)):
                number = np.sum(~np.isfinite(values))
                return [f"Expected finite {name}, or the loss is NaN. Received: {number} value(s) that are not."]
        found = []
        if self.outputs == "probabilities" and not (np.all(y_pred >= 0) and np.all(y_pred <= 1 + 1e-5)):
            found.append(
                "It was learned for probabilities: the model must end in a softmax or sigmoid. Received: predictions "
                f"between {y_pred.min():g} and {y_pred.max():g}."
            )
        if self.targets is not None:
            low, high = self.targets
            margin = MARGIN * (high - low)
            if y_true.min() < low - margin or y_true.max() > high + margin:
                found.append(
                    f"It has seen targets between {low:g} and {high:g}. Received: targets between {y_true.min():g} and "
                    f"{y_true.max():g}. Scale them, e.g. by their standard deviation."
                )
        return found


def check_use(model: keras.Model, x: Any = None, y: TensorLike | None = None) -> list[str]:
    """Warns where a model differs from those that its learned loss was learned for: optimizer, rate, outputs, targets.

    A loss sees predictions and targets alone, in compiled code. So it cannot tell by itself that it is used for
    something else. This function looks once, before `fit`.

    Args:
        model: A model that is compiled with a `MetaLoss`.
        x: Optional inputs, as `fit` takes them, and
        y: their targets. Without them, only the optimizer is looked at. The model predicts the first 256 examples.

    Returns:
        List of sentences, one for each difference; each is a `UserWarning`, too.

    Raises:
        ValueError: The model is not compiled with a `MetaLoss`, or that one does not know what it was learned with.

    Example:

    >>> import keras, ml3_tf, warnings
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.Adam(1e-3), loss=ml3_tf.load_meta_loss("sine"))
    >>> with warnings.catch_warnings(action="ignore"):
    ...     ml3_tf.check_use(model)
    ['It was learned for the optimizer SGD. Received: Adam.']
    """
    loss: Any = getattr(model, "loss", None)
    if not hasattr(loss, "facts"):
        raise ValueError(f"Expected a `model` that is compiled with a `MetaLoss`. Received: {model!r}, loss={loss!r}")
    facts: TrainingFacts | None = loss.facts
    if facts is None:
        raise ValueError(
            f"The loss '{loss.name}' does not know what it was learned with: `MetaTrainer.fit` tells it, and `export` "
            "keeps it. Or set `loss.facts = TrainingFacts(...)`."
        )
    found = facts.differences_of_optimizer(model.optimizer)
    if x is not None and y is not None:
        head = lambda values: values[:NUM_EXAMPLES]
        y_pred: Any = model(keras.tree.map_structure(head, x), training=False)
        as_array = lambda values: np.asarray(keras.ops.convert_to_numpy(values), dtype="float64")
        found += facts.differences_of_data(as_array(y), as_array(y_pred))
    for sentence in found:
        warnings.warn(f"The loss '{loss.name}' is used for something else. {sentence}", stacklevel=2)
    return found
