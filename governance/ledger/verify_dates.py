"""Whether approvals under a window were made when they say: a window unlocks by the decision's own time.

Three clocks are compared with it: those of later entries, of witnesses (who co-sign a tree after its entries were
appended) and the auditor's own.

Invariants
- Only a date that lets a window open early is looked at, and clocks may differ by a day: a node that waits for a lock,
  or whose clock is set right, is no finding. So a window may be opened a day early unseen.
- Memory does not grow with the entries.

This module does not: judge any other entry's time.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from governance.ledger import facts as read
from governance.ledger.entry_reader import Entry
from governance.ledger.findings import Findings

_APART = timedelta(days=1)
_EARLIEST = datetime.min.replace(tzinfo=UTC) + _APART

Approval = tuple[str, int]  # (at, entry)


class Dates:
    """``sizes``: of trees that somebody may have signed at a known time."""

    def __init__(self, findings: Findings, sizes: Collection[int]) -> None:
        self._findings = findings
        self._sizes = frozenset(sizes)
        self._kept: dict[int, Approval] = {}
        self._latest: Approval | None = None
        self._newest: Approval | None = None  # as ``_latest``, of those that no later entry has contradicted
        self._floor = ""  # no entry is dated earlier than this, unless ``_newest`` is postdated
        self._named: set[int] = set()

    def see(self, entry: Entry, windowed: int | None) -> None:
        """``windowed``: the last approval under a window, this one included."""
        if entry.at < self._floor and self._newest is not None:
            self._name(self._newest, f"entry {entry.index}, appended later, is of {entry.at}")
            self._newest, self._floor = None, ""
        if windowed == entry.index:
            self._approved((entry.at, entry.index))

    def _approved(self, approval: Approval) -> None:
        if self._latest is None or approval[0] > self._latest[0]:
            self._latest = approval
        if self._newest is None or approval[0] > self._newest[0]:
            self._newest = approval
            at = read.moment(approval[0])
            self._floor = _text(at - _APART) if at > _EARLIEST else ""

    def keep(self, size: int) -> None:
        """So many entries were seen."""
        if size in self._sizes and self._latest is not None:
            self._kept[size] = self._latest

    def cosigned(self, size: int, witness: str, at: int) -> None:
        """``at``: seconds since 1970, when the witness signed the tree of so many entries."""
        approval = self._kept.get(size)
        if approval is not None and read.moment(approval[0]).timestamp() - _APART.total_seconds() > at:
            self._name(approval, f"{witness} had co-signed it by {_text(datetime.fromtimestamp(at, UTC))}")

    def finish(self, now: datetime | None) -> None:
        if self._latest is not None and now is not None and read.moment(self._latest[0]) > now + _APART:
            self._name(self._latest, f"now it is {_text(now)}")

    def _name(self, approval: Approval, but: str) -> None:
        at, index = approval
        if index not in self._named:
            self._named.add(index)
            self._findings.add("postdated", index, f"an approval under a window is dated {at}, and {but}")


def _text(moment: datetime) -> str:
    """As entries write it; whole text compares like the time itself."""
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
