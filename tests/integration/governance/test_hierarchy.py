"""One lifetime budget for a population, quotas and windows under it, and runs over several datasets and populations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from governance.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError
from governance.ledger import budgets
from governance.ledger.entry_search import Wanted
from governance.model import Asset, Dataset, Decision, Outcome, Population, Role, Schedule
from tests.integration.governance.conftest import Governed

LETTERS = "bcdefghij"


def dataset_of(governed: Governed, population: Population, name: str, **changes: Any) -> Dataset:
    handle = LETTERS[len(governed.registry.datasets(governed.owner)) - 1]
    sensible: dict[str, Any] = {
        "population_id": population.id,
        "name": name,
        "description": "",
        "policy_id": "digits",
        "assets": [Asset("", "pictures", "float32", (64,)), Asset("", "digits", "int64", (), "", 0, 9)],
        "version_handle": "ver_" + handle * 24,
        "holdout_handle": None,
        "max_examples_per_unit": 7,
    }
    return governed.registry.register_dataset(governed.owner, **(sensible | changes))


def pair(dataset: Dataset) -> tuple[str, str]:
    return dataset.assets[0].id, dataset.assets[1].id


def reading(governed: Governed, population: Population) -> tuple[float, float]:
    found = governed.queries.budget(governed.auditor, population.id)[0]
    return found.spent_epsilon, found.committed_epsilon


def amounts(governed: Governed, population: Population) -> budgets.Balance:
    scope = ("population", population.id)
    with governed.database.read() as connection:
        return budgets.read_balances(connection, population.id, (scope,))[scope]


# --- datasets that share people share the population ---


def test_a_second_dataset_of_the_same_people_has_no_budget_of_its_own(governed: Governed) -> None:
    second = dataset_of(governed, governed.population, "more digits")
    one, other = pair(second)
    governed.admit(train_data_id=one, label_data_id=other)
    assert governed.committed() > 0


def test_a_request_over_two_datasets_of_one_population_is_one_event(governed: Governed) -> None:
    alone = governed.admit()
    before = amounts(governed, governed.population).committed
    second = dataset_of(governed, governed.population, "more digits")
    both = governed.admit(joined=(pair(second),))
    after = amounts(governed, governed.population).committed
    assert alone.cost is not None
    assert both.cost is not None
    assert alone.cost.event == both.cost.event
    assert tuple(2 * units for units in before) == after
    assert 1 == governed.kinds().count("decision") - 1


def test_the_grant_names_every_version_and_its_cap(governed: Governed) -> None:
    second = dataset_of(governed, governed.population, "more digits")
    grant = governed.started(joined=(pair(second),))
    (joined,) = grant.data.joined
    assert (second.version_handle, "pictures", "digits", 7) == (
        joined.version_handle,
        joined.features,
        joined.labels,
        joined.max_examples_per_unit,
    )
    assert governed.dataset.version_handle == grant.data.version_handle


def test_a_dataset_of_another_shape_or_twice_the_same_is_refused(governed: Governed) -> None:
    odd = dataset_of(
        governed,
        governed.population,
        "odd",
        assets=[Asset("", "pictures", "float32", (63,)), Asset("", "digits", "int64", (), "", 0, 9)],
    )
    for joined in ((pair(odd),), (pair(governed.dataset),), (("ast_none", "ast_none"),)):
        with pytest.raises((InvalidRequestError, NotFoundError)):
            governed.admit(joined=joined)
    assert "decision" not in governed.kinds()


def test_every_datasets_policy_must_allow_the_request(governed: Governed) -> None:
    second = dataset_of(governed, governed.population, "more digits")
    decision = governed.admit(joined=(pair(second),), purpose="marketing")
    assert Outcome.REFUSED is decision.outcome


# --- several populations ---


@dataclass
class Two:
    governed: Governed
    others: Population
    dataset: Dataset

    def declare(self) -> None:
        versions = {self.governed.dataset.id: 1, self.dataset.id: 1}
        self.governed.registry.declare_disjoint(
            self.governed.owner, self.governed.population.id, self.others.id, versions
        )

    def admit(self, **changes: Any) -> Decision:
        return self.governed.admit(joined=(pair(self.dataset),), **changes)


@pytest.fixture
def two(governed: Governed) -> Two:
    others = governed.registry.open_population(governed.owner, "others", 700, 4.0, 1e-6)
    return Two(governed, others, dataset_of(governed, others, "others' digits"))


def test_populations_that_nobody_compared_are_refused_together(two: Two) -> None:
    with pytest.raises(InvalidRequestError, match="not checked to be disjoint"):
        two.admit()


def test_a_run_over_two_populations_debits_each(two: Two) -> None:
    two.declare()
    decision = two.admit()
    assert Outcome.APPROVED is decision.outcome
    assert decision.cost is not None
    assert 30 / 1000 == decision.cost.event["sampling_probability"]
    grant = two.governed.settlement.claim(two.governed.runner)
    assert grant is not None
    two.governed.debit_all(grant)
    for population in (two.governed.population, two.others):
        balance = amounts(two.governed, population)
        assert balance.committed == balance.debited
        assert any(balance.debited)
    two.governed.publish(grant)
    assert 2 == two.governed.kinds().count("publication")
    statement = two.governed.queries.result(two.governed.researcher, grant.run_id).privacy_statement
    assert [4.0, 8.0] == sorted(one["guarantee"]["epsilon"] for one in statement["populations"])


def test_the_entries_of_both_populations_follow_one_another(two: Two) -> None:
    two.declare()
    decision = two.admit()
    entries, _ = two.governed.queries.entries(two.governed.auditor, Wanted(run_id=decision.run_id))
    assert [two.governed.population.id, two.others.id] == sorted(
        [str(entry.population_id) for entry in entries], key=[two.governed.population.id, two.others.id].index
    )
    assert entries[0].index + 1 == entries[1].index
    bodies = [json.loads(entry.body) for entry in entries]
    assert bodies[0]["facts"] == bodies[1]["facts"]
    assert sorted([two.governed.population.id, two.others.id]) == bodies[0]["facts"]["populations"]


def test_where_one_population_has_no_room_none_is_charged(two: Two) -> None:
    two.declare()
    ids = pair(two.dataset)
    two.governed.registry.set_quota(two.governed.owner, two.others.id, "population", two.others.id, 0.3)
    used = two.governed.admit(
        train_data_id=ids[0], label_data_id=ids[1], clients_per_round=100, rounds=500, noise_multiplier=3.0
    )
    assert Outcome.CLAMPED is used.outcome
    before = amounts(two.governed, two.governed.population), amounts(two.governed, two.others)
    refused = two.admit(rounds=100, noise_multiplier=0.5, max_noise_multiplier=0.5, clients_per_round=500)
    assert Outcome.REFUSED is refused.outcome
    assert before == (amounts(two.governed, two.governed.population), amounts(two.governed, two.others))


def test_cancelling_gives_back_in_both(two: Two) -> None:
    two.declare()
    decision = two.admit()
    two.governed.settlement.cancel(two.governed.researcher, str(decision.run_id))
    assert (0.0, 0.0) == reading(two.governed, two.governed.population) == reading(two.governed, two.others)


def test_new_data_ends_the_comparison_until_it_is_made_again(two: Two) -> None:
    two.declare()
    two.governed.registry.add_version(two.governed.owner, two.dataset.id, "ver_" + "9" * 24)
    with pytest.raises(InvalidRequestError, match="not checked to be disjoint"):
        two.admit()
    with pytest.raises(ConflictError):
        two.declare()
    versions = {two.governed.dataset.id: 1, two.dataset.id: 2}
    two.governed.registry.declare_disjoint(two.governed.owner, two.others.id, two.governed.population.id, versions)
    assert Outcome.APPROVED is two.admit().outcome


def test_only_the_owner_of_both_or_an_operator_declares_them_disjoint(two: Two) -> None:
    stranger = two.governed.registry.create_principal(Role.OWNER, "stranger@example.org")
    versions = {two.governed.dataset.id: 1, two.dataset.id: 1}
    for who, error in ((stranger, NotFoundError), (two.governed.researcher, ForbiddenError)):
        with pytest.raises(error):
            two.governed.registry.declare_disjoint(who, two.governed.population.id, two.others.id, versions)


def test_budgets_under_different_relations_do_not_go_together(governed: Governed) -> None:
    others = governed.registry.open_population(governed.owner, "others", 700, 4.0, 1e-6, relation="REPLACE_ONE")
    dataset = dataset_of(governed, others, "others' digits")
    versions = {governed.dataset.id: 1, dataset.id: 1}
    governed.registry.declare_disjoint(governed.owner, governed.population.id, others.id, versions)
    with pytest.raises(InvalidRequestError, match="different relations"):
        governed.admit(joined=(pair(dataset),))


def test_training_that_the_relation_does_not_hold_is_refused_with_the_reason(governed: Governed) -> None:
    others = governed.registry.open_population(governed.owner, "others", 700, 4.0, 1e-6, relation="REPLACE_ONE")
    one, other = pair(dataset_of(governed, others, "others' digits"))
    decision = governed.admit(train_data_id=one, label_data_id=other)
    assert ["accounting_refused"] == [reason.code for reason in decision.reasons]
    assert "REPLACE_ONE" in decision.reasons[0].message


# --- windows and quotas ---


def test_a_refusal_names_the_limit_that_was_hit(governed: Governed) -> None:
    project = governed.registry.create_project(governed.researcher, "trial")
    assert Outcome.APPROVED is governed.admit(project=project.id, rounds=50).outcome
    cases = [
        ("population", governed.population.id, "population_window", "window"),
        ("project", project.id, "project_quota", "project's quota"),
        ("researcher", governed.researcher.id, "researcher_quota", "researcher's quota"),
    ]
    for scope, scope_id, code, words in cases:
        governed.registry.set_quota(governed.owner, governed.population.id, scope, scope_id, 0.1)
        decision = governed.admit(project=project.id)
        assert Outcome.REFUSED is decision.outcome
        assert [("budget_exhausted", code)] == [(reason.code, reason.field) for reason in decision.reasons]
        assert words in decision.reasons[0].message
        governed.registry.set_quota(governed.owner, governed.population.id, scope, scope_id, 8.0)
    assert Outcome.APPROVED is governed.admit(project=project.id).outcome


def test_a_window_unlocks_the_lifetime_budget_gradually(governed: Governed) -> None:
    start = governed.clock()
    schedule = Schedule(start, initial_epsilon=1.0, step_epsilon=1.0, period_days=90)
    whole = governed.population.id
    governed.registry.set_quota(governed.owner, whole, "population", whole, 8.0, schedule)
    unlocked = []
    for quarter in range(4):
        governed.clock.now = start + timedelta(days=90 * quarter, seconds=1)
        while governed.admit(rounds=50, noise_multiplier=2.0, max_noise_multiplier=2.0).outcome is Outcome.APPROVED:
            pass
        unlocked.append(governed.committed())
    assert all(quarter < held <= quarter + 1 for quarter, held in enumerate(unlocked))
    window = governed.queries.budget(governed.auditor, governed.population.id)[1]
    assert ("window", 8.0) == (window.scope, window.guarantee_epsilon)


def test_a_schedule_that_could_never_admit_or_never_ends_is_refused(governed: Governed) -> None:
    for schedule in (
        Schedule(governed.clock(), 0.0, 1.0, 90),
        Schedule(governed.clock(), 1.0, float("nan"), 90),
        Schedule(governed.clock(), 9.0, 1.0, 90),
        Schedule(governed.clock(), 1.0, 1.0, 0),
        Schedule(governed.clock(), 1e-5, 1.0, 90),
    ):
        with pytest.raises(InvalidRequestError):
            governed.registry.set_quota(
                governed.owner, governed.population.id, "population", governed.population.id, 8.0, schedule
            )
    assert "quota_set" not in governed.kinds()


def test_a_window_belongs_to_its_own_population(governed: Governed) -> None:
    with pytest.raises(InvalidRequestError):
        governed.registry.set_quota(governed.owner, governed.population.id, "population", "pop_other", 1.0)
