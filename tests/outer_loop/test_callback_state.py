"""Tests of `ml3_tf.outer_loop._callback_state`: what callbacks remember, and how objects are compared."""

import json
import math

import keras
import numpy as np
import pytest

from ml3_tf import MetaLoss
from ml3_tf.outer_loop._callback_state import CallbackStates, decode, describe, encode

VALUES = [
    None,
    True,
    3,
    2**100,
    0.1,
    math.inf,
    "text",
    np.float32(0.1),
    np.arange(6, dtype="int16").reshape(2, 3),
    np.zeros((0, 3)),
    np.array(["a", "bc"]),
    [1, [np.ones(2)], {"a": {"b": np.float64(2)}}],
]


def through_json(value):
    return decode(json.loads(json.dumps(encode(value))))


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_it_was(value):
    back = through_json(value)
    assert type(back) is type(value)
    np.testing.assert_equal(back, value)
    if isinstance(value, np.ndarray):
        assert back.dtype == value.dtype and back.flags.writeable


def test_tuples_become_lists():
    assert through_json((1, (2,))) == [1, [2]]


@pytest.mark.parametrize("value", [object(), {1: 2}, [object()], np.array([object()])], ids=type)
def test_other_values_are_refused(value):
    with pytest.raises(TypeError, match="Expected numbers, text, arrays, or lists and dictionaries of those"):
        encode(value)


class WithState(keras.callbacks.Callback):
    def __init__(self, value):
        super().__init__()
        self.value, self._other = value, object()

    def get_state(self):
        return {"value": self.value}

    def set_state(self, state):
        self.value = state["value"]


def test_states_of_callbacks_with_and_without_methods():
    def make():
        return [WithState(np.zeros(2)), keras.callbacks.EarlyStopping(patience=3)]

    callbacks = make()
    states = CallbackStates(callbacks)
    assert states.names == ["WithState", "EarlyStopping"]
    states.begin()
    callbacks[0].value, callbacks[1].wait, callbacks[1].best_weights = np.ones(2), 2, [np.full(3, 0.1, "float32")]
    saved = json.loads(json.dumps(states.get()))
    assert saved[1].keys() == {"wait", "best_weights"}  # not what the user chose, nor functions
    others = make()
    restored = CallbackStates(others)
    restored.set(saved, before_training=True)
    np.testing.assert_array_equal(others[0].value, [1, 1])
    assert others[1].wait == 0
    restored.begin()
    restored.set(saved, before_training=False)
    assert others[1].wait == 2 and others[1].patience == 3
    np.testing.assert_array_equal(others[1].best_weights[0], callbacks[1].best_weights[0])
    assert restored.get() == saved


def test_objects_are_described_by_their_configuration():
    adam = lambda rate: describe(keras.optimizers.Adam(rate))
    assert adam(0.1)["Adam"]["beta_1"] == 0.9 and "name" not in adam(0.1)["Adam"]
    assert adam(0.1) == adam(0.1) != adam(0.2)
    decay = lambda steps: adam(keras.optimizers.schedules.CosineDecay(0.1, steps))
    assert decay(10) == decay(10) != decay(20)
    assert describe(keras.losses.Huber(2.0)) != describe(keras.losses.Huber(1.0))
    assert describe(through_json) == "through_json"
    assert "weights" not in describe(MetaLoss.mlp((3,)))["MetaLoss"]
    assert describe(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])) == "Sequential"
    for plain in (None, 1, "fresh", (1, 2)):
        assert describe(plain) == plain
