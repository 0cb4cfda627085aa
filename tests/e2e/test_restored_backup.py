"""The operator's night: an old backup is put in the database's place. Nothing that was spent is forgotten.

On SQLite with a real runner and TFF, which reports by itself; on PostgreSQL with a runner whose journal is lost.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from examples.digits.seed import AUDITOR
from tests.e2e.commands import log_key, operator, stranger
from tests.e2e.conftest import make_demo_node
from tests.e2e.nodes import DemoNode, Json
from tests.e2e.programs import Program, server_program, wait_until
from tests.e2e.test_command_line import Shell
from tests.integration.conftest import postgres_server
from tests.integration.processes.nodes import pysytff_server

__all__ = ["postgres_server"]  # a fixture

CLOSED = "the ledger is closed until its operator has reconciled it (pysytff-server ledger reconcile)"


class Night:
    """A node without a runner, whose API is stopped and started."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder, self.variables = folder / "node", variables
        make_demo_node(self.folder, **variables)
        self.log_key = log_key(self.folder, **variables)
        self.auditor = Shell(folder / "auditor")
        self.auditor.home.mkdir()
        self._log = folder / "serve.log"
        self.start()

    def start(self) -> None:
        self._log.unlink(missing_ok=True)
        self.api = server_program(self.folder, "serve", "--port", "0", log=self._log, **self.variables)
        self.node = DemoNode(self.folder, self.api)

    def stop(self) -> None:
        self.api.stop()
        self.node.close()

    def ledger(self, *arguments: str) -> tuple[int, str]:
        done = pysytff_server(self.folder, "ledger", *arguments, **self.variables)
        return done.returncode, done.stdout + done.stderr

    def export(self, name: str) -> Path:
        """The auditor's, of everything there is."""
        size = len(self.node.entries())
        assert 0 == self.auditor.log_in(self.node, AUDITOR).returncode
        file = self.auditor.home / name

        def complete() -> bool:
            return bool(self.auditor.read("ledger", "export", "--out", name)["ledger_size"] >= size)

        wait_until(complete, "everything is signed")
        return file

    def verified(self, file: Path, *previous: Path) -> str:
        """What the auditor's verifier says of an export that continues what they kept."""
        kept = [part for one in previous for part in ("--previous", str(one))]
        given = ("--checkpoint", f"{file}.checkpoint", "--log-key", self.log_key)
        done = stranger(self.auditor.home, "pysytff-verify", file, *given, *kept)
        assert (0, "") == (done.returncode, done.stderr), done.stdout
        return done.stdout

    def refuses_as_closed(self, key: str = "while-closed") -> None:
        before = self.node.entries()
        answer = self.node.sam.submit(self.node.request(), key)
        assert (503, "ledger_closed") == (answer.status_code, answer.json()["code"])
        assert CLOSED in answer.json()["detail"]
        assert before == self.node.entries()  # reading goes on

    def decides_again(self) -> None:
        """The same key as while it was closed: nothing was decided then."""
        answer = self.node.sam.submit(self.node.request(), "while-closed")
        assert (201, "approved") == (answer.status_code, answer.json()["outcome"])
        assert 200 == self.node.sam.call("POST", f"/v1/runs/{answer.json()['run_id']}:cancel").status_code


# --- SQLite, a real runner -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Morning:
    """After the disaster: the API serves an old database; ``kept`` is the auditor's export from before."""

    night: Night
    published: str
    budget: Json
    kept: Path
    log: Path  # of the runner, which is not started yet

    @contextlib.contextmanager
    def runner(self) -> Iterator[Program]:
        program = runner_of(self.night, self.log)
        try:
            yield program
        finally:
            program.stop()


def opened(night: Night) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(night.folder / "node.sqlite3"))


def runner_of(night: Night, log: Path) -> Program:
    return server_program(night.folder, "runner", log=log, PYSYTFF_API_URL=night.node.url)


@pytest.fixture(scope="module")
def morning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Morning]:
    folder = tmp_path_factory.mktemp("night")
    night = Night(folder)
    try:
        with opened(night) as database, contextlib.closing(sqlite3.connect(folder / "backup.sqlite3")) as backup:
            database.backup(backup)
        log = folder / "runner.log"
        runner = runner_of(night, log)
        try:
            run_id = night.node.sam.submit(night.node.request(rounds=5), "after-the-backup").json()["run_id"]
            night.node.wait_run(run_id, "published")
        finally:
            runner.stop()
        budget, kept = night.node.budget(), night.export("before.jsonl")
        night.stop()
        for file in night.folder.glob("node.sqlite3*"):
            file.unlink()
        (folder / "backup.sqlite3").rename(night.folder / "node.sqlite3")
        night.start()
        yield Morning(night, run_id, budget, kept, log)
    finally:
        night.stop()


def test_a_restored_backup_closes_the_ledger_until_what_was_spent_is_back(morning: Morning) -> None:
    night = morning.night
    night.refuses_as_closed()
    _, status = night.ledger("status")
    (credential,) = [line for line in status.splitlines() if line.startswith("runners that have not:")]
    runner_id = credential.split()[-1]
    assert "CLOSED: rolled_back. Nothing is admitted or debited." in status
    assert runner_id.startswith("usr_")
    refused, why = night.ledger("reconcile")
    assert (1, True) == (refused, f"have not reported since the ledger closed: {runner_id}" in why)
    night.refuses_as_closed()

    with morning.runner() as runner:
        runner.wait_said("report_delivered")
        assert f"runners that have reported: {runner_id}" in night.ledger("status")[1]
        done, said = night.ledger("reconcile")

        assert 0 == done, said
        assert said.endswith("The ledger is open.\n")
        assert "4 came back from the mirror" in said
        assert (0, "every row is what the entries say\n") == night.ledger("check")
        budget = night.node.budget()
        assert morning.budget["spent_epsilon"] == budget["spent_epsilon"]
        assert morning.budget["committed_epsilon"] == budget["committed_epsilon"]
        assert "published" == night.node.run(morning.published)["state"]
        night.decides_again()
    report = night.verified(night.export("after.jsonl"), morning.kept, Path(f"{morning.kept}.checkpoint"))
    assert f"{budget['spent_epsilon']:.4f}" in report


def test_a_balance_that_somebody_changed_is_named(morning: Morning) -> None:
    change = "UPDATE balances SET debited = ? WHERE scope = 'population'"
    with opened(morning.night) as database:
        (debited,) = database.execute("SELECT debited FROM balances WHERE scope = 'population'").fetchone()
        with database:
            database.execute(change, (bytes(len(debited)),))
        status, said = morning.night.ledger("check")
        with database:
            database.execute(change, (debited,))

    population = morning.night.node.population_id
    named = f"balances {population} population {population}: debited is not what the entries say"
    assert (1, True) == (status, named in said)


def test_an_entry_that_somebody_changed_closes_the_ledger_of_a_running_node(morning: Morning) -> None:
    night = morning.night
    triggers = "SELECT name FROM sqlite_master WHERE tbl_name = 'ledger_entries' AND type = 'trigger'"
    change = "UPDATE ledger_entries SET body = CAST(replace(body, '\"rounds\":5', '\"rounds\":4') AS BLOB)"
    with opened(night) as database, database:
        for (name,) in database.execute(triggers).fetchall():
            database.execute(f"DROP TRIGGER {name}")  # an administrator may
        assert 1 == database.execute(f"{change} WHERE kind = 'publication'").rowcount
    wait_until(lambda: "CLOSED: rewritten." in night.ledger("status")[1], "the ledger is closed")

    night.refuses_as_closed("after-the-change")
    status, said = night.ledger("reconcile")
    assert (1, True) == (status, "restore a backup of the database from before that" in said)


# --- PostgreSQL, a runner whose journal is lost ----------------------------------------------------------------------


@pytest.fixture
def on_postgres(postgres_server: str, tmp_path: Path) -> Iterator[tuple[Night, str]]:
    """A node, and the URL of the maintenance database."""
    url = copied(postgres_server, "night", "template1")
    night = Night(tmp_path, DATABASE_URL=url)
    try:
        yield night, postgres_server
    finally:
        night.stop()


def copied(server: str, name: str, of: str) -> str:
    """A fresh copy of a database that nobody uses; its URL."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {of}")
    return server.replace("/postgres?", f"/{name}?", 1)


def test_a_backup_of_postgresql_is_reconciled_where_a_runners_journal_is_lost(
    on_postgres: tuple[Night, str],
) -> None:
    night, server = on_postgres
    submitted = night.node.sam.submit(night.node.request(rounds=5), "before-the-backup")
    assert 201 == submitted.status_code
    night.stop()
    copied(server, "backup", "night")
    night.start()
    credential = (night.folder / "secrets" / "runner-credential").read_text().strip()
    runner = {"Authorization": f"Bearer {credential}"}
    grant = night.node.sam.client.post("/v1/runner/claim", headers=runner).json()
    debit = {"fencing_token": grant["fencing_token"], "first_round": 0, "rounds": 2}
    path = f"/v1/runner/grants/{grant['grant_id']}/debit"
    assert night.node.sam.client.post(path, headers=runner, json=debit).json()["permitted"]
    before, kept = night.node.budget(), night.export("before.jsonl")
    night.stop()
    copied(server, "night", "backup")
    night.start()

    night.refuses_as_closed()
    _, status = night.ledger("status")
    runner_id = status.partition("runners that have not:")[2].split()[0]
    done, said = night.ledger("reconcile", "--unreachable", runner_id)
    assert 0 == done, said
    assert f"{grant['run_id']}: 3 rounds debited that a runner had run" in said
    assert f"{grant['run_id']}: quarantined" in said
    assert 0 == night.ledger("check")[0]
    after = night.node.budget()
    assert before["spent_epsilon"] < after["spent_epsilon"]  # all five rounds now
    assert before["committed_epsilon"] == after["committed_epsilon"] == after["spent_epsilon"]
    night.decides_again()
    assert f"{after['spent_epsilon']:.4f}" in night.verified(night.export("after.jsonl"), kept)
    assert "open" in operator(night.folder, "ledger", "status", **night.variables).splitlines()
