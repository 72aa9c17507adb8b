"""Tests of `ml3_tf.saving._safetensors`: arrays are read back; a false header is refused before any allocation."""

import json

import numpy as np
import pytest

from ml3_tf.saving import _safetensors
from ml3_tf.saving.errors import ArtifactError, CorruptArtifactError, UnsafeArtifactError

ARRAYS = {"a": np.arange(6, dtype="float32").reshape(2, 3), "b": np.ones(2, "float64"), "c": np.float32(2.0)}
SHAPES = {name: np.shape(array) for name, array in ARRAYS.items()}


def with_header(edit):
    data = _safetensors.to_bytes(ARRAYS)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def test_arrays_are_read_back():
    for name, array in _safetensors.from_bytes(_safetensors.to_bytes(ARRAYS), SHAPES, "f").items():
        assert array.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_half_precision_is_kept_exactly():
    half = np.array([0.1, 3.0], "float16")
    received = _safetensors.from_bytes(_safetensors.to_bytes({"a": half}), {"a": (2,)}, "f")["a"]
    np.testing.assert_array_equal(received, half)


@pytest.mark.parametrize(
    "edit, error, words",
    [
        (lambda h: h["a"].update(shape=[3, 2]), CorruptArtifactError, "'a' does not fit"),
        (lambda h: h["a"].update(shape=[2, 3.0]), CorruptArtifactError, "'a' does not fit"),
        (lambda h: h["a"].update(shape=[10**12, 10**12]), CorruptArtifactError, "'a' does not fit"),
        (lambda h: h["a"].update(dtype="I64"), UnsafeArtifactError, "expected 'dtype' of tensor 'a'"),
        (lambda h: h["a"].update(data_offsets=[0, 2**40]), CorruptArtifactError, "must lie at bytes"),
        (lambda h: h["a"].update(data_offsets=h["b"]["data_offsets"]), CorruptArtifactError, "must lie at bytes"),
        (lambda h: h["a"].update(data_offsets=[]), CorruptArtifactError, "must lie at bytes"),
        (lambda h: h["a"].update(data_offsets=None), CorruptArtifactError, "to be a list"),
        (lambda h: h["a"].update(more=1), UnsafeArtifactError, "unknown keys .'more'"),
        (lambda h: h.update(__metadata__={"x": "y"}), UnsafeArtifactError, "unknown keys .'__metadata__'"),
        (lambda h: h.update(a=3), CorruptArtifactError, "'a' of the header to be an object"),
        (lambda h: h.pop("b"), CorruptArtifactError, "lacks the keys .'b'"),
    ],
)
def test_false_headers_are_refused(edit, error, words):
    with pytest.raises(error, match=words):
        _safetensors.from_bytes(with_header(edit), SHAPES, "f")


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", "ends within its header"),
        (b"\xff" * 8 + b"{}", "ends within its header"),
        ((2**17).to_bytes(8, "little") + b" " * 2**17, "a header of 131072 bytes"),
        (_safetensors.to_bytes(ARRAYS)[:-1], "bytes of values. Expected"),
        (_safetensors.to_bytes(ARRAYS) + b"x", "bytes of values. Expected"),
        (b"\x93NUMPY\x01\x00" + b"(dp0\n." * 100, "ends within its header"),
    ],
)
def test_other_bytes_are_refused(data, words):
    with pytest.raises(ArtifactError, match=words):
        _safetensors.from_bytes(data, SHAPES, "f")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_values_are_refused(value):
    data = _safetensors.to_bytes({**ARRAYS, "b": np.array([1.0, value])})
    with pytest.raises(CorruptArtifactError, match="values of 'b' are not finite"):
        _safetensors.from_bytes(data, SHAPES, "f")
