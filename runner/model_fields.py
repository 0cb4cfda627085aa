"""Checks of single fields in a model document, and the report that collects what is wrong. Standard library only.

Invariants
- A check returns a normalised value of exactly one type, or refuses with a message and a hint; it never guesses.
- Booleans are not integers, NaN and infinities are not numbers, and every integer has an upper bound.
- What a document says is quoted in messages only as short, escaped ASCII.

This module does not: know any layer (``runner.model_layers`` does) or any shape.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

MAX_PROBLEMS = 50  # a report longer than this helps nobody and could be made arbitrarily long
MAX_DIMENSION = 2**24
_QUOTED = 40  # characters of a value that a message repeats


class RefusedValueError(ValueError):
    """One value is not allowed. ``hint`` says what would be."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class _Required:
    """The default of a field that has none."""


REQUIRED = _Required()


@dataclass(frozen=True, slots=True)
class Field:
    """``default`` is already normalised; ``REQUIRED`` where the document must say it."""

    check: Callable[[object], object]
    default: object = REQUIRED


@dataclass(slots=True)
class Report:
    problems: list[dict[str, str]] = field(default_factory=list)

    def add(self, path: str, message: str, hint: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append({"path": path, "message": message, "hint": hint})

    def read(self, path: str, fields: Mapping[str, Field], document: Mapping[str, object]) -> dict[str, object] | None:
        """Checks every field and refuses every key that is none. Returns None if anything was wrong."""
        before = len(self.problems)
        values: dict[str, object] = {}
        for key in document:
            if key not in fields:
                hint = did_you_mean(key, fields) or "allowed here: " + ", ".join(sorted(fields))
                self.add(path, f"unknown key {quote(key)}", hint)
        for name, rule in fields.items():
            if name not in document:
                if rule.default is REQUIRED:
                    self.add(f"{path}.{name}", "is missing", f"add {name!r} here")
                else:
                    values[name] = rule.default
                continue
            try:
                values[name] = rule.check(document[name])
            except RefusedValueError as refused:
                self.add(f"{path}.{name}", refused.message, refused.hint)
        return values if len(self.problems) == before and before < MAX_PROBLEMS else None


def quote(value: object) -> str:
    """At most 60 characters of printable ASCII: safe in a log, a terminal and a page."""
    if isinstance(value, str):
        return ascii(value if len(value) <= _QUOTED else value[:_QUOTED] + "…")[:60]
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**20 else "an integer of more than 20 digits"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list | tuple) else "no JSON value"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'' where nothing is near. Only a prefix is compared: difflib is quadratic in the length."""
    near = difflib.get_close_matches(word[:64].lower(), list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else ""


def integer(minimum: int, maximum: int) -> Callable[[object], int]:
    hint = f"an integer from {minimum} to {maximum}"

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise RefusedValueError(f"must be an integer, not {quote(value)}", hint)
        if not minimum <= value <= maximum:
            raise RefusedValueError(f"{quote(value)} is out of range", hint)
        return value

    return check


def number(minimum: float, below: float) -> Callable[[object], float]:
    hint = f"a number from {minimum} to below {below}"

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RefusedValueError(f"must be a number, not {quote(value)}", hint)
        # The bounds come first: an integer of a thousand digits does not convert, and NaN fails every comparison.
        if not minimum <= value < below or not math.isfinite(value):
            raise RefusedValueError(f"{quote(value)} is out of range", hint)
        return float(value)

    return check


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise RefusedValueError(f"must be true or false, not {quote(value)}", "write true or false, without quotes")
    return value


def choice(*options: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not isinstance(value, str):
            raise RefusedValueError(f"must be a string, not {quote(value)}", "one of: " + ", ".join(options))
        if value not in options:
            near = did_you_mean(value, options)
            raise RefusedValueError(f"{quote(value)} is not known here", near or "one of: " + ", ".join(options))
        return value

    return check


def extent(rank: int, maximum: int) -> Callable[[object], tuple[int, ...]]:
    """A kernel, pool or stride: one integer for all of ``rank`` directions, or a list with one for each."""
    one = integer(1, maximum)

    def check(value: object) -> tuple[int, ...]:
        values = [value] * rank if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(values, Sequence) or isinstance(values, str | bytes) or len(values) != rank:
            hint = f"an integer, or a list of {rank}" if rank > 1 else "an integer, or a list of one"
            raise RefusedValueError(f"must give {rank} size(s), not {quote(value)}", hint)
        return tuple(one(item) for item in values)

    return check


def optional(check: Callable[[object], object]) -> Callable[[object], object]:
    return lambda value: None if value is None else check(value)


def shape(max_rank: int, *, free: bool) -> Callable[[object], tuple[int, ...]]:
    """A list of positive integers; with ``free``, one of them may be -1 ("whatever is left")."""
    one = integer(1, MAX_DIMENSION)

    def check(value: object) -> tuple[int, ...]:
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= max_rank:
            message = f"must be a list of 1 to {max_rank} integers, not {quote(value)}"
            raise RefusedValueError(message, "such as [28, 28, 1]")
        if None in value:
            hint = "every example has one fixed shape: pad or cut sequences to one length"
            raise RefusedValueError("a dimension is null", hint)
        sizes = []
        for item in value:
            left_over = free and type(item) is int and item == -1
            sizes.append(-1 if left_over else one(item))
        if sizes.count(-1) > 1:
            raise RefusedValueError("more than one dimension is -1", "leave at most one dimension open")
        return tuple(sizes)

    return check
