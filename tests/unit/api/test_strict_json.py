from __future__ import annotations

import json

import pytest

from api.problems import ApiError
from api.strict_json import MAX_DEPTH, MAX_INTEGER, loads


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
    ],
)
def test_what_could_be_read_two_ways_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as refusal:
        loads(body)
    assert 422 == refusal.value.status_code


def test_the_deepest_permitted_nesting_is_read() -> None:
    body = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert json.loads(body) == loads(body)
