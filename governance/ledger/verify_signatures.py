"""Judges checkpoints: who signed them, by which key in force, and whether the entries hash to what was signed.

Trust
- The anchor is the key that the auditor pinned; without one it is the ledger's own first key, which then proves only
  that the ledger agrees with itself.
- The key in force for a tree of size n is that of the last ``key_enrolled`` entry with index < n. A later key is
  trusted once a checkpoint whose tree holds its entry, and whose root is right, is signed by the trusted key before it
  too: who has the database but not the old key cannot take over the log.
- A checkpoint counts only if the entries hash to its root.

This module does not: read files, or hash entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from governance.ledger.findings import Findings, shown
from governance.ledger.notes import Checkpoint, Note, NoteError, VerifierKey
from governance.ledger.replay_state import EnrolledKey

Kind = Literal["checkpoint", "earlier"]


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint that the auditor has. ``earlier``: seen on an earlier day, or got from a witness."""

    name: str  # of its file
    kind: Kind
    note: Note
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Judged:
    name: str
    size: int
    root: str
    signed_by: tuple[str, ...]
    cosigned: tuple[tuple[str, int | None], ...]  # witness, seconds since 1970


def read(name: str, kind: Kind, data: bytes) -> Signed:
    """Raises ``NoteError``."""
    note = Note.parse(data)
    return Signed(name, kind, note, Checkpoint.parse_text(note.text))


class Judge:
    def __init__(
        self,
        findings: Findings,
        enrolled: Sequence[EnrolledKey],
        log_key: VerifierKey | None,
        witnesses: Sequence[VerifierKey],
        roots: Mapping[int, bytes],
        size: int,
    ) -> None:
        self._findings = findings
        self._keys = _parsed(findings, enrolled)
        self._log_key = log_key
        self._witnesses = witnesses
        self._roots = roots
        self._size = size
        self._origin = enrolled[0].origin if enrolled else None

    def judge(self, signed: Sequence[Signed]) -> list[Judged]:
        """Says everything that is wrong with each, not only the first."""
        current = sorted((one for one in signed if one.kind == "checkpoint"), key=lambda one: one.checkpoint.size)
        good: list[Signed] = []
        for one in current:
            if self._matches(one, good) & self._is_signed(one) & self._is_of_this_log(one):
                good.append(one)
        for one in signed:
            if one.kind == "earlier" and self._continues(one) & self._is_of_this_log(one):
                good.append(one)
        if current:
            self._check_newest(current[-1], good)
        return [self._judged(one) for one in signed]

    # --- one checkpoint ----------------------------------------------------------------------------------------------

    def _is_of_this_log(self, one: Signed) -> bool:
        if self._origin is None or one.checkpoint.origin == self._origin:
            return True
        why = f"{one.name} is a checkpoint of {shown(one.checkpoint.origin)}, and the log is {shown(self._origin)}"
        self._findings.add("bad_checkpoint", None, why)
        return False

    def _matches(self, one: Signed, good: Sequence[Signed]) -> bool:
        size = one.checkpoint.size
        if size > self._size:
            why = f"the export ends after {self._size} entries, and {one.name} covers {size}"
            self._findings.add("missing_entry", self._size, why)
            return False
        if self._roots[size] == one.checkpoint.root:
            return True
        since = max((other.checkpoint.size for other in good), default=0)
        why = (
            f"the first {size} entries do not hash to the root in {one.name}: one of {since} to {size - 1} was changed"
        )
        self._findings.add("root_mismatch", None, why)
        return False

    def _is_signed(self, one: Signed) -> bool:
        key = self._in_force(one.checkpoint.size)
        if key is None:
            why = f"no key is known that {one.name} should be signed by: none is enrolled, and --log-key names none"
            self._findings.add("unknown_key", None, why)
            return False
        state = _signature(one.note, key)
        if state == "good":
            return True
        if state == "bad":
            self._findings.add("bad_signature", None, f"the signature of {key.name} on {one.name} does not verify")
        else:
            why = f"{one.name} is not signed by the key in force at {one.checkpoint.size} entries, {key.encode()}"
            self._findings.add("unknown_key", None, why)
        return False

    def _continues(self, one: Signed) -> bool:
        """Whether this ledger continues an earlier checkpoint."""
        size = one.checkpoint.size
        log = [key.name for _, key in self._keys if _signature(one.note, key) == "good"]
        if self._log_key is not None and not log and _signature(one.note, self._log_key) == "good":
            log = [self._log_key.name]
        witnesses = [key.name for key in self._witnesses if _signature(one.note, key) == "good"]
        by = f"signed by {', '.join(log + witnesses) or 'nobody that is known here'}"
        if size > self._size:
            why = f"{one.name} ({by}) covers {size} entries, and this ledger has {self._size}"
            self._findings.add("rolled_back", self._size, why)
        elif self._roots[size] != one.checkpoint.root:
            why = f"{one.name} ({by}) has another root for the first {size} entries"
            self._findings.add("fork", None, why)
        else:
            return bool(log)
        if witnesses:
            why = f"{', '.join(witnesses)} co-signed {one.name}, which this ledger does not continue"
            self._findings.add("witness_conflict", None, why)
        return False

    # --- keys --------------------------------------------------------------------------------------------------------

    def _in_force(self, size: int) -> VerifierKey | None:
        enrolled = [key for index, key in self._keys if index < size]
        return enrolled[-1] if enrolled else self._log_key

    def _check_newest(self, newest: Signed, good: Sequence[Signed]) -> None:
        size = newest.checkpoint.size
        if self._size > size:
            why = f"entries {size} to {self._size - 1} are not covered by any checkpoint"
            self._findings.add("unsigned_entry", size, why)
        self._check_rotations(size, good)
        for key in self._witnesses:
            state = _signature(newest.note, key)
            if state == "bad":
                self._findings.add("bad_signature", None, f"the co-signature of {key.name} on {newest.name} is not its")
            elif state == "absent":
                self._findings.add("witness_missing", None, f"{newest.name} is not co-signed by {key.name}")

    def _check_rotations(self, size: int, good: Sequence[Signed]) -> None:
        keys = [(index, key) for index, key in self._keys if index < size]
        anchor = 0
        if self._log_key is not None and keys:
            places = [place for place, (_, key) in enumerate(keys) if key == self._log_key]
            if not places:
                why = f"the pinned key {self._log_key.encode()} was never enrolled in this ledger"
                self._findings.add("unknown_key", None, why)
                return
            anchor = places[0]
        for (_, old), (index, new) in zip(keys[anchor:], keys[anchor + 1 :], strict=False):
            if not any(one.checkpoint.size > index and _both(one.note, old, new) for one in good):
                why = f"no checkpoint here is signed by {old.encode()} and by its successor, {new.encode()}"
                self._findings.add("unproved_rotation", index, why)

    def _judged(self, one: Signed) -> Judged:
        keys = [key for _, key in self._keys] or ([self._log_key] if self._log_key else [])
        signed_by = tuple(key.encode() for key in keys if _signature(one.note, key) == "good")
        cosigned = []
        for key in self._witnesses:
            if _signature(one.note, key) == "good":
                cosigned.append((key.name, one.note.verify([key])[0].at))
        checkpoint = one.checkpoint
        return Judged(one.name, checkpoint.size, checkpoint.root.hex(), signed_by, tuple(cosigned))


def _parsed(findings: Findings, enrolled: Sequence[EnrolledKey]) -> list[tuple[int, VerifierKey]]:
    found = []
    for one in enrolled:
        try:
            found.append((one.index, VerifierKey.parse(one.verifier_key)))
        except NoteError as error:
            findings.add("bad_facts", one.index, f"the enrolled key is none: {shown(str(error))}")
    return found


def _signature(note: Note, key: VerifierKey) -> Literal["good", "bad", "absent"]:
    if not any((one.name, one.key_id) == (key.name, key.key_id) for one in note.signatures):
        return "absent"
    try:
        note.verify([key])
    except NoteError:
        return "bad"
    return "good"


def _both(note: Note, old: VerifierKey, new: VerifierKey) -> bool:
    return _signature(note, old) == "good" and _signature(note, new) == "good"
