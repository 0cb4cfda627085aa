"""An auditor with nothing but REST entries: the odometer comes out the same, and a changed byte is found."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from accountant.codec import canonical_bytes
from examples.digits.audit import AuditError, recompute
from tests.e2e.nodes import DemoNode, Json, Person

Entries = list[tuple[int, bytes, bytes]]


@pytest.fixture(scope="module")
def history(node: DemoNode) -> DemoNode:
    """With a published run, a cancelled one, and a refusal."""
    first = node.sam.submit(node.request(rounds=5), "audit-published").json()["run_id"]
    second = node.sam.submit(node.request(rounds=120), "audit-cancelled").json()["run_id"]
    assert 200 == node.sam.call("POST", f"/v1/runs/{second}:cancel").status_code
    assert 403 == node.sam.submit(node.request(purpose="marketing"), "audit-refused").status_code
    node.wait_run(first, "published")
    return node


def read(person: Person, **filters: Any) -> Entries:
    """Page by page, as an auditor of a long ledger would."""
    found: Entries = []
    cursor: dict[str, str] = {}
    while True:
        page: Json = person.read("/v1/ledger/entries", limit=4, **filters, **cursor)
        for item in page["items"]:
            body = base64.b64decode(item["body_base64"])
            assert item["body"] == _parsed(body)
            found.append((item["index"], body, bytes.fromhex(item["leaf_hash"])))
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def _parsed(body: bytes) -> Any:
    return json.loads(body)


def test_the_odometer_recomputed_from_the_entries_is_the_nodes_to_the_last_bit(history: DemoNode) -> None:
    ours = recompute(read(history.auditor), history.population_id)
    theirs = history.budget()

    assert (theirs["spent_epsilon"], theirs["committed_epsilon"], theirs["guarantee_epsilon"], theirs["delta"]) == (
        ours.spent_epsilon,
        ours.committed_epsilon,
        ours.guarantee_epsilon,
        ours.delta,
    )
    assert 0.0 < ours.spent_epsilon <= ours.committed_epsilon <= 8.0


def test_indexes_are_dense_and_bytes_are_canonical(history: DemoNode) -> None:
    entries = read(history.auditor)

    assert list(range(len(entries))) == [index for index, _, _ in entries]
    assert [body for _, body, _ in entries] == [canonical_bytes(_parsed(body)) for _, body, _ in entries]


def test_one_changed_byte_in_any_entry_is_found_and_its_entry_is_named(history: DemoNode) -> None:
    entries = read(history.auditor)
    for position, (index, body, leaf_hash) in enumerate(entries):
        middle = len(body) // 2
        changed = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        tampered = [*entries[:position], (index, changed, leaf_hash), *entries[position + 1 :]]
        with pytest.raises(AuditError, match=f"^entry {index}: its bytes are not those of its leaf hash"):
            recompute(tampered, history.population_id)


def test_an_entry_that_is_left_out_is_found(history: DemoNode) -> None:
    entries = read(history.auditor)
    for position in range(len(entries) - 1):
        with pytest.raises(AuditError, match="is out of order"):
            recompute([*entries[:position], *entries[position + 1 :]], history.population_id)


def test_a_charge_below_its_events_cost_is_found_even_with_a_leaf_hash_to_match(history: DemoNode) -> None:
    entries = read(history.auditor)
    position, entry = next(
        (position, entry)
        for position, (_, body, _) in enumerate(entries)
        if (entry := _parsed(body))["kind"] == "decision" and entry["facts"]["charge"] is not None
    )
    charge = entry["facts"]["charge"]
    charge["units_per_round"] = [str(int(units) - 1) for units in charge["units_per_round"]]
    body = canonical_bytes(entry)
    entries[position] = (entry["index"], body, hashlib.sha256(b"\x00" + body).digest())

    with pytest.raises(AuditError, match="was charged less than its event costs"):
        recompute(entries, history.population_id)


def test_neither_the_purpose_nor_a_name_is_in_an_entry(history: DemoNode) -> None:
    everything = b"".join(body for _, body, _ in read(history.auditor))
    people = (b"stargate.net", b"Sam", b"handwriting", b"marketing", b"digit writers")

    assert [] == [text for text in people if text in everything]


def test_a_researcher_reads_the_entries_of_their_own_runs_and_no_names_of_data(history: DemoNode) -> None:
    theirs = read(history.sam)

    assert {"decision", "debit", "publication", "release"} <= {_parsed(body)["kind"] for _, body, _ in theirs}
    assert {history.sam.read("/v1/auth/me")["id"]} == {
        _parsed(body)["subjects"]["researcher_id"] for _, body, _ in theirs
    }
    assert [] == [index for index, body, _ in theirs if b"ver_" in body]


def test_the_owner_reads_the_same_entries_of_the_population(history: DemoNode) -> None:
    population = {"population_id": history.population_id}

    assert read(history.auditor, **population) == read(history.owner, **population)
