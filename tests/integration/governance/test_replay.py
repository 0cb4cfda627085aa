"""A real ledger, by itself, gives the balances to the last bit; whatever is done to it is found and named."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from governance import log_keeper, log_keys
from governance.evidence import Evidence
from governance.ledger import entries, vectors
from governance.ledger.database import Database
from governance.ledger.notes import VerifierKey
from governance.ledger.replay import BalanceKey, replay
from governance.ledger.tables import balances
from governance.ledger.verify import Known, Report, verify
from governance.ledger.verify_signatures import Signed, read
from governance.log_keeper import LogKeeper
from governance.log_keys import KeyFile
from governance.model import Principal, Role, Schedule
from tests.integration.governance.conftest import Governed
from tests.integration.governance.test_hierarchy import dataset_of, pair

ALL = 10**6


def busy(governed: Governed) -> None:
    """Every kind of end, quotas and a window, joined data, and a run over two populations."""
    runner = governed.runner
    whole = governed.population.id
    published, cancelled, lost, resolved = (governed.started(rounds=10, clients_per_round=20 + n) for n in range(4))
    governed.settlement.debit(runner, published.grant_id, published.fencing_token, 0, 4)
    governed.settlement.debit(runner, published.grant_id, published.fencing_token, 4, 6)
    governed.publish(published)
    governed.settlement.debit(runner, cancelled.grant_id, cancelled.fencing_token, 0, 5)
    governed.settlement.cancel(governed.researcher, cancelled.run_id)
    for grant in (lost, resolved):
        governed.settlement.debit(runner, grant.grant_id, grant.fencing_token, 0, 3)
        governed.settlement.fail(runner, grant.grant_id, grant.fencing_token, touched_data=True)
    operator = Principal("usr_operator", Role.ADMIN)
    governed.settlement.resolve(operator, resolved.run_id, Evidence("power_loss", "the power failed"))
    failed = governed.started(rounds=7)
    governed.settlement.fail(runner, failed.grant_id, failed.fencing_token, touched_data=False)
    governed.admit(purpose="marketing")
    schedule = Schedule(governed.clock(), initial_epsilon=6.0, step_epsilon=0.5, period_days=30)
    governed.registry.set_quota(governed.owner, whole, "population", whole, 7.5, schedule)
    governed.registry.set_quota(governed.owner, whole, "researcher", governed.researcher.id, 7.0)
    governed.clock.now += timedelta(days=45)
    more = dataset_of(governed, governed.population, "more of their digits")
    governed.admit(rounds=4, joined=(pair(more),))
    others = governed.registry.open_population(governed.owner, "neighbours", 700, 4.0, 1e-6)
    theirs = dataset_of(governed, others, "neighbours' digits")
    versions = {governed.dataset.id: 1, more.id: 1, theirs.id: 1}
    governed.registry.declare_disjoint(governed.owner, whole, others.id, versions)
    governed.admit(rounds=5, joined=(pair(theirs),))
    for _ in range(2):
        queued = governed.settlement.claim(runner)
        assert queued is not None
        governed.debit_all(queued)
        governed.publish(queued)


def bodies_of(database: Database) -> list[bytes]:
    with database.read() as connection:
        return [entry.body for entry in entries.select(connection, limit=ALL)]


def stored_balances(database: Database) -> dict[BalanceKey, tuple[tuple[int, ...], tuple[int, ...]]]:
    with database.read() as connection:
        return {
            (row.population_id, row.scope, row.scope_id): (vectors.decode(row.committed), vectors.decode(row.debited))
            for row in connection.execute(sa.select(balances))
        }


@dataclass
class Kept:
    """A busy ledger that its keeper has signed, first when half of it was there."""

    bodies: list[bytes]
    checkpoint: Signed
    key: VerifierKey

    def verified(self, bodies: list[bytes]) -> Report:
        file = io.BytesIO(b"".join(body + b"\n" for body in bodies))
        return verify(file, Known(checkpoints=(self.checkpoint,), log_key=self.key))

    def codes(self, bodies: list[bytes]) -> set[str]:
        return set(self.verified(bodies).findings.counts)


@pytest.fixture
def kept(governed: Governed, tmp_path: Path) -> Kept:
    keys = KeyFile(tmp_path / "secrets" / "key")
    log_keeper.begin(governed.database, tmp_path / "log", keys, "operator", "pysytff.local/test")
    busy(governed)
    keeper = LogKeeper(governed.database, tmp_path / "log", keys)
    keeper.open()
    keeper.look()
    assert keeper.note is not None
    with governed.database.read() as connection:
        key = log_keys.enrolled(connection)[-1].key
    return Kept(bodies_of(governed.database), read("checkpoint", "checkpoint", keeper.note.encode().encode()), key)


def test_replay_equals_the_stored_balances_bit_for_bit(governed: Governed) -> None:
    busy(governed)
    folded = replay(bodies_of(governed.database))

    assert [] == folded.findings.kept
    assert stored_balances(governed.database) == folded.balances
    for population in folded.populations:
        theirs = governed.queries.budget(governed.auditor, population)[0]
        assert (theirs.spent_epsilon, theirs.committed_epsilon) == folded.readings(population)


def test_every_state_of_a_run_is_found_again(governed: Governed) -> None:
    busy(governed)
    folded = replay(bodies_of(governed.database))
    ends = sorted(run.state for run in folded.runs.values())
    assert ["published"] * 4 + ["quarantined", "released", "released", "resolved"] == ends


def test_a_real_ledger_is_verified_under_its_keepers_checkpoint(kept: Kept) -> None:
    report = kept.verified(kept.bodies)
    assert [] == report.findings.kept
    assert len(kept.bodies) == report.entries == kept.checkpoint.checkpoint.size
    assert 2 == len(report.populations)


def test_every_entry_left_out_changed_moved_or_repeated_is_found(kept: Kept) -> None:
    bodies = kept.bodies
    for index, body in enumerate(bodies):
        at = (index * 97) % len(body)
        changed = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        assert "root_mismatch" in kept.codes([*bodies[:index], changed, *bodies[index + 1 :]])
        assert "missing_entry" in kept.codes([*bodies[:index], *bodies[index + 1 :]])
        assert "repeated_entry" in kept.codes([*bodies[: index + 1], *bodies[index:]])
        if index:
            swapped = [*bodies[: index - 1], body, bodies[index - 1], *bodies[index + 1 :]]
            assert "reordered_entry" in kept.codes(swapped)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_any_byte_of_any_entry_is_found(kept: Kept, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(kept.bodies) - 1))
    body = kept.bodies[index]
    at = data.draw(st.integers(0, len(body) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda byte: byte != body[at]))
    changed = body[:at] + bytes([value]) + body[at + 1 :]
    found = kept.codes([*kept.bodies[:index], changed, *kept.bodies[index + 1 :]])
    assert {"root_mismatch", "missing_entry"} & found
