"""Checkpoint, keys and proofs over REST, checked as an auditor would: without the node's help."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api.checkpointer import Checkpointer
from governance.ledger import entries, merkle, notes
from governance.ledger.notes import Note, VerifierKey
from governance.log_keys import KeyFile, rotate

from .conftest import Node

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "secrets" / "log-signing-key")


@pytest.fixture
def worker(node_on_each: Node, keys: KeyFile, tmp_path: Path) -> Checkpointer:
    made = Checkpointer(node_on_each.services.database, tmp_path / "ledger", keys)
    made.start()
    return made


def append(node: Node, count: int) -> None:
    with node.services.database.write() as connection, entries.locked(connection) as log:
        for number in range(count):
            log.append("policy_activated", AT, {"sequence": number})


def get(node: Node, path: str, **query: int) -> Any:
    answer = node.call("auditor", "GET", f"/v1/ledger/{path}", params=query)
    assert 200 == answer.status_code, answer.text
    return answer.json()


def checkpoint(node: Node) -> notes.Checkpoint:
    answer = node.call("auditor", "GET", "/v1/ledger/checkpoint")
    assert "text/plain; charset=utf-8" == answer.headers["content-type"]
    trusted = [VerifierKey.parse(one["verifier_key"]) for one in get(node, "keys")["items"]]
    return notes.verify_checkpoint(Note.parse(answer.content), trusted)[0]


def hashes(texts: list[str]) -> list[bytes]:
    return [notes.parse_hash(text) for text in texts]


def test_every_entry_is_proved_to_be_in_the_signed_tree(node_on_each: Node, worker: Checkpointer) -> None:
    append(node_on_each, 20)
    worker.tick()
    signed = checkpoint(node_on_each)
    assert worker.keeper.mirror.size == signed.size
    for entry in get(node_on_each, "entries", limit=100)["items"]:
        proof = get(node_on_each, "proofs/inclusion", index=entry["index"], size=signed.size)
        leaf = notes.parse_hash(proof["leaf_hash"])
        merkle.verify_inclusion(leaf, entry["index"], signed.size, hashes(proof["proof"]), signed.root)
        assert signed.root == notes.parse_hash(proof["root"])


def test_an_older_checkpoint_is_proved_to_be_continued(node_on_each: Node, worker: Checkpointer) -> None:
    before = checkpoint(node_on_each)
    append(node_on_each, 20)
    worker.tick()
    after = checkpoint(node_on_each)
    proof = get(node_on_each, "proofs/consistency", old=before.size, new=after.size)
    merkle.verify_consistency(before.size, before.root, after.size, after.root, hashes(proof["proof"]))


def test_a_rotation_can_be_followed_from_the_old_key(node_on_each: Node, worker: Checkpointer, keys: KeyFile) -> None:
    rotate(node_on_each.services.database, keys, "operator")
    worker.tick()
    append(node_on_each, 1)
    worker.tick()
    old, new = get(node_on_each, "keys")["items"]
    assert old["rotation_checkpoint"] is None
    both = Note.parse(new["rotation_checkpoint"]).verify([VerifierKey.parse(old["verifier_key"])])
    assert [old["verifier_key"]] == [one.key.encode() for one in both]
    assert checkpoint(node_on_each).size > new["from_index"]


def test_before_the_first_checkpoint_there_is_none(node_on_each: Node) -> None:
    answer = node_on_each.call("auditor", "GET", "/v1/ledger/checkpoint")
    assert (404, "not_found") == (answer.status_code, answer.json()["code"])
    assert {"items": [], "witnesses": []} == get(node_on_each, "keys")


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("inclusion", {"index": 0, "size": 10**6}, "query.size"),
        ("inclusion", {"index": 1, "size": 1}, "query.index"),
        ("inclusion", {"index": 0, "size": 0}, "query.index"),
        ("inclusion", {"index": -1, "size": 1}, "query.index"),
        ("inclusion", {"index": 0}, "query.size"),
        ("inclusion", {"index": 0, "size": 2**70}, "query.size"),
        ("consistency", {"old": 0, "new": 10**6}, "query.new"),
        ("consistency", {"old": 1, "new": 0}, "query.old"),
        ("consistency", {"old": "x", "new": 1}, "query.old"),
    ],
)
def test_sizes_that_are_not_there_are_named(
    node_on_each: Node, worker: Checkpointer, path: str, query: dict[str, Any], field: str
) -> None:
    answer = node_on_each.call("auditor", "GET", f"/v1/ledger/proofs/{path}", params=query)
    assert (422, [field]) == (answer.status_code, [one["path"] for one in answer.json()["errors"]])
