"""Behavior cloning: a policy learns, by plain regression, what an expert did."""

import numpy as np


def clone(policy, states, actions, goals=None, optimizer="adam", **fit_arguments):
    """Trains a policy to act as an expert does: least squares on the expert's actions, by `compile` and `fit`.

    With goals the policy is goal-conditioned: its input is the state and, beside it, the goal.

    Args:
        policy: Built Keras model, `[B, S] -> [B, A]`, or `[B, S + G] -> [B, A]` with goals. It is trained in place.
        states: `[..., S]`, the states that the expert saw, in as many episodes and steps as there are.
        actions: `[..., A]`, what it did in them.
        goals: Optional, `[..., G]`, what it was after in each state.
        optimizer: Any Keras optimizer.
        **fit_arguments: As in `keras.Model.fit`: `epochs`, `batch_size`, `callbacks`, `verbose`, ...

    Returns:
        A `keras.callbacks.History`: the mean squared error of each epoch.

    Raises:
        ValueError: Arrays of different leading axes, or of another width than the policy's.

    Example:

    >>> import keras
    >>> policy = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> states, actions, goals = np.ones((5, 20, 2)), np.ones((5, 20, 1)), np.zeros((5, 20, 2))
    >>> history = clone(policy, states, actions, goals, epochs=3, verbose=0)
    >>> len(history.history["loss"])
    3
    """
    arrays = {"states": states, "actions": actions, **({} if goals is None else {"goals": goals})}
    arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    inputs = np.concatenate(_checked(policy, arrays), -1)
    policy.compile(optimizer, loss="mse")
    return policy.fit(_rows(inputs), _rows(arrays["actions"]), **fit_arguments)


def _checked(policy, arrays):
    """What the policy sees, once it is known to fit."""
    shapes = {name: array.shape for name, array in arrays.items()}
    if len({shape[:-1] for shape in shapes.values()}) != 1 or 0 in shapes["states"]:
        raise ValueError(
            f"{_listed(arrays)} must have the same leading axes, `[..., width]`, and hold an example: one row of each "
            f"for every state that the expert saw. Received: {shapes}"
        )
    inputs = [array for name, array in arrays.items() if name != "actions"]
    widths = sum(array.shape[-1] for array in inputs), shapes["actions"][-1]
    expected = policy.input_shape[-1], policy.output_shape[-1]
    if widths != expected:
        raise ValueError(
            f"`policy` maps {expected[0]} numbers to {expected[1]}. Received: {widths[0]} numbers of state and goal, "
            f"{widths[1]} of action, {shapes}. A policy that shall see the goal takes the widths of both."
        )
    return inputs


def _listed(arrays):
    return ", ".join(f"`{name}`" for name in arrays)


def _rows(array):
    return array.reshape(-1, array.shape[-1])
