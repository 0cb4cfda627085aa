"""A quarantine ends by evidence, and gives back the undebited rounds only."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from accountant.pld import pld_epsilon_here
from governance.errors import ConflictError, FencingError, ForbiddenError, InvalidRequestError, NotFoundError
from governance.evidence import Evidence
from governance.ledger.entry_search import Wanted
from governance.ledger.tables import evidence as evidence_table
from governance.model import Principal, Role, RunState
from governance.settlement import Settlement
from runner.port import Grant
from tests.integration.governance.conftest import Governed

LOST = Evidence("host_lost", "The rack lost power at 03:12; the UPS log shows it.")
OPERATOR = Principal("usr_admin", Role.ADMIN)


def quarantined(governed: Governed, debited: int = 4) -> Grant:
    grant = governed.started(rounds=10)
    if debited:
        governed.settlement.debit(governed.runner, grant.grant_id, grant.fencing_token, 0, debited)
    governed.clock.advance(3600)
    assert 1 == governed.settlement.expire_leases()
    return grant


def test_undebited_rounds_are_given_back_and_debited_ones_never(governed: Governed) -> None:
    grant = quarantined(governed)
    held, spent = governed.committed(), governed.spent()
    run = governed.settlement.resolve(OPERATOR, grant.run_id, LOST)
    assert (RunState.QUARANTINED, 4) == (run.state, run.rounds_debited)
    assert spent == governed.spent() == governed.committed() < held


def test_a_run_that_was_never_debited_is_given_back_whole(governed: Governed) -> None:
    grant = quarantined(governed, debited=0)
    governed.settlement.resolve(OPERATOR, grant.run_id, LOST)
    assert 0.0 == governed.committed()


def test_a_run_that_an_owner_stopped_is_resolved_too(governed: Governed) -> None:
    grant = governed.started(rounds=10)
    governed.settlement.cancel(governed.owner, grant.run_id)
    assert governed.committed() > 0
    governed.settlement.resolve(OPERATOR, grant.run_id, LOST)
    assert 0.0 == governed.committed()


def test_the_runner_of_the_run_may_give_the_evidence(governed: Governed) -> None:
    grant = quarantined(governed)
    with pytest.raises(NotFoundError):
        governed.settlement.resolve(Principal("rnr_other", Role.RUNNER), grant.run_id, LOST)
    governed.settlement.resolve(governed.runner, grant.run_id, LOST)
    assert "quarantine_resolved" == governed.kinds()[-1]


@pytest.mark.parametrize("who", ["researcher", "owner", "auditor"])
def test_nobody_else_resolves(governed: Governed, who: str) -> None:
    grant = quarantined(governed)
    with pytest.raises(ForbiddenError):
        governed.settlement.resolve(getattr(governed, who), grant.run_id, LOST)


def test_it_is_resolved_once_and_only_from_quarantine(governed: Governed) -> None:
    running = governed.started(rounds=3)
    with pytest.raises(ConflictError, match="open"):
        governed.settlement.resolve(OPERATOR, running.run_id, LOST)
    governed.debit_all(running)
    governed.publish(running)
    grant = quarantined(governed)
    governed.settlement.resolve(OPERATOR, grant.run_id, LOST)
    before = governed.committed()
    with pytest.raises(ConflictError, match="closed"):
        governed.settlement.resolve(OPERATOR, grant.run_id, LOST)
    assert before == governed.committed()


def test_a_resolved_run_runs_no_more(governed: Governed) -> None:
    grant = quarantined(governed)
    governed.settlement.resolve(OPERATOR, grant.run_id, LOST)
    calls: list[Callable[[], object]] = [
        lambda: governed.settlement.debit(governed.runner, grant.grant_id, grant.fencing_token, 4, 6),
        lambda: governed.publish(grant),
        lambda: governed.settlement.heartbeat(governed.runner, grant.grant_id, grant.fencing_token),
    ]
    for call in calls:
        with pytest.raises(FencingError):
            call()


@pytest.mark.parametrize("kind", ["crashed", "bad_result", "looked_wrong", "", "HOST_LOST"])
def test_an_end_that_may_depend_on_the_data_is_no_evidence(kind: str) -> None:
    with pytest.raises(InvalidRequestError, match="stays in quarantine"):
        Evidence(kind, "It looked wrong to me, honestly.")


@pytest.mark.parametrize("statement", ["", "short", " " * 50, "x" * 2001])
def test_evidence_needs_a_statement(statement: str) -> None:
    with pytest.raises(InvalidRequestError, match="characters"):
        Evidence("host_lost", statement)


def test_the_ledger_keeps_a_salted_digest_and_the_words_can_be_erased(governed: Governed) -> None:
    grant = quarantined(governed)
    governed.settlement.resolve(OPERATOR, grant.run_id, LOST)
    entries, _ = governed.queries.entries(governed.auditor, Wanted(run_id=grant.run_id))
    facts = json.loads(entries[-1].body)["facts"]
    with governed.database.write() as connection:
        row = connection.execute(sa.select(evidence_table)).mappings().one()
        assert facts["evidence"] == {"kind": "host_lost", "sha256": LOST.digest(bytes(row["salt"]))}
        assert LOST.statement == row["statement"]
        connection.execute(evidence_table.delete())
    assert LOST.statement.encode() not in entries[-1].body


def test_the_statement_of_a_publication_quotes_pld_beside_rdp_and_names_both(governed: Governed) -> None:
    settlement = Settlement(governed.database, governed.results, clock=governed.clock, pld=pld_epsilon_here)
    grant = governed.started(rounds=10)
    governed.debit_all(grant)
    settlement.publish(governed.runner, grant.grant_id, grant.fencing_token, governed.result_of(grant))
    statement = governed.queries.result(governed.researcher, grant.run_id).privacy_statement
    rdp, pld = statement["this_run"], statement["this_run_by_pld"]
    assert 0 < pld["epsilon"] < rdp["epsilon"]
    assert (True, True, None) == (
        rdp["accountant"].startswith("rdp"),
        pld["accountant"].startswith("pld"),
        pld["why_none"],
    )
