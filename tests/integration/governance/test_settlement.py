"""What happens to a reservation, on both databases, after a real decision by the real policies."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa

from governance.errors import (
    ConflictError,
    FencingError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    StorageError,
)
from governance.ledger.entry_search import Wanted
from governance.ledger.tables import runs
from governance.model import Principal, Role, RunState
from tests.integration.governance.conftest import Governed


def state_of(governed: Governed, run_id: str) -> RunState:
    return governed.queries.run(governed.auditor, run_id).state


def test_a_claim_hands_out_the_effective_parameters_and_a_rising_fencing_token(governed: Governed) -> None:
    first = governed.started(rounds=20, clients_per_round=30, noise_multiplier=2.0)
    second = governed.started()
    assert (20, 30, 0.1, 2.0) == (
        first.parameters.rounds,
        first.parameters.expected_clients,
        first.parameters.sampling_probability,
        first.parameters.noise_multiplier,
    )
    assert second.fencing_token > first.fencing_token
    assert governed.settlement.claim(governed.runner) is None


def test_a_pool_is_drawn_with_its_share_and_charged_within_the_pool(governed: Governed) -> None:
    grant = governed.started(no_clients=150, clients_per_round=30)
    assert (0.5, 0.2) == (grant.parameters.pool_probability, grant.parameters.sampling_probability)


def test_a_debit_permits_its_rounds_exactly_once(governed: Governed) -> None:
    grant = governed.started()
    first = governed.settlement.debit(governed.runner, grant.grant_id, grant.fencing_token, 0, 5)
    again = governed.settlement.debit(governed.runner, grant.grant_id, grant.fencing_token, 0, 5)
    assert (True, 5) == (first.permitted, first.debited_rounds)
    assert (False, 5) == (again.permitted, again.debited_rounds)
    assert 1 == governed.kinds().count("debit")


@pytest.mark.parametrize(("first_round", "rounds"), [(5, 5), (0, 21), (0, 0), (0, -1)])
def test_a_debit_out_of_order_or_beyond_the_reservation_is_refused(
    governed: Governed, first_round: int, rounds: int
) -> None:
    grant = governed.started()
    with pytest.raises(ConflictError):
        governed.settlement.debit(governed.runner, grant.grant_id, grant.fencing_token, first_round, rounds)
    assert 0.0 == governed.spent()


def test_debits_move_spending_and_leave_what_is_committed_alone(governed: Governed) -> None:
    grant = governed.started()
    committed = governed.committed()
    governed.debit_all(grant)
    assert committed == governed.committed() == governed.spent()


def test_a_stale_token_another_runner_and_an_ended_lease_are_refused(governed: Governed) -> None:
    grant = governed.started()
    with pytest.raises(FencingError):
        governed.settlement.debit(governed.runner, grant.grant_id, grant.fencing_token + 1, 0, 5)
    with pytest.raises(NotFoundError):
        governed.settlement.debit(Principal("rnr_other", Role.RUNNER), grant.grant_id, grant.fencing_token, 0, 5)
    governed.clock.advance(grant.lease_seconds + 1)
    with pytest.raises(FencingError):
        governed.settlement.debit(governed.runner, grant.grant_id, grant.fencing_token, 0, 5)
    assert 0.0 == governed.spent()


def test_a_heartbeat_keeps_the_lease(governed: Governed) -> None:
    grant = governed.started()
    for _ in range(5):
        governed.clock.advance(grant.lease_seconds - 1)
        assert not governed.settlement.heartbeat(governed.runner, grant.grant_id, grant.fencing_token).stop
    assert 0 == governed.settlement.expire_leases()


def test_an_ended_lease_is_quarantined_and_gives_nothing_back(governed: Governed) -> None:
    grant = governed.started()
    governed.settlement.debit(governed.runner, grant.grant_id, grant.fencing_token, 0, 5)
    committed = governed.committed()
    governed.clock.advance(grant.lease_seconds + 1)
    assert 1 == governed.settlement.expire_leases()
    assert 0 == governed.settlement.expire_leases()
    assert RunState.QUARANTINED is state_of(governed, grant.run_id)
    assert committed == governed.committed()
    with pytest.raises(FencingError):
        governed.publish(grant)


def test_cancelling_releases_only_what_was_not_debited(governed: Governed) -> None:
    grant = governed.started()
    governed.settlement.debit(governed.runner, grant.grant_id, grant.fencing_token, 0, 5)
    spent = governed.spent()
    run = governed.settlement.cancel(governed.researcher, grant.run_id)
    assert RunState.CANCELLED is run.state
    assert spent == governed.spent() == governed.committed()
    assert governed.settlement.heartbeat(governed.runner, grant.grant_id, grant.fencing_token).stop
    with pytest.raises(FencingError):
        governed.settlement.debit(governed.runner, grant.grant_id, grant.fencing_token, 5, 5)
    assert RunState.CANCELLED is governed.settlement.cancel(governed.researcher, grant.run_id).state
    assert 1 == governed.kinds().count("release")


def test_a_run_that_somebody_else_stops_gives_nothing_back_for_they_may_know_more(governed: Governed) -> None:
    grant = governed.started()
    governed.settlement.debit(governed.runner, grant.grant_id, grant.fencing_token, 0, 5)
    committed = governed.committed()
    assert RunState.CANCELLED is governed.settlement.cancel(governed.owner, grant.run_id).state
    assert committed == governed.committed()
    assert "release" not in governed.kinds()
    with pytest.raises(FencingError):
        governed.settlement.debit(governed.runner, grant.grant_id, grant.fencing_token, 5, 5)


def test_the_entry_of_a_quarantine_does_not_say_why(governed: Governed) -> None:
    died, lost = governed.started(), governed.started()
    governed.settlement.fail(governed.runner, died.grant_id, died.fencing_token, touched_data=True)
    governed.clock.advance(lost.lease_seconds + 1)
    governed.settlement.expire_leases()
    seen, _ = governed.queries.entries(governed.researcher, Wanted(kinds=("quarantine",)))
    first, second = (json.loads(entry.body)["facts"] for entry in seen)
    assert first == second
    runs = [governed.queries.run(governed.researcher, grant.run_id) for grant in (died, lost)]
    assert 1 == len({(run.state, run.state_reason) for run in runs})


def test_cancelling_a_queued_run_gives_everything_back(governed: Governed) -> None:
    decision = governed.admit()
    assert decision.run_id is not None
    governed.settlement.cancel(governed.researcher, decision.run_id)
    assert 0.0 == governed.committed()
    assert governed.settlement.claim(governed.runner) is None


def test_others_cannot_cancel_and_an_auditor_changes_nothing(governed: Governed) -> None:
    decision = governed.admit()
    assert decision.run_id is not None
    stranger = governed.registry.create_principal(Role.RESEARCHER, "stranger@example.org")
    with pytest.raises(NotFoundError):
        governed.settlement.cancel(stranger, decision.run_id)
    with pytest.raises(ForbiddenError):
        governed.settlement.cancel(governed.auditor, decision.run_id)
    assert RunState.RESERVED is state_of(governed, decision.run_id)


def test_a_failure_before_the_data_was_opened_gives_everything_back(governed: Governed) -> None:
    grant = governed.started()
    governed.settlement.fail(governed.runner, grant.grant_id, grant.fencing_token, touched_data=False)
    assert RunState.FAILED is state_of(governed, grant.run_id)
    assert 0.0 == governed.committed()


@pytest.mark.parametrize("debited", [0, 5])
def test_any_other_failure_keeps_its_whole_charge(governed: Governed, debited: int) -> None:
    grant = governed.started()
    if debited:
        governed.settlement.debit(governed.runner, grant.grant_id, grant.fencing_token, 0, debited)
    committed = governed.committed()
    # A runner that claims not to have touched the data after a debit is not believed.
    governed.settlement.fail(governed.runner, grant.grant_id, grant.fencing_token, touched_data=not debited)
    assert RunState.QUARANTINED is state_of(governed, grant.run_id)
    assert committed == governed.committed()


def test_a_publication_needs_all_rounds_debited_and_happens_once(governed: Governed) -> None:
    grant = governed.started()
    with pytest.raises(ConflictError):
        governed.publish(grant)
    with pytest.raises(ConflictError):
        governed.queries.result(governed.researcher, grant.run_id)
    governed.debit_all(grant)
    governed.publish(grant)
    with pytest.raises(FencingError):
        governed.publish(grant)
    view = governed.queries.result(governed.researcher, grant.run_id)
    assert 1 == governed.kinds().count("publication")
    assert governed.result_of(grant).weights == governed.queries.weights(governed.researcher, grant.run_id)
    assert 8.0 == view.privacy_statement["population_guarantee"]["epsilon"]
    assert 0 < view.privacy_statement["this_run"]["epsilon"] < governed.spent()


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": b"not a safetensors file"},
        {"weights": b""},
        {"public_metrics": {"training_loss": 0.1}},
        {"public_metrics": {"holdout_loss": 0.1}},  # this run has no hold-out
        {"public_metrics": {"holdout_loss": float("nan")}},
    ],
)
def test_a_result_that_is_not_the_models_weights_or_has_other_metrics_is_refused(
    governed: Governed, changes: dict[str, object]
) -> None:
    grant = governed.started()
    governed.debit_all(grant)
    with pytest.raises(InvalidRequestError):
        governed.publish(grant, **changes)
    assert RunState.RUNNING is state_of(governed, grant.run_id)
    assert not list(governed.folder.glob("results/*"))


def test_a_result_whose_transaction_fails_leaves_no_file(governed: Governed) -> None:
    grant = governed.started()
    governed.settlement.debit(governed.runner, grant.grant_id, grant.fencing_token, 0, 5)
    with pytest.raises(ConflictError):
        governed.publish(grant)
    assert not list(governed.folder.glob("results/*"))


def test_progress_never_runs_ahead_of_debits_nor_backwards(governed: Governed) -> None:
    grant = governed.started()
    governed.settlement.debit(governed.runner, grant.grant_id, grant.fencing_token, 0, 5)
    for rounds in (6, 3, 2, 5):
        governed.settlement.progress(governed.runner, grant.grant_id, grant.fencing_token, rounds)
    events = governed.queries.events_of(governed.researcher, grant.run_id)
    assert [3, 5] == [event.data["rounds_done"] for event in events if event.type == "progress"]


def test_a_late_publisher_leaves_the_published_file_alone(governed: Governed) -> None:
    grant = governed.started()
    governed.debit_all(grant)
    governed.publish(grant)
    before = governed.queries.weights(governed.researcher, grant.run_id)
    staged = governed.results.stage(b"another aggregate")
    with pytest.raises(FencingError):
        governed.publish(grant)
    staged.unlink()
    assert before == governed.queries.weights(governed.researcher, grant.run_id)


def test_a_file_that_is_not_what_was_published_is_not_served(governed: Governed) -> None:
    grant = governed.started()
    governed.debit_all(grant)
    governed.publish(grant)
    (file,) = governed.folder.glob("results/*.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(StorageError):
        governed.queries.weights(governed.researcher, grant.run_id)


@pytest.mark.parametrize(
    ("inside", "other"),
    [
        ('"noise_multiplier": 2.0', '"noise_multiplier": 0.1'),
        ('"rounds": 20', '"rounds": 5000'),
        ('"holdout_handle": null', '"holdout_handle": "ver_aaaaaaaaaaaaaaaaaaaaaaaa"'),
        ('"clipping_norm": 1.0', '"clipping_norm": 100.0'),
    ],
)
def test_a_grant_that_is_not_what_was_decided_is_never_handed_out(governed: Governed, inside: str, other: str) -> None:
    decision = governed.admit()
    with governed.database.write() as connection:
        text = connection.execute(sa.select(runs.c.grant_template)).scalar_one()
        assert inside in text
        connection.execute(runs.update().values(grant_template=text.replace(inside, other)))
    assert governed.settlement.claim(governed.runner) is None
    assert RunState.QUARANTINED is state_of(governed, str(decision.run_id))
    assert "granted" not in governed.kinds()
