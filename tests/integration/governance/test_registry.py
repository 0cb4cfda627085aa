"""Who and what there is, and who sees it, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from governance.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError
from governance.model import Asset, Role
from tests.integration.governance.conftest import Governed


def register(governed: Governed, **changes: Any) -> Any:
    sensible: dict[str, Any] = {
        "population_id": governed.population.id,
        "name": "more digits",
        "description": "",
        "policy_id": "digits",
        "assets": [Asset("", "images", "float32", (64,))],
        "version_handle": "ver_" + "b" * 24,
        "holdout_handle": None,
        "max_examples_per_unit": 10,
    }
    return governed.registry.register_dataset(governed.owner, **(sensible | changes))


def test_registering_the_same_people_again_mints_no_budget(governed: Governed) -> None:
    governed.admit()
    committed = governed.committed()
    register(governed)
    assert committed == governed.committed()
    assert 1 == len(governed.registry.populations(governed.owner))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "digits"}, ConflictError),
        ({"version_handle": "ver_" + "a" * 24}, ConflictError),
        ({"name": ""}, InvalidRequestError),
        ({"name": "a\x00b"}, InvalidRequestError),
        ({"policy_id": "nobody"}, InvalidRequestError),
        ({"policy_id": "../digits"}, InvalidRequestError),
        ({"version_handle": "../../etc"}, InvalidRequestError),
        ({"holdout_handle": "ver_" + "a" * 24}, InvalidRequestError),
        ({"holdout_handle": "ver_" + "b" * 24}, InvalidRequestError),
        ({"holdout_handle": "/etc/passwd"}, InvalidRequestError),
        ({"assets": []}, InvalidRequestError),
        ({"assets": [Asset("", "Images", "float32", ())]}, InvalidRequestError),
        ({"assets": [Asset("", "images", "object", ())]}, InvalidRequestError),
        ({"assets": [Asset("", "images", "float32", (0,))]}, InvalidRequestError),
        ({"assets": [Asset("", "a", "float32", ()), Asset("", "a", "float32", ())]}, InvalidRequestError),
        ({"assets": [Asset("", "a", "float32", (), "", 1.0, 0.0)]}, InvalidRequestError),
        ({"max_examples_per_unit": 0}, InvalidRequestError),
        (
            {"assets": [Asset("", "images", "float32", (512, 512, 3))], "max_examples_per_unit": 1000},
            InvalidRequestError,
        ),
        ({"population_id": "pop_unknown"}, NotFoundError),
    ],
)
def test_unfit_datasets_are_refused_and_leave_nothing(
    governed: Governed, changes: dict[str, Any], error: type[Exception]
) -> None:
    before = governed.kinds()
    with pytest.raises(error):
        register(governed, **changes)
    assert before == governed.kinds()
    assert ["digits"] == [dataset.name for dataset in governed.registry.datasets(governed.researcher)]


@pytest.mark.parametrize(
    ("size", "epsilon", "delta"),
    [(1, 1.0, 1e-5), (300, 0.0, 1e-5), (300, float("nan"), 1e-5), (300, 1.0, 0.0), (300, 1.0, 1.0), (300, 1e-9, 1e-5)],
)
def test_unfit_budgets_are_refused(governed: Governed, size: int, epsilon: float, delta: float) -> None:
    before = governed.kinds()
    with pytest.raises(InvalidRequestError):
        governed.registry.open_population(governed.owner, "others", size, epsilon, delta)
    assert before == governed.kinds()


def test_a_new_version_is_what_later_runs_train_on_and_earlier_runs_keep_theirs(governed: Governed) -> None:
    governed.admit()
    governed.clock.advance(1)
    newer = governed.registry.add_version(governed.owner, governed.dataset.id, "ver_" + "c" * 24)
    governed.admit()
    grants = [governed.settlement.claim(governed.runner) for _ in range(2)]
    assert [governed.dataset.version_handle, newer.version_handle] == [
        grant.data.version_handle for grant in grants if grant is not None
    ]


def test_another_owner_sees_and_changes_nothing(governed: Governed) -> None:
    other = governed.registry.create_principal(Role.OWNER, "other@example.org")
    assert [] == governed.registry.populations(other)
    assert [] == governed.registry.datasets(other)
    with pytest.raises(NotFoundError):
        governed.registry.add_version(other, governed.dataset.id, "ver_" + "d" * 24)
    with pytest.raises(NotFoundError):
        governed.registry.set_quota(other, governed.population.id, "researcher", governed.researcher.id, 1.0)
    with pytest.raises(NotFoundError):
        governed.queries.budget(other, governed.population.id)
    assert [] == governed.queries.entries(other)[0]


def test_a_researcher_sees_own_runs_and_entries_only(governed: Governed) -> None:
    decision = governed.admit()
    other = governed.registry.create_principal(Role.RESEARCHER, "other@example.org")
    assert decision.run_id is not None
    assert [] == governed.queries.runs(other)[0]
    assert [] == governed.queries.entries(other)[0]
    with pytest.raises(NotFoundError):
        governed.queries.run(other, decision.run_id)
    with pytest.raises(NotFoundError):
        governed.queries.decision(other, decision.id)
    assert decision == governed.queries.decision(governed.researcher, decision.id)
    assert decision == governed.queries.decision(governed.owner, decision.id)
    assert ["decision"] == [entry.kind for entry in governed.queries.entries(governed.researcher)[0]]


@pytest.mark.parametrize("epsilon", [0.0, -1.0, 8.5, float("nan"), 1e-5])
def test_unfit_quotas_are_refused(governed: Governed, epsilon: float) -> None:
    with pytest.raises(InvalidRequestError):
        governed.registry.set_quota(
            governed.owner, governed.population.id, "researcher", governed.researcher.id, epsilon
        )
    assert [] == governed.registry.quotas(governed.owner, governed.population.id)


def test_members_share_a_project_and_strangers_do_not_see_it(governed: Governed) -> None:
    project = governed.registry.create_project(governed.researcher, "together")
    friend = governed.registry.create_principal(Role.RESEARCHER, "friend@example.org")
    with pytest.raises(NotFoundError):
        governed.registry.project(friend, project.id)
    governed.registry.add_member(governed.researcher, project.id, friend.id)
    assert project.id == governed.admission.preview(friend, governed.request(project=project.id)).requested["project"]
    with pytest.raises(ForbiddenError):
        governed.registry.add_member(friend, project.id, governed.researcher.id)


def test_pages_of_runs_and_entries_cover_everything_once(governed: Governed) -> None:
    for _ in range(5):
        governed.admit(rounds=1)
        governed.clock.advance(1)
    runs, cursor = governed.queries.runs(governed.researcher, limit=2)
    while cursor is not None:
        more, cursor = governed.queries.runs(governed.researcher, cursor=cursor, limit=2)
        runs += more
    assert 5 == len({run.id for run in runs})
    assert runs == sorted(runs, key=lambda run: run.created_at, reverse=True)
    with pytest.raises(InvalidRequestError):
        governed.queries.runs(governed.researcher, cursor="not a cursor")
