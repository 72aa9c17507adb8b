"""Behavior cloning: a policy learns the actions of an expert, by plain regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import keras
import numpy as np

from ml3_tf.arguments import OptimizerLike, TensorLike
from ml3_tf.rl.action_distributions import is_categorical


def behavior_cloning(
    policy: keras.Model,
    observations: TensorLike,
    actions: TensorLike,
    *,
    goals: TensorLike | None = None,
    optimizer: OptimizerLike = "adam",
    epochs: int = 1,
    batch_size: int | None = None,
    shuffle: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: Literal["auto", 0, 1, 2] = "auto",
) -> keras.callbacks.History:
    """Trains a policy to act as an expert does, by `compile` and `fit`.

    The loss is the mean squared error of the actions. For a `CategoricalPolicy` it is the cross-entropy: minus the
    log-probability of the expert's choices.

    With goals the policy is goal-conditioned: its input is the observation and, beside it, the goal.

    Args:
        policy: Built Keras model, `[B, O] -> [B, A]`, or `[B, O + G] -> [B, A]` with goals. It is trained in place.
        observations: `[..., O]`, the observations of the expert, with any leading axes, such as episodes and time.
        actions: `[..., A]`, the expert's action for each observation; discrete ones are one-hot.
        goals: Optional, `[..., G]`, the expert's goal at each observation.
        optimizer: Any Keras optimizer.
        epochs: Number of passes over the examples.
        batch_size: Number of examples in a mini-batch. `None`: 32, the default of Keras.
        shuffle: Whether to shuffle the examples before each epoch.
        callbacks: Keras callbacks of `fit`.
        verbose: 0 for silence, 1 for a progress bar, 2 for a line per epoch, as in `fit`.

    Returns:
        A `keras.callbacks.History`, with the mean loss of each epoch as "loss".

    Raises:
        ValueError: The arrays have different leading axes or no examples, or their widths do not fit the policy.

    Example:

    >>> import keras
    >>> policy = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> observations, actions, goals = np.ones((5, 20, 2)), np.ones((5, 20, 1)), np.zeros((5, 20, 2))
    >>> history = behavior_cloning(policy, observations, actions, goals=goals, epochs=3, verbose=0)
    >>> len(history.history["loss"])
    3
    """
    arrays = {"observations": observations, "actions": actions, **({} if goals is None else {"goals": goals})}
    arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    inputs = np.concatenate(_checked_inputs(policy, arrays), -1)
    cross_entropy = keras.losses.CategoricalCrossentropy(from_logits=True)  # log-probabilities are logits
    policy.compile(optimizer, loss=cross_entropy if is_categorical(policy) else "mse")
    return policy.fit(
        _rows(inputs),
        _rows(arrays["actions"]),
        epochs=epochs,
        batch_size=batch_size,
        shuffle=shuffle,
        callbacks=list(callbacks),
        verbose=verbose,  # type: ignore[arg-type] - Keras declares a string alone
    )


def _checked_inputs(policy: keras.Model, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Returns the parts of the policy's input; raises a `ValueError` unless shapes and widths fit."""
    shapes = {name: array.shape for name, array in arrays.items()}
    names = ", ".join(f"`{name}`" for name in arrays)
    if len({shape[:-1] for shape in shapes.values()}) != 1 or 0 in shapes["observations"]:
        raise ValueError(
            f"{names} must have the same leading axes, `[..., width]`, and hold at least one example: one row of each "
            f"per observation of the expert. Received: {shapes}"
        )
    inputs = [array for name, array in arrays.items() if name != "actions"]
    widths = sum(array.shape[-1] for array in inputs), shapes["actions"][-1]
    expected = policy.input_shape[-1], policy.output_shape[-1]
    if widths != expected:
        seen = "observation and goal" if "goals" in arrays else "observation, without `goals`"
        raise ValueError(
            f"`policy` must map {widths[0]} numbers ({seen}) to {widths[1]} (action). Received: a policy that maps "
            f"{expected[0]} numbers to {expected[1]}, and arrays of the shapes {shapes}"
        )
    return inputs


def _rows(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, array.shape[-1])
