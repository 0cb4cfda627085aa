"""What a verifier found, as data: a stable code, the entry's index, and a sentence.

Invariants
- A code never changes its meaning; ``MEANINGS`` is what documents and the command show.
- A bounded number is kept; all are counted.
- What is shown holds no control characters and is short: a hostile ledger cannot write to the auditor's terminal.

This module does not: decide what is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

KEPT = 1000
_SHOWN = 80
_MESSAGE = 500

MEANINGS: Mapping[str, str] = {
    # The file
    "malformed_entry": "a line is not the JSON of a ledger entry: it was damaged or written by something else",
    "not_canonical": "an entry's bytes are not RFC 8785 canonical JSON, which is all that the log ever writes",
    "unknown_kind": "an entry is of a kind or version that this release does not know; it is never guessed",
    "bad_facts": "an entry's facts are missing, of the wrong type or out of range",
    "missing_entry": "entries are left out: indexes skip, or the export ends before the checkpoint's size",
    "reordered_entry": "entries are there, but not in their order",
    "repeated_entry": "an index occurs twice",
    # The tree, its signatures and its witnesses
    "changed_entry": "an entry is not the one that was recorded: its bytes differ from an earlier copy",
    "root_mismatch": "the entries do not hash to the root that was signed: at least one of them was changed",
    "unsigned_entry": "entries lie beyond the newest checkpoint: nobody has signed them",
    "fork": "the log has signed two histories, or this one does not continue an earlier one",
    "rolled_back": "an earlier export or checkpoint is longer than this ledger: its end was taken away",
    "bad_checkpoint": "a checkpoint cannot be read, or it is of another log",
    "bad_signature": "a signature is not by the key that it names",
    "unknown_key": "a checkpoint is not signed by the log's key in force at its size",
    "unproved_rotation": "the log's key changed, and no checkpoint signed by both keys shows that the old one agreed",
    "witness_missing": "a witness has not co-signed the newest checkpoint",
    "witness_conflict": "a witness has co-signed a history that this ledger does not continue",
    # The state machine
    "illegal_transition": "an entry does not follow from those before it",
    "split_entries": "the entries of one step over several populations are not together, complete and in order",
    "postdated": "a decision under a window is dated later than it was made: the window may not have been open yet",
    "stale_grant": "a grant or fencing token is not the run's own, or fencing tokens do not increase",
    "debited_twice": "rounds were debited a second time: they may have run twice with fresh noise",
    "debit_gap": "a debit does not start where the last one ended: a debit is missing",
    "over_debited": "more rounds were debited than were reserved",
    "freed_debited_round": "more budget was given back than the undebited rounds: a debit is final",
    "forbidden_release": "budget was given back by somebody, or for a reason, that private data may have led to",
    "unexplained_debit": "rounds were debited or adjusted after a restore, and no reconciliation lists them",
    "publication_without_debits": "something was published whose rounds were not all debited before",
    "published_twice": "one run published twice",
    "private_metrics": "metrics were published that no public hold-out of the run's data can have given",
    "not_disjoint": "a run spans populations that its decision does not name, or that were not checked to be disjoint",
    # The budget
    "over_admitted": "a request was approved that the population's filter, or a quota in force, does not admit",
    "under_charged": "a run was charged less than its mechanism costs",
    "curve_mismatch": "a charged curve is not the one that the named accountant computes",
    "budget_exceeded": "what was debited is beyond the population's budget: its guarantee does not hold",
}


@dataclass(frozen=True, slots=True)
class Finding:
    code: str
    index: int | None  # of the entry; None where it is about a whole file
    message: str


class BadEntryError(Exception):
    """An entry that cannot be read or does not follow; it becomes a finding."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass
class Findings:
    """The first findings in the order in which they came, and how many there were of each code."""

    kept: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, code: str, index: int | None, message: str) -> None:
        if code not in MEANINGS:
            raise ValueError(f"{code!r} is not a code of findings")
        self.counts[code] += 1
        if len(self.kept) < KEPT or self.counts[code] == 1:  # the first of each code is always kept
            self.kept.append(Finding(code, index, plain(message)))

    @property
    def total(self) -> int:
        return self.counts.total()


def plain(text: str) -> str:
    """Text for a terminal or a page: what cannot be printed is escaped, and much of it is cut off."""
    if not text.isprintable():
        text = ascii(text)[1:-1]
    return text if len(text) <= _MESSAGE else text[: _MESSAGE - 1] + "…"


def shown(value: object) -> str:
    """Foreign text for a message: quoted, escaped and cut off."""
    text = ascii(value[: 2 * _SHOWN] if isinstance(value, str | bytes) else _typed(value))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _typed(value: object) -> object:
    # A number of a million digits or a list of lists would take its time to print.
    if isinstance(value, bool | float) or value is None:
        return value
    if isinstance(value, int):
        return value if value.bit_length() < 200 else "a huge integer"
    return f"a {type(value).__name__}"
