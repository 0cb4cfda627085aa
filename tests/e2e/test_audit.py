"""An auditor with nothing but what REST gives: the odometer comes out the same, and a changed byte is found."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from typing import Any

import pytest

from accountant.codec import canonical_bytes
from governance.ledger.notes import Checkpoint, Note, VerifierKey
from governance.ledger.verify import Known, Report, verify
from governance.ledger.verify_signatures import Signed
from governance.ledger.verify_signatures import read as read_checkpoint
from tests.e2e.nodes import DemoNode, Json, Person
from tests.e2e.programs import wait_until

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


def verified(entries: Entries, *checkpoints: Signed, log_key: VerifierKey | None = None) -> Report:
    """``pysytff-verify``, with the leaf hashes that REST gives."""
    bodies = b"".join(body + b"\n" for _, body, _ in entries)
    leaves = None if checkpoints else [leaf for _, _, leaf in entries]
    return verify(io.BytesIO(bodies), Known(checkpoints=checkpoints, log_key=log_key, leaf_hashes=leaves))


def _parsed(body: bytes) -> Any:
    return json.loads(body)


def test_the_odometer_recomputed_from_the_entries_is_the_nodes_to_the_last_bit(history: DemoNode) -> None:
    report = verified(read(history.auditor))
    (ours,) = report.populations
    theirs = history.budget()

    assert [] == report.findings.kept
    assert (theirs["spent_epsilon"], theirs["committed_epsilon"], theirs["guarantee_epsilon"], theirs["delta"]) == (
        ours.spent_epsilon,
        ours.committed_epsilon,
        ours.epsilon,
        ours.delta,
    )
    assert 0.0 < ours.spent_epsilon <= ours.committed_epsilon <= 8.0


def test_the_entries_are_those_of_the_nodes_signed_checkpoint(history: DemoNode) -> None:
    entries = read(history.auditor)
    key = VerifierKey.parse(history.auditor.read("/v1/ledger/keys")["items"][-1]["verifier_key"])

    def newest() -> bytes:
        return history.auditor.call("GET", "/v1/ledger/checkpoint").content

    def covers_all() -> bool:
        return Checkpoint.parse_text(Note.parse(newest()).text).size == len(entries)

    wait_until(covers_all, "the newest entries are signed")
    checkpoint = read_checkpoint("checkpoint", "checkpoint", newest())
    assert [] == verified(entries, checkpoint, log_key=key).findings.kept
    changed = [*entries[:-1], (entries[-1][0], entries[-1][1].replace(b'"v":1', b'"v":2'), b"")]
    assert "root_mismatch" in verified(changed, checkpoint, log_key=key).findings.counts


def test_indexes_are_dense_and_bytes_are_canonical(history: DemoNode) -> None:
    entries = read(history.auditor)

    assert list(range(len(entries))) == [index for index, _, _ in entries]
    assert [body for _, body, _ in entries] == [canonical_bytes(_parsed(body)) for _, body, _ in entries]


def test_one_changed_byte_in_any_entry_is_found_and_its_entry_is_named(history: DemoNode) -> None:
    entries = read(history.auditor)
    for position, (index, body, leaf_hash) in enumerate(entries):
        middle = len(body) // 2
        changed = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        report = verified([*entries[:position], (index, changed, leaf_hash), *entries[position + 1 :]])
        assert [index] == [one.index for one in report.findings.kept if one.code == "changed_entry"]


def test_an_entry_that_is_left_out_is_found(history: DemoNode) -> None:
    entries = read(history.auditor)
    for position in range(len(entries) - 1):
        report = verified([*entries[:position], *entries[position + 1 :]])
        assert [position] == [one.index for one in report.findings.kept if one.code == "missing_entry"]


def test_a_charge_below_its_events_cost_is_found_even_with_a_leaf_hash_to_match(history: DemoNode) -> None:
    entries = read(history.auditor)
    position, entry = next(
        (position, entry)
        for position, (_, body, _) in enumerate(entries)
        if (entry := _parsed(body))["kind"] == "decision" and entry["facts"]["charge"] is not None
    )
    charge = entry["facts"]["charge"]
    charge["units_per_round"] = [str(int(units) * 999 // 1000) for units in charge["units_per_round"]]
    body = canonical_bytes(entry)
    entries[position] = (entry["index"], body, hashlib.sha256(b"\x00" + body).digest())

    assert {"under_charged": 1} == dict(verified(entries).findings.counts)


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
