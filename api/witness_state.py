"""What a witness knows and may sign: c2sp.org/tlog-witness without HTTP.

Invariants
- For each log it cosigns one history only: a checkpoint must continue the last one that it cosigned, by proof.
- What it is about to cosign is on disk before the cosignature exists. A record that cannot be read ends its service:
  it never starts again from nothing.
- Requests are decided one after another.
- Of a log's trusted keys (the operator's list, oldest first) those older than the newest that signed the last cosigned
  checkpoint count no more: a key that was rotated out moves nothing.
- Two roots of one size are a contradiction that the log signed, and are kept as ``evidence``. A checkpoint that its
  proof does not connect may be one, or may have come with a stranger's wrong proof: it is kept apart, once, among the
  ``unproven``, until a checkpoint of its size is cosigned: either it is that one, or it is evidence.

This module does not: listen (``witness.py``), or learn new keys of a log by itself: its operator says which to trust.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from api.errors import OperatorError
from governance.ledger import merkle, notes
from governance.ledger.merkle import EMPTY_ROOT, ProofError
from governance.ledger.notes import COSIGNATURE, ED25519, Checkpoint, Note, NoteError, SignerKey, VerifierKey
from governance.log_files import write_whole

KEY = "witness-key"
TRUSTED = "logs"
SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"
MOST_PROOF_LINES = 63
EVIDENCE = "evidence"
UNPROVEN = "unproven"
_MOST_KEPT = 100  # of each of the two


class WitnessStateError(OperatorError):
    """The witness's folder is unfit; the text says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str
    media_type: str = TEXT_TYPE


class _RefusedError(Exception):
    def __init__(self, status: int, text: str, media_type: str = TEXT_TYPE) -> None:
        super().__init__(text)
        self.answer = Answer(status, text if text.endswith("\n") else f"{text}\n", media_type)


def init(folder: Path, name: str) -> VerifierKey:
    """Makes a witness. Raises ``WitnessStateError`` where there is one."""
    if (folder / KEY).exists():
        raise WitnessStateError(f"{folder} holds a witness already, and it stays as it is")
    try:
        key = SignerKey.generate(name, COSIGNATURE)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(folder / KEY, f"{key.encode()}\n".encode())
    except NoteError as error:
        raise WitnessStateError(str(error)) from error
    except OSError as error:
        raise WitnessStateError(f"{folder} cannot be written: {error.strerror}") from error
    return key.verifier


def trust(folder: Path, text: str) -> VerifierKey:
    """Adds a log's key; a running witness heeds it at once. Raises ``WitnessStateError``."""
    try:
        key = VerifierKey.parse(text.strip())
    except NoteError as error:
        raise WitnessStateError(f"this is no log's key: {error}") from error
    if key.kind != ED25519:
        raise WitnessStateError("this is a witness's key; a log's is needed")
    known = _trusted(folder)
    if key not in known:
        lines = "".join(f"{one.encode()}\n" for one in (*known, key))
        write_whole(folder / TRUSTED, lines.encode())
    return key


class Witness:
    """One process at a time: the folder is locked. ``close`` when done."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """Raises ``WitnessStateError``."""
        self._folder = folder
        self._clock = clock
        self._one_by_one = threading.Lock()
        self._key = _signing_key(folder)
        self._held = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._held)
            raise WitnessStateError(f"a witness runs from {folder} already") from error

    @property
    def key(self) -> VerifierKey:
        return self._key.verifier

    def close(self) -> None:
        os.close(self._held)

    def add_checkpoint(self, request: bytes) -> Answer:
        """The answer to one request. Raises ``WitnessStateError``, ``OSError`` where the folder fails it."""
        try:
            with self._one_by_one:
                return self._cosign(request)
        except _RefusedError as refused:
            return refused.answer

    def _cosign(self, request: bytes) -> Answer:
        old, proof, note = _parsed(request)
        checkpoint = Checkpoint.parse_text(note.text)
        last, last_note = _last(self._folder, checkpoint.origin)
        self._check_signed(note, checkpoint, last_note)
        if old > checkpoint.size:
            raise _RefusedError(400, "the old size is beyond the checkpoint's")
        if old != last.size:
            raise _RefusedError(409, str(last.size), SIZE_TYPE)
        if old == checkpoint.size and last.root != checkpoint.root:
            self._keep(EVIDENCE, checkpoint, request)
            raise _RefusedError(409, str(last.size), SIZE_TYPE)
        try:
            merkle.verify_consistency(old, last.root, checkpoint.size, checkpoint.root, proof)
        except ProofError as error:
            self._keep(UNPROVEN, checkpoint, request)
            raise _RefusedError(422, str(error)) from error
        record = _record(self._folder, checkpoint.origin)
        record.parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(record, note.encode().encode())
        self._settle_unproven(checkpoint)
        return Answer(200, self._key.sign(note.text, int(self._clock())).encode())

    def _check_signed(self, note: Note, checkpoint: Checkpoint, last: Note | None) -> None:
        keys = [key for key in _trusted(self._folder) if key.name == checkpoint.origin]
        if not keys:
            raise _RefusedError(404, "this log is not known here")
        if last is not None:
            keys = keys[max((at for at, key in enumerate(keys) if _has_signed(key, last)), default=0) :]
        try:
            note.verify(keys)
        except NoteError as error:
            raise _RefusedError(403, str(error)) from error

    def _keep(self, where: str, checkpoint: Checkpoint, request: bytes) -> None:
        """Once for each checkpoint, whatever proofs it comes with."""
        folder = self._folder / where
        folder.mkdir(mode=0o700, exist_ok=True)
        file = folder / _file_name(checkpoint)
        if not file.exists() and len(os.listdir(folder)) < _MOST_KEPT:
            write_whole(file, request)

    def _settle_unproven(self, cosigned: Checkpoint) -> None:
        for file in (self._folder / UNPROVEN).glob(f"{cosigned.size}-*"):
            if file.name != _file_name(cosigned):  # another root of this size
                self._keep(EVIDENCE, Checkpoint.parse_text(_parsed(file.read_bytes())[2].text), file.read_bytes())
            file.unlink()


def _file_name(checkpoint: Checkpoint) -> str:
    digest = hashlib.sha256(checkpoint.origin.encode() + b"\n" + checkpoint.root)
    return f"{checkpoint.size}-{digest.hexdigest()[:16]}"


def _has_signed(key: VerifierKey, note: Note) -> bool:
    try:
        return bool(note.verify([key]))
    except NoteError:
        return False


def last_cosigned(folder: Path, origin: str) -> Checkpoint:
    """The empty tree for a log that was never cosigned. Raises ``WitnessStateError`` for a damaged record."""
    return _last(folder, origin)[0]


def _last(folder: Path, origin: str) -> tuple[Checkpoint, Note | None]:
    record = _record(folder, origin)
    try:
        note = Note.parse(record.read_bytes())
        found = Checkpoint.parse_text(note.text)
    except FileNotFoundError:
        return Checkpoint(origin, 0, EMPTY_ROOT), None
    except (OSError, NoteError) as error:
        raise WitnessStateError(f"{record} cannot be read; this witness must not go on without it") from error
    if found.origin != origin:
        raise WitnessStateError(f"{record} is another log's; this witness must not go on with it")
    return found, note


def show(folder: Path) -> tuple[VerifierKey, list[tuple[VerifierKey, Checkpoint]]]:
    """The witness's key, and each trusted key with what was last cosigned of its log."""
    return _signing_key(folder).verifier, [(key, last_cosigned(folder, key.name)) for key in _trusted(folder)]


def _parsed(request: bytes) -> tuple[int, list[bytes], Note]:
    head, gap, rest = request.partition(b"\n\n")
    try:
        if not gap:
            raise NoteError("an empty line sets the proof apart from the checkpoint")
        first, *lines = head.decode("ascii").split("\n")
        if not first.startswith("old "):
            raise NoteError("the first line says: old SIZE")
        if len(lines) > MOST_PROOF_LINES:
            raise NoteError(f"a proof has at most {MOST_PROOF_LINES} hashes")
        note = Note.parse(rest)
        Checkpoint.parse_text(note.text)
        return notes.parse_size(first.removeprefix("old ")), [notes.parse_hash(line) for line in lines], note
    except (NoteError, UnicodeError) as error:
        raise _RefusedError(400, f"the request is malformed: {error}") from error


def _record(folder: Path, origin: str) -> Path:
    return folder / "cosigned" / hashlib.sha256(origin.encode()).hexdigest()


def _signing_key(folder: Path) -> SignerKey:
    path = folder / KEY
    try:
        if path.stat().st_mode & 0o077:
            raise WitnessStateError(f"{path} may be read by others: chmod 600 it, and replace it if others had access")
        return SignerKey.parse(path.read_text(encoding="ascii").strip())
    except FileNotFoundError as error:
        raise WitnessStateError(f"there is no witness at {folder}; make one with: pysytff-witness init") from error
    except (OSError, UnicodeError, NoteError) as error:
        raise WitnessStateError(f"{path} holds no signing key that can be read") from error


def _trusted(folder: Path) -> tuple[VerifierKey, ...]:
    path = folder / TRUSTED
    try:
        return tuple(VerifierKey.parse(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeError, NoteError) as error:
        raise WitnessStateError(f"{path} does not list verifier keys: {error}") from error
