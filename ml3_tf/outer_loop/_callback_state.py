"""What Keras's callbacks remember from one epoch to the next, as JSON can hold it."""

import base64
import types
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

ARRAY = "__array__"  # the key that marks an array


def encode(value: Any) -> Any:
    """Returns a value as JSON can hold it, exactly: numbers, text, arrays, and lists and dictionaries of those.

    Raises:
        TypeError: The value holds anything else.
    """
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {ARRAY: [value.dtype.str, list(value.shape), data]}
    if isinstance(value, (list, tuple)):
        return [encode(part) for part in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: encode(part) for name, part in value.items()}
    raise TypeError(f"Expected numbers, text, arrays, or lists and dictionaries of those. Received: {value!r}")


def decode(value: Any) -> Any:
    """Returns what `encode` was given; tuples have become lists."""
    if isinstance(value, dict):
        if ARRAY in value:
            dtype, shape, data = value[ARRAY]
            array = np.frombuffer(base64.b64decode(data), dtype).reshape(shape)
            return array.copy() if shape else array[()]
        return {name: decode(part) for name, part in value.items()}
    return [decode(part) for part in value] if isinstance(value, list) else value


def describe(value: Any) -> Any:
    """Returns what JSON can hold of an object: the name of its class, and its configuration or its attributes.

    Two runs are compared by it. Names that Keras counts up, and weights, are left out.
    """
    if isinstance(value, keras.Model):
        return type(value).__name__
    if isinstance(value, types.FunctionType):
        return value.__name__
    if not hasattr(value, "__dict__"):
        return value
    if isinstance(value, keras.losses.Loss):
        config = _attributes(value)  # the configuration of Keras's Huber loss leaves out its delta
    else:
        config = getattr(value, "get_config", lambda: vars(value))()
    config = {name: describe(part) for name, part in config.items() if name not in ("name", "weights")}
    return {type(value).__name__: config}


class CallbackStates:
    """The states of callbacks: what has changed in them since training began.

    A callback with the methods `get_state()` and `set_state(state)` is saved by those. Of any other, such as
    `EarlyStopping` and `ReduceLROnPlateau`, the attributes that hold numbers, text or arrays are.

    Args:
        callbacks: The callbacks.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        self._callbacks = list(callbacks)
        self._at_start: list[dict[str, Any]] = [{} for _ in self._callbacks]

    @property
    def names(self) -> list[str]:
        """The class names of the callbacks."""
        return [type(callback).__name__ for callback in self._callbacks]

    def begin(self) -> None:
        """Takes note of how the callbacks are when training begins."""
        self._at_start = [_attributes(callback) for callback in self._callbacks]

    def get(self) -> list[Any]:
        """Returns the state of each callback, as `encode` returns it."""
        return [
            encode(callback.get_state()) if hasattr(callback, "get_state") else _changes(before, _attributes(callback))
            for callback, before in zip(self._callbacks, self._at_start, strict=True)
        ]

    def set(self, states: Sequence[Any], *, before_training: bool) -> None:
        """Brings the callbacks to what `get` returned.

        Those with a `set_state` already before training, in which they may begin with it. The attributes of others only
        afterwards, because they are reset there.
        """
        for callback, state in zip(self._callbacks, states, strict=True):
            if hasattr(callback, "set_state"):
                callback.set_state(decode(state))
            elif not before_training:
                vars(callback).update(decode(state))


def _attributes(callback: Any) -> dict[str, Any]:
    found = {}
    for name, value in vars(callback).items():
        if name != "params":  # those of `fit`
            try:
                found[name] = encode(value)
            except TypeError:
                continue
    return found


def _changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in after.items() if name not in before or before[name] != value}
