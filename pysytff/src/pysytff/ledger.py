"""The ledger of a node: entries, odometer, why, what remains, and exports.

Invariants
- Entries come page by page, so a long ledger is read in little memory; an empty page is not the end.
- An export is written whole or not at all: beside its place, flushed, and then moved there.

This module does not: verify. ``pysytff-verify`` does, offline, from an export and its checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pysytff.audit_models import Explanation, Odometer, Remaining
from pysytff.errors import NotFoundError, UnexpectedAnswerError
from pysytff.models import LedgerEntry
from pysytff.transport import Transport

Progress = Callable[[int, "int | None"], None]


@dataclass(frozen=True)
class Exported:
    """``checkpoint``: None where the node has signed none. ``size``: entries of the log that the export is of.
    ``unsigned``: newer entries, which the export leaves out. ``rotations``: the checkpoint of each change of key."""

    file: Path
    checkpoint: Path | None
    size: int
    bytes: int
    unsigned: int = 0
    rotations: tuple[Path, ...] = ()


class Ledger:
    """What ``domain.ledger`` is. Calling it lists entries."""

    def __init__(self, transport: Transport, population_id: Callable[[str], str]) -> None:
        self._transport = transport
        self._population_id = population_id

    def entries(
        self,
        *,
        population_id: str | None = None,
        dataset_id: str | None = None,
        project_id: str | None = None,
        researcher_id: str | None = None,
        run_id: str | None = None,
        kind: str | Sequence[str] | None = None,
        outcome: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[LedgerEntry]:
        """Those that you may see and that every filter admits, oldest first. ``since`` ≤ time < ``until``."""
        given = filters(
            population_id=population_id,
            dataset_id=dataset_id,
            project_id=project_id,
            researcher_id=researcher_id,
            run_id=run_id,
            kind=kind,
            outcome=outcome,
            since=since,
            until=until,
        )
        if newest_first:
            given["order"] = "desc"
        size = None if limit is None else max(1, min(limit, 1000))
        for item in self._transport.items("/v1/ledger/entries", limit=limit, page_size=size, **given):
            yield LedgerEntry.of(item)

    __call__ = entries

    def odometer(
        self,
        population: str,
        *,
        delta: float | None = None,
        as_of_entry: int | None = None,
        scope: str | None = None,
        scope_id: str | None = None,
    ) -> Odometer:
        """What was spent in a population (name or id), at any δ and as of any entry."""
        asked = {"delta": delta, "as_of_entry": as_of_entry, "scope": scope, "scope_id": scope_id}
        known = self._population_id(population)
        return Odometer.of(self._transport.get("/v1/ledger/odometer", population_id=known, **asked))

    def remaining(self, population: str, *, like_run: str | None = None) -> Remaining:
        """How many more runs like that one fit; like the last approved one if left out."""
        known = self._population_id(population)
        return Remaining.of(self._transport.get("/v1/ledger/remaining", population_id=known, like_run=like_run))

    def explain(self, decision_id: str) -> Explanation:
        """Why a request was refused, clamped or approved. A refusal names its decision."""
        return Explanation.of(self._transport.get(f"/v1/decisions/{decision_id}/explanation"))

    def export(
        self,
        file: Path | str,
        *,
        format: str = "jsonl",
        from_index: int | None = None,
        progress: Progress = lambda done, total: None,
        **given: Any,
    ) -> Exported:
        """Writes the ledger to ``file``, and the checkpoint to ``file.checkpoint``, each whole or not at all.

        ``format``: jsonl (the log as far as that checkpoint goes, for ``pysytff-verify``; where the log's key changed,
        the checkpoint that shows it goes to ``file.rotation-INDEX``), csv or parquet, which take the filters of
        ``entries``. ``progress`` gets the entries written so far, or bytes where their number is not known, and how
        many there will be. Raises ``UnexpectedAnswerError`` if the export is not as long as the node said.
        """
        path = Path(file)
        checkpoint = self._checkpoint()  # first: what the log gets meanwhile is not signed, and is left out
        signed = _signed_size(checkpoint) if checkpoint is not None and format == "jsonl" else None
        seen = {"bytes": 0, "lines": 0}
        told: dict[str, str] = {}

        def count(part: bytes) -> None:
            seen["bytes"] += len(part)
            seen["lines"] += part.count(b"\n")
            total = int(told["ledger-entries"]) if "ledger-entries" in told else None
            progress(seen["bytes"] if total is None else seen["lines"], total)

        with written_whole(path) as write:
            wanted = None if signed is None else max(0, signed - (from_index or 0))
            keep = _first_lines(write, wanted)

            def take(part: bytes) -> None:
                keep(part)
                count(part)

            asked = {"format": format, "from_index": from_index, **filters(**given)}
            self._transport.download("/v1/ledger/export", told.update, take, **asked)
            if "ledger-entries" in told and int(told["ledger-entries"]) != seen["lines"]:
                raise UnexpectedAnswerError(
                    f"the export has {seen['lines']} entries, the node said {told['ledger-entries']}: try again"
                )
        beside = None if checkpoint is None else _written(path, "checkpoint", checkpoint)
        rotations = self._rotations(path, signed) if signed is not None else ()
        size = int(told.get("ledger-size", 0))
        unsigned = 0 if signed is None else max(0, size - signed)
        return Exported(path, beside, size - unsigned, path.stat().st_size, unsigned, rotations)

    def _rotations(self, path: Path, signed: int) -> tuple[Path, ...]:
        keys = self._transport.get("/v1/ledger/keys")["items"]
        rotated = [one for one in keys if one["rotation_checkpoint"] is not None and one["from_index"] < signed]
        return tuple(
            _written(path, f"rotation-{one['from_index']}", one["rotation_checkpoint"].encode()) for one in rotated
        )

    def _checkpoint(self) -> bytes | None:
        try:
            return self._transport.request("GET", "/v1/ledger/checkpoint", retry=True).content
        except NotFoundError:
            return None  # nothing was signed yet


def _signed_size(checkpoint: bytes) -> int:
    try:
        return int(checkpoint.split(b"\n", 2)[1])
    except (IndexError, ValueError) as error:
        raise UnexpectedAnswerError("the node's checkpoint names no size: is it a PySyTFF node?") from error


def _first_lines(write: Callable[[bytes], object], count: int | None) -> Callable[[bytes], None]:
    """Passes on so many lines, in whatever parts they come; None: all."""
    left = count

    def take(part: bytes) -> None:
        nonlocal left
        if left is not None:
            ends = part.count(b"\n")
            if ends >= left:
                stop = 0
                for _ in range(left):
                    stop = part.index(b"\n", stop) + 1
                part, ends = part[:stop], left
            left -= ends
        write(part)

    return take


def _written(path: Path, what: str, content: bytes) -> Path:
    """``content`` in a file of its own beside ``path``."""
    beside = path.with_name(f"{path.name}.{what}")
    with written_whole(beside) as write:
        write(content)
    return beside


def filters(**given: Any) -> dict[str, Any]:
    """As the node's query takes them; what is None is left out."""
    asked: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name, sent in (("since", "from"), ("until", "to")):
        if name in asked:
            asked[sent] = moment(asked.pop(name))
    return asked


def moment(at: datetime) -> str:
    """RFC 3339. A time without an offset is taken for UTC, and not for the time where this machine stands."""
    return (at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at).isoformat()


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Callable[[bytes], object]]:
    """Writes to a file beside ``path``, for its owner's eyes, and moves it there in the end; leaves nothing behind if
    that fails."""
    descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as out:
            yield out.write
            out.flush()
            os.fsync(out.fileno())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
