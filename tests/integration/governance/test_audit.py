"""What auditors ask of the ledger: searches, readings as of any entry, why, what remains, exports, statements."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pyarrow.parquet as pq
import pytest

from accountant.calibration import fits
from accountant.filter import add
from governance import budget_state
from governance.audit import past
from governance.audit.reader import Audit
from governance.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError
from governance.ledger import budgets, catalogue, chain, entries, entry_search, past_budgets, tables
from governance.ledger.entry_reader import EntryReader
from governance.ledger.entry_search import Wanted
from governance.ledger.replay import Replay
from governance.ledger.verify import Known, verify
from governance.model import Asset, Dataset, LedgerEntry, OnExceed, Outcome, Principal, Role, Schedule
from tests.integration.governance.conftest import Governed
from tests.integration.governance.test_replay import busy

DELTAS = (1e-9, 1e-5, 1e-3, 0.5)


@pytest.fixture
def audit(governed: Governed) -> Audit:
    return Audit(governed.database, clock=governed.clock)


def other_dataset(governed: Governed) -> Dataset:
    return governed.registry.register_dataset(
        governed.owner,
        population_id=governed.population.id,
        name="more digits",
        description="",
        policy_id="digits",
        assets=[Asset("", "pictures", "float32", (64,)), Asset("", "digits", "int64", (), "", 0, 9)],
        version_handle="ver_" + "b" * 24,
        holdout_handle=None,
        max_examples_per_unit=10,
    )


def everything(governed: Governed) -> list[LedgerEntry]:
    with governed.database.read() as connection:
        return entries.select(connection, limit=10_000)


def pages(governed: Governed, wanted: Wanted, limit: int = 3, **more: Any) -> Iterator[list[LedgerEntry]]:
    cursor = None
    while True:
        found, cursor = governed.queries.entries(governed.auditor, wanted, cursor=cursor, limit=limit, **more)
        yield found
        if cursor is None:
            return


def indexes(governed: Governed, wanted: Wanted, **more: Any) -> list[int]:
    return [entry.index for page in pages(governed, wanted, **more) for entry in page]


# --- searches ---


def test_each_filter_finds_what_a_reader_of_all_entries_would_pick(governed: Governed) -> None:
    busy(governed)
    found = everything(governed)
    run = next(entry.run_id for entry in found if entry.kind == "publication")
    facts = {entry.index: json.loads(entry.body)["facts"] for entry in found}
    middle = found[len(found) // 2].at
    ids: dict[str, Any] = {
        "population_id": governed.population.id,
        "researcher_id": governed.researcher.id,
        "project_id": next(entry.project_id for entry in found if entry.project_id),
        "run_id": run,
    }
    for name, value in ids.items():
        expected = [entry.index for entry in found if getattr(entry, name) == value]
        assert expected == indexes(governed, Wanted(**{name: value}))
        assert expected[::-1] == indexes(governed, Wanted(**{name: value}), newest_first=True)
        kinds = [entry.index for entry in found if getattr(entry, name) == value and entry.kind in ("debit", "release")]
        assert kinds == indexes(governed, Wanted(**{name: value}, kinds=("debit", "release")))
    assert [one for one in facts if facts[one].get("outcome") == "refused"] == indexes(
        governed, Wanted(outcome="refused")
    )
    assert [one.index for one in found if one.kind in ("debit", "granted")] == indexes(
        governed, Wanted(kinds=("debit", "granted"))
    )
    assert {one.index for one in found if one.at >= middle} == set(indexes(governed, Wanted(since=middle)))
    assert {one.index for one in found if one.at < middle} == set(indexes(governed, Wanted(until=middle)))
    assert [one.index for one in found] == indexes(governed, Wanted())
    assert [one.index for one in found][::-1] == indexes(governed, Wanted(), newest_first=True)


def test_a_range_of_time_comes_in_order_of_time_and_with_every_filter(governed: Governed) -> None:
    governed.admit()
    governed.clock.advance(3600)
    since = governed.clock.now
    governed.debit_all(governed.started())
    governed.clock.advance(-1800)  # a clock that was set back
    governed.admit()
    found = everything(governed)

    expected = [entry.index for entry in sorted(found, key=lambda one: (one.at, one.index)) if entry.at >= since]
    assert expected == indexes(governed, Wanted(since=since), limit=2)
    assert expected[::-1] == indexes(governed, Wanted(since=since), limit=2, newest_first=True)
    decisions = [one for one in expected if found[one].kind == "decision"]
    assert decisions == indexes(
        governed, Wanted(since=since, kinds=("decision",), population_id=governed.population.id), limit=1
    )
    assert [] == indexes(governed, Wanted(since=since, until=since))


def test_the_entries_of_a_dataset_are_those_of_the_runs_on_it(governed: Governed) -> None:
    other = other_dataset(governed)
    governed.debit_all(governed.started())
    joined = governed.started(joined=((other.assets[0].id, other.assets[1].id),))
    governed.debit_all(joined)
    alone = governed.started(train_data_id=other.assets[0].id, label_data_id=other.assets[1].id)
    found = everything(governed)

    def expected(dataset: Dataset, runs: set[str]) -> list[int]:
        return [entry.index for entry in found if entry.dataset_id == dataset.id or entry.run_id in runs]

    first = next(entry.run_id for entry in found if entry.kind == "debit")
    assert first is not None
    assert expected(governed.dataset, {first, joined.run_id}) == indexes(
        governed, Wanted(dataset_id=governed.dataset.id)
    )
    assert expected(other, {joined.run_id, alone.run_id}) == indexes(governed, Wanted(dataset_id=other.id))
    assert [] == indexes(governed, Wanted(dataset_id="dat_unknown"))


def test_a_page_that_had_to_look_at_too_much_ends_early_and_names_the_next(
    governed: Governed, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy(governed)
    wanted = Wanted(population_id=governed.population.id, outcome="refused")
    expected = indexes(governed, wanted)
    monkeypatch.setattr(entry_search, "EXAMINED", 4)

    found = list(pages(governed, wanted, limit=2))

    assert expected == [entry.index for page in found for entry in page]
    assert [] in found


def test_owners_see_their_populations_and_researchers_their_own_requests_in_every_search(governed: Governed) -> None:
    busy(governed)
    stranger = governed.registry.create_principal(Role.OWNER, "stranger@example.org")
    colleague = governed.registry.create_principal(Role.RESEARCHER, "colleague@example.org")
    owned = {one.id for one in governed.registry.populations(governed.owner)}
    own = [entry.index for entry in everything(governed) if entry.population_id in owned]

    assert own == [entry.index for entry in governed.queries.entries(governed.owner, limit=1000)[0]]
    for wanted in (Wanted(), Wanted(population_id=governed.population.id), Wanted(kinds=("decision",))):
        assert [] == governed.queries.entries(stranger, wanted)[0]
        assert [] == governed.queries.entries(colleague, wanted)[0]
    theirs = Wanted(researcher_id=governed.researcher.id)
    assert [] == governed.queries.entries(colleague, theirs)[0]
    assert governed.queries.entries(governed.researcher)[0] == governed.queries.entries(governed.researcher, theirs)[0]


# --- the odometer ---


def test_the_odometer_is_what_replaying_the_entries_up_to_then_gives_bit_for_bit(
    governed: Governed, audit: Audit
) -> None:
    busy(governed)
    whole = governed.population.id
    rebuilt, reader = Replay(), EntryReader()
    for one in everything(governed):
        rebuilt.apply(reader.read(one.body))
        if whole not in rebuilt.populations:
            continue
        with governed.database.read() as connection:
            balances = past.balances_as_of(connection, governed.population, one.index)
        assert {
            (scope, name): amounts
            for (population, scope, name), amounts in rebuilt.balances.items()
            if population == whole and any(amounts[0])
        } == {scope: (kept.committed, kept.debited) for scope, kept in balances.items() if any(kept.committed)}
        delta = DELTAS[one.index % len(DELTAS)]
        own = audit.odometer(governed.auditor, whole, delta=delta, as_of_entry=one.index).items[0]
        assert rebuilt.readings(whole, delta) == (own.spent_epsilon, own.committed_epsilon)


def test_the_odometer_of_now_is_the_stored_balances(governed: Governed, audit: Audit) -> None:
    busy(governed)
    with governed.database.read() as connection:
        last = entries.size(connection) - 1
        ours = past.balances_as_of(connection, governed.population, last)
        stored = budgets.read_balances(connection, governed.population.id, tuple(ours))
    assert 3 == len(stored)
    assert {scope: (one.committed, one.debited) for scope, one in stored.items()} == {
        scope: (one.committed, one.debited) for scope, one in ours.items()
    }
    found = audit.odometer(governed.auditor, governed.population.id)
    reading = governed.queries.budget(governed.auditor, governed.population.id)[0]
    assert (reading.spent_epsilon, reading.committed_epsilon) == (
        found.items[0].spent_epsilon,
        found.items[0].committed_epsilon,
    )
    assert (8.0, 1e-5, 1e-5, last) == (
        found.guarantee_epsilon,
        found.guarantee_delta,
        found.delta,
        found.as_of_entry,
    )


def test_an_adjustment_counts_for_the_population_alone(governed: Governed, audit: Audit) -> None:
    busy(governed)
    source = next(json.loads(entry.body) for entry in everything(governed) if entry.kind == "decision")
    facts = {
        "event": source["facts"]["charge"]["event"],
        "accountant": source["facts"]["charge"]["accountant"],
        "units_per_round": source["facts"]["charge"]["units_per_round"],
        "rounds": 3,
        "run": "run_lost",
        "by": "operator",
    }
    before = audit.odometer(governed.auditor, governed.population.id)
    with governed.database.write() as connection:
        budgets.lock_balances(connection, governed.population.id)
        entry = entries.append(
            connection, "adjustment", governed.clock.now, facts, population_id=governed.population.id
        )
        lost = tuple(int(units) * 3 for units in facts["units_per_round"])
        budgets.adjust(connection, governed.population.id, lost, entry.index)
        stored = budgets.read_balances(connection, governed.population.id, (("population", governed.population.id),))
        ours = past.balances_as_of(connection, governed.population, entry.index)
    whole = ("population", governed.population.id)
    assert (stored[whole].committed, stored[whole].debited) == (ours[whole].committed, ours[whole].debited)
    after = audit.odometer(governed.auditor, governed.population.id)
    assert after.items[0].spent_epsilon > before.items[0].spent_epsilon
    assert before.items[1:] == after.items[1:]
    again = audit.odometer(governed.auditor, governed.population.id, as_of_entry=entry.index - 1)
    assert before.items == again.items


def test_quotas_are_those_that_were_in_force_then(governed: Governed, audit: Audit) -> None:
    governed.admit()
    before = len(everything(governed)) - 1
    scope = ("researcher", governed.researcher.id)
    schedule = Schedule(governed.clock.now, 1.0, 0.5, 30)
    governed.registry.set_quota(governed.owner, governed.population.id, *scope, 3.0, schedule)
    between = before + 1
    governed.registry.set_quota(governed.owner, governed.population.id, *scope, 4.0)

    def quota(entry: int) -> tuple[float | None, float | None]:
        found = audit.odometer(governed.auditor, governed.population.id, as_of_entry=entry, scope="researcher")
        return found.items[0].quota_epsilon, found.items[0].unlocked_epsilon

    assert [(None, None), (3.0, 1.0), (4.0, None)] == [quota(entry) for entry in (before, between, between + 1)]


@pytest.mark.parametrize("asked", [{"as_of_entry": 10_000}, {"as_of_entry": -1}, {"delta": 0.0}, {"delta": 1.0}])
def test_an_odometer_that_cannot_be_read_is_refused(governed: Governed, audit: Audit, asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        audit.odometer(governed.auditor, governed.population.id, **asked)


def test_a_researcher_reads_what_the_budget_shows_them_and_no_more(governed: Governed, audit: Audit) -> None:
    colleague = governed.registry.create_principal(Role.RESEARCHER, "colleague@example.org")
    governed.admit()
    for person in (governed.researcher, colleague):
        governed.registry.set_quota(governed.owner, governed.population.id, "researcher", person.id, 4.0)
    found = audit.odometer(colleague, governed.population.id)
    shown = governed.queries.budget(colleague, governed.population.id)

    assert [(one.scope, one.scope_id, one.committed_epsilon) for one in shown] == [
        (one.scope, one.scope_id, one.committed_epsilon) for one in found.items
    ]
    asks: tuple[dict[str, Any], ...] = ({"as_of_entry": 3}, {"delta": 1e-3})
    for asked in asks:
        with pytest.raises(ForbiddenError):
            audit.odometer(colleague, governed.population.id, **asked)


def test_another_owners_population_is_not_there(governed: Governed, audit: Audit) -> None:
    stranger = governed.registry.create_principal(Role.OWNER, "stranger@example.org")
    governed.admit()
    for ask in (audit.odometer, audit.remaining):
        with pytest.raises(NotFoundError):
            ask(stranger, governed.population.id)


# --- why ---


def test_a_refusal_for_budget_names_the_limit_and_what_would_have_fitted(governed: Governed, audit: Audit) -> None:
    scope = ("researcher", governed.researcher.id)
    governed.registry.set_quota(governed.owner, governed.population.id, *scope, 0.5)
    governed.admit(rounds=3, noise_multiplier=6.0)
    asked: dict[str, Any] = {"rounds": 60, "noise_multiplier": 6.0, "clients_per_round": 30}
    decision = governed.admit(on_exceed=OnExceed.REFUSE, max_noise_multiplier=6.0, **asked)
    assert Outcome.REFUSED is decision.outcome
    governed.registry.set_quota(governed.owner, governed.population.id, *scope, 7.0)  # later: no matter

    found = audit.explanation(governed.researcher, decision.id)

    assert ("refused", False, decision.entry_index) == (found.outcome, found.erased, found.budget_as_of_entry + 1)
    assert {"researcher": 0.5} == {
        one.scope: one.guarantee_epsilon for one in found.budget_then if one.scope != "population"
    }
    fitting = found.would_have_fitted
    assert fitting is not None
    assert 0 < fitting.rounds < 60
    assert "researcher_quota" == min(fitting.caps, key=lambda cap: cap.count).limit
    governed.registry.set_quota(governed.owner, governed.population.id, *scope, 0.5)
    exactly = asked | {"rounds": fitting.rounds}
    assert Outcome.APPROVED is governed.admission.preview(governed.researcher, governed.request(**exactly)).outcome
    beyond = asked | {"rounds": fitting.rounds + 1, "on_exceed": OnExceed.REFUSE}
    assert Outcome.REFUSED is governed.admission.preview(governed.researcher, governed.request(**beyond)).outcome


def test_a_limit_that_admits_nothing_at_all_is_named(governed: Governed, audit: Audit) -> None:
    window = ("population", governed.population.id)
    schedule = Schedule(governed.clock.now, 0.1, 1.0, 30)
    governed.admit(rounds=50)
    governed.registry.set_quota(governed.owner, governed.population.id, *window, 4.0, schedule)
    decision = governed.admit()
    assert Outcome.REFUSED is decision.outcome

    found = audit.explanation(governed.auditor, decision.id)

    assert ["population_window"] == [rule.limit for rule in found.rules]
    assert "ε = 0.1 unlocked of 4" in found.sentence
    assert found.would_have_fitted is not None
    assert 0 == found.would_have_fitted.rounds


def test_a_clamp_is_explained_parameter_by_parameter(governed: Governed, audit: Audit) -> None:
    decision = governed.admit(rounds=200, noise_multiplier=0.5, clients_per_round=60)
    assert Outcome.CLAMPED is decision.outcome

    found = audit.explanation(governed.owner, decision.id)

    changed = {one.name: one for one in found.parameters if one.changed_by}
    assert {clamp.parameter for clamp in decision.clamps} == set(changed)
    for clamp in decision.clamps:
        assert clamp.by in changed[clamp.parameter].changed_by
        assert clamp.why in changed[clamp.parameter].why
    assert (decision.policy_revision, decision.opa_decision_id, decision.run_id) == (
        found.policy_revision,
        found.opa_decision_id,
        found.run_id,
    )


def test_an_erased_decision_is_explained_by_what_its_entry_still_knows(governed: Governed, audit: Audit) -> None:
    decision = governed.admit(purpose="marketing")
    whole = audit.explanation(governed.auditor, decision.id)
    with governed.database.write() as connection:
        connection.execute(tables.decisions.delete().where(tables.decisions.c.id == decision.id))
    with pytest.raises(NotFoundError):
        governed.queries.decision(governed.auditor, decision.id)

    for reader in (governed.auditor, governed.owner, governed.researcher):
        found = audit.explanation(reader, decision.id)
        assert (True, "refused", whole.policy_digests, whole.input_digest, whole.entries) == (
            found.erased,
            found.outcome,
            found.policy_digests,
            found.input_digest,
            found.entries,
        )
        assert [(rule.code, rule.source, None) for rule in whole.rules] == [
            (rule.code, rule.source, rule.message) for rule in found.rules
        ]
    for stranger in (Role.OWNER, Role.RESEARCHER):
        person = governed.registry.create_principal(stranger, f"{stranger.value}2@example.org")
        with pytest.raises(NotFoundError):
            audit.explanation(person, decision.id)


# --- what remains ---


@pytest.mark.parametrize("quota", [None, 2.0, 1.0])
def test_as_many_more_runs_fit_as_was_said_and_not_one_more(
    governed: Governed, audit: Audit, quota: float | None
) -> None:
    if quota is not None:
        scope = ("researcher", governed.researcher.id)
        governed.registry.set_quota(governed.owner, governed.population.id, *scope, quota)
    governed.admit(rounds=5, noise_multiplier=4.0)

    found = audit.remaining(governed.owner, governed.population.id)

    assert found.runs == min(cap.count for cap in found.caps) == found.binding.count
    assert ("researcher_quota" if quota else "population_budget") == found.binding.limit
    with governed.database.read() as connection:
        held = budgets.reservations_of(connection, found.like_run)[0]
        bound = (("project", held.project_id), ("researcher", held.researcher_id))
        caps = budget_state.read(connection, governed.population, governed.clock.now, bound).caps
    one = held.amount(held.rounds)
    many = tuple(units * found.runs for units in one)
    assert found.runs > 0
    assert fits(caps, many) is None
    assert fits(caps, add(many, one)) is not None
    assert f"about {found.runs} more runs like {found.like_run}" in found.sentence


def test_what_remains_is_asked_by_researchers_about_their_own_runs(governed: Governed, audit: Audit) -> None:
    colleague = governed.registry.create_principal(Role.RESEARCHER, "colleague@example.org")
    mine = governed.admit(noise_multiplier=6.0)
    theirs = governed.admit(by=colleague, noise_multiplier=6.0)
    assert mine.run_id is not None

    assert theirs.run_id == audit.remaining(governed.auditor, governed.population.id).like_run
    assert mine.run_id == audit.remaining(governed.researcher, governed.population.id).like_run
    assert mine.run_id == audit.remaining(governed.auditor, governed.population.id, mine.run_id).like_run
    with pytest.raises(NotFoundError):
        audit.remaining(colleague, governed.population.id, mine.run_id)


def test_a_window_unlocks_more_runs_with_time(governed: Governed, audit: Audit) -> None:
    window = ("population", governed.population.id)
    schedule = Schedule(governed.clock.now, 1.0, 1.0, 30)
    governed.registry.set_quota(governed.owner, governed.population.id, *window, 4.0, schedule)
    governed.admit(rounds=5, noise_multiplier=4.0)
    now = audit.remaining(governed.owner, governed.population.id)
    governed.clock.advance(timedelta(days=31).total_seconds())
    later = audit.remaining(governed.owner, governed.population.id)

    assert "population_window" == now.binding.limit
    assert now.runs < later.runs


# --- exports ---


def test_json_lines_are_the_bodies_verbatim_and_the_verifier_reads_them(governed: Governed, audit: Audit) -> None:
    busy(governed)
    made = audit.export(governed.auditor, "jsonl", Wanted())
    governed.admit()  # afterwards: not of this export
    content = b"".join(made.parts)

    expected = everything(governed)[: made.size]
    assert len(everything(governed)) > made.size == made.entries
    assert b"".join(entry.body + b"\n" for entry in expected) == content
    assert [entry.leaf_hash for entry in expected] == [chain.leaf_hash(line) for line in content.splitlines()]
    assert verify(io.BytesIO(content), Known()).is_clean
    rest = audit.export(governed.auditor, "jsonl", Wanted(), from_index=3)
    assert everything(governed)[3].body == next(iter(b"".join(rest.parts).splitlines()))


def test_csv_and_parquet_hold_the_same_entries(governed: Governed, audit: Audit) -> None:
    busy(governed)
    wanted = Wanted(kinds=("decision", "debit"))
    expected = [entry for entry in everything(governed) if entry.kind in wanted.kinds]

    made = audit.export(governed.auditor, "csv", wanted)
    rows = list(csv.DictReader(io.StringIO(b"".join(made.parts).decode(), newline="")))
    assert [entry.body.decode() for entry in expected] == [row["body"] for row in rows]
    assert [str(entry.index) for entry in expected] == [row["index"] for row in rows]
    assert {"approved", "refused", ""} == {row["outcome"] for row in rows}

    made = audit.export(governed.auditor, "parquet", wanted)
    table = pq.read_table(io.BytesIO(b"".join(made.parts)))
    assert [entry.body.decode() for entry in expected] == table["body"].to_pylist()
    assert [entry.at for entry in expected] == table["at"].to_pylist()
    assert str(made.size).encode() == table.schema.metadata[b"ledger_size"]


def test_owners_export_their_populations_and_nobody_elses(governed: Governed, audit: Audit) -> None:
    busy(governed)
    stranger = governed.registry.create_principal(Role.OWNER, "stranger@example.org")
    owned = {one.id for one in governed.registry.populations(governed.owner)}
    own = [entry.index for entry in everything(governed) if entry.population_id in owned]

    def exported(who: Principal, wanted: Wanted = Wanted()) -> list[int]:  # noqa: B008  (frozen)
        text = b"".join(audit.export(who, "csv", wanted).parts).decode()
        return [int(row["index"]) for row in csv.DictReader(io.StringIO(text, newline=""))]

    assert own == exported(governed.owner)
    assert [] == exported(stranger) == exported(stranger, Wanted(population_id=governed.population.id))
    with pytest.raises(ForbiddenError):
        audit.export(governed.owner, "jsonl", Wanted())
    asks: tuple[dict[str, Any], ...] = (
        {"wanted": Wanted(kinds=("debit",))},
        {"wanted": Wanted(), "from_index": 10_000},
    )
    for asked in asks:
        with pytest.raises(InvalidRequestError):
            audit.export(governed.auditor, "jsonl", **asked)


# --- statements ---


def test_a_statement_is_confirmed_by_its_entry_and_laid_out(governed: Governed, audit: Audit) -> None:
    grant = governed.started()
    with pytest.raises(ConflictError):
        audit.statement(governed.researcher, grant.run_id)
    governed.debit_all(grant)
    governed.publish(grant)

    found = audit.statement(governed.researcher, grant.run_id)

    assert [True] == [place.matches for place in found.ledger]
    assert everything(governed)[found.ledger[0].entry_index].leaf_hash.hex() == found.ledger[0].leaf_hash
    registry = {field.name: field for field in found.registry}
    assert ("research", "decision") == (registry["intended use"].value, registry["intended use"].source)
    assert "8" == registry["lifetime budget ε"].value
    assert ("not stated", None) == (
        registry["why this ε was chosen"].value,
        registry["why this ε was chosen"].source,
    )
    missing = {field.name for field in found.checks if field.source is None}
    assert {
        "utility, and bias against small groups",
        "security and access control of the data",
        "exposure when the data were collected",
        "public data that was used",
    } == missing


def test_a_statement_that_was_changed_is_not_confirmed(governed: Governed, audit: Audit) -> None:
    grant = governed.started()
    governed.debit_all(grant)
    governed.publish(grant)
    with governed.database.write() as connection:
        row = tables.results.c.privacy_statement
        text = connection.execute(tables.results.select()).mappings().one()["privacy_statement"]
        connection.execute(tables.results.update().values({row: text.replace("one person", "one row")}))

    found = audit.statement(governed.auditor, grant.run_id)

    assert [False] == [place.matches for place in found.ledger]
    assert "do not rely on it" in next(field.value for field in found.checks if field.name == "evidence")


def test_time_of_an_entry_that_is_not_there_is_none(governed: Governed) -> None:
    with governed.database.read() as connection:
        assert past_budgets.time_of(connection, 10_000) is None
        assert catalogue.population(connection, governed.population.id) == governed.population
