"""What anybody who may read the ledger can ask of the log: its checkpoint, its keys, and proofs.

Invariants
- Reads only. Proofs come from the stored tree and prove themselves: a damaged tree yields proofs that do not verify,
  never ones that verify and are wrong.
- A checkpoint is handed out as it was signed, byte for byte.

This module does not: sign, or check the tree (``log_keeper.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from governance import log_keeper, log_keys
from governance.errors import GovernanceError, InvalidRequestError, NotFoundError, StorageError
from governance.ledger import entries, merkle
from governance.ledger.database import Connection, Database
from governance.ledger.merkle import Node
from governance.ledger.notes import Note, NoteError, VerifierKey
from governance.ledger.tree_store import MissingNodeError, StoredNodes


@dataclass(frozen=True, slots=True)
class InclusionProof:
    index: int
    size: int
    leaf_hash: bytes
    root: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    old: int
    new: int
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LogKey:
    """``from_index``: the entry that enrolled it. ``rotation``: the checkpoint that it and the key before it signed."""

    key: VerifierKey
    from_index: int
    rotation: str | None


@dataclass(frozen=True, slots=True)
class WitnessState:
    """``cosigned_at``: seconds since 1970, None where the last checkpoint lacks its signature."""

    key: VerifierKey
    cosigned_at: int | None


class Transparency:
    """``folder``: what the keeper writes to. ``witnesses``: those that are asked for their signature."""

    def __init__(self, database: Database, folder: Path, witnesses: Sequence[VerifierKey] = ()) -> None:
        self._database = database
        self._folder = folder
        self._witnesses = tuple(witnesses)

    def checkpoint(self) -> str:
        """The last signed note. Raises ``NotFoundError`` before the first."""
        note = self._note()
        if note is None:
            raise NotFoundError("nothing was signed yet; the node signs within about a second of starting")
        return note.encode()

    def keys(self) -> list[LogKey]:
        """Oldest first."""
        with self._database.read() as connection:
            found = log_keys.enrolled(connection)
        return [LogKey(one.key, one.index, self._rotation(one.index)) for one in found]

    def witnesses(self) -> list[WitnessState]:
        note = self._note()
        return [
            WitnessState(key, None if note is None else log_keeper.cosigned_by(note, key)) for key in self._witnesses
        ]

    def inclusion(self, index: int, size: int) -> InclusionProof:
        """Raises ``InvalidRequestError`` for an entry or a tree that is not there."""
        if not 0 <= index < size:
            raise _invalid("index", f"there is no entry {index} among the first {size}")
        known: dict[Node, bytes] = {}
        with self._database.glance() as connection:
            nodes = StoredNodes(connection)

            def fetch(wanted: Sequence[Node]) -> dict[Node, bytes]:
                known.update(nodes([*wanted, (0, index), (0, size - 1)]))  # the last leaf: the tree is that large
                return known

            try:
                proof = merkle.inclusion_proof(index, size, fetch)
                leaf = known[0, index] if known else fetch(())[0, index]
            except MissingNodeError as error:
                raise _missing(connection, "size", size, error) from error
        return InclusionProof(index, size, leaf, merkle.root_of_inclusion(leaf, index, size, proof), tuple(proof))

    def consistency(self, old: int, new: int) -> ConsistencyProof:
        """Raises ``InvalidRequestError`` for trees that are not there."""
        if not 0 <= old <= new:
            raise _invalid("old", f"{old} is not between 0 and {new}")
        with self._database.glance() as connection:
            nodes = StoredNodes(connection)
            try:
                proof = merkle.consistency_proof(old, new, lambda wanted: nodes([*wanted, (0, new - 1)]))
                if not proof and new:
                    nodes([(0, new - 1)])
            except MissingNodeError as error:
                raise _missing(connection, "new", new, error) from error
        return ConsistencyProof(old, new, tuple(proof))

    def _note(self) -> Note | None:
        try:
            return log_keeper.read_checkpoint(self._folder)
        except (OSError, NoteError) as error:
            raise StorageError("the checkpoint cannot be read; the operator's log says more") from error

    def _rotation(self, index: int) -> str | None:
        try:
            return (self._folder / log_keeper.ROTATIONS / str(index)).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError("a rotation's checkpoint cannot be read") from error


def _invalid(name: str, message: str) -> InvalidRequestError:
    hint = "GET /v1/ledger/checkpoint says how many entries are signed"
    return InvalidRequestError(f"{name}: {message}", [{"path": f"query.{name}", "message": message, "hint": hint}])


def _missing(connection: Connection, name: str, size: int, error: MissingNodeError) -> GovernanceError:
    """The tree that was asked for is not there, or not whole."""
    there = entries.size(connection)
    if size > there:
        return _invalid(name, f"the log has {there} entries, not {size}")
    return StorageError(f"the stored tree is damaged: {error}")
