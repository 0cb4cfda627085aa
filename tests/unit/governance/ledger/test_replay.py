"""The ledger's state machine: what may follow what, what it adds up to, and what each breach is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accountant.events import PoissonGaussian, TreeGaussian
from accountant.filter import zero
from accountant.odometer import epsilon_reading
from governance.ledger.entry_reader import Entry
from governance.ledger.findings import KEPT, MEANINGS, Findings
from governance.ledger.replay import Replay, replay
from tests.unit.governance.ledger.made_ledger import (
    EVENT,
    FOREIGN_KEY,
    LOG_KEY,
    NEXT_KEY,
    Made,
    budget,
    charge_units,
    effective,
    every_end,
)


def folded(made: Made) -> Replay:
    return replay(made.bodies())


def codes(made: Made) -> dict[str, int]:
    return dict(folded(made).findings.counts)


def found(made: Made) -> list[tuple[str, int | None]]:
    return [(one.code, one.index) for one in folded(made).findings.kept]


def begun(relation: str = "ADD_OR_REMOVE_ONE") -> Made:
    """With policies in force."""
    made = Made(relation=relation)
    made.policies()
    return made


def amount(times: int, event: PoissonGaussian = EVENT) -> tuple[int, ...]:
    return tuple(int(units) * times for units in charge_units(event))


# --- what follows, and what it adds up to ---


def test_every_way_in_which_a_run_may_end_is_found_right() -> None:
    after = folded(every_end())
    states = {run.id: run.state for run in after.runs.values()}

    assert [] == after.findings.kept
    assert ["published", "released", "quarantined", "resolved", "published", "running"] == list(states.values())
    assert {"run_1", "run_2", "run_3", "run_4", "run_5", "run_6"} == set(states)


def test_balances_are_what_was_committed_and_debited_in_every_scope() -> None:
    balances = folded(every_end()).balances
    committed, debited = amount(10 + 3 + 10 + 5 + 10 + 10), amount(10 + 3 + 5 + 5 + 10 + 1)
    scopes = [("population", "pop_1"), ("project", "prj_1"), ("researcher", "usr_1")]

    assert {("pop_1", *scope): (committed, debited) for scope in scopes} == balances


@pytest.mark.parametrize("pending", [3, 1024])
def test_many_different_curves_add_up_as_exactly_as_few(monkeypatch: pytest.MonkeyPatch, pending: int) -> None:
    monkeypatch.setattr("governance.ledger.replay_decisions._CURVES_PENDING", pending)
    made = begun()
    made.opened()
    events = [PoissonGaussian(0.01, 2.0 + number / 10, 2) for number in range(40)]
    for number, event in enumerate(events):
        made.decided(f"run_{number}", event)
        made.granted(f"run_{number}")
        made.debited(f"run_{number}", 0, 1)
    after = folded(made)
    expected = tuple(map(sum, zip(*(amount(1, event) for event in events), strict=True)))

    assert {} == dict(after.findings.counts)
    for scope in (("population", "pop_1"), ("project", "prj_1"), ("researcher", "usr_1")):
        assert (tuple(2 * units for units in expected), expected) == after.balances[("pop_1", *scope)]


def test_readings_are_the_odometers_at_any_delta() -> None:
    after = folded(every_end())
    own = amount(10 + 3 + 5 + 5 + 10 + 1)

    assert epsilon_reading(budget(), own, 1e-5) == after.readings("pop_1")[0]
    assert epsilon_reading(budget(), own, 1e-3) == after.readings("pop_1", 1e-3)[0]


def test_a_population_without_runs_has_a_balance_of_nothing() -> None:
    made = begun()
    made.opened()
    nothing = zero(budget().orders)
    assert {("pop_1", "population", "pop_1"): (nothing, nothing)} == folded(made).balances


def test_a_run_may_be_released_before_it_is_granted_and_after_all_of_its_rounds() -> None:
    made = begun()
    made.opened()
    made.decided("run_1")
    made.released("run_1", 10, 0)
    made.decided("run_2")
    made.granted("run_2")
    made.debited("run_2", 0, 10)
    made.released("run_2", 0, 10)
    assert {} == codes(made)


# --- breaches ---


def _swap(made: Made, one: int, other: int) -> None:
    made.rows[one], made.rows[other] = made.rows[other], made.rows[one]


def _facts(index: int, **changes: Any) -> Callable[[Made], object]:
    return lambda made: made.rows[index].facts.update(changes)


# Of every_end: 0 key, 1 policy, 2 population, 3 dataset, 4 quota; run_1 is 5 decision, 6 granted, 7 and 8 debits,
# 9 publication; run_2 10 decision … 13 release; 14 refusal; run_3 15 … 18 quarantine; run_4 19 … 22, 23 resolution.
BREACHES: dict[str, tuple[Callable[[Made], object], str, int | None]] = {
    "a debit before the publication is left out": (lambda m: m.rows.pop(8), "publication_without_debits", 8),
    "a debit in the middle is left out": (lambda m: m.rows.pop(7), "debit_gap", 7),
    "every debit is left out": (lambda m: m.rows.__delitem__(slice(7, 9)), "publication_without_debits", 7),
    "the decision is left out": (lambda m: m.rows.pop(5), "publication_without_debits", 8),
    "it is published before the last debit": (lambda m: _swap(m, 8, 9), "publication_without_debits", 8),
    "it is published twice": (lambda m: m.published("run_1"), "published_twice", 32),
    "a released run publishes": (lambda m: m.published("run_2"), "illegal_transition", 32),
    "a quarantined run publishes": (lambda m: m.published("run_3"), "illegal_transition", 32),
    "rounds are debited twice": (lambda m: m.rows.insert(8, m.rows[7]), "debited_twice", 8),
    "a debit follows the publication": (lambda m: m.debited("run_1", 10, 1), "illegal_transition", 32),
    "a debit follows a release": (lambda m: m.debited("run_2", 3, 1), "illegal_transition", 32),
    "a debit follows a quarantine": (lambda m: m.debited("run_3", 5, 1), "illegal_transition", 32),
    "a debit follows a resolution": (lambda m: m.debited("run_4", 5, 1), "illegal_transition", 32),
    "more is debited than reserved": (lambda m: m.debited("run_6", 1, 10), "over_debited", 32),
    "a debit is under another token": (_facts(7, fencing_token=9), "stale_grant", 7),
    "a debit is under another grant": (_facts(7, grant="grt_other"), "stale_grant", 7),
    "a debit counts wrong": (_facts(7, rounds_debited=5), "bad_facts", 7),
    "a debit is of no rounds": (_facts(7, rounds=0), "bad_facts", 7),
    "a debit is of half a round": (_facts(7, rounds=0.5), "bad_facts", 7),
    "a debit is of true rounds": (_facts(7, rounds=True), "bad_facts", 7),
    "a publication is under another token": (_facts(9, fencing_token=9), "stale_grant", 9),
    "a publication says more rounds": (_facts(9, rounds=11), "publication_without_debits", 9),
    "a token comes again": (_facts(16, fencing_token=2), "stale_grant", 16),
    "a run is granted twice": (lambda m: m.granted("run_6"), "illegal_transition", 32),
    "a run is reserved twice": (lambda m: m.decided("run_1"), "illegal_transition", 32),
    "a debited round is freed by a release": (_facts(13, rounds_released=8), "freed_debited_round", 13),
    "a release hides a debit": (_facts(13, rounds_released=8, rounds_debited=2), "freed_debited_round", 13),
    "a release gives back too little": (_facts(13, rounds_released=6), "illegal_transition", 13),
    "a release is said to be before data": (_facts(13, why="failed_before_data"), "forbidden_release", 13),
    "a debited round is freed by a resolution": (_facts(23, rounds_released=6), "freed_debited_round", 23),
    "a quarantine is resolved twice": (lambda m: m.resolved("run_4", 0, 10), "illegal_transition", 32),
    "a published run is released": (lambda m: m.released("run_1", 0, 10), "illegal_transition", 32),
    "a published run is quarantined": (lambda m: m.quarantined("run_1", 0, 10), "illegal_transition", 32),
    "a quarantine holds too little": (_facts(18, rounds_held=4), "illegal_transition", 18),
    "a resolution lacks evidence": (_facts(23, evidence={}), "bad_facts", 23),
    "a population is opened again": (lambda m: m.opened(epsilon=100.0), "illegal_transition", 32),
    "a budget's epsilon is no number": (lambda m: m.rows[2].facts["budget"].update(epsilon="8"), "bad_facts", 2),
    "a quota is above the population's": (_facts(4, epsilon=9), "illegal_transition", 4),
    "a quota's scope is unknown": (_facts(4, scope="planet"), "bad_facts", 4),
    "a dataset moves": (
        lambda m: (m.opened("pop_2", dataset="dat_2"), m.registered("pop_2")),
        "illegal_transition",
        34,
    ),
    "a version is skipped": (lambda m: m.registered(version=3), "illegal_transition", 32),
    "policies are skipped": (_facts(1, sequence=2), "illegal_transition", 1),
    "policies were not in force": (_facts(5, policy_revision="0-z"), "illegal_transition", 5),
    "a dataset was not registered": (_facts(5, dataset_version=2), "illegal_transition", 5),
    "a refusal is charged": (lambda m: m.rows[14].facts.update(charge=m.charge()), "bad_facts", 14),
    "an approval is not charged": (_facts(5, charge=None), "bad_facts", 5),
    "an outcome is unknown": (_facts(14, outcome="maybe"), "bad_facts", 14),
    "a run changes its researcher": (lambda m: m.rows[7].subjects.update(researcher_id="u"), "illegal_transition", 7),
    "a run changes its population": (lambda m: m.rows[7].subjects.update(population_id="p"), "illegal_transition", 7),
    "a key is enrolled twice": (lambda m: m.key(LOG_KEY), "illegal_transition", 32),
    "the origin changes": (lambda m: (m.key(NEXT_KEY), m.rows[-1].facts.update(origin="o")), "illegal_transition", 32),
    "an event's type is foreign": (
        lambda m: m.rows[5].facts["charge"]["event"].update(type="os.system"),
        "bad_facts",
        5,
    ),
    "an event's version is true": (lambda m: m.rows[5].facts["charge"]["event"].update(version=True), "bad_facts", 5),
    "a charge has a field more": (lambda m: m.rows[5].facts["charge"].update(discount=1), "bad_facts", 5),
    "a unit is a number": (lambda m: m.rows[5].facts["charge"]["units_per_round"].__setitem__(0, 5), "bad_facts", 5),
    "a unit is a list": (lambda m: m.rows[5].facts["charge"]["units_per_round"].__setitem__(0, []), "bad_facts", 5),
    "a unit is negative": (lambda m: m.rows[5].facts["charge"]["units_per_round"].__setitem__(0, "-5"), "bad_facts", 5),
    "a unit is a thousand digits": (
        lambda m: m.rows[5].facts["charge"]["units_per_round"].__setitem__(-1, "9" * 1000),
        "bad_facts",
        5,
    ),
    "an order is left out": (lambda m: m.rows[5].facts["charge"]["units_per_round"].pop(), "bad_facts", 5),
    "rounds are charged together": (lambda m: m.rows[5].facts["charge"].update(rounds_per_charge=10), "bad_facts", 5),
    "nobody was reconciled": (lambda m: m.reconciled(run_9=1), "illegal_transition", 32),
}


@pytest.mark.parametrize("what", BREACHES)
def test_a_breach_is_named_with_its_entry(what: str) -> None:
    change, code, index = BREACHES[what]
    assert (code, index) in found(every_end().changed(change))


@pytest.mark.parametrize("lowered", ["0.5", "0.99", "0.9999"])
def test_a_lowered_charge_is_named(lowered: str) -> None:
    def lower(made: Made) -> None:
        charge = made.rows[5].facts["charge"]
        charge["units_per_round"] = [str(int(int(units) * float(lowered))) for units in charge["units_per_round"]]

    assert ("under_charged", 5) in found(every_end().changed(lower))


def test_the_last_bit_of_another_processor_is_no_lowered_charge() -> None:
    def differ(made: Made) -> None:
        charge = made.rows[5].facts["charge"]
        charge["units_per_round"] = [str(int(units) - 1) for units in charge["units_per_round"]]

    assert {} == codes(every_end().changed(differ))


def test_more_noise_in_the_event_than_was_charged_for_is_no_breach_and_less_is() -> None:
    def noise(multiplier: float) -> Callable[[Made], None]:
        def change(made: Made) -> None:
            facts = made.rows[5].facts
            for parameters in (facts["charge"]["event"], facts["effective"]):
                parameters["noise_multiplier"] = multiplier

        return change

    assert {} == codes(every_end().changed(noise(3.0)))
    assert ("under_charged", 5) in found(every_end().changed(noise(1.5)))


def test_a_full_computation_finds_a_curve_that_the_accountant_does_not_compute() -> None:
    made = begun()
    made.opened()
    made.decided("run_1")
    charge = made.rows[-1].facts["charge"]
    charge["units_per_round"] = [str(int(units) * 2) for units in charge["units_per_round"]]
    full = Replay(full_curves=True)
    quick = Replay()
    for index, row in enumerate(made.rows):
        for one in (full, quick):
            one.apply(Entry(index, row.kind, row.at, row.subjects, row.facts))

    assert {"curve_mismatch": 1} == dict(full.findings.counts)
    assert {} == dict(quick.findings.counts)


# --- the filter is asked again ---


# Its most rounds, fresh: 58 in a budget of 1, 139 in one of 1.5; under quotas of a budget of 8, 128 for 2,
# 20 for 1 and none for 0.5.
def large(rounds: int) -> PoissonGaussian:
    return PoissonGaussian(0.05, 2.0, rounds)


def _many(made: Made, runs: int, event: PoissonGaussian) -> Made:
    for number in range(runs):
        made.decided(f"run_{number}", event)
    return made


def test_an_approval_beyond_the_populations_budget_is_named() -> None:
    made = begun()
    made.opened(epsilon=1.0)
    _many(made, 3, large(50))
    assert [("over_admitted", 4), ("over_admitted", 5)] == found(made)


def test_an_approval_beyond_a_quota_is_named_and_other_projects_are_not() -> None:
    made = begun()
    made.opened()
    made.quota(epsilon=2.0)
    _many(made, 3, large(100))
    made.decided("other", large(100))
    made.rows[-1].subjects["project_id"] = "prj_2"
    assert [("over_admitted", 5), ("over_admitted", 6)] == found(made)


def test_a_quota_counts_what_was_spent_before_it_was_set() -> None:
    made = begun()
    made.opened()
    _many(made, 1, large(120))
    made.quota(epsilon=2.0)
    made.decided("late", large(20))
    made.decided("other", large(20))
    made.rows[-1].subjects["project_id"] = "prj_2"
    assert [("over_admitted", 5)] == found(made)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2025-12-31T00:00:00.000000Z", 1),  # before the schedule starts: its initial epsilon
        ("2026-01-30T23:59:59.999999Z", 1),
        ("2026-01-31T00:00:00.000000Z", 0),  # the first step
        ("2026-12-31T00:00:00.000000Z", 0),
    ],
)
def test_a_schedule_counts_as_it_stands_at_the_decisions_own_time(at: str, expected: int) -> None:
    made = begun()
    made.opened()
    schedule = {"starts_at": made.at, "initial_epsilon": 0.3, "step_epsilon": 2.0, "period_days": 30}
    made.quota("population", "pop_1", epsilon=4.0, schedule=schedule)
    made.at = at
    made.decided("run_1", large(100))
    assert expected == codes(made).get("over_admitted", 0)


def test_nothing_is_admitted_where_nothing_is_unlocked_yet() -> None:
    made = begun()
    made.opened()
    schedule = {"starts_at": made.at, "initial_epsilon": 0, "step_epsilon": 1, "period_days": 30}
    made.quota("population", "pop_1", epsilon=4.0, schedule=schedule)
    made.decided("run_1", PoissonGaussian(0.001, 10.0, 1))
    assert {"over_admitted": 1} == codes(made)


def test_what_was_released_makes_room_again_and_what_was_quarantined_does_not() -> None:
    made = begun()
    made.opened(epsilon=1.5)
    made.decided("run_1", large(100))
    made.released("run_1", 100, 0)
    made.decided("run_2", large(100))
    made.granted("run_2")
    made.quarantined("run_2", 100, 0)
    made.decided("run_3", large(100))
    assert [("over_admitted", 8)] == found(made)


# --- several populations ---


def two_populations() -> Made:
    made = begun()
    for number in (1, 2):
        made.opened(f"pop_{number}", dataset=f"dat_{number}")
    made.disjoint({"dat_1": 1, "dat_2": 1})
    both: dict[str, Any] = {"populations": ["pop_1", "pop_2"]}
    for number in (1, 2):
        made.decided("run_1", population=f"pop_{number}", dataset=f"dat_{number}", **both)
    for number in (1, 2):
        made.granted("run_1", f"pop_{number}", again=number == 2)
    for number in (1, 2):
        made.debited("run_1", 0, 10, f"pop_{number}")
    for number in (1, 2):
        made.published("run_1", population=f"pop_{number}")
    return made


def test_a_run_over_two_populations_is_debited_and_published_in_both() -> None:
    after = folded(two_populations())
    assert [] == after.findings.kept
    for name in ("pop_1", "pop_2"):
        assert (amount(10), amount(10)) == after.balances[(name, "population", name)]


# Rows: 0 policies, 1–4 populations, 5 disjoint, 6 and 7 decision, 8 and 9 granted, 10 and 11 debit, 12 and 13
# publication.
@pytest.mark.parametrize(
    ("change", "code", "index"),
    [
        (lambda m: m.rows.pop(5), "not_disjoint", 6),
        (_facts(5, versions={"dat_1": 1}), "not_disjoint", 7),
        (lambda m: m.rows.insert(5, m.rows.pop(6)), "split_entries", 6),
        (lambda m: m.rows.pop(7), "split_entries", 7),
        (lambda m: m.rows.pop(11), "publication_without_debits", 12),
        (lambda m: m.rows.pop(10), "split_entries", 10),
        (lambda m: m.rows.pop(13), "split_entries", None),
        (lambda m: _swap(m, 10, 11), "split_entries", 10),
        (lambda m: m.rows.insert(11, m.rows.pop(13)), "split_entries", 11),
        (_facts(7, decision="dec_other"), "split_entries", 7),
        (_facts(7, populations=["pop_2", "pop_1"]), "split_entries", 7),
        (_facts(6, populations=["pop_1"]), "bad_facts", 6),
        (_facts(6, populations=["pop_1", "pop_1"]), "bad_facts", 6),
        (_facts(6, populations=[1, {}]), "bad_facts", 6),
        (_facts(6, populations=["pop_1", "pop_3"]), "illegal_transition", 6),
        (_facts(9, fencing_token=1, grant="other"), "stale_grant", 9),
        (lambda m: m.rows[7].subjects.update(dataset_id="dat_1"), "illegal_transition", 7),
        (_facts(7, effective=effective(EVENT)), "under_charged", 7),
    ],
)
def test_a_step_that_is_not_in_all_of_its_populations_is_named(
    change: Callable[[Made], object], code: str, index: int | None
) -> None:
    assert (code, index) in found(two_populations().changed(change))


def test_a_version_that_was_registered_after_the_comparison_is_named() -> None:
    def newer(made: Made) -> None:
        made.registered("pop_2", "dat_2", 2)
        made.rows.insert(6, made.rows.pop())
        made.rows[8].facts["dataset_version"] = 2

    assert ("not_disjoint", 8) in found(two_populations().changed(newer))


def test_joined_datasets_must_be_registered_in_the_population() -> None:
    made = begun()
    made.opened()
    made.registered(dataset="dat_2")
    made.decided("run_1", joined=[{"dataset": "dat_2", "version": 1}])
    made.decided("run_2", joined=[{"dataset": "dat_3", "version": 1}])
    assert [("illegal_transition", 5)] == found(made)


# --- atomic charges, and reconciliation ---

TREE = TreeGaussian(noise_multiplier=5.0, rounds=16, max_participation=2, min_separation=4)


def tree_run() -> Made:
    made = begun(relation="REPLACE_SPECIAL")
    made.opened()
    charge = {**made.charge(TREE), "rounds_per_charge": 16}
    made.decided("run_1", TREE, charge=charge)
    made.granted("run_1")
    return made


def test_a_tree_is_charged_and_debited_whole() -> None:
    made = tree_run()
    made.debited("run_1", 0, 16)
    made.published("run_1", 16)
    units = tuple(map(int, charge_units(TREE, "REPLACE_SPECIAL")))
    after = folded(made)

    assert [] == after.findings.kept
    assert (units, units) == after.balances[("pop_1", "population", "pop_1")]


def test_a_part_of_a_tree_is_not_debited() -> None:
    made = tree_run()
    made.debited("run_1", 0, 8)
    assert [("illegal_transition", 5)] == found(made)


def test_the_cost_of_a_whole_tree_is_not_one_round_of_it() -> None:
    made = tree_run()
    made.rows[3].facts["charge"]["rounds_per_charge"] = 1
    assert ("bad_facts", 3) in found(made)


def test_an_event_that_the_relation_cannot_hold_is_named() -> None:
    made = begun(relation="REPLACE_ONE")
    made.opened()
    made.relation = "ADD_OR_REMOVE_ONE"
    made.decided("run_1")
    assert [("bad_facts", 3)] == found(made)


def test_reconciliation_debits_what_ran_without_an_entry_and_adjusts_what_was_never_reserved() -> None:
    made = begun()
    made.opened()
    made.decided("run_1")
    made.debited("run_1", 0, 6, reconciled=True)
    made.quarantined("run_1", 4, 6)
    made.debited("run_1", 6, 1, reconciled=True)
    made.resolved("run_1", 3, 7)
    lost = made.charge() | {"rounds": 5, "run": "run_lost", "by": "operator"}
    made.add("adjustment", lost, population_id="pop_1")
    made.reconciled(run_1=7, run_lost=5)
    after = folded(made)

    assert [] == after.findings.kept
    assert (amount(12), amount(12)) == after.balances[("pop_1", "population", "pop_1")]
    assert (amount(7), amount(7)) == after.balances[("pop_1", "project", "prj_1")]


def test_what_was_lost_may_have_broken_the_guarantee_and_it_says_so() -> None:
    made = begun()
    made.opened(epsilon=1.0)
    lost = made.charge(large(100)) | {"rounds": 100, "run": "run_lost", "by": "operator"}
    made.add("adjustment", lost, population_id="pop_1")
    made.reconciled(run_lost=100)
    assert [("budget_exceeded", None)] == found(made)


# --- it ends with findings, whatever it is given ---

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=5) | st.just("pop_1"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.integers(0, 31), st.data())
def test_any_fact_may_hold_anything(index: int, data: st.DataObject) -> None:
    made = every_end()
    row = made.rows[index]
    facts = dict(row.facts)
    facts[data.draw(st.sampled_from(sorted(facts)))] = data.draw(JUNK)
    if data.draw(st.booleans()) and isinstance(facts.get("charge"), dict):
        charge: dict[str, Any] = facts["charge"]
        facts["charge"] = charge | {data.draw(st.sampled_from(sorted(charge))): data.draw(JUNK)}
    after = Replay()
    for number, one in enumerate(made.rows):
        after.apply(Entry(number, one.kind, one.at, one.subjects, facts if number == index else one.facts))
    after.finish()

    assert set(after.findings.counts) <= set(MEANINGS)


@given(st.permutations(range(32)))
def test_entries_in_any_order_end_with_findings(order: list[int]) -> None:
    made = every_end()
    made.rows = [made.rows[place] for place in order]
    after = folded(made)
    for committed, debited in after.balances.values():
        assert all(map(int.__le__, debited, committed))


def test_a_bounded_number_of_findings_is_kept_and_all_are_counted() -> None:
    findings = Findings()
    for index in range(KEPT + 5):
        findings.add("debit_gap", index, "x")
    findings.add("fork", None, "the first of another code is kept too")
    assert (KEPT + 1, KEPT + 6) == (len(findings.kept), findings.total)


def test_a_message_cannot_write_to_the_terminal() -> None:
    findings = Findings()
    findings.add("fork", None, "\x1b[2Jgone" + "x" * 10_000)
    assert findings.kept[0].message.startswith("\\x1b[2Jgone")
    assert len(findings.kept[0].message) <= 500


def test_a_gap_in_stored_entries_is_named_by_the_fold_itself() -> None:
    bodies = every_end().bodies()
    assert {"missing_entry"} <= set(replay(bodies[:5] + bodies[6:]).findings.counts)
    assert {"repeated_entry"} <= set(replay([*bodies, bodies[3]]).findings.counts)
    assert {"malformed_entry"} <= set(replay([*bodies, b"{"]).findings.counts)


def test_foreign_keys_are_enrolled_like_any_other() -> None:
    made = every_end()
    made.key(FOREIGN_KEY)
    assert [0, 32] == [key.index for key in folded(made).keys]
