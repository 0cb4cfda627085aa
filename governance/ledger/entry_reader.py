"""One line of an export as an entry: strict about bytes, fast on what the log really writes.

Invariants
- An entry is read only if its bytes are the RFC 8785 form of what was read: two readers cannot see different things.
- Whatever a line holds, the answer is an ``Entry`` or ``BadEntryError``: never a traceback, never unbounded work.
- What is remembered from line to line is bounded: no more than the largest charges have.

Three shorter ways, each of which gives exactly what the ``rfc8785`` package would:

1. Python's encoder with sorted keys writes RFC 8785 but for three things, which are dealt with apart: numbers (each
   token is compared with its canonical form as it is read), keys beyond the Basic Multilingual Plane, which sort
   otherwise, and what is not ASCII (both go to the package). Where a number's canonical form is not Python's, it is
   replaced in the text that was written. That cannot make different bytes pass: were anything but a number replaced
   (text within a string, part of a longer number), the result would not read back as this entry, while the line did.
2. A debit, the most frequent entry, is matched as a whole: the pattern holds canonical text only.
3. The units of a charge, most of a decision's bytes, are read once for all decisions that have the same: the list is
   matched by a pattern of its own, ``null`` takes its place, and the rest is read in the first way. The list belongs to
   the one key ``units_per_round`` of the line: the quote before it, after a comma, cannot be within a string, because
   there it would be escaped.

This module does not: know what an entry means, or its place in the log.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from json.encoder import JSONEncoder
from typing import Any, NoReturn

import rfc8785

from accountant.orders import MAX_ORDERS
from governance.ledger.chain import ENTRY_VERSION, KINDS, SUBJECTS, TIME
from governance.ledger.findings import BadEntryError, shown

MAX_LINE = 4 * 2**20  # the largest entry, a decision over 512 orders, has some 20 kB

_FIELDS = {"v", "index", "kind", "at", "subjects", "facts"}
_SUBJECTS = frozenset(SUBJECTS)
_KINDS = frozenset(KINDS)
_DEBIT = re.compile(
    r'\{"at":"(TIME)","facts":\{"fencing_token":(INTEGER),"first_round":(INTEGER),"grant":"(ID)","rounds":(INTEGER),'
    r'"rounds_debited":(INTEGER)\},"index":(INTEGER),"kind":"debit","subjects":\{"population_id":"(ID)",'
    r'"project_id":"(ID)","researcher_id":"(ID)","run_id":"(ID)"\},"v":1\}'.replace("INTEGER", r"0|[1-9]\d{0,14}")
    .replace("ID", r"[A-Za-z0-9_.:-]{1,64}")
    .replace("TIME", TIME.pattern),
    re.ASCII,
)
_UNITS_KEY = b',"units_per_round":['
_UNITS = re.compile(rb'\["[0-9]+"(?:,"[0-9]+")*\]')
_LISTS_REMEMBERED = 1024  # of 185 orders, 15 kB each
_LONGEST_LIST = 42 * MAX_ORDERS + 1  # bytes: amounts below 2**127 with quotes and commas; nothing longer is a charge
_SAFE_INTEGER = 15  # digits: below 2**53, so RFC 8785 writes it as it is
_LONGEST_NUMBER = 40
_LONGEST_ID = 64


@dataclass(slots=True)
class Entry:
    index: int
    kind: str
    at: str
    subjects: Mapping[str, str]
    facts: dict[str, Any]


class _NotCanonical(Exception):
    pass


@lru_cache(maxsize=4096)
def _number(token: str) -> float:
    """A number that is no small integer, if this is how RFC 8785 writes it."""
    if len(token) > _LONGEST_NUMBER:
        raise _NotCanonical("a number of more digits than any canonical one has")
    value = float(token)
    try:
        canonical = rfc8785.dumps(value).decode()
    except rfc8785.CanonicalizationError as error:
        raise _NotCanonical(f"the number {token} has no canonical form") from error
    if canonical != token:
        raise _NotCanonical(f"the number {token} is written {canonical} in canonical form")
    return value


def _refuse(token: str) -> NoReturn:
    raise _NotCanonical(f"{token} is not JSON")


class EntryReader:
    """Reads lines. It is one object because Python's decoder takes its hooks when it is made."""

    def __init__(self) -> None:
        self._lists: OrderedDict[bytes, list[str]] = OrderedDict()
        self._rewritten: set[str] = set()  # number tokens of the current line that Python writes otherwise
        self._decode = json.JSONDecoder(parse_float=self._float, parse_int=self._int, parse_constant=_refuse).decode
        encoder = JSONEncoder(
            ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")
        )
        self._encode = encoder.encode

    def read(self, line: bytes) -> Entry:
        """``line``: an entry's bytes, without a newline. Raises ``BadEntryError``."""
        if len(line) > MAX_LINE:
            raise BadEntryError("malformed_entry", f"the line has more than {MAX_LINE} bytes")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadEntryError("malformed_entry", "the line is not UTF-8") from error
        return _debit(text) or self._with_units(line) or self._read(line, text)

    def _read(self, line: bytes, text: str) -> Entry:
        self._rewritten.clear()
        try:
            document = self._decode(text)
            canonical = self._is_canonical(line, text, document)
        except _NotCanonical as error:
            raise BadEntryError("not_canonical", str(error)) from error
        except RecursionError as error:
            raise BadEntryError("malformed_entry", "the JSON is nested too deeply") from error
        except ValueError as error:
            raise BadEntryError("malformed_entry", f"the line is not JSON: {shown(str(error))}") from error
        entry = _entry(document)
        if not canonical:
            why = "the bytes are not the RFC 8785 form of what they say (order or repetition of keys, spaces, escapes)"
            raise BadEntryError("not_canonical", why)
        return entry

    def _with_units(self, line: bytes) -> Entry | None:
        """An entry with a charge; None where it is none, or is not as it should be: then the whole line is read."""
        start = line.find(_UNITS_KEY) + len(_UNITS_KEY) - 1
        if start < len(_UNITS_KEY) or line.count(b"units_per_round") != 1:
            return None
        end = line.find(b"]", start) + 1
        units = self._list(line[start:end])
        if units is None:
            return None
        short = line[:start] + b"null" + line[end:]
        try:
            entry = self._read(short, short.decode("utf-8"))
        except BadEntryError:
            return None
        facts = entry.facts
        charge = facts["charge"] if type(facts.get("charge")) is dict else facts
        if charge.get("units_per_round", 0) is not None:
            return None
        charge["units_per_round"] = units
        return entry

    def _list(self, written: bytes) -> list[str] | None:
        """The same list for the same bytes: it is not to be changed."""
        found = self._lists.get(written)
        if found is None:
            if len(written) > _LONGEST_LIST or not _UNITS.fullmatch(written):
                return None
            found = written[2:-2].decode().split('","')
            if len(found) > MAX_ORDERS:
                return None
            self._lists[written] = found
            if len(self._lists) > _LISTS_REMEMBERED:
                self._lists.popitem(last=False)
        else:
            self._lists.move_to_end(written)
        return found

    def _is_canonical(self, line: bytes, text: str, document: Any) -> bool:
        if line.isascii():
            written = self._encode(document)
            for token in self._rewritten:
                written = written.replace(repr(float(token)), token)
            if written == text:
                return True
        try:
            return rfc8785.dumps(document) == line
        except rfc8785.CanonicalizationError:
            return False

    def _float(self, token: str) -> float:
        value = _number(token)
        if repr(value) != token:
            self._rewritten.add(token)
        return value

    def _int(self, token: str) -> int | float:
        # RFC 8785 writes 1e20 with all its digits, so a long integer may be a float.
        return int(token) if len(token) <= _SAFE_INTEGER else self._long(token)

    def _long(self, token: str) -> int | float:
        if len(token) <= 17 and abs(int(token)) < 2**53:
            return int(token)
        return self._float(token)


def _debit(text: str) -> Entry | None:
    match = _DEBIT.fullmatch(text)
    if match is None:
        return None
    at, token, first, grant, rounds, debited, index, population, project, researcher, run = match.groups()
    return Entry(
        int(index),
        "debit",
        at,
        {"population_id": population, "project_id": project, "researcher_id": researcher, "run_id": run},
        {
            "fencing_token": int(token),
            "first_round": int(first),
            "grant": grant,
            "rounds": int(rounds),
            "rounds_debited": int(debited),
        },
    )


def _entry(document: Any) -> Entry:
    if type(document) is not dict or document.keys() != _FIELDS:
        raise BadEntryError("malformed_entry", "an entry is an object of v, index, kind, at, subjects and facts")
    version, index, kind = document["v"], document["index"], document["kind"]
    if type(version) is not int or type(index) is not int or type(kind) is not str or index < 0:
        raise BadEntryError("malformed_entry", "v, index or kind is of the wrong type")
    at, subjects, facts = document["at"], document["subjects"], document["facts"]
    if type(at) is not str or not TIME.fullmatch(at):
        raise BadEntryError("malformed_entry", f"at = {shown(at)} is not a time in UTC with microseconds")
    if type(subjects) is not dict or type(facts) is not dict:
        raise BadEntryError("malformed_entry", "subjects and facts must be objects")
    if not subjects.keys() <= _SUBJECTS:
        raise BadEntryError("malformed_entry", f"subjects has a field that is none of {', '.join(SUBJECTS)}")
    for value in subjects.values():
        if type(value) is not str or not 0 < len(value) <= _LONGEST_ID:
            raise BadEntryError("malformed_entry", f"the subject {shown(value)} is not an id")
    if version != ENTRY_VERSION or kind not in _KINDS:
        raise BadEntryError("unknown_kind", f"kind {shown(kind)}, version {shown(version)}")
    return Entry(index, kind, at, subjects, facts)
