"""Rules that a log's own operator might break: each breach is named, and what an honest node does is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from accountant.events import AdaptiveClippingGaussian, PoissonGaussian
from governance.evidence import Evidence
from governance.ledger import replay_runs
from governance.ledger.replay import replay
from governance.settlement import _METRICS
from tests.unit.governance.ledger.made_ledger import DECLARED, EVENT, LOG_KEY, Made, effective

Change = Callable[[Made], object]


def found(made: Made) -> list[tuple[str, int | None]]:
    return [(one.code, one.index) for one in replay(made.bodies()).findings.kept]


def begun(*, holdout: bool = False) -> Made:
    """Rows: 0 key, 1 policies, 2 and 3 first population and its data, 4 and 5 second."""
    made = Made()
    made.key(LOG_KEY)
    made.policies()
    made.opened()
    made.opened("pop_2", dataset="dat_2")
    made.rows[3].facts["has_public_holdout"] = holdout
    return made


def running(debited: int = 0, **more: Any) -> Made:
    """Rows 6 decision, 7 granted, and 8 a debit if there is one."""
    made = begun(**more)
    made.decided("run_1")
    made.granted("run_1")
    if debited:
        made.debited("run_1", 0, debited)
    return made


def test_what_the_verifier_takes_for_evidence_and_metrics_is_what_the_service_takes() -> None:
    assert (Evidence.KINDS, _METRICS) == (replay_runs.EVIDENCE, replay_runs.METRICS)


# --- several populations ---


def test_two_decisions_for_one_run_in_two_populations_are_named() -> None:
    made = begun()
    made.decided("run_1")
    made.decided("run_1", population="pop_2", dataset="dat_2", decision="dec_other")
    assert [("not_disjoint", 7)] == found(made)


def test_a_run_of_one_population_does_not_join_a_decision_over_two() -> None:
    made = begun()
    made.disjoint({"dat_1": 1, "dat_2": 1})
    made.decided("run_1")
    both: dict[str, Any] = {"populations": ["pop_1", "pop_2"], "decision": "dec_both"}
    made.decided("run_1", **both)
    made.decided("run_1", population="pop_2", dataset="dat_2", **both)
    assert [("not_disjoint", 8), ("not_disjoint", 9)] == found(made)


def test_a_token_is_not_given_to_two_runs() -> None:
    made = running()
    made.decided("run_2")
    made.granted("run_2", again=True)
    assert [("stale_grant", 9)] == found(made)


def test_the_same_data_in_two_populations_is_named() -> None:
    made = begun()
    made.rows[5].facts["version_handle"] = made.rows[3].facts["version_handle"]
    assert [("illegal_transition", 5)] == found(made)


# --- what is charged is what runs ---


@pytest.mark.parametrize(
    "changes",
    [
        {"rounds": 11},
        {"noise_multiplier": 1.0},
        {"noise_multiplier": 2.0000000000000004},
        {"clients_per_round": 51},
        {"no_clients": 999},
        {"no_clients": 100, "clients_per_round": 50},
        {"no_clients": 2 * DECLARED, "clients_per_round": 100},
    ],
)
def test_parameters_other_than_the_charged_ones_are_named(changes: dict[str, Any]) -> None:
    made = begun()
    made.decided("run_1", effective=effective(EVENT) | changes)
    assert [("under_charged", 6)] == found(made)


@pytest.mark.parametrize("value", [None, {}, [], effective(EVENT) | {"no_clients": "all"}, {"rounds": True}])
def test_an_approval_without_readable_parameters_is_named_and_still_counted(value: object) -> None:
    made = begun()
    made.decided("run_1", effective=value)
    made.released("run_1", 10, 0)
    assert [("bad_facts", 6)] == found(made)


def test_a_pool_is_what_probabilities_are_of() -> None:
    made = begun()
    made.decided("run_1", effective=effective(EVENT) | {"no_clients": 200, "clients_per_round": 10})
    made.decided("run_2", template_sha256="00", effective=effective(EVENT) | {"anything": "more"})
    assert [] == found(made)


def test_a_probability_is_compared_as_it_was_divided() -> None:
    made = begun()
    for number, (clients, pool) in enumerate([(1, 3), (20, 300), (7, 999), (999, 1000)]):
        event = PoissonGaussian(clients / pool, 2.0, 1)
        parameters = effective(event) | {"no_clients": pool, "clients_per_round": clients}
        made.decided(f"run_{number}", event, effective=parameters)
    assert [] == found(made)


def test_an_event_of_another_mechanism_is_named() -> None:
    made = begun()
    event = AdaptiveClippingGaussian(0.05, 2.0, 100.0, 10)
    made.decided("run_1", event, effective=effective(EVENT))
    assert [("under_charged", 6)] == found(made)


# --- who gives back what, and why ---


def _released(why: str, by: str, debited: int) -> Change:
    def change(made: Made) -> None:
        made.released("run_1", 10 - debited, debited, why)
        made.rows[-1].facts["by"] = by

    return change


@pytest.mark.parametrize(
    ("change", "debited"),
    [
        (_released("cancelled", "usr_owner", 4), 4),
        (_released("cancelled", "usr_owner", 0), 0),
        (_released("crashed on one person's data", "usr_1", 4), 4),
        (_released("failed_before_data", "usr_1", 0), 0),
        (_released("failed_before_data", "runner", 4), 4),
        (_released("restored", "reconciliation", 4), 4),
        (_released("restored", "usr_owner", 0), 0),
    ],
)
def test_a_release_that_private_data_may_have_led_to_is_named(change: Change, debited: int) -> None:
    made = running(debited)
    change(made)
    assert [("forbidden_release", len(made.rows) - 1)] == found(made)


@pytest.mark.parametrize(
    ("change", "debited"),
    [
        (_released("cancelled", "usr_1", 4), 4),
        (_released("failed_before_data", "runner", 0), 0),
        (_released("restored", "reconciliation", 0), 0),
    ],
)
def test_a_release_that_nothing_private_led_to_is_none(change: Change, debited: int) -> None:
    assert [] == found(running(debited).changed(change))


def test_anybody_who_may_cancels_a_run_that_was_never_granted() -> None:
    made = begun()
    made.decided("run_1")
    _released("cancelled", "usr_owner", 0)(made)
    assert [] == found(made)


def test_a_quarantine_that_was_resolved_on_what_is_no_evidence_is_named() -> None:
    made = running(4)
    made.quarantined("run_1", 6, 4)
    made.resolved("run_1", 6, 4)
    made.rows[-1].facts["evidence"]["kind"] = "crash_on_data"
    assert [("forbidden_release", 10)] == found(made)


# --- what is published ---


def _published(made: Made, metrics: object) -> Made:
    made.published("run_1")
    made.rows[-1].facts["metrics"] = metrics
    return made


@pytest.mark.parametrize("metrics", [["training_loss"], ["holdout_loss", "cohort"], [{}]])
def test_metrics_that_are_of_no_holdout_are_named(metrics: object) -> None:
    assert [("private_metrics", 9)] == found(_published(running(10, holdout=True), metrics))


def test_metrics_of_a_holdout_that_no_data_of_the_run_has_are_named() -> None:
    assert [("private_metrics", 9)] == found(_published(running(10), ["holdout_loss"]))
    assert [] == found(_published(running(10, holdout=True), ["holdout_accuracy", "holdout_loss"]))


def test_a_holdout_counts_at_the_version_that_is_used() -> None:
    made = begun()
    made.registered(version=2, holdout=True)
    made.registered(version=3)
    for version, run in ((1, "run_1"), (2, "run_2"), (3, "run_3")):
        made.decided(run, dataset_version=version)
        made.granted(run)
        made.debited(run, 0, 10)
        made.published(run)
        made.rows[-1].facts["metrics"] = ["holdout_loss"]
    assert [("private_metrics", 11), ("private_metrics", 19)] == found(made)


def test_one_populations_holdout_serves_a_run_over_two() -> None:
    made = begun()
    made.rows[5].facts["has_public_holdout"] = True
    made.disjoint({"dat_1": 1, "dat_2": 1})
    pair = (("pop_1", "dat_1"), ("pop_2", "dat_2"))
    for population, dataset in pair:
        made.decided("run_1", population=population, dataset=dataset, populations=["pop_1", "pop_2"])
    made.granted("run_1")
    made.granted("run_1", "pop_2", again=True)
    for population, _ in pair:
        made.debited("run_1", 0, 10, population)
    for population, _ in pair:
        made.published("run_1", 10, population)
        made.rows[-1].facts["metrics"] = ["holdout_loss"]
    assert [] == found(made)


# --- reconciliation ---


def test_nothing_is_published_after_a_reconciliation_debited_it() -> None:
    made = running(4)
    made.debited("run_1", 4, 6, reconciled=True)
    made.reconciled(run_1=6)
    made.published("run_1")
    assert [("illegal_transition", 11)] == found(made)


@pytest.mark.parametrize("listed", [None, 3])
def test_a_reconciled_debit_that_no_reconciliation_lists_is_named(listed: int | None) -> None:
    made = running(4)
    made.debited("run_1", 4, 2, reconciled=True)
    made.debited("run_1", 6, 2, reconciled=True)
    if listed:
        made.reconciled(run_1=listed)
    assert [("unexplained_debit", 9)] == found(made)


def test_an_adjustment_that_no_reconciliation_lists_is_named() -> None:
    made = begun()
    made.add("adjustment", made.charge() | {"rounds": 1, "run": "run_x", "by": "somebody"}, population_id="pop_1")
    assert [("unexplained_debit", 6)] == found(made)


def test_an_unknown_grant_of_several_lost_runs_is_no_finding() -> None:
    made = begun()
    for number, run in enumerate(("run_1", "run_2")):
        made.decided(run)
        made.debited(run, 0, 10, grant="grt_unknown", fencing_token=number + 1, reconciled=True)
        made.quarantined(run, 0, 10)
    made.reconciled(run_1=10, run_2=10)
    assert [] == found(made)


# --- names that come once ---


def test_an_approval_before_any_policies_is_named() -> None:
    made = Made()
    made.opened()
    made.decided("run_1")
    assert [("illegal_transition", 2)] == found(made)


def test_a_decision_that_comes_twice_is_named() -> None:
    made = begun()
    made.decided(None)
    made.decided("run_1", decision="dec_None")
    assert [("illegal_transition", 7)] == found(made)


def test_a_grant_that_comes_twice_is_named() -> None:
    made = running()
    made.decided("run_2")
    made.granted("run_2")
    made.rows[-1].facts["grant"] = "grt_run_1"
    assert [("stale_grant", 9)] == found(made)


@pytest.mark.parametrize("by", [None, ""])
def test_a_key_that_nobody_enrolled_is_named(by: object) -> None:
    made = begun()
    made.rows[0].facts["by"] = by
    assert [("bad_facts", 0)] == found(made)


def test_data_that_does_not_say_whether_it_has_a_holdout_is_named() -> None:
    made = begun()
    del made.rows[5].facts["has_public_holdout"]
    assert [("bad_facts", 5)] == found(made)
