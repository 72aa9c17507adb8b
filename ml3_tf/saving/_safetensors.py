"""Named arrays in the safetensors format, compared with what is expected before anything is allocated for them."""

import math

import numpy as np
import safetensors.numpy

from ml3_tf.saving.errors import CorruptArtifactError, UnsafeArtifactError
from ml3_tf.saving import _strict_json

MAX_HEADER = 64 * 1024
ITEM_SIZES = {"F32": 4, "F64": 8}
_HEADER_FIELDS = {
    "dtype": _strict_json.one_of(*ITEM_SIZES),
    "shape": _strict_json.LIST,
    "data_offsets": _strict_json.LIST,
}


def to_bytes(arrays):
    """Returns the arrays in the safetensors format; half-precision values as float32, which holds them exactly."""
    exact = {name: np.asarray(_widen(np.asarray(array)), order="C") for name, array in arrays.items()}
    return safetensors.numpy.save(exact)


def from_bytes(data, shapes, source):
    """Returns the arrays in `data`.

    Args:
        data: Bytes in the safetensors format.
        shapes: Mapping from each name that is expected to its shape.
        source: Name of the file in errors.

    Raises:
        UnsafeArtifactError: A dtype or key outside of the vocabulary, or a header beyond the limit.
        CorruptArtifactError: Other names, shapes or sizes than expected, or values that are not finite.
    """
    _check_header(data, shapes, source)
    try:
        arrays = safetensors.numpy.load(data)
    except Exception as error:  # whatever the library finds wrong beyond our own checks
        raise CorruptArtifactError(f"'{source}' is no safetensors file: {error}") from None
    for name, array in arrays.items():
        if not np.all(np.isfinite(array)):
            raise CorruptArtifactError(f"'{source}': the values of '{name}' are not finite.")
    return arrays


def _widen(array):
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _check_header(data, shapes, source):
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise CorruptArtifactError(f"'{source}' is no safetensors file: it ends within its header.")
    if length > MAX_HEADER:
        raise UnsafeArtifactError(f"'{source}': a header of {length} bytes. At most {MAX_HEADER} are read.")
    header = _strict_json.parse(data[8 : 8 + length], source)
    _strict_json.check_fields(header, dict.fromkeys(shapes, _strict_json.OBJECT), source, "the header")
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: _start(item[1])):
        _strict_json.check_fields(entry, _HEADER_FIELDS, source, f"tensor '{name}'")
        if not _is_integers(entry["shape"]) or tuple(entry["shape"]) != tuple(shapes[name]):
            raise CorruptArtifactError(
                f"'{source}': '{name}' does not fit the network. Expected shape {tuple(shapes[name])}. "
                f"Received: {_strict_json.shorten(entry['shape'])}"
            )
        start, end = end, end + math.prod(shapes[name]) * ITEM_SIZES[entry["dtype"]]
        if not _is_integers(entry["data_offsets"]) or entry["data_offsets"] != [start, end]:
            raise CorruptArtifactError(
                f"'{source}': '{name}' does not lie at bytes {[start, end]}, where its shape and the tensors before it "
                f"put it. Received: {_strict_json.shorten(entry['data_offsets'])}"
            )
    if end != len(data) - 8 - length:
        raise CorruptArtifactError(f"'{source}' has {len(data) - 8 - length} bytes of values. Expected {end}.")


def _is_integers(values):
    return all(type(value) is int for value in values)


def _start(entry):
    offsets = entry.get("data_offsets")
    # An empty or foreign value sorts first, and is then refused by name.
    return offsets[0] if type(offsets) is list and offsets and type(offsets[0]) is int else -1
