"""Keeps the log honest from outside the database: mirrors every entry, signs checkpoints, names what was tampered with.

Each look (``look``): (1) the head is neither behind the mirror nor on another history; (2) each new row's body, hashes
and columns belong together and continue the tree that was computed here, from bodies; (3) the new bodies are in the
mirror, on disk; (4) the computed root is the stored one; (5) the checkpoint is signed, and on disk.

Invariants
- No root is signed that was not computed here from bodies that are in the mirror.
- No checkpoint follows one that is as large or larger: what was signed is never taken back.
- What does not fit is a ``TamperedError`` with a reason, nothing is signed, and the ledger is to be closed for it.
- Rows that were looked at once are looked at again, some at a time, for ever (``scrub``).

This module does not: talk to witnesses or own a thread (``api/checkpointer.py``), or open a closed ledger.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from governance import log_keys
from governance.errors import StorageError
from governance.ledger import entries, merkle, notes, tree_store
from governance.ledger.database import Connection, Database
from governance.ledger.merkle import Frontier
from governance.ledger.notes import Checkpoint, Note, NoteError, Signature, VerifierKey
from governance.ledger.tree_store import MissingNodeError, StoredNodes
from governance.log_files import Mirror, MirrorDamagedError, lock, write_whole
from governance.log_keys import Enrolled, KeyFile, UnreadableKeyError
from governance.log_rows import TamperedError as TamperedError
from governance.log_rows import checked as checked
from governance.model import utc_now

CHECKPOINT = "checkpoint"
ORIGIN = "origin"  # says that this folder belongs to the log: without it the mirror was lost
ROTATIONS = "rotations"
LOCK = "lock"  # whoever has it may write to the folder
_BATCH = 1000


def begin(
    database: Database,
    folder: Path,
    file: KeyFile,
    by: str,
    origin: str | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> Enrolled:
    """Gives the log its first key, if it has none, and this folder to the log.

    Raises as ``log_keys.enrol`` does, and ``TamperedError`` for a key that nobody can read.
    """
    with database.read() as connection:
        known = _enrolled(connection)
    if not known:
        keys = file.read()
        origin = keys[-1].name if keys else origin or log_keys.new_origin()
        adopt(folder, origin)
    return log_keys.enrol(database, file, by, origin, clock)


def adopt(folder: Path, origin: str) -> None:
    """Makes this folder the log's, for a new log or, after a reconciliation, where the old folder was lost."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(folder / ORIGIN, f"{origin}\n".encode())
    except OSError as error:
        raise StorageError(f"the log's folder {folder} cannot be written") from error


@contextlib.contextmanager
def hold(folder: Path, *, patience_s: float = 5.0) -> Iterator[None]:
    """Keeps every other keeper from this folder during the block: the lock that a running node holds as well.

    A node lets it go within a second after its ledger closed, and takes it again when the ledger is open.
    Raises ``StorageError`` if another process keeps this log for longer than ``patience_s``.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock(folder / LOCK, patience_s))
        except TimeoutError as error:
            raise StorageError(
                f"another process keeps this log ({folder}): a node whose ledger is open, or another command; "
                "end it, and try again"
            ) from error
        except OSError as error:
            raise StorageError(f"the log's folder {folder} cannot be locked") from error
        yield


def read_checkpoint(folder: Path) -> Note | None:
    """The last checkpoint; None before the first. Raises ``NoteError``, ``OSError``."""
    try:
        return Note.parse((folder / CHECKPOINT).read_bytes())
    except FileNotFoundError:
        return None


class LogKeeper:
    """One for each log, in one process. ``open`` first; a failed method may be called again."""

    def __init__(self, database: Database, folder: Path, keys: KeyFile) -> None:
        self._database = database
        self._folder = folder
        self._keys = keys
        self._scrubbed = Frontier.empty()
        self._origin: str | None = None
        self.mirror = Mirror(folder, Frontier.empty(), 0)
        self.note: Note | None = None
        self.signed: Checkpoint | None = None
        self.mirror_rebuilt = False
        self.closed = False  # as of the last look, or closed by this keeper since

    def open(self, *, verify: bool = False) -> None:
        """Reads what was signed and mirrored. The caller holds the log's lock: a damaged mirror is made again.

        ``verify``: hashes the whole mirror again, and is content only if it holds all that was signed, made whole from
        the database where that still has it. Raises ``TamperedError``, ``StorageError``, ``OSError``.
        """
        self._scrubbed = Frontier.empty()
        with self._database.read() as connection:
            known = _enrolled(connection)
            if known and not (self._folder / ORIGIN).exists():
                raise TamperedError("mirror_missing", f"{self._folder} does not hold this log's mirror and checkpoint")
            self._read_signed(known)
            try:
                self.mirror = Mirror.open(self._folder, self.signed, verify=verify)
            except MirrorDamagedError:
                self._rebuild_mirror(connection)
            if verify and self.signed is not None and self.mirror.size < self.signed.size:
                self._check_past(connection, entries.head(connection).size)
                self._take_in(connection, self.signed.size)

    def adopt(self, origin: str) -> None:
        """Makes an empty folder the log's, where the old one was lost for good (reconciliation only)."""
        adopt(self._folder, origin)

    def look(self) -> bool:
        """Takes in what was appended and signs it; True if there is a new checkpoint. Nothing for a closed ledger.

        Raises ``TamperedError``, ``StorageError``, ``OSError``.
        """
        with self._database.read() as connection:
            head = entries.head(connection)
            self.closed = head.closed is not None
            if self.closed:
                return False
            self._check_reach(head.size)
            if head.frontier != self.mirror.frontier:
                self._check_past(connection, head.size)
                self._take_in(connection, head.size)
            if head.frontier != self.mirror.frontier:
                raise TamperedError("tree_damaged", f"the stored tree of {head.size} entries has another root")
            if self.signed is not None and self.signed.size == self.mirror.size:
                return False
            known = _enrolled(connection)
        return self._sign(known)

    def scrub(self, rows: int) -> None:
        """Looks at the next ``rows`` stored rows again, from the first on when all were seen. Raises as ``look``."""
        if self._scrubbed.size >= self.mirror.size:
            self._scrubbed = Frontier.empty()
        if self.closed:
            return
        with self._database.read() as connection:
            stop = min(self._scrubbed.size + rows, self.mirror.size)
            for row in tree_store.rows(connection, self._scrubbed.size, stop):
                self._scrubbed = checked(self._scrubbed, row, self._origin)
        if self._scrubbed.size < stop:
            raise TamperedError("entries_missing", f"entry {self._scrubbed.size} is gone")

    def close_ledger(self, reason: str) -> bool:
        """Nothing is admitted or debited until the ledger is reconciled. False if it was closed already."""
        with self._database.write() as connection:
            closed_now = entries.close(connection, reason)
        self.closed = True
        return closed_now

    def add_cosignatures(self, more: Sequence[Signature]) -> None:
        """Keeps a witness's signatures with the checkpoint. Raises ``OSError``."""
        if self.note is not None and more:
            note = self.note.with_signatures(more)
            write_whole(self._folder / CHECKPOINT, note.encode().encode())
            self.note = note

    def proof_from(self, old: int) -> list[bytes]:
        """Consistency from an older tree to the signed one, checked here before anybody else sees it.

        Raises ``TamperedError`` if the stored tree does not yield it.
        """
        assert self.signed is not None
        with self._database.read() as connection:
            nodes = StoredNodes(connection)
            try:
                old_root = merkle.root_at(old, nodes)
                proof = merkle.consistency_proof(old, self.signed.size, nodes)
                merkle.verify_consistency(old, old_root, self.signed.size, self.signed.root, proof)
            except ValueError as error:  # also MissingNodeError and ProofError
                raise TamperedError("tree_damaged", f"the stored tree yields no proof: {error}") from error
        return proof

    # --- (1) to (5) --------------------------------------------------------------------------------------------------

    def _read_signed(self, known: Sequence[Enrolled]) -> None:
        trusted = [key.verifier for key in self._keys.read()]
        try:
            self.note = read_checkpoint(self._folder)
            self.signed = None
            self._origin = known[0].origin if known else None
            if self.note is not None:
                self.signed, verified = notes.verify_checkpoint(self.note, trusted, self._origin)
                log_keys.forget_before(self._keys, verified[0].key)  # a crash may have come before that
        except NoteError as error:
            raise TamperedError("checkpoint_damaged", f"{self._folder / CHECKPOINT}: {error}") from error

    def _check_reach(self, size: int) -> None:
        """(1) A database and a mirror of the same yesterday agree; the checkpoint of today tells."""
        recorded = max(self.mirror.size, 0 if self.signed is None else self.signed.size)
        if size < recorded:
            raise TamperedError("rolled_back", f"the database has {size} entries, {recorded} were recorded outside")

    def _check_past(self, connection: Connection, size: int) -> None:
        """(1) Raises ``TamperedError`` unless the stored log continues the mirrored one."""
        self._check_reach(size)
        try:
            stored = merkle.frontier_at(self.mirror.size, StoredNodes(connection))
        except MissingNodeError as error:
            raise TamperedError("entries_missing", str(error)) from error
        if stored != self.mirror.frontier:
            raise self._difference(connection)

    def _difference(self, connection: Connection) -> TamperedError:
        """What sets the stored entries apart from those that were mirrored."""
        first, same_again = None, False
        stored = tree_store.rows(connection, 0, self.mirror.size)
        for expected, (row, body) in enumerate(zip(stored, self.mirror.bodies(), strict=False)):
            if row.index != expected:
                return TamperedError("entries_missing", f"entry {expected} is gone")
            if row.body != body and first is None:
                first = expected
            same_again = same_again or (first is not None and row.body == body)
        if first is None:
            return TamperedError("tree_damaged", "the stored hashes are not those of the stored entries")
        if same_again:
            return TamperedError("rewritten", f"entry {first} is not what was recorded")
        return TamperedError("forked", f"from entry {first} on, the entries are others than were recorded")

    def _take_in(self, connection: Connection, size: int) -> None:
        """(2), (3). Batches end at the signed size, where roots must meet even if the mirror had been cut."""
        while self.mirror.size < size:
            stop = min(self.mirror.size + _BATCH, size)
            if self.signed is not None and self.mirror.size < self.signed.size:
                stop = min(stop, self.signed.size)
            frontier, bodies = self.mirror.frontier, []
            for row in tree_store.rows(connection, self.mirror.size, stop):
                frontier = checked(frontier, row, self._origin)
                bodies.append(row.body)
            if frontier.size < stop:
                raise TamperedError("entries_missing", f"entry {frontier.size} is gone")
            if self.signed is not None and stop == self.signed.size and frontier.root() != self.signed.root:
                raise TamperedError("rewritten", f"the first {stop} entries are not those that were signed")
            self.mirror.append(bodies)

    def _rebuild_mirror(self, connection: Connection) -> None:
        """The mirror is damaged; if the stored entries are those that were signed, it is made again from them.

        If they are not, both stay as they are.
        """
        assert self.signed is not None  # otherwise nothing could contradict the mirror
        size, recorded = entries.head(connection).size, max(self.signed.size, Mirror.lines(self._folder))
        if size < recorded:
            raise TamperedError("rolled_back", f"the database has {size} entries; the mirror, {recorded}, is damaged")
        frontier = Frontier.empty()
        for row in tree_store.rows(connection, 0, self.signed.size):
            frontier = checked(frontier, row, self._origin)
        if frontier.size != self.signed.size or frontier.root() != self.signed.root:
            raise TamperedError("rewritten", f"the first {self.signed.size} entries are not those that were signed")
        self.mirror = Mirror.anew(self._folder)
        self.mirror_rebuilt = True
        self._take_in(connection, size)

    def _sign(self, known: Sequence[Enrolled]) -> bool:
        """(5)"""
        if not known or self.mirror.size <= known[0].index:
            return False
        previous = None if self.signed is None else self.signed.size
        if previous is not None and self.mirror.size <= previous:
            raise TamperedError("rolled_back", f"{previous} entries were signed, and {self.mirror.size} are to be now")
        needed = log_keys.signers(known, previous, self.mirror.size)
        checkpoint = Checkpoint(needed[0].origin, self.mirror.size, self.mirror.frontier.root())
        text, private = checkpoint.text(), self._keys.read()
        try:
            signing = [log_keys.require_private(one, private, self._keys.path) for one in needed]
        except StorageError as error:
            raise TamperedError("unknown_key", error.detail) from error
        note = Note(text, tuple(key.sign(text) for key in signing))
        data = note.encode().encode()
        if len(needed) > 1:  # whoever trusts the older key follows to the newer one from here
            (self._folder / ROTATIONS).mkdir(mode=0o700, exist_ok=True)
            for one in needed[:-1]:
                write_whole(self._folder / ROTATIONS / str(one.index), data)
        write_whole(self._folder / CHECKPOINT, data)
        self.note, self.signed = note, checkpoint
        self.mirror.save()
        log_keys.forget_before(self._keys, needed[0].key)
        return True


def _enrolled(connection: Connection) -> list[Enrolled]:
    try:
        return log_keys.enrolled(connection)
    except UnreadableKeyError as error:
        raise TamperedError("unknown_key", error.detail) from error


def cosigned_by(note: Note, key: VerifierKey) -> int | None:
    """When this witness cosigned it, in seconds since 1970; None if it did not."""
    try:
        return note.verify([key])[0].at
    except NoteError:
        return None
