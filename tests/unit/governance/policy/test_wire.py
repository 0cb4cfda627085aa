"""The JSON that crosses to OPA and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from governance.errors import InvalidRequestError, PolicyResultError
from governance.policy.wire import MAX_ANSWER_BYTES, MAX_DEPTH, MAX_INPUT_BYTES, parse_answer, validate_document


def problems_of(document: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequestError) as caught:
        validate_document(document)
    return [(problem["path"], problem["message"]) for problem in caught.value.problems]


def test_a_plain_document_is_sent_as_it_is() -> None:
    document = {"purpose": "Schrift lesen: äöü 手書き", "rounds": 3, "noise": 0.5, "list": [1, {"deep": True}]}
    assert document == json.loads(validate_document(document))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused_wherever_it_lies(number: float) -> None:
    assert [("request.values[1].x", "is not a finite number")] == problems_of(
        {"request": {"values": [1, {"x": number}]}}
    )


def test_null_is_refused() -> None:
    assert [("request.no_clients", "is null")] == problems_of({"request": {"no_clients": None}})


@pytest.mark.parametrize(
    "text",
    ["a\nb", "\x00", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u2029", "\u202etxt", "\u2066", "\ud800"],
    ids=ascii,
)
def test_text_with_invisible_characters_is_refused(text: str) -> None:
    assert [("purpose", "holds control characters")] == problems_of({"purpose": text})


def test_text_in_any_script_is_accepted() -> None:
    purpose = "Handschrift — почерк, 書, हस्तलेख, خط‌خوش 👩‍⚕️"
    assert purpose == json.loads(validate_document({"purpose": purpose}))["purpose"]


def test_a_key_with_a_control_character_is_refused() -> None:
    assert [("", "a key is not plain text")] == problems_of({"a\n": 1})


def test_every_field_at_fault_is_named() -> None:
    document = {"a": None, "b": float("nan"), "c": "\n", "d": {1, 2}, "e": 2**64}
    assert ["a", "b", "c", "d", "e"] == [path for path, _ in problems_of(document)]


def test_a_document_of_64_kilobytes_is_the_largest() -> None:
    frame = len(b'{"purpose":""}')
    assert MAX_INPUT_BYTES == len(validate_document({"purpose": "x" * (MAX_INPUT_BYTES - frame)}))
    assert [("", "too large")] == problems_of({"purpose": "x" * (MAX_INPUT_BYTES - frame + 1)})


def test_the_limit_counts_bytes_and_not_characters() -> None:
    assert [("", "too large")] == problems_of({"purpose": "é" * (MAX_INPUT_BYTES // 2)})


def test_endless_nesting_is_refused() -> None:
    document: dict[str, Any] = {}
    for _ in range(MAX_DEPTH + 2):
        document = {"a": document}
    assert ["nested too deeply"] == [message for _, message in problems_of(document)]


def test_an_answer_is_read_once_and_strictly() -> None:
    assert {"result": {"allow": True}} == parse_answer(b'{"result": {"allow": true}}')


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"yes"',
        b"{",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"allow": false, "allow": true}',
        b'{"a": "\xff"}',
        b"[" * 100_000,
        b'{"a": ' + b"9" * 10_000 + b"}",
        b"<html>502 Bad Gateway</html>",
    ],
    ids=lambda body: ascii(body[:30]),
)
def test_an_answer_that_leaves_room_for_taste_is_refused(body: bytes) -> None:
    with pytest.raises(PolicyResultError):
        parse_answer(body)


def test_a_huge_answer_is_refused_unread() -> None:
    with pytest.raises(PolicyResultError, match="larger"):
        parse_answer(b'{"a": "' + b"x" * MAX_ANSWER_BYTES + b'"}')
