"""Reads an entry's facts strictly: the right type and range, or ``BadEntryError``.

This module does not: know kinds of entries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from governance.ledger.chain import TIME
from governance.ledger.entry_reader import Entry
from governance.ledger.findings import BadEntryError, shown

_LONGEST_TEXT = 1000
_MOST_ITEMS = 1000


def subject(entry: Entry, name: str) -> str:
    found = entry.subjects.get(name)
    if found is None:
        raise BadEntryError("bad_facts", f"the subject {name} is missing")
    return found


def integer(facts: Mapping[str, Any], name: str, least: int = 0) -> int:
    value = facts.get(name)
    if type(value) is not int or value < least:
        raise BadEntryError("bad_facts", f"{name} = {shown(value)}: must be an integer of at least {least}")
    return value


def text(facts: Mapping[str, Any], name: str) -> str:
    value = facts.get(name)
    if type(value) is not str or not 0 < len(value) <= _LONGEST_TEXT:
        raise BadEntryError("bad_facts", f"{name} = {shown(value)}: must be text of 1 to {_LONGEST_TEXT} characters")
    return value


def number(facts: Mapping[str, Any], name: str) -> float:
    value = facts.get(name)
    if type(value) is int or type(value) is float:
        found = float(value)
        if math.isfinite(found):
            return found
    raise BadEntryError("bad_facts", f"{name} = {shown(value)}: must be a finite number")


def boolean(facts: Mapping[str, Any], name: str) -> bool:
    value = facts.get(name)
    if type(value) is not bool:
        raise BadEntryError("bad_facts", f"{name} = {shown(value)}: must be true or false")
    return value


def moment(value: object) -> datetime:
    if type(value) is str and TIME.fullmatch(value):
        try:
            return datetime.fromisoformat(value)
        except ValueError:  # the 31st of February
            pass
    raise BadEntryError("bad_facts", f"{shown(value)} is not a time in UTC with microseconds")


def mapping(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = facts.get(name)
    if type(value) is not dict or len(value) > _MOST_ITEMS:
        raise BadEntryError("bad_facts", f"{name}: must be an object")
    return value


def sequence(facts: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = facts.get(name)
    if type(value) is not list or len(value) > _MOST_ITEMS:
        raise BadEntryError("bad_facts", f"{name}: must be a list")
    return value


def names(facts: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A list of different ids."""
    found = tuple(sequence(facts, name))
    if not all(type(item) is str and item for item in found) or len(set(found)) != len(found):
        raise BadEntryError("bad_facts", f"{name}: must be a list of different ids")
    return found


def versions(facts: Mapping[str, Any], name: str) -> dict[str, int]:
    """Versions by dataset."""
    return {dataset: integer(mapping(facts, name), dataset, 1) for dataset in mapping(facts, name)}
