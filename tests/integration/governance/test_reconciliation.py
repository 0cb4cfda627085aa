"""A database that came back from an older backup: closed until the mirror and the runners' journals are reconciled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from governance import log_keeper
from governance.errors import ConflictError, FencingError, LedgerClosedError, NotFoundError, UnreconciledError
from governance.ledger import budgets, derived, entries
from governance.ledger.database import Database
from governance.ledger.replay import replay
from governance.log_keeper import LogKeeper, TamperedError
from governance.log_keys import KeyFile
from governance.model import Outcome, RunState
from governance.reconciliation import Reconciled, reconcile
from runner.port import Grant, GrantReport
from tests.integration.governance.conftest import Governed


@dataclass
class Node:
    """A governed node whose log is kept, with a backup of its database."""

    governed: Governed
    save: Callable[[], None]
    load: Callable[[], None]

    def __post_init__(self) -> None:
        self.folder = self.governed.folder / "ledger"
        self.keys = KeyFile(self.governed.folder / "secrets" / "log-signing-key")
        log_keeper.begin(self.database, self.folder, self.keys, "operator", "pysytff.local/test")
        self.look()

    @property
    def database(self) -> Database:
        return self.governed.database

    def look(self) -> None:
        keeper = LogKeeper(self.database, self.folder, self.keys)
        keeper.open()
        keeper.look()

    def restore(self) -> None:
        """What a restarted node does with a database from the backup: it finds it behind, and closes the ledger."""
        self.load()
        keeper = LogKeeper(self.database, self.folder, self.keys)
        keeper.open()
        with pytest.raises(TamperedError, match="rolled_back") as caught:
            keeper.look()
        keeper.close_ledger(caught.value.reason)

    def reconcile(self, **changes: Any) -> Reconciled:
        keeper = LogKeeper(self.database, self.folder, self.keys)
        return reconcile(self.database, keeper, self.folder, by="operator", clock=self.governed.clock, **changes)

    def report(self, *reports: GrantReport) -> None:
        self.governed.clock.advance(1)
        self.governed.settlement.report(self.governed.runner, reports)

    def balances(self) -> dict[tuple[str, str, str], tuple[tuple[int, ...], tuple[int, ...]]]:
        population = self.governed.population.id
        with self.database.read() as connection:
            scopes = (
                ("population", population),
                ("project", self.personal),
                ("researcher", self.governed.researcher.id),
            )
            found = budgets.read_balances(connection, population, scopes)
        return {(population, *scope): (one.committed, one.debited) for scope, one in found.items()}

    @property
    def personal(self) -> str:
        return self.governed.registry.projects(self.governed.researcher)[0].id

    def bodies(self) -> list[bytes]:
        with self.database.read() as connection:
            return [entry.body for entry in entries.select(connection, limit=10_000)]

    def check(self) -> None:
        """Whatever happened: the entries give the balances bit for bit, and the log continues what was signed."""
        folded = replay(self.bodies())
        assert [] == [found for found in folded.findings.kept if found.code != "budget_exceeded"]
        with self.database.read() as connection:
            assert [] == list(derived.differences(connection))
        stored = self.balances()
        assert stored == {key: folded.balances[key] for key in stored}
        self.look()


def reported(grant: Grant, permitted: int) -> GrantReport:
    parameters = grant.parameters
    return GrantReport(
        grant.grant_id,
        grant.run_id,
        grant.fencing_token,
        grant.data.version_handles,
        parameters.sampling_probability,
        parameters.noise_multiplier,
        permitted,
        True,
    )


@pytest.fixture
def node(governed: Governed, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    url = governed.database.engine.url
    if governed.database.is_sqlite:
        live, backup = Path(str(url.database)), tmp_path / "backup.sqlite3"

        def copy(source: Path, target: Path) -> None:
            governed.database.dispose()
            with governed.database.write():  # the last connection to close folds the write-ahead log in
                pass
            governed.database.dispose()
            shutil.copyfile(source, target)

        yield Node(governed, lambda: copy(live, backup), lambda: copy(backup, live))
        return
    server: str = request.getfixturevalue("postgres_server")
    name = str(url.database)

    def clone(source: str, target: str) -> None:
        governed.database.dispose()
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {target} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {target} TEMPLATE {source}")

    yield Node(governed, lambda: clone(name, f"{name}_backup"), lambda: clone(f"{name}_backup", name))
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}_backup WITH (FORCE)")


def debit(node: Node, grant: Grant, first: int, rounds: int) -> None:
    node.governed.settlement.debit(node.governed.runner, grant.grant_id, grant.fencing_token, first, rounds)


def test_nothing_is_admitted_claimed_or_debited_until_it_is_reconciled(node: Node) -> None:
    grant = node.governed.started(rounds=10)
    node.save()
    debit(node, grant, 0, 5)
    node.look()
    node.restore()
    before = node.bodies()
    for attempt in (
        node.governed.admit,
        lambda: node.governed.settlement.claim(node.governed.runner),
        lambda: debit(node, grant, 0, 5),
        lambda: node.governed.settlement.cancel(node.governed.researcher, grant.run_id),
        lambda: node.governed.registry.open_population(node.governed.owner, "more", 10, 1.0, 1e-5),
    ):
        with pytest.raises(LedgerClosedError) as caught:
            attempt()
        assert "rolled_back" == caught.value.facts["reason"]
    assert before == node.bodies()


def test_what_the_backup_lacked_comes_back_from_the_mirror_byte_for_byte(node: Node) -> None:
    published = node.governed.started(rounds=10)
    debit(node, published, 0, 5)
    node.save()
    debit(node, published, 5, 5)
    node.governed.publish(published)
    cancelled = node.governed.admit(rounds=7)
    node.governed.settlement.cancel(node.governed.researcher, str(cancelled.run_id))
    held = node.governed.started(rounds=6)
    debit(node, held, 0, 2)
    queued = node.governed.admit(rounds=4)
    node.look()
    wanted, spent = node.bodies(), node.governed.spent()
    node.restore()
    node.report(reported(published, 10), reported(held, 2))
    done = node.reconcile()
    assert wanted == node.bodies()[: len(wanted)]
    assert spent == node.governed.spent()
    assert (len(wanted) - done.stored, ()) == (done.recovered, done.debited)
    assert RunState.PUBLISHED is node.governed.queries.run(node.governed.auditor, published.run_id).state
    assert (published.run_id,) == done.results_lost
    with pytest.raises(ConflictError, match="its result was lost when the node's database was restored"):
        node.governed.queries.result(node.governed.auditor, published.run_id)
    assert ((held.run_id,), (queued.run_id,)) == (done.quarantined, done.released)
    node.check()
    assert Outcome.APPROVED is node.governed.admit(rounds=3).outcome


def test_rounds_that_a_runner_ran_and_whose_entries_are_lost_everywhere_are_debited(node: Node) -> None:
    grant = node.governed.started(rounds=10)
    node.save()
    debit(node, grant, 0, 5)
    node.load()  # the mirror had not seen the debit either
    with node.database.write() as connection:
        entries.close(connection, "rolled_back")
    node.report(reported(grant, 5))
    done = node.reconcile()
    assert (((grant.run_id, 5),), (grant.run_id,)) == (done.debited, done.quarantined)
    run = node.governed.queries.run(node.governed.auditor, grant.run_id)
    assert (5, RunState.QUARANTINED) == (run.rounds_debited, run.state)
    node.check()


def test_a_run_of_which_no_entry_is_left_is_charged_as_an_adjustment_once(node: Node) -> None:
    node.save()
    grant = node.governed.started(rounds=10)
    debit(node, grant, 0, 10)
    spent = node.governed.spent()
    node.load()
    for _ in range(2):
        with node.database.write() as connection:
            entries.close(connection, "rolled_back")
        node.report(reported(grant, 10))
        done = node.reconcile()
        assert spent == node.governed.spent() == node.governed.committed()
        node.check()
    assert () == done.debited
    assert 1 == node.governed.kinds().count("adjustment")


def test_a_released_run_that_ran_on_is_charged_for_what_it_ran(node: Node) -> None:
    grant = node.governed.started(rounds=10)
    node.governed.settlement.cancel(node.governed.researcher, grant.run_id)
    node.look()
    with node.database.write() as connection:
        entries.close(connection, "rolled_back")
    node.report(reported(grant, 4))
    assert ((grant.run_id, 4),) == node.reconcile().debited
    assert node.governed.spent() > 0
    node.check()


def test_a_runner_that_has_not_reported_keeps_the_ledger_closed(node: Node) -> None:
    grant = node.governed.started(rounds=10)
    node.save()
    debit(node, grant, 0, 5)
    node.look()
    node.restore()
    with pytest.raises(UnreconciledError, match="rnr_test"):
        node.reconcile()
    with pytest.raises(LedgerClosedError):
        node.governed.admit()
    done = node.reconcile(reports={"rnr_test": [reported(grant, 7)]})
    assert ((grant.run_id, 2),) == done.debited
    node.check()


def test_a_report_from_before_the_ledger_closed_does_not_count(node: Node) -> None:
    grant = node.governed.started(rounds=10)
    node.report(reported(grant, 0))
    node.save()
    debit(node, grant, 0, 5)
    node.look()
    node.restore()
    with pytest.raises(UnreconciledError, match="rnr_test"):
        node.reconcile()


def test_a_runner_whose_journal_is_lost_costs_its_open_runs_in_full(node: Node) -> None:
    grant = node.governed.started(rounds=10)
    node.save()
    debit(node, grant, 0, 5)
    node.look()
    node.restore()
    done = node.reconcile(unreachable={"rnr_test"})
    assert ((grant.run_id, 5),) == done.debited
    assert node.governed.spent() == node.governed.committed()
    node.check()


def test_old_grants_are_worth_nothing_and_tokens_go_on_increasing(node: Node) -> None:
    node.save()
    grant = node.governed.started(rounds=10)
    debit(node, grant, 0, 5)
    node.look()
    node.restore()
    node.report(reported(grant, 5))
    node.reconcile()
    with pytest.raises((FencingError, NotFoundError)):
        debit(node, grant, 5, 5)
    assert node.governed.started(rounds=3).fencing_token > grant.fencing_token


def test_people_projects_populations_and_datasets_that_were_lost_come_back_without_their_names(node: Node) -> None:
    node.save()
    owner = node.governed.registry.create_principal(node.governed.owner.role, "second-owner@example.org")
    population = node.governed.registry.open_population(owner, "lost people", 50, 2.0, 1e-6)
    node.governed.registry.set_quota(owner, population.id, "population", population.id, 1.0)
    node.look()
    node.restore()
    node.report()
    node.reconcile()
    found = node.governed.registry.population(node.governed.auditor, population.id)
    assert (50, 2.0, owner.id) == (found.declared_size, found.epsilon, found.owner_id)
    assert population.budget == found.budget
    assert node.governed.registry.principal_by_id(owner.id) is None  # disabled, until its operator invites it again
    assert [1.0] == [quota.epsilon for quota in node.governed.registry.quotas(node.governed.auditor, population.id)]
    node.check()


def test_a_database_that_was_rewritten_is_never_reconciled(node: Node) -> None:
    grant = node.governed.started(rounds=10)
    node.save()
    debit(node, grant, 0, 5)
    node.look()
    node.restore()
    with node.database.write() as connection:  # somebody goes on after the restore, around the closed ledger
        log = entries.Log(connection, even_if_closed=True)
        facts = {"scope": "population", "scope_id": node.governed.population.id, "epsilon": 8.0, "by": "somebody"}
        log.append("quota_set", node.governed.clock(), facts, population_id=node.governed.population.id)
        log.store()
    node.report(reported(grant, 5))
    with pytest.raises(UnreconciledError, match="restore a backup"):
        node.reconcile()


def test_an_open_ledger_that_lacks_nothing_is_left_alone(node: Node) -> None:
    node.governed.admit()
    node.look()
    before = node.bodies()
    with pytest.raises(UnreconciledError, match="nothing to reconcile"):
        node.reconcile()
    assert before == node.bodies()


def test_a_reservation_that_came_back_cannot_push_the_debits_beyond_the_budget(node: Node) -> None:
    """Its room was given to another run after the backup, and that one was spent."""
    much: dict[str, Any] = {"rounds": 60, "noise_multiplier": 0.9, "max_noise_multiplier": 0.9}
    queued = node.governed.admit(**much)
    node.save()
    node.governed.settlement.cancel(node.governed.researcher, str(queued.run_id))
    other = node.governed.started(**much)
    debit(node, other, 0, other.parameters.rounds)
    node.load()
    with node.database.write() as connection:
        entries.close(connection, "rolled_back")
    node.report(reported(other, other.parameters.rounds))
    node.reconcile()
    assert node.governed.committed() > 8.0 > node.governed.spent()
    back = node.governed.settlement.claim(node.governed.runner)
    assert back is not None
    assert queued.run_id == back.run_id
    with pytest.raises(ConflictError, match="no longer holds"):
        debit(node, back, 0, back.parameters.rounds)
    assert node.governed.spent() <= 8.0


def test_a_lost_mirror_is_made_again_from_the_database_only_if_the_operator_says_so(node: Node) -> None:
    node.governed.admit()
    node.look()
    shutil.rmtree(node.folder)
    with pytest.raises(TamperedError, match="mirror_missing"):
        node.look()
    with node.database.write() as connection:
        entries.close(connection, "mirror_missing")
    node.report()
    with pytest.raises(UnreconciledError, match="--mirror-lost"):
        node.reconcile()
    node.reconcile(mirror_lost=True)
    node.check()
    assert Outcome.APPROVED is node.governed.admit().outcome
