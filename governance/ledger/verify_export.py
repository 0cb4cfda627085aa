"""Streams an export: its lines, the order of its entries, its tree, and how it compares with an earlier export.

Invariants
- Memory is bounded: one line at a time, none longer than an entry can be.
- The tree is over the lines' own bytes, whatever they hold.

This module does not: know what entries mean, or check signatures.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import BinaryIO

from governance.ledger.chain import leaf_hash
from governance.ledger.entry_reader import MAX_LINE
from governance.ledger.findings import Findings
from governance.ledger.merkle import Frontier

_MOST_GAPS = 1000


def lines(file: BinaryIO) -> Iterator[bytes]:
    """Without their ends. What is longer than an entry can be is cut off, so that no reader takes it for one."""
    while line := file.readline(MAX_LINE + 2):
        if line.endswith(b"\n"):
            yield line[:-1]
        else:
            yield line
            while len(line) == MAX_LINE + 2 and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE + 2)


class Order:
    """Whether indexes are 0, 1, 2, …; what is missing, moved or repeated."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._next = 0
        self._gaps: dict[int, int] = {}  # first missing index: how many

    def see(self, index: int) -> None:
        if index == self._next:
            self._next += 1
        elif index > self._next:
            if len(self._gaps) < _MOST_GAPS:
                self._gaps[self._next] = index - self._next
            self._next = index + 1
        else:
            self._late(index)

    def skip(self) -> None:
        """A line that could not be read: it stands where the next entry should."""
        self._next += 1

    def _late(self, index: int) -> None:
        for first, count in self._gaps.items():
            if first <= index < first + count:
                del self._gaps[first]
                if index > first:
                    self._gaps[first] = index - first
                if index + 1 < first + count:
                    self._gaps[index + 1] = first + count - index - 1
                self._findings.add("reordered_entry", index, f"entry {index} comes later than its place")
                return
        self._findings.add("repeated_entry", index, f"entry {index} occurs again")

    def finish(self) -> None:
        for first, count in sorted(self._gaps.items()):
            what = f"entry {first} is" if count == 1 else f"entries {first} to {first + count - 1} are"
            self._findings.add("missing_entry", first, f"{what} not in the export")


class Tree:
    """The tree over the lines, with its roots at the sizes that somebody has signed."""

    def __init__(self, sizes: Collection[int]) -> None:
        self._wanted = frozenset(sizes)
        self._frontier = Frontier.empty()
        self.roots: dict[int, bytes] = {}
        self._keep()

    def add(self, line: bytes) -> bytes:
        """The line's leaf hash."""
        leaf = leaf_hash(line)
        self._frontier = self._frontier.append(leaf)[0]
        if self._frontier.size in self._wanted:
            self._keep()
        return leaf

    def _keep(self) -> None:
        self.roots[self._frontier.size] = self._frontier.root()

    @property
    def size(self) -> int:
        return self._frontier.size

    def root(self) -> bytes:
        return self._frontier.root()


class Earlier:
    """Compares an export with an earlier one, line by line."""

    def __init__(self, file: BinaryIO, findings: Findings) -> None:
        self._lines = lines(file)
        self._findings = findings
        self._position = 0
        self._first: int | None = None  # that differs
        self._differing = 0
        self._same_after = 0
        self.ended = False

    def see(self, line: bytes) -> None:
        if self.ended:
            return
        earlier = next(self._lines, None)
        if earlier is None:
            self.ended = True
        elif earlier != line:
            self._differing += 1
            if self._first is None:
                self._first = self._position
        elif self._first is not None:
            self._same_after += 1
        self._position += 1

    def finish(self, size: int) -> None:
        """``size``: entries of the new export."""
        left = 0 if self.ended else sum(1 for _ in self._lines)
        if left:
            why = f"the ledger ends with {size} entries, and the earlier export has {left} more"
            self._findings.add("rolled_back", size, why)
        if self._first is None:
            return
        if self._same_after or self._differing == 1:
            why = f"entry {self._first} is not the one in the earlier export ({self._differing} differ in all)"
            self._findings.add("changed_entry", self._first, why)
        else:
            why = f"from entry {self._first} on, this is another history than the earlier export's"
            self._findings.add("fork", self._first, why)
