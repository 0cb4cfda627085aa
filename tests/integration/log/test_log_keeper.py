"""The log kept from outside the database: what is signed, and every way of tampering found and named."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from governance import log_keeper, log_keys
from governance.errors import ConflictError, LedgerClosedError, StorageError
from governance.ledger import entries, merkle, notes
from governance.ledger.database import Connection, Database
from governance.ledger.merkle import Frontier
from governance.ledger.notes import Checkpoint, Note, VerifierKey
from governance.ledger.tree_store import StoredNodes
from governance.log_files import Mirror
from governance.log_keeper import LogKeeper, TamperedError
from governance.log_keys import KeyFile

AT = datetime(2026, 1, 1, tzinfo=UTC)
ALL = 10**6


@dataclass
class Kept:
    """A log with its first key, and its keeper."""

    database: Database
    root: Path
    keeper: LogKeeper = field(init=False)
    folder: Path = field(init=False)
    keys: KeyFile = field(init=False)

    def __post_init__(self) -> None:
        self.folder, self.keys = self.root / "ledger", KeyFile(self.root / "secrets" / "log-signing-key")
        log_keeper.begin(self.database, self.folder, self.keys, "operator", "pysytff.local/test")
        self.restart()

    def restart(self) -> LogKeeper:
        self.keeper = LogKeeper(self.database, self.folder, self.keys)
        self.keeper.open()
        return self.keeper

    def append(self, count: int = 1, say: str = "") -> None:
        with self.database.write() as connection, entries.locked(connection) as log:
            for _ in range(count):
                facts = {"scope": "population", "scope_id": "pop_1", "epsilon": 1.0, "by": say or "operator"}
                log.append("quota_set", AT, facts, population_id="pop_1")

    def look(self) -> Checkpoint:
        self.keeper.look()
        assert self.keeper.signed is not None
        return self.keeper.signed

    def key_in_force(self) -> VerifierKey:
        with self.database.read() as connection:
            return log_keys.enrolled(connection)[-1].key

    def reason(self, *, restarted: bool = False) -> str:
        """What the next look finds."""
        with pytest.raises(TamperedError) as caught:
            self.look_at_all(restarted=restarted)
        return caught.value.reason

    def look_at_all(self, *, restarted: bool) -> None:
        keeper = self.restart() if restarted else self.keeper
        keeper.look()
        keeper.scrub(ALL)

    def bodies(self) -> list[bytes]:
        with self.database.read() as connection:
            return [entry.body for entry in entries.select(connection, limit=ALL)]

    def tamper(self, *statements: str, **values: object) -> None:
        """As somebody would who owns the database: guards taken down first."""
        with self.database.write() as connection:
            if self.database.is_sqlite:
                names = sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'ledger_entries'")
                for name in connection.execute(names).scalars().all():
                    connection.execute(sa.text(f"DROP TRIGGER {name}"))
            else:
                connection.execute(sa.text("ALTER TABLE ledger_entries DISABLE TRIGGER ALL"))
            for statement in statements:
                connection.execute(sa.text(statement), values)

    def rewrite(self, changes: dict[int, bytes], *, size: int | None = None, hashes: bool = True) -> None:
        """Puts other bodies in place, cuts the log to ``size``, and (with ``hashes``) makes the stored tree fit."""
        found = self.bodies()[:size]
        frontier = Frontier.empty()
        self.tamper('DELETE FROM ledger_entries WHERE "index" >= :size', size=len(found))
        for index, body in enumerate(found):
            body = changes.get(index, body)
            leaf = merkle.leaf_hash(body)
            frontier, completed = frontier.append(leaf)
            self.tamper('UPDATE ledger_entries SET body = :body WHERE "index" = :at', body=body, at=index)
            if hashes:
                statement = 'UPDATE ledger_entries SET leaf_hash = :leaf, subtrees = :trees WHERE "index" = :at'
                self.tamper(statement, leaf=leaf, trees=b"".join(completed), at=index)
        if hashes:
            self.tamper("UPDATE log_head SET size = :size, frontier = :peaks", size=len(found), peaks=frontier.encode())


@pytest.fixture
def kept(database: Database, tmp_path: Path) -> Kept:
    return Kept(database, tmp_path)


def other(body: bytes) -> bytes:
    document = json.loads(body)
    document["facts"]["by"] = "nobody"
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


# --- signing ---------------------------------------------------------------------------------------------------------


def test_the_first_checkpoint_covers_the_key_and_verifies(kept: Kept) -> None:
    kept.look()
    checkpoint, verified = notes.verify_checkpoint(
        Note.parse((kept.folder / "checkpoint").read_bytes()), [kept.key_in_force()], "pysytff.local/test"
    )
    assert (1, [kept.key_in_force()]) == (checkpoint.size, [one.key for one in verified])
    assert merkle.leaf_hash(kept.bodies()[0]) == checkpoint.root


def test_a_checkpoint_follows_each_growth_and_none_follows_nothing(kept: Kept) -> None:
    first = kept.look()
    kept.append(5)
    assert kept.keeper.look()
    second = kept.look()
    assert 6 == second.size
    assert not kept.keeper.look()
    with kept.database.read() as connection:
        proof = merkle.consistency_proof(1, 6, StoredNodes(connection))
    merkle.verify_consistency(first.size, first.root, second.size, second.root, proof)


def test_the_mirror_holds_every_entrys_bytes(kept: Kept) -> None:
    kept.append(1200)  # more than one batch
    kept.look()
    assert kept.bodies() == (kept.folder / "mirror.jsonl").read_bytes().splitlines()
    assert kept.bodies() == list(kept.keeper.mirror.bodies())


def test_enrolling_again_changes_nothing(kept: Kept) -> None:
    log_keeper.begin(kept.database, kept.folder, kept.keys, "operator")
    assert 1 == len(kept.bodies())
    assert 0o600 == kept.keys.path.stat().st_mode & 0o777


def test_an_interrupted_enrolment_is_finished_with_the_key_that_is_on_disk(database: Database, tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "secrets" / "log-signing-key")
    file.write([notes.SignerKey.generate("pysytff.local/before")])
    found = log_keeper.begin(database, tmp_path / "ledger", file, "operator")
    assert (file.read()[0].verifier, "pysytff.local/before") == (found.key, found.origin)


def test_a_lost_signing_key_is_named(kept: Kept) -> None:
    kept.keys.path.unlink()
    with pytest.raises(StorageError, match="restore that file"):
        log_keeper.begin(kept.database, kept.folder, kept.keys, "operator")


def test_a_signing_key_that_others_may_read_is_refused(kept: Kept) -> None:
    kept.keys.path.chmod(0o640)
    with pytest.raises(StorageError, match="chmod 600"):
        kept.keys.read()


# --- rotation --------------------------------------------------------------------------------------------------------


def test_both_keys_sign_the_first_checkpoint_after_a_rotation_and_the_new_one_alone_the_next(kept: Kept) -> None:
    kept.look()
    old = kept.key_in_force()
    rotated = log_keys.rotate(kept.database, kept.keys, "operator")
    kept.append()
    kept.look()
    assert kept.keeper.note is not None
    assert [rotated.key, old] == [one.key for one in kept.keeper.note.verify([old, rotated.key])]
    assert [rotated.key] == [key.verifier for key in kept.keys.read()]
    kept.append()
    kept.look()
    assert [rotated.key] == [one.key for one in kept.keeper.note.verify([old, rotated.key])]
    kept_note = Note.parse((kept.folder / "rotations" / str(rotated.index)).read_bytes())
    assert 2 == len(kept_note.verify([old, rotated.key]))


def test_several_rotations_between_two_checkpoints_are_signed_by_every_key(kept: Kept) -> None:
    kept.look()
    keys = [kept.key_in_force()]
    keys += [log_keys.rotate(kept.database, kept.keys, "operator").key for _ in range(2)]
    kept.restart()
    kept.look()
    assert kept.keeper.note is not None
    assert keys[::-1] == [one.key for one in kept.keeper.note.verify(keys)]


def test_a_rotation_that_fails_leaves_the_old_key_alone(kept: Kept) -> None:
    kept.look()
    kept.keeper.close_ledger("rolled_back")
    with pytest.raises(LedgerClosedError):
        log_keys.rotate(kept.database, kept.keys, "operator")
    assert [kept.key_in_force()] == [key.verifier for key in kept.keys.read()]


def test_a_rotation_whose_commit_was_not_acknowledged_loses_no_key(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.look()
    write = Database.write

    @contextlib.contextmanager
    def lost(database: Database) -> Iterator[Connection]:
        with write(database) as connection:
            yield connection
        raise StorageError("the connection was lost after the commit")

    with monkeypatch.context() as patched:
        patched.setattr(Database, "write", lost)
        with pytest.raises(StorageError, match="after the commit"):
            log_keys.rotate(kept.database, kept.keys, "operator")
    kept.look()
    assert [kept.key_in_force()] == [key.verifier for key in kept.keys.read()]


def test_a_rotation_waits_until_an_older_key_is_forgotten(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.look()
    log_keys.rotate(kept.database, kept.keys, "operator")
    write, elsewhere = KeyFile.write, KeyFile(kept.keys.path)  # as another process has it
    rotation = threading.Thread(target=log_keys.rotate, args=(kept.database, elsewhere, "operator"))

    def slow(file: KeyFile, keys: Sequence[notes.SignerKey]) -> None:
        if file is kept.keys:
            rotation.start()
            rotation.join(timeout=0.3)
        write(file, keys)

    monkeypatch.setattr(KeyFile, "write", slow)
    kept.look()
    rotation.join()
    assert kept.key_in_force() == kept.keys.read()[-1].verifier
    assert 2 == len(kept.keys.read())


def test_a_key_file_that_somebody_keeps_locked_is_named(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_keys, "_PATIENCE_S", 0.1)
    with kept.keys.locked(), pytest.raises(StorageError, match="cannot be locked"):
        log_keys.rotate(kept.database, KeyFile(kept.keys.path), "operator")


def test_a_log_without_a_key_has_none_to_rotate(database: Database, tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="no key yet"):
        log_keys.rotate(database, KeyFile(tmp_path / "key"), "operator")


def test_a_key_that_somebody_else_enrolled_signs_nothing(kept: Kept) -> None:
    kept.look()
    stranger = notes.SignerKey.generate("pysytff.local/test").verifier.encode()
    with kept.database.write() as connection:
        facts = {"origin": "pysytff.local/test", "verifier_key": stranger, "by": "operator"}
        entries.append(connection, "key_enrolled", AT, facts)
    assert "unknown_key" == kept.reason()


def test_an_old_key_that_a_crash_left_behind_is_forgotten_at_the_next_start(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.look()
    rotated = log_keys.rotate(kept.database, kept.keys, "operator")

    def crash(*_: object) -> None:
        raise OSError("the power went")

    with monkeypatch.context() as patched:
        patched.setattr(log_keys, "forget_before", crash)
        with pytest.raises(OSError, match="power"):
            kept.keeper.look()
    assert 2 == len(kept.keys.read())
    kept.restart()
    assert [rotated.key] == [key.verifier for key in kept.keys.read()]


# --- tampering -------------------------------------------------------------------------------------------------------


@pytest.fixture
def signed(kept: Kept) -> Kept:
    kept.append(20)
    kept.look()
    return kept


@pytest.mark.parametrize("restarted", [False, True])
def test_a_database_that_was_rolled_back_is_named(signed: Kept, restarted: bool) -> None:
    signed.rewrite({}, size=15)
    assert "rolled_back" == signed.reason(restarted=restarted)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_rolled_back_database_that_grew_again_is_named_a_fork(signed: Kept, restarted: bool) -> None:
    signed.rewrite({}, size=15)
    signed.append(10, say="somebody else")
    assert "forked" == signed.reason(restarted=restarted)


@pytest.mark.parametrize("restarted", [False, True])
def test_an_entry_that_was_rewritten_with_its_whole_tree_is_named(signed: Kept, restarted: bool) -> None:
    signed.rewrite({7: other(signed.bodies()[7])})
    assert "rewritten" == signed.reason(restarted=restarted)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_body_that_was_changed_alone_is_named(signed: Kept, restarted: bool) -> None:
    signed.rewrite({7: other(signed.bodies()[7])}, hashes=False)
    assert "rewritten" == signed.reason(restarted=restarted)


def test_reordered_entries_are_named(signed: Kept) -> None:
    found = signed.bodies()
    signed.rewrite({7: found[8], 8: found[7]})
    assert "rewritten" == signed.reason()


@pytest.mark.parametrize("index", [0, 7, 20])
def test_a_dropped_entry_is_named(signed: Kept, index: int) -> None:
    signed.tamper('DELETE FROM ledger_entries WHERE "index" = :at', at=index)
    assert "entries_missing" == signed.reason()


def test_an_entry_that_is_dropped_before_it_was_seen_is_named(signed: Kept) -> None:
    signed.append(3)
    signed.tamper('DELETE FROM ledger_entries WHERE "index" = 22')
    assert "entries_missing" == signed.reason()


@pytest.mark.parametrize(
    ("column", "expected"),
    [("subtrees", "tree_damaged"), ("leaf_hash", "rewritten"), ("kind", "columns_changed"), ("at", "columns_changed")],
)
@pytest.mark.parametrize("index", [7, 21])
def test_every_column_of_a_row_is_looked_at(signed: Kept, column: str, expected: str, index: int) -> None:
    signed.append(3)  # entries 21 to 23 are new
    value: object = hashlib.sha256(b"x").digest() if column in ("subtrees", "leaf_hash") else "debit"
    if column == "at":
        value = "2026-01-01T00:00:00.000001Z"
    signed.tamper(f'UPDATE ledger_entries SET "{column}" = :value WHERE "index" = :at', value=value, at=index)
    assert expected == signed.reason()


@pytest.mark.parametrize("subject", ["population_id", "project_id", "researcher_id", "dataset_id", "run_id"])
def test_every_subject_of_a_row_is_looked_at(signed: Kept, subject: str) -> None:
    signed.tamper(f"UPDATE ledger_entries SET {subject} = 'else' WHERE \"index\" = 3")
    assert "columns_changed" == signed.reason()


@pytest.mark.parametrize("restarted", [False, True])
def test_a_database_and_a_mirror_of_the_same_yesterday_do_not_hide_it(signed: Kept, restarted: bool) -> None:
    before = (signed.folder / "checkpoint").read_bytes()
    path = signed.folder / "mirror.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:15]))
    (signed.folder / "mirror.state").unlink()
    signed.rewrite({}, size=15)
    assert "rolled_back" == signed.reason(restarted=restarted)
    assert before == (signed.folder / "checkpoint").read_bytes()


MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "a line break": lambda body: body.replace(b'{"at"', b'{\n"at"'),
    "depth": lambda body: body.replace(b'"facts":{', b'"facts":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b","),
    "a number": lambda body: body.replace(b'"facts":{', b'"facts":{"a":' + b"1" * 5000 + b","),
    "a space": lambda body: body.replace(b'"facts":{', b'"facts": {'),
    "UTF-16": lambda body: body.decode().encode("utf-16"),
    "no facts": lambda body: json.dumps({"v": 1, "index": 24, "kind": "quota_set"}).encode(),
    "a kind": lambda body: body.replace(b"quota_set", b"quota_got"),
    "nothing": lambda body: b"",
}


@pytest.mark.parametrize("how", MALFORMED)
def test_what_the_log_never_writes_is_named_and_not_signed(signed: Kept, how: str) -> None:
    signed.append(3)
    signed.rewrite({23: MALFORMED[how](signed.bodies()[23])})
    assert "malformed_entry" == signed.reason()
    assert "malformed_entry" == signed.reason(restarted=True)
    assert signed.keeper.signed is not None
    assert 21 == signed.keeper.signed.size


STRANGER = notes.SignerKey.generate("elsewhere.example/log").verifier.encode()


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"origin": "pysytff.local/test", "verifier_key": "nonsense"},
        {"origin": "pysytff.local/test", "verifier_key": STRANGER},
        {"origin": "elsewhere.example/log", "verifier_key": STRANGER},
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
def test_a_key_that_is_not_this_logs_is_named_and_not_followed(
    signed: Kept, facts: dict[str, str], restarted: bool
) -> None:
    with signed.database.write() as connection:
        entries.append(connection, "key_enrolled", AT, facts | {"by": "operator"})
    assert "unknown_key" == signed.reason(restarted=restarted)


def test_a_frontier_that_is_not_the_entries_is_named(signed: Kept) -> None:
    peaks = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(3))
    signed.tamper("UPDATE log_head SET frontier = :peaks", peaks=peaks)
    assert "tree_damaged" == signed.reason()


def test_a_changed_checkpoint_is_named(signed: Kept) -> None:
    path = signed.folder / "checkpoint"
    path.write_text(path.read_text().replace("\n21\n", "\n20\n"))
    assert "checkpoint_damaged" == signed.reason(restarted=True)


def test_a_lost_folder_is_named_and_a_reconciled_log_adopts_a_new_one(signed: Kept) -> None:
    signed.folder.rename(signed.root / "lost")
    assert "mirror_missing" == signed.reason(restarted=True)
    log_keeper.adopt(signed.folder, "pysytff.local/test")
    signed.restart()
    assert 21 == signed.look().size


def test_nothing_is_signed_or_appended_while_the_ledger_is_closed(signed: Kept) -> None:
    before = (signed.folder / "checkpoint").read_bytes()
    signed.append()
    assert signed.keeper.close_ledger("rolled_back")
    assert not signed.keeper.close_ledger("rewritten")
    assert not signed.keeper.look()
    assert before == (signed.folder / "checkpoint").read_bytes()
    with pytest.raises(LedgerClosedError) as caught:
        signed.append()
    assert "rolled_back" == caught.value.facts["reason"]


def test_nothing_is_signed_over_what_was_tampered_with(signed: Kept) -> None:
    before = (signed.folder / "checkpoint").read_bytes()
    signed.rewrite({7: other(signed.bodies()[7])})
    signed.append(3)
    signed.reason()
    assert before == (signed.folder / "checkpoint").read_bytes()
    assert 21 == len((signed.folder / "mirror.jsonl").read_bytes().splitlines())


# --- crashes and damaged files ---------------------------------------------------------------------------------------


def test_a_crash_between_mirror_and_checkpoint_is_healed(signed: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    signed.append(4)

    def crash(*_: object) -> None:
        raise OSError("the power went")

    with monkeypatch.context() as patched:
        patched.setattr(log_keeper, "write_whole", crash)
        with pytest.raises(OSError, match="power"):
            signed.keeper.look()
    assert 25 == len((signed.folder / "mirror.jsonl").read_bytes().splitlines())
    signed.restart()
    assert (25, 25) == (signed.keeper.mirror.size, signed.look().size)


def test_a_crash_before_the_mirror_is_complete_is_healed(signed: Kept) -> None:
    signed.append(4)
    with (signed.folder / "mirror.jsonl").open("ab") as file:
        file.write(b'{"at":"2026-')
    signed.restart()
    assert (21, 25) == (signed.keeper.mirror.size, signed.look().size)
    assert signed.bodies() == list(signed.keeper.mirror.bodies())


def test_a_failed_write_of_the_mirror_is_written_again(signed: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    signed.append(4)

    def full(_: int) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="space"):
            signed.keeper.look()
    assert 25 == signed.look().size
    assert signed.bodies() == list(signed.keeper.mirror.bodies())


@pytest.mark.parametrize("state", [b"", b"{}", b'{"size":21,"bytes":5,"frontier":""}', None])
def test_a_lost_or_damaged_state_is_computed_again(signed: Kept, state: bytes | None) -> None:
    path = signed.folder / "mirror.state"
    path.unlink() if state is None else path.write_bytes(state)
    assert 21 == signed.restart().mirror.size
    assert not signed.keeper.look()


def test_a_state_of_another_log_is_not_believed(signed: Kept) -> None:
    path = signed.folder / "mirror.state"
    state = json.loads(path.read_text())
    state["frontier"] = "A" * 128  # three hashes, all zero
    path.write_text(json.dumps(state))
    assert 21 == signed.restart().mirror.size
    assert not signed.keeper.look()


def test_a_damaged_mirror_is_made_again_from_a_database_that_was_signed(signed: Kept) -> None:
    path = signed.folder / "mirror.jsonl"
    path.write_bytes(path.read_bytes().replace(b"operator", b"nobody!!", 3))
    (signed.folder / "mirror.state").unlink()
    signed.restart()
    assert signed.keeper.mirror_rebuilt
    assert signed.bodies() == list(signed.keeper.mirror.bodies())
    assert (signed.folder / "mirror.damaged").exists()


def test_a_damaged_mirror_does_not_hide_a_rewritten_database(signed: Kept) -> None:
    (signed.folder / "mirror.jsonl").write_bytes(b"{}\n" * 21)
    (signed.folder / "mirror.state").unlink()
    signed.rewrite({7: other(signed.bodies()[7])})
    assert "rewritten" == signed.reason(restarted=True)


def test_a_mirror_that_was_cut_does_not_hide_a_rewritten_database(signed: Kept) -> None:
    for name in ("mirror.jsonl", "mirror.state"):
        (signed.folder / name).unlink()
    signed.rewrite({7: other(signed.bodies()[7])})
    assert "rewritten" == signed.reason(restarted=True)


def test_a_mirror_that_was_cut_does_not_hide_a_rolled_back_database(signed: Kept) -> None:
    for name in ("mirror.jsonl", "mirror.state"):
        (signed.folder / name).unlink()
    signed.rewrite({}, size=15)
    assert "rolled_back" == signed.reason(restarted=True)


def test_opening_a_mirror_does_not_hash_what_was_signed(signed: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []
    leaf_hash: Callable[[bytes], bytes] = merkle.leaf_hash

    def counted(body: bytes) -> bytes:
        hashed.append(body)
        return leaf_hash(body)

    monkeypatch.setattr(merkle, "leaf_hash", counted)
    assert 21 == Mirror.open(signed.folder, signed.keeper.signed).size
    assert [] == hashed


# --- opening for a reconciliation ------------------------------------------------------------------------------------


def verified(kept: Kept) -> LogKeeper:
    keeper = LogKeeper(kept.database, kept.folder, kept.keys)
    keeper.open(verify=True)
    return keeper


def test_a_mirror_is_opened_without_touching_a_line_that_somebody_writes_now(signed: Kept) -> None:
    path = signed.folder / "mirror.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"at":"2026-')
    assert 21 == verified(signed).mirror.size
    assert whole + b'{"at":"2026-' == path.read_bytes()


def change_the_mirror(signed: Kept) -> None:
    """One line, to as many bytes as before: what is saved beside the mirror still fits."""
    path = signed.folder / "mirror.jsonl"
    path.write_bytes(path.read_bytes().replace(b"operator", b"nobody!!", 1))


def test_a_changed_mirror_is_not_believed_for_what_was_saved_beside_it(signed: Kept) -> None:
    change_the_mirror(signed)
    assert not signed.restart().mirror_rebuilt
    assert verified(signed).mirror_rebuilt
    assert signed.bodies() == (signed.folder / "mirror.jsonl").read_bytes().splitlines()


def test_a_changed_mirror_stays_as_it_is_beside_a_database_that_was_rolled_back(signed: Kept) -> None:
    change_the_mirror(signed)
    changed = (signed.folder / "mirror.jsonl").read_bytes()
    signed.rewrite({}, size=15)
    with pytest.raises(TamperedError, match="rolled_back"):
        verified(signed)
    assert changed == (signed.folder / "mirror.jsonl").read_bytes()


@pytest.mark.parametrize("size", [15, 21])
def test_a_mirror_that_lacks_what_was_signed_is_filled_from_the_database_or_refused(signed: Kept, size: int) -> None:
    path = signed.folder / "mirror.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:18]))
    signed.rewrite({}, size=size)
    if size == 21:
        assert 21 == verified(signed).mirror.size
    else:
        with pytest.raises(TamperedError, match="rolled_back"):
            verified(signed)


def test_one_process_at_a_time_holds_the_log(signed: Kept) -> None:
    with (
        log_keeper.hold(signed.folder),
        pytest.raises(StorageError, match="another process keeps this log"),
        log_keeper.hold(signed.folder, patience_s=0.1),
    ):
        raise AssertionError("two hold it")
    with log_keeper.hold(signed.folder, patience_s=0.1):
        pass
