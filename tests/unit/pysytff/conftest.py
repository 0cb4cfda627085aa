"""A small node on loopback that speaks the REST contract over real HTTP, and breaks in the ways that networks break."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import safetensors.numpy

from pysytff import transport

NOW = "2026-01-02T03:04:05.000000Z"
POPULATION = {
    "id": "pop_1", "name": "writers", "declared_size": 300, "epsilon": 8.0, "delta": 1e-5,
    "relation": "ADD_OR_REMOVE_ONE",
}  # fmt: skip
DATASET = {
    "id": "dat_1", "name": "digits", "description": "<b>8 × 8</b>", "version": 1, "population": POPULATION,
    "policy": "digits", "max_examples_per_unit": 8, "has_public_holdout": True, "created_at": NOW,
    "assets": [
        {"id": "ast_images", "name": "images", "dtype": "float32", "shape": [4], "description": "", "minimum": 0.0,
         "maximum": 1.0},
        {"id": "ast_labels", "name": "labels", "dtype": "int64", "shape": [], "description": "", "minimum": None,
         "maximum": None},
    ],
}  # fmt: skip
PRIVACY = {"unit": "a writer", "relation": "ADD_OR_REMOVE_ONE", "epsilon": 1.5, "delta": 1e-5}
WEIGHTS = {
    "dense/kernel": np.arange(8, dtype=np.float32).reshape(4, 2),
    "dense/bias": np.array([0.5, -0.5], dtype=np.float32),
}


def decision(body: dict[str, Any], **changes: Any) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "id": "dec_1", "outcome": "approved", "reasons": [], "warnings": [], "requested": body, "effective": body,
        "clamps": [], "obligations": [], "policy_revision": "1-abc", "policy_digests": {"organisation": "sha256:0"},
        "opa_decision_id": "opa_1", "decided_at": NOW, "timings_ms": {"policy": 1.0}, "run_id": None,
        "entry_index": None,
        "cost": {
            "event": {"type": "poisson_gaussian"}, "epsilon_of_run_alone": 0.7, "committed_epsilon_before": 1.0,
            "committed_epsilon_after": 1.3, "delta": 1e-5, "accountant": "rdp/1",
        },
    }  # fmt: skip
    return answer | changes


class Node:
    """The node's state, and what shall go wrong. ``requests``: (method, path, headers, body) in order."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.passwords = {"sam@stargate.net": "changethis"}
        self.role = "researcher"
        self.access_lifetime_s = 900
        self.access: set[str] = set()
        self.refresh: set[str] = set()
        self.numbers = itertools.count(1)
        self.answers: dict[str, dict[str, Any]] = {}  # idempotency key -> decision
        self.decide: Callable[[dict[str, Any]], dict[str, Any]] = decision
        self.runs: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.stream_breaks: list[int] = []  # each stream breaks off after so many events; then it goes through
        self.stream_problem: tuple[int, str] | None = None
        self.drop_after_work = 0  # so many requests are carried out, and the connection is closed without an answer
        self.bare_gateway_errors = 0
        self.advance_on_read = False
        self.weights = safetensors.numpy.save(WEIGHTS)
        self.digest = hashlib.sha256(self.weights).hexdigest()
        self.audit: dict[str, dict[str, Any]] = {}  # answers to an auditor, by path
        self.export = b"".join(b'{"index":%d}\n' % index for index in range(7))
        self.checkpoint: bytes | None = b"node\n7\nroot\n"
        self.page = b"<!doctype html>"
        self.missing_bytes = 0  # of every answer: the connection breaks off before them
        self.lock = threading.Lock()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def sent(self, method: str, path: str) -> list[tuple[dict[str, str], Any]]:
        return [(headers, body) for m, p, headers, body in self.requests if (m, urlsplit(p).path) == (method, path)]

    def session(self) -> dict[str, Any]:
        number = next(self.numbers)
        access, refresh = f"access-{number}", f"refresh-{number}"
        self.access.add(access)
        self.refresh.add(refresh)
        return {
            "access_token": access, "token_type": "bearer", "expires_in": self.access_lifetime_s,
            "refresh_token": refresh, "role": self.role, "principal_id": "usr_1",
        }  # fmt: skip

    def submit(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        if key not in self.answers:
            answer = self.decide(body)
            if answer["outcome"] in ("approved", "clamped"):
                answer["run_id"] = f"run_{len(self.runs) + 1}"
                self.add_run(answer["run_id"], answer)
            self.answers[key] = answer
        return self.answers[key]

    def add_run(self, run_id: str, answer: dict[str, Any], state: str = "reserved") -> None:
        self.runs[run_id] = {
            "id": run_id, "decision_id": answer["id"], "state": state, "state_reason": None, "researcher_id": "usr_1",
            "project_id": "prj_1", "population_id": "pop_1", "dataset_id": "dat_1", "requested": answer["requested"],
            "effective": answer["effective"], "rounds": 4, "rounds_debited": 0, "rounds_done": 0, "created_at": NOW,
            "updated_at": NOW, "decision": answer,
        }  # fmt: skip

    def run_to_the_end(self, run_id: str, state: str = "published") -> None:
        """Queues the events of a run of four rounds."""
        self.events = [{"state": "running", "rounds_done": done} for done in range(5)] + [
            {"state": state, "rounds_done": 4}
        ]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    node: Node

    def log_message(self, format: str, *arguments: Any) -> None:
        pass  # the test's own output stays readable

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def _handle(self) -> None:
        node = self.node
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        kind = self.headers.get("Content-Type", "")
        body: Any = json.loads(content) if "json" in kind else parse_qs(content.decode())
        node.requests.append((self.command, self.path, dict(self.headers), body))
        if node.bare_gateway_errors:
            node.bare_gateway_errors -= 1
            self._send(502, b"<html>Bad gateway</html>", "text/html")
            return
        if url.path == "/v1/auth/token":
            self._token({name: values[0] for name, values in body.items()})
        elif self.headers.get("Authorization", "").removeprefix("Bearer ") not in node.access:
            self._problem(401, "unauthenticated", "the credential is missing, wrong or has ended")
        else:
            with node.lock:
                self._resource(self.command, url.path, parse_qs(url.query), body)

    def _token(self, form: dict[str, str]) -> None:
        node = self.node
        if form["grant_type"] == "password":
            if node.passwords.get(form["username"]) != form["password"]:
                self._problem(401, "unauthenticated", "e-mail or password is wrong")
                return
        elif form["refresh_token"] not in node.refresh:
            self._problem(401, "unauthenticated", "the refresh token has been used or has ended")
            return
        else:
            node.refresh.discard(form["refresh_token"])
        self._json(200, node.session())

    def _resource(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> None:
        node = self.node
        if (method, path) == ("GET", "/v1/auth/me"):
            self._json(200, {"id": "usr_1", "email": "sam@stargate.net", "role": node.role, "display_name": "Sam"})
        elif (method, path) == ("POST", "/v1/auth/logout"):
            node.access.clear()
            node.refresh.clear()
            self._send(204, b"", "application/json")
        elif (method, path) == ("GET", "/v1/datasets"):
            self._json(200, {"items": [DATASET]})
        elif (method, path) == ("GET", "/v1/projects"):
            self._json(200, {"items": [{"id": "prj_1", "name": "Sam's own", "created_by": "usr_1", "created_at": NOW}]})
        elif (method, path) == ("GET", "/v1/populations"):
            self._problem(403, "forbidden", "researchers list no populations")
        elif (method, path) == ("GET", "/v1/ledger/budget"):
            self._json(200, {"items": [self._reading(query["population_id"][0])]})
        elif (method, path) == ("GET", "/v1/ledger/entries"):
            self._page([self._entry(index) for index in range(5)], query)
        elif path.startswith(("/v1/ledger/", "/v1/decisions/")):
            self._audit(path, query)
        elif (method, path) == ("POST", "/v1/train-requests:preview"):
            self._json(200, node.decide(body))
        elif (method, path) == ("POST", "/v1/train-requests"):
            answer = node.submit(self.headers["Idempotency-Key"], body)
            if answer["outcome"] == "refused":
                self._problem(403, "refused", "policy or budget refused", decision=answer)
            else:
                self._json(201, answer)
        elif (method, path) == ("GET", "/v1/runs"):
            self._page(list(node.runs.values()), query)
        else:
            self._run(method, path.removeprefix("/v1/runs/"))

    def _audit(self, path: str, query: dict[str, list[str]]) -> None:
        node = self.node
        if path == "/v1/ledger/export":
            headers = {"Ledger-Size": "7"} | ({"Ledger-Entries": "7"} if query["format"] == ["jsonl"] else {})
            self._send(200, node.export, "application/jsonl", headers)
        elif path == "/v1/ledger/checkpoint" and node.checkpoint is not None:
            self._send(200, node.checkpoint, "text/plain; charset=utf-8")
        elif path in node.audit:
            self._json(200, node.audit[path])
        else:
            self._problem(404, "not_found", "there is no such thing that you can see")

    def _run(self, method: str, rest: str) -> None:
        node = self.node
        run_id, _, part = rest.replace(":", "/", 1).partition("/")
        run = node.runs.get(run_id)
        if run is None:
            self._problem(404, "not_found", f"there is no run {run_id}")
        elif (method, part) == ("GET", ""):
            if node.advance_on_read and node.events:
                run.update(node.events.pop(0))
            self._json(200, run)
        elif (method, part) == ("POST", "cancel"):
            run["state"] = "cancelled"
            self._json(200, run)
        elif (method, part) == ("GET", "events"):
            self._stream(run)
        elif (method, part) == ("GET", "statement"):
            if "format=html" in self.path:
                self._send(200, node.page, "text/html; charset=utf-8")
            else:
                self._json(200, node.audit["statement"])
        elif (method, part) == ("GET", "result"):
            metrics = {"holdout_accuracy": 0.93}
            url = f"/v1/runs/{run_id}/weights"
            answer = {
                "weights_sha256": node.digest,
                "metrics": metrics,
                "privacy_statement": PRIVACY,
                "weights_url": url,
            }
            self._json(200, {"run_id": run_id, **answer})
        else:
            self._send(200, node.weights, "application/octet-stream")

    def _stream(self, run: dict[str, Any]) -> None:
        node = self.node
        if node.stream_problem is not None:
            self._problem(node.stream_problem[0], node.stream_problem[1], "close another event stream first")
            return
        after = int(self.headers.get("Last-Event-ID", 0))
        left = node.stream_breaks.pop(0) if node.stream_breaks else len(node.events)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b": ping\r\n\r\n")
        for number, event in enumerate(node.events, start=1):
            if number <= after or left == 0:
                continue
            left -= 1
            run.update(event)
            document = {"run_id": run["id"], "rounds": run["rounds"], "at": NOW, **event}
            text = f"id: {number}\r\nevent: progress\r\ndata: {json.dumps(document)}\r\n\r\n"
            self.wfile.write(text.encode())
        self.close_connection = True

    def _reading(self, population_id: str) -> dict[str, Any]:
        return {
            "scope": "population", "scope_id": population_id, "guarantee_epsilon": 8.0, "delta": 1e-5,
            "spent_epsilon": 1.0, "committed_epsilon": 1.25, "accountant": "rdp/1", "as_of_entry": 4,
        }  # fmt: skip

    def _entry(self, index: int) -> dict[str, Any]:
        return {
            "index": index, "kind": "decision", "at": NOW, "leaf_hash": f"{index:064x}", "body_base64": "e30=",
            "body": {"kind": "decision", "outcome": "approved"},
        }  # fmt: skip

    def _page(self, items: list[Any], query: dict[str, list[str]]) -> None:
        """Pages of two, so that paging is exercised."""
        start = int(query.get("cursor", ["0"])[0])
        more = str(start + 2) if start + 2 < len(items) else None
        self._json(200, {"items": items[start : start + 2], "next_cursor": more})

    def _problem(self, status: int, code: str, detail: str, **more: Any) -> None:
        problem = {
            "type": f"urn:pysytff:problem:{code}",
            "title": code,
            "status": status,
            "detail": detail,
            "code": code,
        }
        content = json.dumps({**problem, "request_id": "req_7", **more}).encode()
        self._send(status, content, "application/problem+json")

    def _json(self, status: int, answer: Any) -> None:
        self._send(status, json.dumps(answer).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        if self.node.drop_after_work:
            self.node.drop_after_work -= 1
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) + self.node.missing_bytes))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = self.close_connection or self.node.missing_bytes > 0


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    state = Node()
    handler = type("BoundHandler", (Handler,), {"node": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(transport, "RETRY_DELAYS_S", (0.01, 0.01, 0.01))
    monkeypatch.delenv("PYSYTFF_PASSWORD", raising=False)
    with server:
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture
def session_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "pysytff" / "session.json"


PARAMS = {
    "rounds": 4, "clients_per_round": 20, "noise_multiplier": 1.0, "train_data_id": "ast_images",
    "label_data_id": "ast_labels",
}  # fmt: skip


@pytest.fixture
def params() -> dict[str, Any]:
    return dict(PARAMS)


@pytest.fixture
def decided() -> Callable[..., dict[str, Any]]:
    return decision


@pytest.fixture
def published_weights() -> dict[str, Any]:
    return dict(WEIGHTS)
