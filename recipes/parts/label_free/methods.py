"""The methods that `label_free.py` compares, and the classifiers that it compares them on."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import keras

from parts.label_free.losses import Entropy, NoLoss
from parts.label_free.tasks import Normalization

ENTROPY = Entropy()
INFORMATION = Entropy(diversity=1.0, name="information_maximization")


class Method(NamedTuple):
    """A way to adapt; `loss=None` is the learned loss."""

    loss: Any
    affine_only: bool = False
    has_labels: bool = False
    optimizer: Callable[[float], keras.optimizers.Optimizer] = keras.optimizers.SGD


METHODS = {
    "learned": Method(None),
    "entropy": Method(ENTROPY),
    "affine": Method(ENTROPY, affine_only=True),
    "affine_adam": Method(ENTROPY, affine_only=True, optimizer=keras.optimizers.Adam),
    "information": Method(INFORMATION),
    "information_adam": Method(INFORMATION, optimizer=keras.optimizers.Adam),
    "statistics": Method(NoLoss()),
    "labels": Method("categorical_crossentropy", has_labels=True),
}
TRANSFER_METHODS = ("learned", "entropy", "information", "information_adam")


class Target(NamedTuple):
    """A classifier to adapt: its data, its normalization, and the methods that are compared on it."""

    data: Literal["digits", "fashion"]
    normalization: Normalization
    methods: tuple[str, ...]


TARGETS = {
    "": Target("digits", "layer", (*TRANSFER_METHODS, "affine", "affine_adam", "labels")),
    "fashion_": Target("fashion", "layer", TRANSFER_METHODS),
    "batch_norm_": Target("digits", "batch", (*TRANSFER_METHODS, "statistics")),
}
