"""A loss for each head of a model: learned ones beside those of Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras

from ml3_tf.meta_loss._facts import TrainingFacts
from ml3_tf.meta_loss._meta_loss import MetaLoss

if TYPE_CHECKING:
    from ml3_tf.arguments import LossLike


class LossPerHead:
    """A loss for each output of a model, added up.

    `MetaTrainer` learns all that are a `MetaLoss`, together. Afterwards Keras takes the same losses:
    `model.compile(loss=losses.losses, loss_weights=losses.weights)`.

    Args:
        losses: For each output a `MetaLoss`, any other Keras loss, its name, or `None` for an output without a loss: a
            mapping from the names of a model's outputs, or a sequence in their order.
        weights: Optional factor of each loss, in the same form. `None`: 1 for all.

    Raises:
        ValueError: There is no loss, or weights do not fit; when it is called: the outputs of a model do not fit.

    Example:

    >>> losses = LossPerHead({"position": MetaLoss.around("mse"), "kind": "categorical_crossentropy"})
    >>> [variable.path for variable in losses.trainable_variables][-1].split("/")[-1]
    'kernel'
    """

    def __init__(
        self, losses: Mapping[str, LossLike | None] | Sequence[LossLike | None], weights: Any | None = None
    ) -> None:
        get = lambda loss: None if loss is None else keras.losses.get(loss)
        names = list(losses) if isinstance(losses, Mapping) else list(range(len(losses)))
        ordered: Any = losses
        self.losses: dict[str, Any] | list[Any] = _like(losses, [get(ordered[name]) for name in names])
        if not any(loss is not None for loss in self._values):
            raise ValueError(f"A model needs a loss for at least one of its outputs. Received: losses={losses!r}")
        if weights is not None and (type(weights) is not type(self.losses) or _keys(weights) != _keys(self.losses)):
            raise ValueError(f"`weights` needs a number for each of the losses {names}. Received: weights={weights!r}")
        self.weights: Any = _like(losses, [1.0] * len(names)) if weights is None else weights
        self.name: str = ", ".join(loss.name for loss in self.learned) or "loss"

    @property
    def learned(self) -> list[MetaLoss]:
        """Those that are a `MetaLoss`."""
        return [loss for loss in self._values if isinstance(loss, MetaLoss)]

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The layers that hold the weights of the learned losses."""
        return [layer for loss in self.learned for layer in loss.layers]

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The variables phi of the learned losses."""
        return [variable for loss in self.learned for variable in loss.trainable_variables]

    @property
    def mode(self) -> list[str]:
        """The modes of the learned losses."""
        return [loss.mode for loss in self.learned]

    @property
    def features(self) -> list[dict[str, int]]:
        """The features of the learned losses."""
        return [loss.features for loss in self.learned]

    @property
    def facts(self) -> TrainingFacts | None:
        """What the losses were learned with: the optimizer and its rate. Outputs and targets differ between heads."""
        return self.learned[0].facts if self.learned else None

    @facts.setter
    def facts(self, facts: TrainingFacts | None) -> None:
        for loss in self.learned:
            loss.facts = facts and dataclasses.replace(facts, outputs="numbers", targets=None)

    def match(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> Iterator[tuple[float, Any, tuple[Any, ...]]]:
        """Returns for each loss its weight, itself, and its examples `(y_true, y_pred[, sample_weight])`.

        Args:
            y_true: The targets of each output, in the form of the losses.
            y_pred: The predictions of a model.
            sample_weight: Optional weights: one tensor for all outputs, or one for each.

        Raises:
            ValueError: The outputs, targets or weights are others than those that the losses are for.
        """
        parts = [y_true, y_pred]
        if sample_weight is not None:
            is_one = not isinstance(sample_weight, (Mapping, list, tuple))
            parts.append(_like(self.losses, [sample_weight] * len(self._names)) if is_one else sample_weight)
        form = dict if isinstance(self.losses, dict) else (list, tuple)
        if any(not isinstance(part, form) or _keys(part) != _keys(self.losses) for part in parts):
            received = [list(part) if isinstance(part, dict) else type(part).__name__ for part in parts]
            raise ValueError(
                f"There are losses for the outputs {self._names}: expected targets and predictions in this form. "
                f"Received: {received}"
            )
        for name, loss in zip(self._names, self._values):
            if loss is not None:
                yield self.weights[name], loss, tuple(part[name] for part in parts)

    @property
    def _names(self) -> list[Any]:
        return list(self.losses) if isinstance(self.losses, dict) else list(range(len(self.losses)))

    @property
    def _values(self) -> list[Any]:
        return list(self.losses.values()) if isinstance(self.losses, dict) else self.losses


def get_loss(loss: Any) -> Any:
    """Returns a Keras loss, or a `LossPerHead` of several, given these or their names."""
    if loss is None or isinstance(loss, LossPerHead):
        return loss
    is_several = isinstance(loss, (list, tuple)) or (isinstance(loss, Mapping) and "class_name" not in loss)
    return LossPerHead(loss) if is_several else keras.losses.get(loss)


def _keys(values: Any) -> set[Any]:
    return set(values) if isinstance(values, Mapping) else set(range(len(values)))


def _like(losses: Any, values: list[Any]) -> Any:
    return dict(zip(losses, values, strict=True)) if isinstance(losses, Mapping) else values
