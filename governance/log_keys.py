"""The log's signing keys: a file for its owner alone, and entries that say from where on each is in force.

Invariants
- Private keys are in one file outside the database (0600), oldest first; entries hold verifier keys only.
- A key is in the file, on disk, before the entry that enrols it, and leaves it only when a newer one has signed. What
  fails in between may have been committed, so nothing is taken back: a key too many is harmless, one too few is not.
- Who changes the file holds the lock beside it from before it reads until it has written: both node and command line.
- The key in force for a tree of n entries is that of the last ``key_enrolled`` below n. A checkpoint that is the first
  to hold rotations is signed by the key before them too, so whoever trusts that one can follow.
- The log's name (origin) is that of its first key and never changes.

This module does not: sign checkpoints (``log_keeper.py``), or delete a key that may still have to sign.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from governance.errors import ConflictError, StorageError
from governance.ledger import entries, tree_store
from governance.ledger.database import Connection, Database
from governance.ledger.notes import NoteError, SignerKey, VerifierKey
from governance.log_files import lock, write_whole
from governance.model import utc_now

_PATIENCE_S = 15.0  # a rotation holds the lock while it waits for the database


class UnreadableKeyError(StorageError):
    """An entry enrols a key that cannot be read: no ordinary act wrote it."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A key and the entry that enrolled it: it signs for trees of more than ``index`` entries."""

    index: int
    origin: str
    key: VerifierKey


class KeyFile:
    """The private keys."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[SignerKey]:
        """Oldest first; empty where there is no file. Raises ``StorageError`` for a file that is unfit."""
        try:
            if not self.path.exists():
                return []
            if self.path.stat().st_mode & 0o077:
                raise StorageError(f"{self.path} may be read by others: chmod 600 it, then rotate the log's key")
            return [SignerKey.parse(line) for line in self.path.read_text(encoding="ascii").splitlines()]
        except (OSError, UnicodeError) as error:
            raise StorageError(f"the log's signing key {self.path} cannot be read") from error
        except NoteError as error:
            raise StorageError(f"{self.path} holds no signing keys: {error}; restore it from a backup") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes the file during the block. Raises ``StorageError``."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock(self.path.with_name(f"{self.path.name}.lock"), _PATIENCE_S))
            except OSError as error:  # also that somebody else has it
                raise StorageError(f"the log's signing key {self.path} cannot be locked: {error}") from error
            yield

    def write(self, keys: Sequence[SignerKey]) -> None:
        """In one step. Raises ``StorageError``."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self.path, "".join(key.encode() + "\n" for key in keys).encode())
        except OSError as error:
            raise StorageError(f"the log's signing key {self.path} cannot be written") from error


def new_origin() -> str:
    return f"pysytff.local/{secrets.token_hex(8)}"


def enrolled(connection: Connection) -> list[Enrolled]:
    """Every enrolment, in order. Raises ``UnreadableKeyError`` where an entry names no key."""
    found = []
    for index, body in tree_store.bodies_of_kind(connection, "key_enrolled"):
        try:
            facts = json.loads(body)["facts"]
            found.append(Enrolled(index, facts["origin"], VerifierKey.parse(facts["verifier_key"])))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UnreadableKeyError(f"entry {index} enrols a key and names none that can be read") from error
    return found


def enrol(
    database: Database,
    file: KeyFile,
    by: str,
    origin: str | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> Enrolled:
    """Gives the log its first key; where it has one, makes sure that its private half is here.

    Raises ``StorageError`` if it is not, ``LedgerClosedError``.
    """
    keys = file.read()
    with database.read() as connection:
        found = enrolled(connection)
    if found:
        require_private(found[-1], keys, file.path)
        return found[-1]
    with file.locked():
        keys = file.read()
        if not keys:
            keys = [SignerKey.generate(origin or new_origin())]
            file.write(keys)
        with database.write() as connection, entries.locked(connection) as log:
            if found := enrolled(connection):  # somebody else was first
                require_private(found[-1], keys, file.path)
                return found[-1]
            return _append(log, keys[-1], keys[-1].name, by, clock())


def rotate(database: Database, file: KeyFile, by: str, clock: Callable[[], datetime] = utc_now) -> Enrolled:
    """Enrols a new key. Both sign the next checkpoint; after that the old one is forgotten (``forget_before``).

    Raises ``ConflictError`` where the log has no key yet, ``StorageError``, ``LedgerClosedError``.
    """
    with file.locked():
        before = file.read()
        with database.read() as connection:
            entries.require_open(entries.head(connection))  # before a key is made that nobody needs
            found = enrolled(connection)
        if not found:
            raise ConflictError("the log has no key yet; it gets one when the node starts")
        require_private(found[-1], before, file.path)
        key = SignerKey.generate(found[-1].origin)
        file.write([*before, key])
        with database.write() as connection, entries.locked(connection) as log:
            return _append(log, key, found[-1].origin, by, clock())


def require_private(one: Enrolled, keys: Sequence[SignerKey], path: Path) -> SignerKey:
    """Raises ``StorageError`` if the private half of an enrolled key is not among ``keys``."""
    for key in keys:
        if key.verifier == one.key:
            return key
    raise StorageError(
        f"the log's key in force, {one.key.encode()} (entry {one.index}), is not in {path}: restore that file from a "
        "backup; without it no checkpoint can be signed"
    )


def signers(found: Sequence[Enrolled], previous: int | None, size: int) -> list[Enrolled]:
    """Whose signatures a checkpoint of ``size`` needs, after one of ``previous`` entries (None: it is the first).

    Newest first: the key in force, then those that were in force since the previous checkpoint.
    """
    in_force = [one for one in found if one.index < size]
    if not in_force:
        return []
    if previous is None:
        return [in_force[-1]]
    oldest = max((position for position, one in enumerate(in_force) if one.index < previous), default=0)
    return in_force[oldest:][::-1]


def forget_before(file: KeyFile, key: VerifierKey) -> None:
    """Destroys keys older than ``key``, which signed a checkpoint. Newer ones, not enrolled yet, stay.

    Raises ``StorageError``.
    """
    if _position(file.read(), key):
        with file.locked():
            keys = file.read()
            file.write(keys[_position(keys, key) :])


def _position(keys: Sequence[SignerKey], key: VerifierKey) -> int:
    return next((at for at, one in enumerate(keys) if one.verifier == key), 0)


def _append(log: entries.Log, key: SignerKey, origin: str, by: str, at: datetime) -> Enrolled:
    facts = {"origin": origin, "verifier_key": key.verifier.encode(), "by": by}
    entry = log.append("key_enrolled", at, facts)
    return Enrolled(entry.index, origin, key.verifier)
