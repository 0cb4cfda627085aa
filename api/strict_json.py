"""JSON bodies, read strictly: what two parsers could read differently is refused.

Invariants
- Refused: duplicate keys, NaN and Infinity, numbers that overflow, integers beyond 2^53 - 1 (RFC 8785 cannot write
  them), nesting beyond ``MAX_DEPTH``, more than ``MAX_VALUES`` values, text that is not UTF-8, lone surrogates and NUL
  (PostgreSQL cannot store it).
- The work is linear in the body's size: no body makes it compute for long.

This module does not: know the schemas, or when and where a body is read (``gated_route.py`` does).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, NoReturn

from api.problems import ApiError

MAX_DEPTH = 20
MAX_VALUES = 10_000
MAX_INTEGER = 2**53 - 1


def loads(body: bytes) -> Any:
    """The parsed document. Raises ``ApiError`` (422) that says what is wrong."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refusal("the body is not UTF-8", f"byte {error.start}") from None
    _check_shape(text)
    try:
        document = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_constant,
            parse_float=_finite,
            parse_int=_exact,
        )
    except json.JSONDecodeError as error:
        raise _refusal("the body is not JSON", f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    _check_text(document, "")
    return document


def _refusal(detail: str, message: str) -> ApiError:
    return ApiError(422, "invalid_request", detail, problems=[{"path": "", "message": message, "hint": ""}])


def _check_shape(text: str) -> None:
    """Before the parser recurses, and before there are objects. Brackets and commas inside strings do not count."""
    depth, commas, in_string, escaped = 0, 0, False, False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character == ",":
            commas += 1
            if commas >= MAX_VALUES:
                raise _refusal("the body holds too many values", f"at most {MAX_VALUES}")
        elif character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise _refusal("the body is nested too deeply", f"at most {MAX_DEPTH} levels")
        elif character in "]}":
            depth -= 1


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise _refusal("the body names a field twice", f"{twice[:100]!r} appears more than once in one object")
    return document


def _constant(name: str) -> NoReturn:
    raise _refusal("the body holds a number that JSON does not have", f"{name} is not a number here; leave it out")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _refusal("the body holds a number that is too large", f"{text[:40]} overflows")
    return value


def _exact(text: str) -> int:
    if len(text) > 17 or abs(value := int(text)) > MAX_INTEGER:
        raise _refusal("the body holds an integer that is too large", f"{text[:40]} is beyond 2^53 - 1")
    return value


def _check_text(value: Any, path: str) -> None:
    if isinstance(value, str):
        if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
            message = {"path": path.removeprefix("."), "message": "holds NUL or half a surrogate pair", "hint": ""}
            raise ApiError(422, "invalid_request", "the body holds text that cannot be stored", problems=[message])
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key, path)
            _check_text(inner, f"{path}.{key}"[:200])
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_text(inner, f"{path}[{index}]"[:200])
