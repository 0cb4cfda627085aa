"""The JSON that crosses to OPA and back, checked on both sides of the crossing.

Invariants
- What goes out is complete and plain: no null, no NaN, no infinity, no control characters, at most 64 kB. In Rego
  ``null <= 5`` is true, so a null that slipped in would pass a bound.
- What comes back is read once, strictly: one meaning per key, finite numbers, bounded size.

This module does not: know what a policy says (``merge`` does), talk to anything, or decide.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from governance.errors import InvalidRequestError, PolicyResultError

MAX_INPUT_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 256 * 1024
MAX_DEPTH = 16
_MAX_INTEGER = 2**63 - 1

# Cc: control; Cs: half of a surrogate pair; Zl, Zp: line and paragraph separators. The rest reorder what a reader sees.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_BIDIRECTIONAL_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def validate_document(document: Mapping[str, Any]) -> bytes:
    """The policy input as the bytes that are sent. Raises ``InvalidRequestError`` that names every field at fault."""
    problems = list(_problems(document, "", 0))
    if problems:
        raise InvalidRequestError("The request can't be given to the policies as it is.", problems)
    encoded = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    if len(encoded) > MAX_INPUT_BYTES:
        raise InvalidRequestError(
            f"The request is {len(encoded)} bytes as a policy input; at most {MAX_INPUT_BYTES} are accepted.",
            [{"path": "", "message": "too large", "hint": "shorten the purpose and names, or use fewer layers"}],
        )
    return encoded


def is_plain_text(text: str) -> bool:
    """Whether the text holds no control character and nothing that reorders its display."""
    if text.isascii():
        return text.isprintable() or not text  # what is not printable in ASCII is a control character
    return all(
        unicodedata.category(character) not in _REFUSED_CATEGORIES and character not in _BIDIRECTIONAL_CONTROLS
        for character in text
    )


def _problems(value: object, path: str, depth: int) -> Iterator[dict[str, str]]:
    if depth > MAX_DEPTH:
        yield _problem(path, "nested too deeply", f"at most {MAX_DEPTH} levels")
    elif isinstance(value, Mapping):
        for key, member in value.items():
            if not isinstance(key, str) or not is_plain_text(key):
                yield _problem(path, "a key is not plain text", "use letters, digits and underscores")
            else:
                yield from _problems(member, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list | tuple):
        for index, member in enumerate(value):
            yield from _problems(member, f"{path}[{index}]", depth + 1)
    else:
        yield from _scalar_problems(value, path)


def _scalar_problems(value: object, path: str) -> Iterator[dict[str, str]]:
    if isinstance(value, str):
        if not is_plain_text(value):
            yield _problem(path, "holds control characters", "remove line breaks and other invisible characters")
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield _problem(path, "is not a finite number", "give a finite number")
    elif isinstance(value, bool):
        return
    elif isinstance(value, int):
        if abs(value) > _MAX_INTEGER:
            yield _problem(path, "is too large", f"at most {_MAX_INTEGER}")
    elif value is None:
        yield _problem(path, "is null", "leave it out, or give a value")
    else:
        yield _problem(path, f"is a {type(value).__name__}", "use text, numbers, booleans, lists and objects")


def _problem(path: str, message: str, hint: str) -> dict[str, str]:
    return {"path": path, "message": message, "hint": hint}


def parse_answer(body: bytes) -> Mapping[str, Any]:
    """OPA's answer as an object. Raises ``PolicyResultError`` for whatever JSON leaves to the reader's taste."""
    if len(body) > MAX_ANSWER_BYTES:
        raise PolicyResultError(f"The policy engine's answer is larger than {MAX_ANSWER_BYTES} bytes.")
    try:
        answer = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_float=_finite,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError) as error:
        raise PolicyResultError("The policy engine's answer is not strict JSON.") from error
    if not isinstance(answer, dict):
        raise PolicyResultError("The policy engine's answer is not an object.")
    return answer


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate key")
    return members


def _finite(text: str) -> float:
    number = float(text)  # "1e999" is valid JSON, and infinity to Python
    if not math.isfinite(number):
        raise ValueError("number out of range")
    return number


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
