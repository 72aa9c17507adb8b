"""JSON from untrusted files: small, shallow, without duplicate or unknown keys, each value checked before its use."""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

from ml3_tf.saving.errors import CorruptArtifactError, UnsafeArtifactError

MAX_DEPTH = 8
MAX_TEXT = 128
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


class Field(NamedTuple):
    """One kind of value.

    Args:
        expected: Describes the value in error messages.
        accepts: Function that returns whether a value is of this kind.
        closed: Whether the values form a closed vocabulary. A word outside of it raises `UnsafeArtifactError`.
    """

    expected: str
    accepts: Callable[[Any], bool]
    closed: bool = False


def one_of(*values: Any) -> Field:
    """Returns a field with a closed vocabulary."""
    accepts = lambda value: any(type(value) is type(known) and value == known for known in values)
    return Field(f"one of {list(values)}", accepts, closed=True)


def optional(field: Field) -> Field:
    """Returns a field that may be null."""
    return Field(f"null or {field.expected}", lambda value: value is None or field.accepts(value), field.closed)


def integer(minimum: int, maximum: int) -> Field:
    """Returns a field with an integer from `minimum` to `maximum`, both included."""
    accepts = lambda value: type(value) is int and minimum <= value <= maximum
    return Field(f"an integer from {minimum} to {maximum}", accepts)


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**53)


BOOLEAN = Field("true or false", lambda value: type(value) is bool)
NUMBER = Field("a finite number", lambda value: _is_number(value) and math.isfinite(value))
POSITIVE = Field("a positive finite number", lambda value: _is_number(value) and 0 < value < math.inf)
TEXT = Field(
    f"a text of 1 to {MAX_TEXT} printable characters without a slash",
    lambda value: type(value) is str and 0 < len(value) <= MAX_TEXT and value.isprintable() and "/" not in value,
)
LIST = Field("a list", lambda value: type(value) is list)
OBJECT = Field("an object", lambda value: type(value) is dict)


def parse(data: bytes, source: str) -> Any:
    """Returns the value of JSON.

    Args:
        data: The bytes of the file.
        source: Name of the file in errors.

    Raises:
        UnsafeArtifactError: The JSON is nested too deeply, or an object has one key twice.
        CorruptArtifactError: The data is not valid JSON.
    """
    try:
        text = data.decode("utf-8")
        _check_depth(text, source)
        return json.loads(text, object_pairs_hook=_unique(source), parse_constant=_refuse_constant(source))
    except (CorruptArtifactError, UnsafeArtifactError):
        raise
    except (ValueError, RecursionError) as error:
        raise CorruptArtifactError(f"'{source}' is not valid JSON: {error}") from None


def check_fields(value: Any, fields: Mapping[str, Field], source: str, where: str) -> None:
    """Raises `ArtifactError` unless `value` is an object with exactly `fields`, each accepted by its `Field`."""
    if type(value) is not dict:
        raise CorruptArtifactError(f"'{source}': expected {where} to be an object. Received: {shorten(value)}")
    unknown, missing = sorted(set(value) - set(fields)), sorted(set(fields) - set(value))
    if unknown:
        raise UnsafeArtifactError(f"'{source}': unknown keys {shorten(unknown)} in {where}. Known: {sorted(fields)}")
    if missing:
        raise CorruptArtifactError(f"'{source}': {where} lacks the keys {missing}.")
    for name, field in fields.items():
        check_value(value[name], field, source, f"'{name}' of {where}")


def check_value(value: Any, field: Field, source: str, where: str) -> None:
    """Raises `ArtifactError` unless `field` accepts `value`."""
    if not field.accepts(value):
        kind = UnsafeArtifactError if field.closed else CorruptArtifactError
        raise kind(f"'{source}': expected {where} to be {field.expected}. Received: {shorten(value)}")


def shorten(value: Any, length: int = 200) -> str:
    """Returns `ascii(value)`, cut to `length` characters: a file cannot fill the screen."""
    text = ascii(value)
    return text if len(text) <= length else text[:length] + "..."


def _check_depth(text: str, source: str) -> None:
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise UnsafeArtifactError(f"'{source}' is nested more than {MAX_DEPTH} levels deep.")


def _unique(source: str) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    def to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            names = [name for name, _ in pairs]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise UnsafeArtifactError(f"'{source}': the keys {shorten(twice)} appear twice.")
        return result

    return to_dict


def _refuse_constant(source: str) -> Callable[[str], NoReturn]:
    def refuse(name: str) -> NoReturn:
        raise CorruptArtifactError(f"'{source}': {name} is not a number in JSON.")

    return refuse
