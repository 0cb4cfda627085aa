from __future__ import annotations

import json

import pytest
import rfc8785

from api.problems import ApiError
from api.strict_json import MAX_DEPTH, MAX_INTEGER, MAX_VALUES, loads


@pytest.mark.parametrize(
    "document",
    [{}, [], "text", 1, -1, 1.5, True, None, {"a": [{"b": "é\n\t"}]}, MAX_INTEGER, -MAX_INTEGER, {"": ""}, "[[[[\\"],
)
def test_ordinary_json_is_read(document: object) -> None:
    assert document == loads(json.dumps(document).encode())


def test_brackets_in_text_are_no_nesting() -> None:
    text = "[" * 100 + '"\\' + "{" * 100
    assert [text] == loads(json.dumps([text]).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nul",
        b"NaN",
        b"-Infinity",
        b"1e400",
        b"-1e400",
        str(MAX_INTEGER + 1).encode(),
        b"9" * 5000,
        b'{"a": 1, "a": 1}',
        b'[{"a": {"b": 1, "b": 2}}]',
        b'"\\u0000"',
        b'{"\\u0000": 1}',
        b'["\\udc00"]',
        b'"\xff"',
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b'{"a":' * 100_000,
        json.dumps([1] * (MAX_VALUES + 1)).encode(),
    ],
)
def test_what_could_be_read_two_ways_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as refusal:
        loads(body)
    assert 422 == refusal.value.status_code


def test_the_deepest_permitted_nesting_is_read() -> None:
    body = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert json.loads(body) == loads(body)


def test_every_integer_that_is_read_can_be_written_canonically() -> None:
    for value in (MAX_INTEGER, -MAX_INTEGER):
        assert str(value).encode() == rfc8785.dumps(loads(str(value).encode()))
    with pytest.raises(rfc8785.IntegerDomainError):
        rfc8785.dumps(MAX_INTEGER + 1)


def test_as_many_values_as_permitted_are_read_and_commas_in_text_are_no_values() -> None:
    assert MAX_VALUES == len(loads(json.dumps([1] * MAX_VALUES).encode()))
    assert [","] == list(set(loads(json.dumps("," * MAX_VALUES * 2).encode())))


def test_the_field_that_is_named_twice_is_named_even_among_many() -> None:
    body = "{" + ", ".join(f'"k{number}": 1' for number in range(MAX_VALUES - 1)) + ', "last": 1, "last": 2}'
    with pytest.raises(ApiError) as refusal:
        loads(body.replace('"k0": 1, ', "").encode())
    assert "'last'" in refusal.value.extensions["errors"][0]["message"]  # type: ignore[index]
