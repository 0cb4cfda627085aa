"""Files of the log outside the database: written whole or not at all, and the mirror of every entry's bytes.

Invariants
- ``write_whole`` leaves the old file or the new one, on disk, whatever happens in between.
- The mirror holds one entry's bytes on each line, verbatim and in order: what an export holds. A line is on disk before
  anything is signed over it.
- The mirror's own frontier is kept beside it, so that opening it does not hash a million lines. It is believed only if
  it leads to the root that was signed; otherwise the lines are hashed again.
- Opening changes nothing: a last line that is not ended (a crash cut it off, or somebody writes it now) is left where
  it is and not counted; the next append takes its place. Any other damage is ``MirrorDamagedError``.
- A lock is a file beside what it guards, and is free when its holder ends, however it ends.

This module does not: read the database, or sign.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from governance.ledger import merkle
from governance.ledger.merkle import Frontier
from governance.ledger.notes import Checkpoint

MIRROR = "mirror.jsonl"
STATE = "mirror.state"
DAMAGED = "mirror.damaged"
_LOOK_AGAIN_S = 0.05


class MirrorDamagedError(ValueError):
    """The mirror's lines do not lead to the root that was signed over them."""


def write_whole(path: Path, data: bytes) -> None:
    """For its owner alone. Raises ``OSError``."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(path: Path) -> int | None:
    """The lock's descriptor, to be closed; None if somebody has it. Raises ``OSError``."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def lock(path: Path, patience_s: float) -> Iterator[None]:
    """Holds the lock during the block. Raises ``TimeoutError`` if somebody else keeps it, ``OSError``."""
    ended = time.monotonic() + patience_s
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() >= ended:
            raise TimeoutError(f"{path} is held by another process")
        time.sleep(_LOOK_AGAIN_S)
    try:
        yield
    finally:
        os.close(descriptor)


class Mirror:
    """``frontier``: of the tree over the lines, computed from them."""

    def __init__(self, folder: Path, frontier: Frontier, length: int) -> None:
        self._folder = folder
        self._length = length  # bytes that the lines take
        self.frontier = frontier

    @property
    def size(self) -> int:
        return self.frontier.size

    @staticmethod
    def open(folder: Path, signed: Checkpoint | None, *, verify: bool = False) -> Mirror:
        """The mirror of a folder, new if there is none; ``signed`` is the last checkpoint.

        ``verify``: every line is hashed, whatever was saved beside them. It may hold fewer lines than were signed, if
        somebody cut it: whoever fills it compares the root.
        Raises ``MirrorDamagedError``, ``OSError``.
        """
        path = folder / MIRROR
        if not path.exists():
            return Mirror(folder, Frontier.empty(), 0)
        starts = [(Frontier.empty(), 0)] if verify else [_saved(folder, signed), (Frontier.empty(), 0)]
        for frontier, length in starts:
            mirror = Mirror(folder, frontier, length)
            if mirror._read_on(signed):
                return mirror
        raise MirrorDamagedError(f"{path} does not lead to the root that was signed over its lines")

    @staticmethod
    def lines(folder: Path) -> int:
        """How many lines the file has, fit or not."""
        with (folder / MIRROR).open("rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(2**20), b""))

    @staticmethod
    def anew(folder: Path) -> Mirror:
        """An empty one; what was there stays beside it as evidence."""
        if (folder / MIRROR).exists():
            (folder / MIRROR).replace(folder / DAMAGED)
        (folder / STATE).unlink(missing_ok=True)
        return Mirror(folder, Frontier.empty(), 0)

    def append(self, bodies: Sequence[bytes]) -> None:
        """They are on disk when this returns. Raises ``OSError``; then the mirror is as it was."""
        if any(b"\n" in body for body in bodies):
            raise ValueError("an entry's bytes hold a line break, so they are no canonical JSON")
        frontier = self.frontier
        for body in bodies:
            frontier, _ = frontier.append(merkle.leaf_hash(body))
        data = b"".join(body + b"\n" for body in bodies)
        descriptor = os.open(self._folder / MIRROR, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, self._length)  # what a failed append or a crash left behind
            os.lseek(descriptor, self._length, os.SEEK_SET)
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not self._length:
            sync_folder(self._folder)
        self.frontier, self._length = frontier, self._length + len(data)

    def save(self) -> None:
        """Remembers the frontier, to open the mirror quickly. Raises ``OSError``."""
        state = {
            "size": self.size,
            "bytes": self._length,
            "frontier": base64.b64encode(self.frontier.encode()).decode(),
        }
        temporary = self._folder / f".{STATE}"
        temporary.write_text(json.dumps(state) + "\n")
        temporary.replace(self._folder / STATE)

    def bodies(self) -> Iterator[bytes]:
        """Every entry's bytes, from the first on, as far as this mirror reaches."""
        if not self.size:
            return
        with (self._folder / MIRROR).open("rb") as file:
            for _ in range(self.size):
                yield file.readline().removesuffix(b"\n")

    def _read_on(self, signed: Checkpoint | None) -> bool:
        """Takes in the lines after those that are known. False if they contradict what was signed."""
        frontier, length = self.frontier, self._length
        with (self._folder / MIRROR).open("rb") as file:
            file.seek(length)
            if signed is not None and frontier.size == signed.size and frontier.root() != signed.root:
                return False
            for line in file:
                if not line.endswith(b"\n"):
                    break
                frontier, _ = frontier.append(merkle.leaf_hash(line.removesuffix(b"\n")))
                length += len(line)
                if signed is not None and frontier.size == signed.size and frontier.root() != signed.root:
                    return False
        self.frontier, self._length = frontier, length
        return True


def _saved(folder: Path, signed: Checkpoint | None) -> tuple[Frontier, int]:
    """The frontier that was saved, if it can be compared with what was signed; else the empty one."""
    try:
        state = json.loads((folder / STATE).read_text())
        size, length = state["size"], state["bytes"]
        frontier = Frontier.decode(size, base64.b64decode(state["frontier"], validate=True))
        fits = signed is not None and size <= signed.size and 0 <= length <= (folder / MIRROR).stat().st_size
        with (folder / MIRROR).open("rb") as file:
            file.seek(max(0, length - 1))
            at_a_line = length == 0 or file.read(1) == b"\n"
    except (OSError, ValueError, KeyError, TypeError):
        return Frontier.empty(), 0
    return (frontier, length) if fits and at_a_line else (Frontier.empty(), 0)
