"""Tests of `ml3_tf.strict_json`: what is small, shallow and known is read, all else is refused by name."""

import pytest

from ml3_tf import strict_json
from ml3_tf.errors import ArtefactError, CorruptArtefactError, UnsafeArtefactError


def test_plain_json_is_read():
    assert strict_json.parse(b'{"a": [1, 2.5, null, true, "]}[{"]}', "f") == {"a": [1, 2.5, None, True, "]}[{"]}


@pytest.mark.parametrize(
    "data, error, words",
    [
        (b'{"a": 1, "a": 2}', UnsafeArtefactError, "the keys .'a'. come twice"),
        (b'{"x": {"b": 1, "\\u0062": 2}}', UnsafeArtefactError, "come twice"),
        (b"[" * 9 + b"]" * 9, UnsafeArtefactError, "nested more than 8 levels"),
        (b'{"a":' * 100_000, UnsafeArtefactError, "nested more than 8 levels"),
        (b"[NaN]", CorruptArtefactError, "NaN is no number"),
        (b"[-Infinity]", CorruptArtefactError, "-Infinity is no number"),
        (b'"\xff"', CorruptArtefactError, "is no JSON"),
        (b"", CorruptArtefactError, "is no JSON"),
        (b"9" * 5000, CorruptArtefactError, "is no JSON"),
        (b'{"a": 1} {}', CorruptArtefactError, "is no JSON"),
    ],
)
def test_hostile_json_is_refused(data, error, words):
    with pytest.raises(error, match=f"'file'.*{words}"):
        strict_json.parse(data, "file")


@pytest.mark.parametrize(
    "field, good, bad",
    [
        (strict_json.BOOLEAN, [True, False], [0, 1, None, "true"]),
        (strict_json.integer(1, 3), [1, 3], [0, 4, True, 2.0, "2", None]),
        (strict_json.NUMBER, [0, -1.5, 3], [float("inf"), True, "1", None, 10**400, [1]]),
        (strict_json.POSITIVE, [0.5, 1], [0, -1, float("nan"), False]),
        (strict_json.TEXT, ["a", "é b"], ["", "a/b", "a\nb", "\ud800", "x" * 129, 1, None]),
        (strict_json.one_of(None, "a", 1), [None, "a", 1], [True, 1.0, "b", [], {}]),
        (strict_json.optional(strict_json.LIST), [None, []], [{}, "a"]),
    ],
)
def test_fields_accept_what_they_say(field, good, bad):
    assert all(field.accepts(value) for value in good)
    assert not any(field.accepts(value) for value in bad)


def test_objects_have_exactly_their_fields():
    fields = {"kind": strict_json.one_of("Dense"), "units": strict_json.integer(1, 9)}
    strict_json.check_fields({"kind": "Dense", "units": 3}, fields, "f", "it")
    for value, error, words in [
        ({"kind": "Dense", "units": 3, "module": "os"}, UnsafeArtefactError, "unknown keys .'module'. in it"),
        ({"kind": "Dense"}, CorruptArtefactError, "it lacks the keys .'units'."),
        ({"kind": "Lambda", "units": 3}, UnsafeArtefactError, "expected 'kind' of it to be one of .'Dense'."),
        ({"kind": "Dense", "units": 0}, CorruptArtefactError, "an integer from 1 to 9. Received: 0"),
        ([], CorruptArtefactError, "expected it to be an object"),
    ]:
        with pytest.raises(error, match=words):
            strict_json.check_fields(value, fields, "f", "it")


def test_errors_are_short():
    with pytest.raises(ArtefactError) as caught:
        strict_json.check_value("x" * 10_000, strict_json.BOOLEAN, "f", "it")
    assert len(str(caught.value)) < 400
