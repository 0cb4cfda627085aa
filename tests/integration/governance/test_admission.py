"""The gate, on both databases, with the shipped policies in a real OPA."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from accountant.calibration import fits
from governance import budget_state
from governance.errors import (
    ContentionError,
    ForbiddenError,
    IdempotencyMismatchError,
    InvalidModelError,
    InvalidRequestError,
    NotFoundError,
    PolicyRevisionError,
    PolicyUnreachableError,
)
from governance.model import OnExceed, Outcome, PolicyDecision, Reason, Role
from governance.policy.bundles import ActivePolicies
from governance.policy.opa import PolicyEngine
from tests.integration.governance.conftest import MODEL, Governed


def reason_codes(governed_decision: Any) -> set[str]:
    return {reason.code for reason in governed_decision.reasons}


def test_a_sensible_request_is_approved_as_it_is_and_reserved(governed: Governed) -> None:
    decision = governed.admit()
    assert Outcome.APPROVED is decision.outcome
    assert decision.requested == decision.effective
    assert decision.run_id is not None
    assert decision.cost is not None
    assert decision.cost.committed_epsilon_after == governed.committed()
    assert 0.0 == governed.spent()
    assert "decision" == governed.kinds()[-1]


def test_the_notebooks_request_is_clamped_and_charged_within_its_pool(governed: Governed) -> None:
    decision = governed.admit(rounds=10, no_clients=3, noise_multiplier=0.05, clients_per_round=2)
    assert Outcome.CLAMPED is decision.outcome
    assert [("noise_multiplier", 0.05, 5, "owner:digits")] == [
        (clamp.parameter, clamp.requested, clamp.effective, clamp.by) for clamp in decision.clamps
    ]
    assert decision.cost is not None
    assert 2 / 3 == decision.cost.event["sampling_probability"]


def test_policy_limits_clamp_and_the_answer_shows_before_after_and_why(governed: Governed) -> None:
    decision = governed.admit(noise_multiplier=0.2, rounds=2, clients_per_round=3)
    assert Outcome.CLAMPED is decision.outcome
    clamp = decision.clamps[0]
    assert ("noise_multiplier", 0.2) == (clamp.parameter, clamp.requested)
    assert clamp.effective > 0.2
    assert "min_noise_multiplier" in clamp.why
    assert decision.effective is not None
    assert decision.effective["noise_multiplier"] == decision.clamps[-1].effective


def test_on_exceed_refuse_refuses_what_would_be_clamped_and_says_what_would_do(governed: Governed) -> None:
    decision = governed.admit(noise_multiplier=0.2, rounds=2, clients_per_round=3, on_exceed=OnExceed.REFUSE)
    assert Outcome.REFUSED is decision.outcome
    assert "exceeds_policy" in reason_codes(decision)
    assert decision.clamps
    assert decision.run_id is None
    assert 0.0 == governed.committed()


def test_a_purpose_that_the_owner_denies_is_refused_and_recorded(governed: Governed) -> None:
    decision = governed.admit(purpose="marketing")
    assert Outcome.REFUSED is decision.outcome
    assert any(reason.source == "owner:digits" for reason in decision.reasons)
    assert "decision" == governed.kinds()[-1]
    assert 0.0 == governed.committed()


def test_a_budget_that_is_used_up_refuses_and_is_never_exceeded(governed: Governed) -> None:
    outcomes = []
    for _ in range(60):
        decision = governed.admit(rounds=60, clients_per_round=60, noise_multiplier=1.5, max_noise_multiplier=1.5)
        outcomes.append(decision.outcome)
        assert governed.committed() <= 8.0
        if decision.outcome is Outcome.REFUSED:
            break
    assert Outcome.REFUSED is outcomes[-1]
    assert {"budget_exhausted"} == reason_codes(decision)
    with governed.database.read() as connection:
        state = budget_state.read(connection, governed.population, governed.clock())
    assert fits(state.caps, tuple(0 for _ in state.budget.orders)) is None


def test_a_quota_binds_before_the_population_and_is_named(governed: Governed) -> None:
    governed.registry.set_quota(governed.owner, governed.population.id, "researcher", governed.researcher.id, 1.5)
    decision = governed.admit(rounds=40, clients_per_round=60, noise_multiplier=2.0)
    shown = {reason.message for reason in decision.reasons} | {clamp.why for clamp in decision.clamps}
    assert any("researcher's quota" in text for text in shown)
    readings = governed.queries.budget(governed.owner, governed.population.id)
    assert ["population", "researcher"] == [reading.scope for reading in readings]
    assert all(reading.committed_epsilon <= reading.guarantee_epsilon for reading in readings)


def test_a_quota_set_later_counts_what_was_spent_before(governed: Governed) -> None:
    governed.admit(rounds=40, clients_per_round=60, noise_multiplier=1.5)
    spent = governed.committed()
    governed.registry.set_quota(governed.owner, governed.population.id, "researcher", governed.researcher.id, 1.0)
    assert spent > 1.0
    assert Outcome.REFUSED is governed.admit().outcome
    assert spent == governed.committed()


def test_a_preview_answers_the_same_and_writes_nothing(governed: Governed) -> None:
    before = governed.kinds()
    preview = governed.admission.preview(governed.researcher, governed.request())
    assert before == governed.kinds()
    assert preview.run_id is None
    decision = governed.admit()
    assert (preview.outcome, preview.effective, preview.cost) == (decision.outcome, decision.effective, decision.cost)


def test_the_same_key_and_body_give_the_stored_answer_and_reserve_once(governed: Governed) -> None:
    first, second = governed.admit(key="one"), governed.admit(key="one")
    assert first == second
    assert 1 == governed.kinds().count("decision")


def test_the_same_key_with_another_body_is_refused_and_writes_nothing(governed: Governed) -> None:
    governed.admit(key="one")
    before = governed.kinds()
    with pytest.raises(IdempotencyMismatchError):
        governed.admit(key="one", rounds=21)
    assert before == governed.kinds()


def test_concurrent_twins_share_one_decision(governed: Governed) -> None:
    barrier = threading.Barrier(8)

    def submit(_: int) -> str:
        barrier.wait()
        return governed.admit(key="twins").id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(submit, range(8)))
    assert 1 == len(ids)
    assert 1 == governed.kinds().count("decision")


def test_concurrent_requests_never_overdraw_the_budget(governed: Governed) -> None:
    def submit(number: int) -> Outcome:
        for _ in range(24):  # "try again" is an answer to contention; somebody else got through each time
            try:
                return governed.admit(
                    key=f"rush-{number}",
                    rounds=60,
                    clients_per_round=60,
                    noise_multiplier=1.5,
                    max_noise_multiplier=1.5,
                ).outcome
            except ContentionError:
                continue
        raise AssertionError("nobody else can have got through that often")

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(submit, range(24)))
    assert Outcome.REFUSED in outcomes
    assert governed.committed() <= 8.0
    found, _ = governed.queries.entries(governed.auditor, limit=1000)
    assert list(range(len(found))) == [entry.index for entry in found]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"train_data_id": "ast_unknown"}, NotFoundError),
        ({"label_data_id": "ast_unknown"}, InvalidRequestError),
        ({"project": "prj_unknown"}, NotFoundError),
        ({"no_clients": 301}, InvalidRequestError),
        ({"clients_per_round": 301}, InvalidRequestError),
        ({"no_clients": 10, "clients_per_round": 11}, InvalidRequestError),
        ({"purpose": "line\x00break"}, InvalidRequestError),
        ({"model": {"schema": "pysytff.model/1", "input": {"shape": [64]}, "layers": []}}, InvalidModelError),
        ({"model": MODEL | {"layers": [{"type": "lambda"}]}}, InvalidModelError),
        ({"model": MODEL | {"input": {"shape": [63]}}}, InvalidModelError),
        ({"model": MODEL | {"layers": [{"type": "dense", "units": 9}]}}, InvalidModelError),
        ({"loss": "mean_squared_error"}, InvalidModelError),
    ],
)
def test_malformed_requests_raise_and_write_nothing(
    governed: Governed, changes: dict[str, Any], error: type[Exception]
) -> None:
    before = governed.kinds()
    with pytest.raises(error):
        governed.admit(**changes)
    assert before == governed.kinds()


def test_rules_are_asked_again_about_the_clamped_request(governed: Governed) -> None:
    class NoSmallCohorts:
        """The real engine; a rule that refuses cohorts below 25, which no limit expresses."""

        asked: list[int]

        def __init__(self) -> None:
            self.asked = []

        def decide(self, document: Mapping[str, Any], *, policy_id: str, active: ActivePolicies) -> PolicyDecision:
            answer = governed.policies.engine.decide(document, policy_id=policy_id, active=active)
            clients = document["request"]["clients_per_round"]
            self.asked.append(clients)
            if clients >= 25:
                return replace(answer, clamp_order=("clients_per_round",))
            return replace(answer, allowed=False, reasons=(Reason("cohort_too_small", "below 25", "owner:digits"),))

    engine = NoSmallCohorts()
    governed.admission = governed.admission_with(engine)
    decision = governed.admit(rounds=120, clients_per_round=100, noise_multiplier=0.8)
    assert (Outcome.REFUSED, {"cohort_too_small"}) == (decision.outcome, reason_codes(decision))
    assert 100 == engine.asked[0]
    assert engine.asked[1] < 25
    assert 0.0 == governed.committed()


def test_only_researchers_submit(governed: Governed) -> None:
    for principal in (governed.owner, governed.auditor):
        with pytest.raises(ForbiddenError):
            governed.admit(by=principal)


def test_another_researchers_project_does_not_exist(governed: Governed) -> None:
    other = governed.registry.create_principal(Role.RESEARCHER, "other@example.org")
    theirs = governed.registry.projects(other)[0]
    with pytest.raises(NotFoundError):
        governed.admit(project=theirs.id)


def test_an_engine_that_is_down_refuses_on_the_record_and_leaves_the_key_free(governed: Governed) -> None:
    working = governed.admission
    down = PolicyEngine("http://127.0.0.1:9", "nobody", timeout_s=1.0)
    try:
        governed.admission = governed.admission_with(down)
        with pytest.raises(PolicyUnreachableError):
            governed.admit(key="retry")
    finally:
        down.close()
    assert "decision" == governed.kinds()[-1]
    assert 0.0 == governed.committed()
    governed.admission = working
    assert Outcome.APPROVED is governed.admit(key="retry").outcome


def test_an_engine_with_another_revision_than_the_active_one_never_approves(governed: Governed) -> None:
    governed.policies.activate(governed.registry)  # a second activation, which OPA has not loaded
    with pytest.raises(PolicyRevisionError):
        governed.admit()
    assert 0.0 == governed.committed()


def test_policies_that_change_after_the_decision_and_before_the_locks_are_asked_again(governed: Governed) -> None:
    class ChangesOnce:
        """The real engine, with an activation that slips in right behind its first answer."""

        asked = 0

        def decide(self, document: Mapping[str, Any], *, policy_id: str, active: ActivePolicies) -> PolicyDecision:
            answer = governed.policies.engine.decide(document, policy_id=policy_id, active=active)
            self.asked += 1
            if self.asked == 1:
                governed.policies.activate(governed.registry)
            return answer

    engine = ChangesOnce()
    governed.admission = governed.admission_with(engine)
    with pytest.raises(PolicyRevisionError):  # the second try meets an OPA that is not at the new revision
        governed.admit()
    assert 0.0 == governed.committed()
    assert 1 == engine.asked


def test_budget_that_goes_after_the_snapshot_is_noticed_under_the_lock(governed: Governed) -> None:
    plain = governed.admission

    class RivalComesFirst:
        """The real engine; a rival takes most of the budget right behind its first answer."""

        asked = 0

        def decide(self, document: Mapping[str, Any], *, policy_id: str, active: ActivePolicies) -> PolicyDecision:
            answer = governed.policies.engine.decide(document, policy_id=policy_id, active=active)
            self.asked += 1
            if self.asked == 1:
                request = governed.request(rounds=60, clients_per_round=60, noise_multiplier=1.5)
                rival = plain.admit(
                    governed.researcher, request, idempotency_key="rival", request_digest=b"rival".ljust(32)
                )
                assert rival.outcome is not Outcome.REFUSED
            return answer

    engine = RivalComesFirst()
    governed.admission = governed.admission_with(engine)
    decision = governed.admit(key="late", rounds=100, clients_per_round=60, noise_multiplier=1.5)
    assert decision.outcome in (Outcome.CLAMPED, Outcome.REFUSED)
    assert engine.asked >= 2
    assert governed.committed() <= 8.0
