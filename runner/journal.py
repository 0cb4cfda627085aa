"""What this runner was permitted to run, kept where a restore of the service's database cannot reach it.

One JSON object a line, in ``journal.jsonl``: ``claimed`` (what the grant is), ``permitted`` (rounds that may run) and
``ended``. After a restore from backup the service may have forgotten debits whose noise was drawn; from this file it
learns of them (privacy rule 11).

Invariants
- A line is on the disk (fsync) before the job hears of what it says, so whatever ran is in the journal.
- One process writes at a time: the file is locked, and a second worker on it refuses to start.
- A grant is claimed once. A permission continues the one before it, within the grant.
- A last line that a crash tore off was never acted on, and is cut away. Any other damage refuses: nobody may guess what
  was permitted.
- Nothing is ever removed. A grant is about half a kilobyte and 150 bytes for each batch of rounds, and an old backup
  may lack any of them.

This module does not: hold anything computed from data, or say anything to the service.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from runner.errors import GrantReplayedError, JournalError
from runner.port import Grant, GrantReport

JOURNAL_FILE: Final = "journal.jsonl"
LOCK_SECONDS: Final = 3.0  # for a worker that was killed a moment ago
_VERSION: Final = 1


class Journal:
    """Opened for writing. Raises ``JournalError`` if another process has it, or if it is damaged."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = directory / JOURNAL_FILE
        self._thread = threading.Lock()
        self._broken = False
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            lock(self._fd, self._path)
            _sync_directory(directory)
            _sync_directory(directory.parent)
            content = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
            self._size = content.rfind(b"\n") + 1
            self._grants = _replay(self._path, content[: self._size])
            if self._size != len(content):
                self._cut()
            # The lock is ours, and a job dies with its worker: nothing of an earlier process is running.
            for grant_id in list(self._grants):
                self.ended(grant_id)
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        with self._thread:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    def reports(self) -> list[GrantReport]:
        """In the order in which the grants were claimed."""
        with self._thread:
            return [known.report for known in self._grants.values()]

    def claimed(self, grant: Grant) -> None:
        """Raises ``GrantReplayedError`` for a grant that was claimed before: it may have run."""
        if grant.grant_id in self._grants:
            raise GrantReplayedError(grant.grant_id)
        self._append(
            "claimed",
            grant=grant.grant_id,
            run=grant.run_id,
            fencing_token=grant.fencing_token,
            versions=list(grant.data.version_handles),
            sampling_probability=grant.parameters.sampling_probability,
            noise_multiplier=grant.parameters.noise_multiplier,
            rounds=grant.parameters.rounds,
        )

    def permitted(self, grant_id: str, first_round: int, rounds: int) -> None:
        """Before the job hears of it. Raises ``JournalError``; then these rounds must not run."""
        self._append("permitted", grant=grant_id, first_round=first_round, rounds=rounds)

    def ended(self, grant_id: str) -> None:
        """Idempotent."""
        if not self._grants[grant_id].report.ended:
            self._append("ended", grant=grant_id)

    def heal(self) -> bool:
        """Whether it can be written. After a failed write it tries: nothing is claimed until this is true."""
        with self._thread:
            if self._broken:
                try:
                    self._cut()
                except OSError:
                    return False
                self._broken = False
            return True

    def _append(self, kind: str, **fields: Any) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"v": _VERSION, "kind": kind, "at": at, **fields}
        with self._thread:
            if self._broken:
                raise JournalError(self._path, "an earlier write to it failed")
            after = _after(self._path, self._grants, line)
            try:
                _write(self._fd, json.dumps(line, allow_nan=False).encode() + b"\n", self._size)
                os.fsync(self._fd)
            except OSError as error:
                # What is on the disk is unknown now. It is cut off before anything else is written.
                self._broken = True
                raise JournalError(self._path, f"cannot be written: {error.strerror}") from error
            self._size = os.fstat(self._fd).st_size
            self._grants[after.report.grant_id] = after

    def _cut(self) -> None:
        os.ftruncate(self._fd, self._size)
        os.fsync(self._fd)


def read_reports(directory: Path) -> list[GrantReport]:
    """What the journal says, also while a worker writes it. Raises ``JournalError``."""
    path = directory / JOURNAL_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise JournalError(path, f"cannot be read: {error.strerror}") from error
    return [known.report for known in _replay(path, content[: content.rfind(b"\n") + 1]).values()]


@dataclass(frozen=True, slots=True)
class _Known:
    report: GrantReport
    rounds: int  # of the whole grant


def _replay(path: Path, content: bytes) -> dict[str, _Known]:
    grants: dict[str, _Known] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            document = json.loads(line)
            known = _after(path, grants, document)
        except (JournalError, ValueError, TypeError, KeyError, AttributeError) as error:
            # A permission that cannot be read is one that nobody would ever report.
            raise JournalError(
                path, f"line {number} is damaged; keep the file for a reconciliation by hand, and move it away to start"
            ) from error
        grants[known.report.grant_id] = known
    return grants


def _after(path: Path, grants: Mapping[str, _Known], line: Mapping[str, Any]) -> _Known:
    """What is known of a grant after this line. Raises ``JournalError`` for a line that cannot follow."""
    if line["v"] != _VERSION:
        raise JournalError(path, f"version {line['v']!r} is not {_VERSION}")
    grant_id, before = _text(line["grant"]), grants.get(line["grant"])
    match line["kind"]:
        case "claimed" if before is None:
            return _claimed(grant_id, line)
        case "permitted" if before is not None and not before.report.ended:
            first, rounds = _count(line["first_round"]), _count(line["rounds"])
            if first == before.report.rounds_permitted and 1 <= rounds <= before.rounds - first:
                return replace(before, report=replace(before.report, rounds_permitted=first + rounds))
        case "ended" if before is not None:
            return replace(before, report=replace(before.report, ended=True))
    raise JournalError(path, f"{line['kind']!r} cannot follow for grant {grant_id!r}")


def _claimed(grant_id: str, line: Mapping[str, Any]) -> _Known:
    report = GrantReport(
        grant_id=grant_id,
        run_id=_text(line["run"]),
        fencing_token=_count(line["fencing_token"]),
        version_handles=tuple(_text(handle) for handle in line["versions"]),
        sampling_probability=float(line["sampling_probability"]),
        noise_multiplier=float(line["noise_multiplier"]),
        rounds_permitted=0,
        ended=False,
    )
    return _Known(report, _count(line["rounds"]))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("not a count")
    return value


def lock(fd: int, path: Path) -> None:
    """For this process alone, until it closes ``fd`` or ends. Raises ``JournalError`` if another keeps it."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise JournalError(
                    path, "another worker has it; give each its own PYSYTFF_JOURNAL_DIR and PYSYTFF_SCRATCH_DIR"
                ) from error
        time.sleep(0.05)


def _write(fd: int, content: bytes, at: int) -> None:
    while content:
        written = os.pwrite(fd, content, at)
        content, at = content[written:], at + written


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
