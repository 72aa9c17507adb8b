"""Checks of what `compile` and `fit` of a trainer are given."""

import importlib.util
import math
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ml3_tf.arguments import InnerOptimizerLike


def check_length(dataset: Any, name: str, **steps: int | None) -> None:
    """Raises `ValueError` for a dataset that is empty, or has no end while the argument for its steps is `None`."""
    length = dataset.cardinality() if isinstance(dataset, tf.data.Dataset) else None
    [(steps_name, number)] = steps.items()
    if length == 0:
        raise ValueError(f"`{name}` is empty. Expected a dataset of at least one batch.")
    if length == tf.data.INFINITE_CARDINALITY and number is None:
        raise ValueError(
            f"`{name}` has no end. Expected the number of its batches to take in `{steps_name}`, or a dataset with an "
            f"end, such as dataset.take(100). Received: {steps_name}=None"
        )


# Callbacks of Keras that need a package which neither Keras nor TensorFlow installs, with what brings it.
PACKAGES_OF_CALLBACKS = {
    "TensorBoard": ("tensorboard", "ml3_tf[tensorboard]"),
    "RemoteMonitor": ("requests", "requests"),
}


def check_callbacks(callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Raises `ImportError` for a callback of Keras whose package is missing: it would end the run in an epoch."""
    for name, (package, installed_by) in PACKAGES_OF_CALLBACKS.items():
        is_used = any(isinstance(callback, getattr(keras.callbacks, name)) for callback in callbacks)
        if is_used and importlib.util.find_spec(package) is None:
            raise ImportError(
                f"`callbacks` holds `keras.callbacks.{name}`, which needs the package '{package}'. It is not "
                "installed, and the run would end at the first number that it writes. Install it: "
                f"pip install '{installed_by}'",
                name=package,
            )


def warn_of_non_finite(results: Any) -> None:
    """Warns if a result of `evaluate` is not finite."""
    values = [float(value) for value in tf.nest.flatten(results)]
    if not all(map(math.isfinite, values)):
        warnings.warn(
            f"The evaluation is not finite: {results}. Either learners diverged (lower the inner learning rate, or "
            "clip by `clipnorm`), or tasks hold NaN or infinity, which `meta_test` names.",
            stacklevel=4,
        )


def refuse_scope() -> None:
    """Raises `RuntimeError` in the scope of a `tf.distribute.Strategy` of several replicas."""
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync > 1:
        raise RuntimeError(
            "A trainer shares tasks among devices, not variables: make the meta-loss and the trainer outside of "
            "`strategy.scope()`, and call `trainer.distribute(strategy)` before `compile`. Received: the scope of a "
            f"{type(strategy).__name__} with {strategy.num_replicas_in_sync} replicas"
        )


def refuse_without_derivative(optimizer: InnerOptimizerLike) -> None:
    """Raises `ValueError` for an inner optimizer that no meta-gradient flows through."""
    if isinstance(optimizer, keras.optimizers.Lion) or optimizer == "lion":
        raise ValueError(
            "Lion cannot be the `inner_optimizer` of a meta-gradient: it steps by the sign of the gradient, whose "
            "derivative is zero, so nothing can be learned through it. Use SGD, Adam or another smooth optimizer, or "
            "`MetaTrainer(estimator=EvolutionStrategies())`."
        )
