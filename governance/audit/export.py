"""The ledger as JSON Lines, CSV or Parquet, in parts of bounded size.

Invariants
- JSON Lines are the entries' bodies verbatim, one a line: what ``pysytff-verify`` reads. CSV and Parquet hold the same
  bodies in a column, and columns for what a spreadsheet filters by.
- An export ends at the size of the log when it began, so it is of one tree, however long its reader takes.
- Memory is bounded by a few hundred entries, whatever the ledger's length.

This module does not: read the database (it is given pages of entries), or know HTTP.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from governance.model import LedgerEntry, timestamp

Page = Iterable[LedgerEntry]
FORMATS = {"jsonl": "application/jsonl", "csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
COLUMNS = (
    "index",
    "kind",
    "at",
    "population_id",
    "project_id",
    "researcher_id",
    "dataset_id",
    "run_id",
    "outcome",
    "rounds",
    "leaf_hash",
    "body",
)


@dataclass(frozen=True, slots=True)
class Export:
    """``parts`` is read once. ``size``: of the log it is of; ``entries``: how many it holds, None where not known."""

    media_type: str
    size: int
    from_index: int
    entries: int | None
    parts: Iterator[bytes]


def jsonl(pages: Iterable[Page]) -> Iterator[bytes]:
    for page in pages:
        yield b"".join([entry.body + b"\n" for entry in page])


def as_csv(pages: Iterable[Page]) -> Iterator[bytes]:
    """RFC 4180, with a header. An empty cell: the entry is about no such thing."""
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(COLUMNS)
    for page in pages:
        rows.writerows([[_row(entry)[column] for column in COLUMNS] for entry in page])
        yield _taken(text)
    yield _taken(text)


def parquet(pages: Iterable[Page], size: int) -> Iterator[bytes]:
    """One row group a page. The file's metadata have ``ledger_size``."""
    import pyarrow as pa  # takes a moment, and only exports need it
    import pyarrow.parquet as pq

    integers = {"index", "rounds"}
    fields = [pa.field(name, pa.int64() if name in integers else pa.string()) for name in COLUMNS if name != "at"]
    fields.insert(COLUMNS.index("at"), pa.field("at", pa.timestamp("us", tz="UTC")))
    schema = pa.schema(fields, metadata={"ledger_size": str(size)})
    sink = _Sink()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for page in pages:
            rows = [_row(entry) | {"at": entry.at} for entry in page]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            yield sink.take()
    yield sink.take()


def _row(entry: LedgerEntry) -> dict[str, Any]:
    facts = json.loads(entry.body)["facts"]
    return {
        "index": entry.index,
        "kind": entry.kind,
        "at": timestamp(entry.at),
        "population_id": entry.population_id,
        "project_id": entry.project_id,
        "researcher_id": entry.researcher_id,
        "dataset_id": entry.dataset_id,
        "run_id": entry.run_id,
        "outcome": facts.get("outcome"),
        "rounds": next((facts[name] for name in ("rounds", "rounds_released", "rounds_held") if name in facts), None),
        "leaf_hash": entry.leaf_hash.hex(),
        "body": entry.body.decode(),
    }


def _taken(text: io.StringIO) -> bytes:
    taken = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return taken


class _Sink(io.RawIOBase):
    """What a writer wrote since it was last taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._written += len(part)
        return len(part)

    def tell(self) -> int:
        return self._written

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken
