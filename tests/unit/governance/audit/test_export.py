from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq

from governance.audit import export
from governance.ledger.chain import entry_body, leaf_hash
from governance.model import LedgerEntry, timestamp

START = datetime(2026, 1, 1, tzinfo=UTC)


def entry(index: int) -> LedgerEntry:
    at = START + timedelta(seconds=index)
    facts = {"rounds": index, "note": 'quotes " and, commas\nand lines', "outcome": "refused"} if index % 2 else {}
    body = entry_body(index, "decision", timestamp(at), {"population_id": "pop_1"}, facts)
    return LedgerEntry(index, "decision", at, body, leaf_hash(body), "pop_1", None, None, None, None)


def pages(count: int, size: int) -> Iterator[list[LedgerEntry]]:
    for first in range(0, count, size):
        yield [entry(index) for index in range(first, min(first + size, count))]


def test_lines_are_bodies_verbatim() -> None:
    lines = b"".join(export.jsonl(pages(5, 2))).splitlines()
    assert [entry(index).body for index in range(5)] == lines


def test_csv_gives_back_every_body_and_column() -> None:
    text = b"".join(export.as_csv(pages(5, 2))).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert list(export.COLUMNS) == list(rows[0])
    assert [entry(index).body.decode() for index in range(5)] == [row["body"] for row in rows]
    assert [("", ""), ("refused", "1")] == [(row["outcome"], row["rounds"]) for row in rows[:2]]
    assert timestamp(entry(3).at) == rows[3]["at"]


def test_parquet_gives_back_every_body_and_column() -> None:
    content = b"".join(export.parquet(pages(5, 2), 9))
    table = pq.read_table(io.BytesIO(content))
    assert list(export.COLUMNS) == table.column_names
    assert [json.loads(entry(index).body) for index in range(5)] == list(map(json.loads, table["body"].to_pylist()))
    assert [None, 1, None, 3, None] == table["rounds"].to_pylist()
    assert entry(4).at == table["at"].to_pylist()[4]
    assert b"9" == table.schema.metadata[b"ledger_size"]


def test_nothing_is_still_a_file_of_its_kind() -> None:
    assert [] == list(csv.DictReader(io.StringIO(b"".join(export.as_csv([])).decode())))
    assert 0 == pq.read_table(io.BytesIO(b"".join(export.parquet([], 0)))).num_rows


def test_a_long_export_comes_in_parts_as_its_pages_are_read() -> None:
    read: list[int] = []

    def counted() -> Iterator[list[LedgerEntry]]:
        for number, page in enumerate(pages(4_000, 100)):
            read.append(number)
            yield page

    for made in (export.jsonl(counted()), export.as_csv(counted()), export.parquet(counted(), 1)):
        read.clear()
        largest = max(len(part) for part, _ in zip(made, range(10), strict=False))
        assert len(read) <= 11
        assert largest < 100_000
