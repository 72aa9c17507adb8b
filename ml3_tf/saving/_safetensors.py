"""Named arrays in the safetensors format; names, shapes and sizes are checked before anything is allocated."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from ml3_tf.saving import _strict_json
from ml3_tf.saving.errors import CorruptArtifactError, UnsafeArtifactError

MAX_HEADER = 64 * 1024
ITEM_SIZES = {"F32": 4, "F64": 8}
_HEADER_FIELDS = {
    "dtype": _strict_json.one_of(*ITEM_SIZES),
    "shape": _strict_json.LIST,
    "data_offsets": _strict_json.LIST,
}


def to_bytes(arrays: Mapping[str, Any]) -> bytes:
    """Returns the arrays in the safetensors format; half-precision values as float32, which holds them exactly."""
    exact = {name: np.asarray(_widen(np.asarray(array)), order="C") for name, array in arrays.items()}
    return safetensors.numpy.save(exact)


def from_bytes(data: bytes, shapes: Mapping[str, tuple[int, ...]], source: str) -> dict[str, np.ndarray]:
    """Returns the arrays in `data`.

    Args:
        data: Bytes in the safetensors format.
        shapes: Mapping from each expected name to its shape.
        source: Name of the file in errors.

    Raises:
        UnsafeArtifactError: A dtype or key is not in the vocabulary, or the header exceeds the limit.
        CorruptArtifactError: Names, shapes or sizes differ from the expected ones, or a value is not finite.
    """
    _check_header(data, shapes, source)
    try:
        arrays = safetensors.numpy.load(data)
    except Exception as error:  # any fault that the library finds beyond our own checks
        raise CorruptArtifactError(f"'{source}' is not a valid safetensors file: {error}") from None
    for name, array in arrays.items():
        if not np.all(np.isfinite(array)):
            raise CorruptArtifactError(f"'{source}': the values of '{name}' are not finite.")
    return arrays


def _widen(array: np.ndarray) -> np.ndarray:
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _check_header(data: bytes, shapes: Mapping[str, tuple[int, ...]], source: str) -> None:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise CorruptArtifactError(f"'{source}' is not a valid safetensors file: it ends within its header.")
    if length > MAX_HEADER:
        raise UnsafeArtifactError(f"'{source}': a header of {length} bytes. At most {MAX_HEADER} are allowed.")
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
                f"'{source}': '{name}' must lie at bytes {[start, end]}, by its shape and the tensors before it. "
                f"Received: {_strict_json.shorten(entry['data_offsets'])}"
            )
    if end != len(data) - 8 - length:
        raise CorruptArtifactError(f"'{source}' has {len(data) - 8 - length} bytes of values. Expected {end}.")


def _is_integers(values: Iterable[Any]) -> bool:
    return all(type(value) is int for value in values)


def _start(entry: Any) -> int:
    offsets = entry.get("data_offsets")
    # An entry without valid offsets sorts first, and is then refused by name.
    return offsets[0] if type(offsets) is list and offsets and type(offsets[0]) is int else -1
