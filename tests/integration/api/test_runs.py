"""A run's life over REST: claimed, debited, watched, published, fetched. The runner here speaks plain HTTP."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy
import uvicorn

from api import logging
from api.app import create_app
from api.limits import Limits
from api.services import ApiOptions
from governance.ledger.tables import decisions

from .conftest import Node, Opa, everybody, govern, services_over, submit

Governed = tuple[Node, dict[str, str]]
WEIGHTS = safetensors.numpy.save(
    {"dense/kernel": np.zeros((64, 10), np.float32), "dense/bias": np.ones((10,), np.float32)}
)


def claim(node: Node) -> dict[str, Any]:
    grant: dict[str, Any] = node.call("runner", "POST", "/v1/runner/claim").json()
    return grant


def tell(node: Node, grant: dict[str, Any], what: str, **body: Any) -> Any:
    path = f"/v1/runner/grants/{grant['grant_id']}/{what}"
    return node.call("runner", "POST", path, json={"fencing_token": grant["fencing_token"]} | body)


def publish(node: Node, grant: dict[str, Any], weights: bytes = WEIGHTS, rounds: int = 10, **changes: Any) -> Any:
    meta = {"rounds": rounds, "public_metrics": {"holdout_accuracy": 0.9}, "generator": "g/1", "runner_version": "v"}
    headers = {"Fencing-Token": str(grant["fencing_token"]), "Result-Meta": json.dumps(meta | changes)}
    path = f"/v1/runner/grants/{grant['grant_id']}/result"
    return node.call("runner", "PUT", path, content=weights, headers=headers)


def finished(node: Node, ids: dict[str, str], key: str = "k") -> str:
    """The id of a run that was published after two batches of rounds."""
    run_id: str = submit(node, ids, key).json()["run_id"]
    grant = claim(node)
    for first in (0, 5):
        assert {"permitted": True, "debited_rounds": first + 5} == tell(
            node, grant, "debit", first_round=first, rounds=5
        ).json()
        assert 204 == tell(node, grant, "progress", rounds_done=first + 5).status_code
    assert 204 == publish(node, grant).status_code
    return run_id


def test_a_run_outlives_its_decision(governed: Governed) -> None:
    node, ids = governed
    decision = submit(node, ids, "k").json()
    path = f"/v1/runs/{decision['run_id']}"
    assert decision["id"] == node.call("researcher", "GET", path).json()["decision"]["id"]
    with node.services.database.write() as connection:
        connection.execute(decisions.delete().where(decisions.c.id == decision["id"]))
    for who in ("researcher", "owner", "auditor", "admin"):
        answer = node.call(who, "GET", path)
        assert (200, decision["id"], None) == (
            answer.status_code,
            answer.json()["decision_id"],
            answer.json()["decision"],
        )
    assert 404 == node.call("other_researcher", "GET", path).status_code


def parsed(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Server-sent events: {id, event, data}."""
    event: dict[str, Any] = {}
    for line in lines:
        if not line:
            if event:
                yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = json.loads(value) if name == "data" else value


def watch(node: Node, run_id: str, **headers: str) -> list[dict[str, Any]]:
    answer = node.call("researcher", "GET", f"/v1/runs/{run_id}/events", headers=headers)
    assert (200, "text/event-stream") == (answer.status_code, answer.headers["Content-Type"].partition(";")[0])
    return list(parsed(iter(answer.text.splitlines())))


def test_a_run_is_claimed_debited_published_and_fetched(governed: Governed) -> None:
    node, ids = governed
    run_id = finished(node, ids)
    shown = node.call("researcher", "GET", f"/v1/runs/{run_id}").json()
    assert ("published", 10, 10, 10, "approved") == (
        shown["state"],
        shown["rounds"],
        shown["rounds_debited"],
        shown["rounds_done"],
        shown["decision"]["outcome"],
    )
    result = node.call("researcher", "GET", f"/v1/runs/{run_id}/result").json()
    weights = node.call("researcher", "GET", result["weights_url"])
    assert (WEIGHTS, "application/octet-stream") == (weights.content, weights.headers["Content-Type"])
    assert hashlib.sha256(WEIGHTS).hexdigest() == result["weights_sha256"]
    assert {"holdout_accuracy": 0.9} == result["metrics"]
    assert result["privacy_statement"]


def test_a_grant_travels_whole_and_the_port_reads_it(governed: Governed) -> None:
    from runner.port import Grant

    node, ids = governed
    run_id = submit(node, ids, "k").json()["run_id"]
    grant = Grant.from_json(claim(node))
    assert (run_id, 10, "images", "labels") == (
        grant.run_id,
        grant.parameters.rounds,
        grant.data.features,
        grant.data.labels,
    )
    assert 204 == node.call("runner", "POST", "/v1/runner/claim").status_code


def test_a_repeated_debit_permits_nothing(governed: Governed) -> None:
    node, ids = governed
    submit(node, ids, "k")
    grant = claim(node)
    answers = [tell(node, grant, "debit", first_round=0, rounds=5).json()["permitted"] for _ in range(2)]
    assert [True, False] == answers


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("heartbeat", {}),
        ("debit", {"first_round": 0, "rounds": 1}),
        ("progress", {"rounds_done": 0}),
        ("fail", {"touched_data": True}),
    ],
)
def test_a_stale_fencing_token_is_409(governed_sqlite: Governed, what: str, body: dict[str, Any]) -> None:
    node, ids = governed_sqlite
    submit(node, ids, "k")
    grant = claim(node)
    answer = tell(node, grant | {"fencing_token": grant["fencing_token"] + 1}, what, **body)
    assert (409, "grant_revoked") == (answer.status_code, answer.json()["code"])


def test_a_result_under_a_stale_token_is_409(governed: Governed) -> None:
    node, ids = governed
    submit(node, ids, "k")
    grant = claim(node)
    tell(node, grant, "debit", first_round=0, rounds=10)
    answer = publish(node, grant | {"fencing_token": 0})
    assert (409, "grant_revoked") == (answer.status_code, answer.json()["code"])


@pytest.mark.parametrize(
    "changes",
    [
        {"rounds": "10"},
        {"public_metrics": {"holdout_accuracy": "0.9"}},
        {"public_metrics": {"training_loss": 0.1}},
        {"extra": 1},
        {"generator": 3},
    ],
)
def test_unfit_result_meta_is_422(governed_sqlite: Governed, changes: dict[str, Any]) -> None:
    node, ids = governed_sqlite
    submit(node, ids, "k")
    grant = claim(node)
    tell(node, grant, "debit", first_round=0, rounds=10)
    assert 422 == publish(node, grant, **changes).status_code


@pytest.mark.parametrize("weights", [b"", b"not safetensors", WEIGHTS[:-4]])
def test_unfit_weights_are_422_and_publish_nothing(governed_sqlite: Governed, weights: bytes) -> None:
    node, ids = governed_sqlite
    run_id = submit(node, ids, "k").json()["run_id"]
    grant = claim(node)
    tell(node, grant, "debit", first_round=0, rounds=10)
    assert 422 == publish(node, grant, weights=weights).status_code
    assert 409 == node.call("researcher", "GET", f"/v1/runs/{run_id}/result").status_code


def test_a_cancelled_run_tells_its_runner_to_stop(governed: Governed) -> None:
    node, ids = governed
    run_id = submit(node, ids, "k").json()["run_id"]
    grant = claim(node)
    assert "cancelled" == node.call("researcher", "POST", f"/v1/runs/{run_id}:cancel").json()["state"]
    answer = tell(node, grant, "heartbeat")
    assert answer.status_code == 409 or answer.json()["stop"]


def test_events_tell_the_whole_life_and_end(governed: Governed) -> None:
    node, ids = governed
    run_id = finished(node, ids)
    seen = [(one["event"], one["data"]["state"], one["data"]["rounds_done"]) for one in watch(node, run_id)]
    assert [
        ("state", "reserved", 0),
        ("state", "running", 0),
        ("progress", "running", 5),
        ("progress", "running", 10),
        ("state", "published", 10),
    ] == seen


def test_an_event_has_exactly_the_documented_fields(governed: Governed) -> None:
    node, ids = governed
    run_id = finished(node, ids)
    for one in watch(node, run_id):
        assert {"run_id", "state", "rounds", "rounds_done", "at"} == set(one["data"])
        assert (run_id, 10) == (one["data"]["run_id"], one["data"]["rounds"])


def test_events_resume_after_the_last_one_seen(governed: Governed) -> None:
    node, ids = governed
    run_id = finished(node, ids)
    everything = watch(node, run_id)
    assert everything[3:] == watch(node, run_id, **{"Last-Event-ID": everything[2]["id"]})


def test_who_has_seen_the_end_is_told_not_to_come_back(governed: Governed) -> None:
    node, ids = governed
    run_id = finished(node, ids)
    last = watch(node, run_id)[-1]["id"]
    answer = node.call("researcher", "GET", f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": last})
    assert 204 == answer.status_code


@pytest.mark.parametrize("last", ["x", "-1", "9" * 30, "1.5"])
def test_an_unfit_last_event_id_is_422(governed_sqlite: Governed, last: str) -> None:
    node, ids = governed_sqlite
    run_id = submit(node, ids, "k").json()["run_id"]
    answer = node.call("researcher", "GET", f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": last})
    assert 422 == answer.status_code


# --- live, over a real server ---


@pytest.fixture
def live(sqlite_url: str, opa: Opa, tmp_path: Any) -> Iterator[Governed]:
    """A node behind a real server."""
    options = ApiOptions(event_poll_s=0.02, stream_recheck_s=0.1, limits=Limits(streams_per_principal=3))
    services = services_over(sqlite_url, tmp_path, opa.engine(), options)
    app = create_app(services)
    log = io.StringIO()
    logging.configure(log)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        with httpx.Client(base_url=address, timeout=20) as client:
            node = Node(app, services, client, log)
            everybody(node)
            yield node, govern(node, opa)
    finally:
        server.should_exit = True
        thread.join()


def stream(node: Node, run_id: str, who: str = "researcher") -> Any:
    headers = {"Authorization": f"Bearer {node.tokens[who]}"}
    return node.client.stream("GET", f"/v1/runs/{run_id}/events", headers=headers)


def test_watchers_see_events_as_they_happen(live: Governed) -> None:
    node, ids = live
    run_id = submit(node, ids, "k").json()["run_id"]
    with stream(node, run_id) as mine, stream(node, run_id, "owner") as owners:
        watchers = [parsed(mine.iter_lines()), parsed(owners.iter_lines())]
        assert ["reserved"] * 2 == [next(one)["data"]["state"] for one in watchers]
        grant = claim(node)
        assert ["running"] * 2 == [next(one)["data"]["state"] for one in watchers]
        tell(node, grant, "debit", first_round=0, rounds=10)
        tell(node, grant, "progress", rounds_done=4)
        assert [4] * 2 == [next(one)["data"]["rounds_done"] for one in watchers]
        assert 204 == publish(node, grant).status_code
        assert [["published"]] * 2 == [[event["data"]["state"] for event in one] for one in watchers]


def test_a_watcher_of_one_run_hears_nothing_of_another(live: Governed) -> None:
    node, ids = live
    mine = submit(node, ids, "mine").json()["run_id"]
    with stream(node, mine) as answer:
        events = parsed(answer.iter_lines())
        next(events)
        other = submit(node, ids, "other", who="other_researcher").json()["run_id"]
        node.call("other_researcher", "POST", f"/v1/runs/{other}:cancel")
        node.call("researcher", "POST", f"/v1/runs/{mine}:cancel")
        assert [(mine, "cancelled")] == [(one["data"]["run_id"], one["data"]["state"]) for one in events]


def test_streams_are_capped_per_principal_and_freed(live: Governed) -> None:
    node, ids = live
    run_id = submit(node, ids, "k").json()["run_id"]
    path = f"/v1/runs/{run_id}/events"
    with stream(node, run_id) as first, stream(node, run_id) as second, stream(node, run_id) as third:
        watchers = [parsed(one.iter_lines()) for one in (first, second, third)]  # kept: a dropped one would hang up
        assert ["reserved"] * 3 == [next(one)["data"]["state"] for one in watchers]
        refused = node.call("researcher", "GET", path)
        assert (429, "too_many_streams") == (refused.status_code, refused.json()["code"])
        with stream(node, run_id, "owner") as owners:
            assert 200 == owners.status_code
    deadline = time.monotonic() + 10
    while node.app.state.broadcaster.watching and time.monotonic() < deadline:
        time.sleep(0.02)
    assert 0 == node.app.state.broadcaster.watching


def test_a_stream_ends_when_its_session_does(live: Governed) -> None:
    node, ids = live
    run_id = submit(node, ids, "k").json()["run_id"]
    with stream(node, run_id) as answer:
        events = parsed(answer.iter_lines())
        next(events)
        node.call("researcher", "POST", "/v1/auth/logout")
        assert [] == list(events)
