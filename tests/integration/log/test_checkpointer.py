"""The node's thread: witnesses asked, conflicts that close the ledger, one keeper at a time."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from api import checkpointer, logging
from api.checkpointer import Checkpointer
from api.errors import NodeError
from api.settings import load
from api.witness_client import WitnessAddress, configured
from governance import log_keeper, log_keys
from governance.errors import StorageError
from governance.ledger import entries, notes
from governance.ledger.database import Database
from governance.ledger.notes import VerifierKey
from governance.log_keys import KeyFile
from migrations import run as migrations

from .conftest import StartWitness, WitnessProcess

AT = datetime(2026, 1, 1, tzinfo=UTC)
ORIGIN = "pysytff.local/test"
PATIENCE_S = 20.0


@dataclass
class Logged:
    """A log on SQLite, and what its keeper wrote to the node's log."""

    root: Path
    database: Database
    log: io.StringIO = field(default_factory=io.StringIO)
    made: list[Checkpointer] = field(default_factory=list)

    def __post_init__(self) -> None:
        logging.configure(self.log)
        log_keeper.begin(self.database, self.folder, self.keys, "operator", ORIGIN)

    @property
    def folder(self) -> Path:
        return self.root / "ledger"

    @property
    def keys(self) -> KeyFile:
        return KeyFile(self.root / "log-signing-key")

    def started(self, *witnesses: WitnessAddress) -> Checkpointer:
        made = Checkpointer(self.database, self.folder, self.keys, witnesses)
        self.made.append(made)
        made.start()
        return made

    def append(self, say: str = "operator") -> None:
        with self.database.write() as connection:
            facts = {"scope": "population", "scope_id": "pop_1", "epsilon": 1.0, "by": say}
            entries.append(connection, "quota_set", AT, facts, population_id="pop_1")

    def key(self) -> VerifierKey:
        with self.database.read() as connection:
            return log_keys.enrolled(connection)[-1].key

    def closed(self) -> str | None:
        with self.database.read() as connection:
            return entries.head(connection).closed

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.log.getvalue().splitlines()]

    def cosigned_at(self, witness: WitnessProcess) -> int | None:
        note = log_keeper.read_checkpoint(self.folder)
        assert note is not None
        return log_keeper.cosigned_by(note, witness.key)

    def snapshot(self, name: str) -> Path:
        """A backup of database and folder, consistent because nothing writes meanwhile."""
        copy = self.root / name
        copy.mkdir()
        with (
            contextlib.closing(sqlite3.connect(str(self.database.engine.url.database))) as live,
            contextlib.closing(sqlite3.connect(copy / "node.sqlite3")) as backup,
        ):
            live.backup(backup)
        shutil.copytree(self.folder, copy / "ledger")
        return copy

    def restored(self, copy: Path) -> Logged:
        """A node that runs from the backup, with the same key."""
        shutil.copy(self.keys.path, copy / "log-signing-key")
        return Logged(copy, Database.open(f"sqlite:///{copy}/node.sqlite3"))


@pytest.fixture
def logged(sqlite_url: str, tmp_path: Path) -> Iterator[Logged]:
    database = Database.open(sqlite_url)
    made = Logged(tmp_path, database)
    yield made
    for one in made.made:
        one.close()
    database.dispose()


def test_a_witness_cosigns_each_checkpoint(logged: Logged, witness_process: StartWitness) -> None:
    witness = witness_process(logged.root / "witness", logged.key())
    node = logged.started(witness.address)
    for size in (2, 3, 4):
        logged.append()
        node.tick()
        note = log_keeper.read_checkpoint(logged.folder)
        assert note is not None
        checkpoint, verified = notes.verify_checkpoint(note, [logged.key(), witness.key], ORIGIN)
        assert (size, 2) == (checkpoint.size, len(verified))
        assert size == witness.size(ORIGIN)


def test_a_witness_that_is_down_only_leaves_its_signature_out(logged: Logged, witness_process: StartWitness) -> None:
    witness = witness_process(logged.root / "witness", logged.key())
    witness.stop()
    node = logged.started(witness.address)
    logged.append()
    node.tick()
    assert (None, 2) == (logged.cosigned_at(witness), node.keeper.mirror.size)
    assert logged.closed() is None
    assert "log_not_cosigned" in logged.events()


def test_a_witness_that_comes_back_cosigns_what_it_missed(logged: Logged, witness_process: StartWitness) -> None:
    first = witness_process(logged.root / "witness", logged.key())
    node = logged.started(first.address)
    first.stop()
    logged.append()
    node.tick()
    again = witness_process(logged.root / "witness", logged.key())
    logged.append()
    logged.started(again.address)  # the node too was started again, and knows nothing of what was cosigned
    assert logged.cosigned_at(again) is not None
    assert 3 == again.size(ORIGIN)


def test_a_whole_node_restored_from_a_backup_is_found_by_the_witness(
    logged: Logged, witness_process: StartWitness
) -> None:
    witness = witness_process(logged.root / "witness", logged.key())
    node = logged.started(witness.address)
    backup = logged.snapshot("backup")
    logged.append()
    node.tick()
    restored = logged.restored(backup)
    restored.started(witness.address)
    assert "witness_is_ahead" == restored.closed()
    assert "ledger_closed" in restored.events()
    restored.database.dispose()


def test_a_fork_of_a_whole_node_is_found_by_the_witness(logged: Logged, witness_process: StartWitness) -> None:
    witness = witness_process(logged.root / "witness", logged.key())
    node = logged.started(witness.address)
    backup = logged.snapshot("backup")
    logged.append()
    node.tick()
    restored = logged.restored(backup)
    restored.append("somebody else")
    restored.append("somebody else")
    restored.started(witness.address)
    assert "witness_disagrees" == restored.closed()
    assert 1 == len(list((witness.folder / "unproven").iterdir()))
    restored.database.dispose()


def test_another_root_of_the_size_that_was_cosigned_is_found_by_the_witness(
    logged: Logged, witness_process: StartWitness
) -> None:
    witness = witness_process(logged.root / "witness", logged.key())
    node = logged.started(witness.address)
    backup = logged.snapshot("backup")
    logged.append()
    node.tick()
    restored = logged.restored(backup)
    restored.append("somebody else")
    restored.started(witness.address)
    assert "witness_disagrees" == restored.closed()
    restored.database.dispose()


def test_a_rotation_reaches_the_witness_by_both_signatures(logged: Logged, witness_process: StartWitness) -> None:
    witness = witness_process(logged.root / "witness", logged.key())
    node = logged.started(witness.address)
    newer = log_keys.rotate(logged.database, logged.keys, "operator").key
    node.tick()
    assert logged.cosigned_at(witness) is not None
    logged.append()
    node.tick()
    assert logged.cosigned_at(witness) is None  # it does not know the new key yet
    assert logged.closed() is None
    assert 2 == witness.size(ORIGIN)
    witness_process(logged.root / "other", newer)


def test_a_tampered_database_closes_the_ledger_at_the_start(logged: Logged) -> None:
    logged.started()
    logged.append()
    with logged.database.write() as connection:
        connection.execute(sa.text("UPDATE log_head SET frontier = X'', size = 0"))
    logged.started()
    assert "rolled_back" == logged.closed()
    assert "ledger_closed" in logged.events()


def test_a_body_that_was_changed_long_ago_is_found_at_the_start(logged: Logged) -> None:
    for _ in range(5):
        logged.append()
    logged.started()
    with logged.database.write() as connection:
        connection.execute(sa.text("DROP TRIGGER ledger_entries_no_update"))
        connection.execute(sa.text("UPDATE ledger_entries SET body = X'7B7D' WHERE \"index\" = 3"))
    logged.started()
    assert "rewritten" == logged.closed()


def test_a_key_that_nobody_can_read_closes_the_ledger_at_the_start(logged: Logged) -> None:
    logged.started()
    with logged.database.write() as connection:
        entries.append(connection, "key_enrolled", AT, {"by": "somebody"})
    logged.started()
    assert "unknown_key" == logged.closed()


def test_the_thread_signs_what_is_appended_and_ends_with_its_block(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path)
    migrations.upgrade(settings.database_url)
    database = Database.open(settings.database_url)
    with checkpointer.running(settings, database):
        assert _signed(settings.ledger_dir) == 1  # a migrated node gets its key and its first checkpoint at once
        with database.write() as connection:
            entries.append(connection, "policy_activated", AT, {})
        ended = time.monotonic() + PATIENCE_S
        while _signed(settings.ledger_dir) < 2 and time.monotonic() < ended:
            time.sleep(0.05)
        with checkpointer.running(settings, database):  # a second API process of the node does without
            pass
    assert 2 == _signed(settings.ledger_dir)
    database.dispose()


def test_a_node_lets_go_of_a_closed_ledgers_log_and_takes_it_up_when_it_is_open_again(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path)
    migrations.upgrade(settings.database_url)
    database = Database.open(settings.database_url)

    def until_signed(size: int) -> int:
        ended = time.monotonic() + PATIENCE_S
        while _signed(settings.ledger_dir) < size and time.monotonic() < ended:
            time.sleep(0.05)
        return _signed(settings.ledger_dir)

    with checkpointer.running(settings, database):
        with pytest.raises(StorageError), log_keeper.hold(settings.ledger_dir, patience_s=0.1):
            raise AssertionError("two keep it")
        with database.write() as connection:
            entries.close(connection, "rolled_back")
        with log_keeper.hold(settings.ledger_dir, patience_s=PATIENCE_S), database.write() as connection:
            log = entries.Log(connection, even_if_closed=True)
            log.reopen()
            log.append("policy_activated", AT, {})
            log.store()
        assert 2 == until_signed(2)
    database.dispose()


def test_a_node_whose_log_cannot_be_kept_does_not_start(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path)
    migrations.upgrade(settings.database_url)
    database = Database.open(settings.database_url)
    with checkpointer.running(settings, database):
        settings.log_key_file.replace(tmp_path / "lost")
    with pytest.raises(NodeError, match="restore that file"), checkpointer.running(settings, database):
        raise AssertionError("it served")
    database.dispose()


def _signed(folder: Path) -> int:
    note = log_keeper.read_checkpoint(folder)
    return 0 if note is None else notes.Checkpoint.parse_text(note.text).size


# --- configuration ---------------------------------------------------------------------------------------------------

KEY = VerifierKey.parse("witness.example/w1+df1c0a35+BIE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU")
LOG_KEY = "pysytff.local/log+83751900+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"


def test_witnesses_are_read_from_the_setting_or_the_file(tmp_path: Path) -> None:
    expected = (WitnessAddress(KEY, "http://127.0.0.1:8089"),)
    file = tmp_path / "witnesses"
    assert () == configured("", file)
    assert expected == configured(f" {KEY.encode()} http://127.0.0.1:8089/ ,", file)
    file.write_text(f"# ours\n{KEY.encode()} http://127.0.0.1:8089\n\n")
    assert expected == configured("", file)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("x http://127.0.0.1:1", "no verifier key"),
        (KEY.encode(), "not an http"),
        (f"{KEY.encode()} ftp://127.0.0.1", "not an http"),
        (f"{KEY.encode()} http://example.org", "use https"),
        (f"{LOG_KEY} http://127.0.0.1:1", "a log's key"),
        (f"{KEY.encode()} http://127.0.0.1:1,{KEY.encode()} http://127.0.0.1:2", "twice"),
    ],
)
def test_witnesses_that_cannot_be_asked_are_refused(setting: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(NodeError, match=message):
        configured(setting, tmp_path / "witnesses")
