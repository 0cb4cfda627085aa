"""Whether a stored row is the entry that it says, and continues the log: looked at before it is mirrored and signed.

Invariants
- Whatever somebody wrote into a row, the answer is the next frontier or ``TamperedError`` with a stable reason.
- What is signed here is what an auditor's reader accepts: canonical bytes of a known kind (``entry_reader.py``).
- A key is enrolled for this log's origin only, and can be read.

This module does not: replay what entries mean (``governance.ledger.replay``), or compare them with what was signed.
"""

from __future__ import annotations

import threading

from governance.ledger import merkle
from governance.ledger.entry_reader import Entry, EntryReader
from governance.ledger.findings import BadEntryError
from governance.ledger.merkle import Frontier
from governance.ledger.notes import ED25519, NoteError, VerifierKey
from governance.ledger.tree_store import Row


class TamperedError(Exception):
    """The database, or what is kept beside it, is not what was signed. ``reason`` is stable; ``detail`` says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class _Readers(threading.local):
    """A reader remembers what it read before, for one thread."""

    def __init__(self) -> None:
        self.entries = EntryReader()


_readers = _Readers()


def checked(frontier: Frontier, row: Row, origin: str | None = None) -> Frontier:
    """The frontier after ``row``. ``origin``: the log's, where it is known.

    Raises ``TamperedError`` unless the row's parts belong together and continue the tree.
    """
    if row.index != frontier.size:
        raise TamperedError("entries_missing", f"entry {frontier.size} is gone")
    leaf = merkle.leaf_hash(row.body)
    if leaf != row.leaf_hash:
        raise TamperedError("rewritten", f"entry {row.index} does not have the hash that is stored beside it")
    after, completed = frontier.append(leaf)
    if b"".join(completed) != row.subtrees:
        raise TamperedError("tree_damaged", f"the subtrees beside entry {row.index} are not its own")
    try:
        entry = _readers.entries.read(row.body)
    except BadEntryError as error:
        raise TamperedError("malformed_entry", f"entry {row.index}: {error}") from error
    if (entry.index, entry.kind, entry.at, dict(entry.subjects)) != (row.index, row.kind, row.at, dict(row.subjects)):
        raise TamperedError("columns_changed", f"the columns beside entry {row.index} say something else than it does")
    if entry.kind == "key_enrolled":
        _check_key(entry, origin)
    return after


def _check_key(entry: Entry, origin: str | None) -> None:
    named = entry.facts.get("origin")
    try:
        key = VerifierKey.parse(str(entry.facts.get("verifier_key")))
    except NoteError as error:
        raise TamperedError("unknown_key", f"entry {entry.index} enrols a key that cannot be read: {error}") from error
    if key.kind != ED25519 or key.name != named or origin not in (None, named):
        raise TamperedError("unknown_key", f"entry {entry.index} enrols a key that is not this log's")
