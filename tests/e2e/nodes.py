"""Whole nodes with the demo's people, population and data: real policy engine, real API, real runner and TFF."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import httpx

import pysytff as sy
from examples.digits.seed import AUDITOR, OWNER, PASSWORD, RESEARCHER
from tests.e2e.programs import Program, matching, wait_until

MODEL: Final = {
    "schema": "pysytff.model/1",
    "input": {"shape": [8, 8, 1], "dtype": "float32"},
    "layers": [{"type": "flatten"}, {"type": "dense", "units": 10, "activation": "softmax"}],
}
_RENEW_S = 300.0  # well within an access token's life

Json = dict[str, Any]


class Person:
    """Somebody who speaks plain HTTP with a node: what the SDK would not send can be sent too."""

    def __init__(self, url: str, email: str, password: str = PASSWORD) -> None:
        self.email, self._password = email, password
        self.client = httpx.Client(base_url=url, trust_env=False, timeout=60.0)
        self._token, self._renew_at = "", 0.0

    def token(self) -> str:
        if time.monotonic() > self._renew_at:
            form = {"grant_type": "password", "username": self.email, "password": self._password}
            answer = self.client.post("/v1/auth/token", data=form)
            assert (200, None) == (answer.status_code, answer.json().get("detail"))
            self._token, self._renew_at = answer.json()["access_token"], time.monotonic() + _RENEW_S
        return self._token

    def call(self, method: str, path: str, **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token()}"} | dict(request.pop("headers", {}))
        return self.client.request(method, path, headers=headers, **request)

    def read(self, path: str, **params: Any) -> Json:
        answer = self.call("GET", path, params=params)
        assert (200, path) == (answer.status_code, path), answer.text
        found: Json = answer.json()
        return found

    def submit(self, body: Json, key: str) -> httpx.Response:
        return self.call("POST", "/v1/train-requests", json=body, headers={"Idempotency-Key": key})

    def preview(self, body: Json) -> httpx.Response:
        return self.call("POST", "/v1/train-requests:preview", json=body)


class DemoNode:
    """A running node of the demo's people."""

    def __init__(self, folder: Path, program: Program) -> None:
        self.folder, self.program = folder, program
        program.wait_said("is up at ")
        self.url = program.said().partition("is up at ")[2].split()[0]
        self.sam = Person(self.url, RESEARCHER)
        self.owner = Person(self.url, OWNER)
        self.auditor = Person(self.url, AUDITOR)
        (dataset,) = self.sam.read("/v1/datasets")["items"]
        self.population_id: str = dataset["population"]["id"]
        self.assets: dict[str, str] = {asset["name"]: asset["id"] for asset in dataset["assets"]}

    def domain(self, email: str = RESEARCHER) -> sy.Domain:
        return sy.login(email=email, password=PASSWORD, url=self.url)

    def request(self, **changes: Any) -> Json:
        """One that is approved as it stands, at a small cost."""
        return {
            "rounds": 10,
            "clients_per_round": 3,
            "noise_multiplier": 2.0,
            "train_data_id": self.assets["images"],
            "label_data_id": self.assets["labels"],
            "model": MODEL,
            "purpose": "research on handwriting",
        } | changes

    def entries(self, **filters: str) -> list[Json]:
        """The whole ledger, or what ``filters`` leave of it, as the auditor reads it."""
        page = self.auditor.read("/v1/ledger/entries", limit=1000, **filters)
        assert page["next_cursor"] is None
        items: list[Json] = page["items"]
        return items

    def budget(self) -> Json:
        """The population's reading."""
        items = self.auditor.read("/v1/ledger/budget", population_id=self.population_id)["items"]
        reading: Json = next(item for item in items if item["scope"] == "population")
        return reading

    def run(self, run_id: str) -> Json:
        return self.sam.read(f"/v1/runs/{run_id}")

    def wait_run(self, run_id: str, *states: str) -> Json:
        wait_until(lambda: self.run(run_id)["state"] in states, f"{run_id} is {' or '.join(states)}")
        return self.run(run_id)

    def is_ready(self) -> bool:
        try:
            return self.sam.client.get("/v1/ready").status_code == 200
        except httpx.TransportError:
            return False

    def child(self, of: str) -> int:
        """The one process of this node whose command line holds ``of``."""
        (pid,) = matching(self.program.pid, of)
        return pid

    def close(self) -> None:
        for person in (self.sam, self.owner, self.auditor):
            person.client.close()


def unchanging(reading: Json) -> Json:
    """A budget reading without the index up to which it was read."""
    return {name: value for name, value in reading.items() if name != "as_of_entry"}
