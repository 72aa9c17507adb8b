"""Tests of `ml3_tf.saving._strict_json`: small, shallow, known content is read, and all other content is refused."""

import pytest

from ml3_tf.saving import _strict_json
from ml3_tf.saving.errors import ArtifactError, CorruptArtifactError, UnsafeArtifactError


def test_plain_json_is_read():
    assert _strict_json.parse(b'{"a": [1, 2.5, null, true, "]}[{"]}', "f") == {"a": [1, 2.5, None, True, "]}[{"]}


@pytest.mark.parametrize(
    "data, error, words",
    [
        (b'{"a": 1, "a": 2}', UnsafeArtifactError, "the keys .'a'. appear twice"),
        (b'{"x": {"b": 1, "\\u0062": 2}}', UnsafeArtifactError, "appear twice"),
        (b"[" * 9 + b"]" * 9, UnsafeArtifactError, "nested more than 8 levels"),
        (b'{"a":' * 100_000, UnsafeArtifactError, "nested more than 8 levels"),
        (b"[NaN]", CorruptArtifactError, "NaN is not a number"),
        (b"[-Infinity]", CorruptArtifactError, "-Infinity is not a number"),
        (b'"\xff"', CorruptArtifactError, "is not valid JSON"),
        (b"", CorruptArtifactError, "is not valid JSON"),
        (b"9" * 5000, CorruptArtifactError, "is not valid JSON"),
        (b'{"a": 1} {}', CorruptArtifactError, "is not valid JSON"),
    ],
)
def test_hostile_json_is_refused(data, error, words):
    with pytest.raises(error, match=f"'file'.*{words}"):
        _strict_json.parse(data, "file")


@pytest.mark.parametrize(
    "field, good, bad",
    [
        (_strict_json.BOOLEAN, [True, False], [0, 1, None, "true"]),
        (_strict_json.integer(1, 3), [1, 3], [0, 4, True, 2.0, "2", None]),
        (_strict_json.NUMBER, [0, -1.5, 3], [float("inf"), True, "1", None, 10**400, [1]]),
        (_strict_json.POSITIVE, [0.5, 1], [0, -1, float("nan"), False]),
        (_strict_json.TEXT, ["a", "é b"], ["", "a/b", "a\nb", "\ud800", "x" * 129, 1, None]),
        (_strict_json.one_of(None, "a", 1), [None, "a", 1], [True, 1.0, "b", [], {}]),
        (_strict_json.optional(_strict_json.LIST), [None, []], [{}, "a"]),
    ],
)
def test_fields_accept_the_values_they_describe(field, good, bad):
    assert all(field.accepts(value) for value in good)
    assert not any(field.accepts(value) for value in bad)


def test_objects_have_exactly_their_fields():
    fields = {"kind": _strict_json.one_of("Dense"), "units": _strict_json.integer(1, 9)}
    _strict_json.check_fields({"kind": "Dense", "units": 3}, fields, "f", "it")
    for value, error, words in [
        ({"kind": "Dense", "units": 3, "module": "os"}, UnsafeArtifactError, "unknown keys .'module'. in it"),
        ({"kind": "Dense"}, CorruptArtifactError, "it lacks the keys .'units'."),
        ({"kind": "Lambda", "units": 3}, UnsafeArtifactError, "expected 'kind' of it to be one of .'Dense'."),
        ({"kind": "Dense", "units": 0}, CorruptArtifactError, "an integer from 1 to 9. Received: 0"),
        ([], CorruptArtifactError, "expected it to be an object"),
    ]:
        with pytest.raises(error, match=words):
            _strict_json.check_fields(value, fields, "f", "it")


def test_errors_are_short():
    with pytest.raises(ArtifactError) as caught:
        _strict_json.check_value("x" * 10_000, _strict_json.BOOLEAN, "f", "it")
    assert len(str(caught.value)) < 400
