"""Train requests over REST: real policies, real ledger, on each database."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from governance.policy.opa import PolicyEngine

from .conftest import MODEL, NOWHERE, MakeNode, Node, Opa, everybody, govern, request_for, submit

Governed = tuple[Node, dict[str, str]]


def entries(node: Node) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = node.call("auditor", "GET", "/v1/ledger/entries?limit=1000").json()["items"]
    return items


def test_an_approved_request_answers_its_run_and_every_default(governed: Governed) -> None:
    node, ids = governed
    answer = submit(node, ids, "k")
    decision = answer.json()
    assert (201, "approved", f"/v1/runs/{decision['run_id']}") == (
        answer.status_code,
        decision["outcome"],
        answer.headers["Location"],
    )
    shown = {name: decision["effective"][name] for name in ("batch_size", "clipping_norm", "server_optimizer")}
    assert {"batch_size": 8, "clipping_norm": 1.0, "server_optimizer": "sgd"} == shown


def test_a_clamped_request_says_what_why_and_by_whom(governed: Governed) -> None:
    node, ids = governed
    decision = submit(node, ids, "k", rounds=500).json()
    clamps = {clamp["parameter"]: clamp for clamp in decision["clamps"]}
    assert ("clamped", 500, 120, "owner:digits") == (
        decision["outcome"],
        clamps["rounds"]["requested"],
        clamps["rounds"]["effective"],
        clamps["rounds"]["by"],
    )


def test_a_refusal_is_a_problem_with_the_decision_and_is_recorded(governed: Governed) -> None:
    node, ids = governed
    before = len(entries(node))
    answer = submit(node, ids, "k", purpose="insurance premiums")
    problem = answer.json()
    assert (403, "refused", "refused", None) == (
        answer.status_code,
        problem["code"],
        problem["decision"]["outcome"],
        problem["decision"]["run_id"],
    )
    assert before + 1 == len(entries(node))


def test_the_notebooks_own_parameters_are_clamped_and_told_why(governed_sqlite: Governed) -> None:
    node, ids = governed_sqlite
    params: dict[str, Any] = {"rounds": 10, "no_clients": 3, "noise_multiplier": 0.05, "clients_per_round": 2}
    answer = submit(node, ids, "k", purpose="unspecified", **params)
    assert (201, "clamped") == (answer.status_code, answer.json()["outcome"])
    clamp = answer.json()["clamps"][0]
    assert ("noise_multiplier", 0.05, 5, "owner:digits") == tuple(
        clamp[name] for name in ("parameter", "requested", "effective", "by")
    )
    assert {"pool_is_small", "purpose_not_stated"} <= {warning["code"] for warning in answer.json()["warnings"]}


def test_the_same_key_and_body_answer_what_was_answered(governed: Governed) -> None:
    node, ids = governed
    first, second = submit(node, ids, "k"), submit(node, ids, "k", clipping_norm=1, batch_size=8)
    assert first.json() == second.json()
    assert 1 == len(node.call("researcher", "GET", "/v1/runs").json()["items"])


def test_the_same_key_with_another_body_is_refused(governed: Governed) -> None:
    node, ids = governed
    submit(node, ids, "k")
    answer = submit(node, ids, "k", rounds=11)
    assert (422, "idempotency_key_reused") == (answer.status_code, answer.json()["code"])


def test_the_same_key_of_another_person_is_another_request(governed: Governed) -> None:
    node, ids = governed
    first, second = submit(node, ids, "k"), submit(node, ids, "k", who="other_researcher")
    assert first.json()["run_id"] != second.json()["run_id"]


def test_two_submits_at_once_with_one_key_make_one_run(governed: Governed) -> None:
    node, ids = governed
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(submit(node, ids, "k").json())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == len({answer["run_id"] for answer in answers})
    assert 1 == len(node.call("researcher", "GET", "/v1/runs").json()["items"])


@pytest.mark.parametrize("key", [None, "", "k" * 201, "tab\there", "ümlaut"])
def test_an_unfit_idempotency_key_is_422_and_writes_nothing(governed_sqlite: Governed, key: str | None) -> None:
    node, ids = governed_sqlite
    before = entries(node)
    headers = {} if key is None else {"Idempotency-Key": key.encode("latin-1")}
    answer = node.call("researcher", "POST", "/v1/train-requests", json=request_for(ids), headers=headers)
    assert (422, "header.Idempotency-Key") == (answer.status_code, answer.json()["errors"][0]["path"])
    assert before == entries(node)


def layer(**changes: Any) -> dict[str, Any]:
    return MODEL | {"layers": [{"type": "dense", "name": "dense", "units": 10} | changes]}


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (layer(type="lambda"), "invalid_model"),
        (layer(type="os.system"), "invalid_model"),
        (layer(units=10**9), "invalid_model"),
        (layer(units="ten"), "invalid_model"),
        (layer(units=-1), "invalid_model"),
        (layer(module="evil.code"), "invalid_model"),
        (MODEL | {"schema": "keras"}, "invalid_model"),
        (MODEL | {"input": {"shape": [63], "dtype": "float32"}}, "invalid_model"),
        ({}, "invalid_model"),
    ],
)
def test_an_unfit_model_is_422_and_writes_nothing(governed_sqlite: Governed, model: dict[str, Any], code: str) -> None:
    node, ids = governed_sqlite
    before = entries(node)
    answer = submit(node, ids, "k", model=model)
    assert (422, code) == (answer.status_code, answer.json()["code"])
    assert answer.json()["errors"]
    assert before == entries(node)


@pytest.mark.parametrize(
    ("place", "expected"), [("train_data_id", (404, "not_found")), ("label_data_id", (422, "invalid_request"))]
)
def test_an_unknown_asset_is_a_problem_and_writes_nothing(
    governed: Governed, place: str, expected: tuple[int, str]
) -> None:
    node, ids = governed
    before = entries(node)
    answer = submit(node, ids, "k", **{place: "ast_000000000000000000000000"})
    assert expected == (answer.status_code, answer.json()["code"])
    assert before == entries(node)


def test_a_preview_decides_and_writes_nothing(governed: Governed) -> None:
    node, ids = governed
    before = entries(node)
    answers = [
        node.call("researcher", "POST", "/v1/train-requests:preview", json=request_for(ids, **changes)).json()
        for changes in ({}, {"rounds": 500}, {"purpose": "insurance"})
    ]
    assert [("approved", None), ("clamped", None), ("refused", None)] == [
        (answer["outcome"], answer["run_id"]) for answer in answers
    ]
    assert before == entries(node)


def test_a_policy_engine_that_is_down_is_a_503_with_its_code(make_node: MakeNode, sqlite_url: str, opa: Opa) -> None:
    node = make_node(sqlite_url, PolicyEngine(NOWHERE, "n" * 32))
    everybody(node)
    ids = govern(node, opa)
    answers = [
        submit(node, ids, "k"),
        node.call("researcher", "POST", "/v1/train-requests:preview", json=request_for(ids)),
        node.client.get("/v1/ready"),
    ]
    assert [(503, "policy_engine_unreachable")] * 3 == [(one.status_code, one.json()["code"]) for one in answers]
    assert [] == node.call("researcher", "GET", "/v1/runs").json()["items"]


def test_an_engine_with_another_revision_is_a_503(governed: Governed, opa: Opa) -> None:
    node, ids = governed
    node.services.registry.activate_policies(None, opa.digests, {})  # a second activation: OPA still has the first
    answers = [submit(node, ids, "k"), node.client.get("/v1/ready")]
    assert [(503, "policy_revision_mismatch")] * 2 == [(one.status_code, one.json()["code"]) for one in answers]


def test_a_ready_node_names_the_revision_in_force(governed: Governed) -> None:
    node, _ = governed
    active = node.services.registry.active_policies()
    assert active is not None
    assert {"status": "ready", "policy_revision": active.revision} == node.client.get("/v1/ready").json()


def test_a_dataset_shows_metadata_and_never_handles(governed_sqlite: Governed) -> None:
    node, ids = governed_sqlite
    shown = node.call("researcher", "GET", f"/v1/datasets/{ids['dataset']}")
    assert "ver_" not in shown.text
    assert (True, "writers", 300, [64]) == (
        shown.json()["has_public_holdout"],
        shown.json()["population"]["name"],
        shown.json()["population"]["declared_size"],
        shown.json()["assets"][0]["shape"],
    )


def test_the_budget_tells_guarantee_and_readings_apart(governed: Governed) -> None:
    node, ids = governed
    submit(node, ids, "k")
    reading = node.call("owner", "GET", f"/v1/ledger/budget?population_id={ids['population']}").json()["items"][0]
    assert ("population", 8.0, 1e-5, 0.0) == (
        reading["scope"],
        reading["guarantee_epsilon"],
        reading["delta"],
        reading["spent_epsilon"],
    )
    assert 0 < reading["committed_epsilon"] <= 8


def test_entries_carry_the_bytes_that_were_hashed(governed: Governed) -> None:
    import base64
    import hashlib
    import json

    node, ids = governed
    submit(node, ids, "k")
    for entry in entries(node):
        body = base64.b64decode(entry["body_base64"])
        assert hashlib.sha256(b"\x00" + body).hexdigest() == entry["leaf_hash"]
        assert json.loads(body) == entry["body"]


def test_entries_come_in_pages(governed: Governed) -> None:
    node, ids = governed
    for number in range(3):
        submit(node, ids, f"k{number}")
    paged, cursor = [], ""
    while True:
        page = node.call("auditor", "GET", f"/v1/ledger/entries?limit=2{cursor}").json()
        paged += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert entries(node) == paged


@pytest.mark.parametrize("cursor", ["x", "AAAA", "W10=", "bnVsbA=="])
def test_a_foreign_cursor_is_422(governed_sqlite: Governed, cursor: str) -> None:
    node, _ = governed_sqlite
    assert [422, 422] == [
        node.call("auditor", "GET", f"{path}?cursor={cursor}").status_code
        for path in ("/v1/ledger/entries", "/v1/runs")
    ]
