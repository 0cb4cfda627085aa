"""One line as an entry: whatever is read means the same to every reader, and nothing breaks the reader."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from governance.ledger.chain import entry_body
from governance.ledger.entry_reader import MAX_LINE, EntryReader
from governance.ledger.findings import BadEntryError
from tests.unit.governance.ledger.made_ledger import every_end

AT = "2026-01-02T00:00:00.000000Z"
BODY = entry_body(3, "debit", AT, {"run_id": "run_1"}, {"rounds": 5, "q": 0.05})
REAL = every_end().bodies()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def _integer(token: str) -> float:
    """RFC 8785 numbers are floats: 1e20 is written with all its digits."""
    return int(token) if abs(int(token)) < 2**53 else float(token)


def refusal(line: bytes) -> str:
    with pytest.raises(BadEntryError) as caught:
        EntryReader().read(line)
    return caught.value.code


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), JSON, max_size=4))
@example({"a": 5e-05, "b": "5e-05", "c": 1.5e-05})
@example({"a": 1e20, "b": 1e21, "\U0001f600": 1, "\ue000": 2})
def test_every_canonical_entry_is_read_as_what_it_says(facts: dict[str, Any]) -> None:
    document: Any = {"v": 1, "index": 3, "kind": "debit", "at": AT, "subjects": {"run_id": "run_1"}, "facts": facts}
    line = rfc8785.dumps(document)
    assert json.loads(line, parse_int=_integer)["facts"] == EntryReader().read(line).facts


@given(st.sampled_from([BODY, REAL[2], REAL[5], REAL[7]]), st.data())
def test_what_is_read_is_the_canonical_form_of_itself_however_a_line_is_mangled(
    line: bytes, data: st.DataObject
) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(line)))
        piece = data.draw(
            st.sampled_from([b"", b" ", b"0", b"-", b".0", b"e5", b'"', b"\\u0041", b"\xff", b"{", b",", b"1"])
        )
        line = line[:at] + piece + line[at + data.draw(st.integers(0, 2)) :]
    try:
        EntryReader().read(line)
    except BadEntryError:
        return
    assert rfc8785.dumps(json.loads(line)) == line


@pytest.mark.parametrize(
    "line",
    [
        BODY.replace(b'"rounds":5', b'"rounds":5.0'),
        BODY.replace(b'"rounds":5', b'"rounds":05e0'.replace(b"05", b"5")),
        BODY.replace(b'"rounds":5', b'"rounds": 5'),
        BODY.replace(b'"rounds":5', b'"rounds":-0'),
        BODY.replace(b'"rounds":5', b'"rounds":-0.0'),
        BODY.replace(b'"rounds":5', b'"rounds":9007199254740993'),
        BODY.replace(b'"rounds":5', b'"rounds":' + b"9" * 5000),
        BODY.replace(b'"rounds":5', b'"rounds":1e999'),
        BODY.replace(b'"rounds":5', b'"rounds":NaN'),
        BODY.replace(b'"rounds":5', b'"rounds":Infinity'),
        BODY.replace(b'"rounds":5', b'"rounds":5,"rounds":5'),
        BODY.replace(b'"rounds":5', b'"rounds":7,"rounds":5'),
        BODY.replace(b"0.05", b"0.050"),
        BODY.replace(b"0.05", b"5e-2"),
        BODY.replace(b"0.05", b"0.00005e3"),
        BODY.replace(b"run_1", b"run\\u005f1"),
        BODY.replace(b"run_1", b"run\\/1"),
        BODY + b" ",
        BODY + b"\r",
        b" " + BODY,
        json.dumps(json.loads(BODY)).encode(),
    ],
)
def test_what_is_not_in_canonical_form_is_named(line: bytes) -> None:
    assert "not_canonical" == refusal(line)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\x00",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b"\xff\xfe",
        BODY[:-1],
        BODY + BODY,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'"' + b"x" * (MAX_LINE + 1) + b'"',
        b"9" * 100_000,
        b'"\\ud800"',
        BODY.replace(b'"v":1', b'"v":true'),
        BODY.replace(b'"index":3', b'"index":"3"'),
        BODY.replace(b'"index":3', b'"index":-3'),
        BODY.replace(b'"index":3', b'"index":3.5'),
        BODY.replace(b'"run_1"', b"1"),
        BODY.replace(b'"run_1"', b'""'),
        BODY.replace(b"run_id", b"run_name"),
        BODY.replace(b"2026-01-02T", b"2026-01-02 "),
        BODY.replace(b'"v":1', b'"v":1,"w":1'),
        BODY.replace(b'{"q":0.05,"rounds":5}', b"[]"),
    ],
    ids=range(24),
)
def test_what_is_no_entry_is_named(line: bytes) -> None:
    assert refusal(line) in ("malformed_entry", "not_canonical")


@pytest.mark.parametrize("line", [BODY.replace(b'"debit"', b'"gift"'), BODY.replace(b'"v":1', b'"v":2')])
def test_an_unknown_kind_or_version_is_not_guessed(line: bytes) -> None:
    assert "unknown_kind" == refusal(line)


UNITS = b'"units_per_round":['
DECISION = REAL[5]


@pytest.mark.parametrize(
    "line",
    [
        DECISION.replace(UNITS, UNITS + b" "),
        DECISION.replace(UNITS, UNITS + b"5,"),
        DECISION.replace(UNITS, UNITS + b"[],"),
        DECISION.replace(UNITS, UNITS + b'"\\u0031",'),
        DECISION.replace(b'"]}', b'"]5}'),
        DECISION.replace(b'"]}', b'"]}}'),
        DECISION.replace(b'"]}', b'",]}'),
        DECISION.replace(b'"]}', b'"],"units_per_round":["1"]}'),
        DECISION.replace(b"," + UNITS, b',"units_per_round":null,' + UNITS),
        DECISION.replace(b"," + UNITS, b" ," + UNITS),
    ],
    ids=range(10),
)
def test_a_charge_that_is_written_otherwise_is_read_as_strictly_as_the_rest(line: bytes) -> None:
    assert line != DECISION
    reader = EntryReader()
    assert json.loads(DECISION)["facts"] == reader.read(DECISION).facts
    try:
        found = reader.read(line)
    except BadEntryError:
        return
    assert (rfc8785.dumps(json.loads(line)), json.loads(line)["facts"]) == (line, found.facts)


def test_a_list_of_units_elsewhere_is_not_taken_for_the_charges() -> None:
    for facts in (
        {"a": 1, "units_per_round": ["1", "2"]},
        {"charge": None, "units_per_round": ["1", "2"]},
        {"charge": {"a": 1, "units_per_round": None}, "units_per_round": ["1"]},
        {"other": {"a": 1, "units_per_round": ["1"]}},
        {"a": ',"units_per_round":["1"]', "b": 1},
        {"a": 1, "units_per_round": []},
    ):
        body = entry_body(0, "decision", AT, {}, facts)
        assert facts == EntryReader().read(body).facts


@given(st.sampled_from(REAL))
def test_every_way_of_reading_reads_the_same(body: bytes) -> None:
    entry, document = EntryReader().read(body), json.loads(body)
    assert document | {"v": 1} == {"v": 1} | {name: getattr(entry, name) for name in entry.__dataclass_fields__}


def test_lists_that_no_charge_has_are_read_and_not_remembered() -> None:
    reader, kept = EntryReader(), []
    for units in (["1"] * 512, ["1"] * 513, ["1" * 30_000], ["9" * 39] * 512):
        body = entry_body(0, "decision", AT, {}, {"a": 1, "units_per_round": units})
        first, again = (reader.read(body).facts["units_per_round"] for _ in range(2))
        assert units == first
        kept.append(first is again)
    assert [True, False, False, True] == kept


def test_one_reader_remembers_nothing_of_the_line_before() -> None:
    reader = EntryReader()
    small = entry_body(0, "debit", AT, {}, {"q": 5e-05})
    assert 5e-05 == reader.read(small).facts["q"]
    with pytest.raises(BadEntryError):
        reader.read(small.replace(b"0.00005", b"5e-05"))
    assert 5e-05 == reader.read(small).facts["q"]
