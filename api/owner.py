"""What the command line does for an owner: lay data out, then register it over REST, with the owner's own rights.

Invariants
- It speaks HTTP as any client does, and off loopback only HTTPS, because a password travels.
- The data is read by a process of its own (``python -m runner.ingest``), and nothing comes back but a handle.
- If registering fails, the version that was laid out stays under the data root, unregistered, and the error names it.

This module does not: touch the database.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from api.errors import OwnerError
from api.settings import LOOPBACK

CHECKOUT = Path(__file__).resolve().parent.parent
_KINDS = {".npz": "--npz", ".csv": "--csv", ".parquet": "--parquet"}
_DECLARED = ("name", "dtype", "shape", "description", "minimum", "maximum")


@dataclass(frozen=True, slots=True)
class DatasetFiles:
    data: Path
    unit_column: str
    assets: Path
    max_examples_per_unit: int
    holdout: Path | None


class Session:
    """Logged in as one person; logs out at the end of the block. Raises ``OwnerError``."""

    def __init__(self, url: str, email: str, password: str) -> None:
        self._client = _client(url)
        form = {"grant_type": "password", "username": email, "password": password}
        try:
            token = _object(self._send("POST", "/v1/auth/token", data=form))["access_token"]
        except OwnerError:
            self._client.close()
            raise
        self._client.headers["Authorization"] = f"Bearer {token}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._client.post("/v1/auth/logout")
        except httpx.HTTPError as error:
            # The token ends by itself in minutes; what the block did or raised matters more.
            print(f"could not log out: {error}", file=sys.stderr)
        self._client.close()

    def open_population(self, body: dict[str, Any]) -> dict[str, Any]:
        return _object(self._send("POST", "/v1/populations", json=body))

    def resolve(self, run_id: str, kind: str, statement: str) -> dict[str, Any]:
        body = {"kind": kind, "statement": statement}
        return _object(self._send("POST", f"/v1/runs/{quote(run_id)}:resolve", json=body))

    def set_quota(self, population_id: str, body: dict[str, Any]) -> dict[str, Any]:
        return _object(self._send("PUT", f"/v1/populations/{quote(population_id)}/quotas", json=body))

    def population_id(self, name_or_id: str) -> str:
        """Asked before data is laid out, so that a wrong name costs nothing."""
        items = _object(self._send("GET", "/v1/populations"))["items"]
        for population in items:
            if name_or_id in (population["id"], population["name"]):
                found: str = population["id"]
                return found
        known = ", ".join(sorted(population["name"] for population in items)) or "none yet"
        raise OwnerError(f"you have no population {name_or_id!r} (yours: {known}); see: dataset open-population")

    def principal_id(self) -> str:
        found: str = _object(self._send("GET", "/v1/auth/me"))["id"]
        return found

    def entries(self, population_id: str, kind: str) -> Iterator[dict[str, Any]]:
        """The bodies of a population's entries of this kind, oldest first."""
        query: dict[str, Any] = {"population_id": population_id, "kind": kind, "limit": 1000}
        while True:
            page = _object(self._send("GET", "/v1/ledger/entries", params=query))
            yield from (item["body"] for item in page["items"])
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def register(
        self,
        name: str,
        description: str,
        population_id: str,
        policy: str,
        files: DatasetFiles,
        handle: str,
        holdout_handle: str | None,
    ) -> dict[str, Any]:
        body = {
            "population_id": population_id,
            "name": name,
            "description": description,
            "policy": policy,
            "max_examples_per_unit": files.max_examples_per_unit,
            "version_handle": handle,
            "assets": declared_assets(files.assets),
        }
        if holdout_handle is not None:
            body["holdout_handle"] = holdout_handle
        try:
            return _object(self._send("POST", "/v1/datasets", json=body))
        except OwnerError as error:
            laid_out = " and ".join(item for item in (handle, holdout_handle) if item)
            raise OwnerError(f"{error}\n(laid out but not registered: {laid_out})") from error

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        return _send(self._client, method, path, **content)


def accept(url: str, invitation_token: str, password: str) -> None:
    with _client(url) as client:
        body = {"invitation_token": invitation_token, "password": password}
        _send(client, "POST", "/v1/users/accept", json=body)


def lay_out(files: DatasetFiles, data_root: Path) -> tuple[str, str | None]:
    """Runs the ingestion for data and hold-out. Raises ``OwnerError`` with what it says."""
    capped = ["--unit-column", files.unit_column, "--max-examples-per-unit", str(files.max_examples_per_unit)]
    holdout = _ingest(files.holdout, files.assets, data_root, ["--public-holdout"]) if files.holdout else None
    return _ingest(files.data, files.assets, data_root, capped), holdout


def declared_assets(path: Path) -> list[dict[str, Any]]:
    """What the node is told of the assets file: the declarations, not which columns they were read from."""
    document = json.loads(path.read_text(encoding="utf-8"))
    listed = document["assets"] if isinstance(document, dict) else document
    return [{"shape": []} | {name: asset[name] for name in _DECLARED if name in asset} for asset in listed]


def _ingest(file: Path, assets: Path, data_root: Path, options: list[str]) -> str:
    kind = _KINDS.get(file.suffix.lower())
    if kind is None:
        raise OwnerError(f"{file}: the name must end in {', '.join(_KINDS)}")
    command = [sys.executable, "-m", "runner.ingest", kind, str(file.resolve()), "--assets", str(assets.resolve())]
    ran = subprocess.run(
        [*command, "--data-root", str(data_root), *options], cwd=CHECKOUT, capture_output=True, text=True
    )
    if ran.returncode != 0:
        raise OwnerError(ran.stderr.strip().removeprefix("error: ") or f"ingestion ended with status {ran.returncode}")
    handle: str = json.loads(ran.stdout)["version_handle"]
    return handle


def _client(url: str) -> httpx.Client:
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK:
        raise OwnerError(f"{url}: a password travels only over https://, or to this machine")
    return httpx.Client(base_url=quote(url, safe=":/[]%"), timeout=60.0, trust_env=parts.scheme == "https")


def _send(client: httpx.Client, method: str, path: str, **content: Any) -> httpx.Response:
    try:
        answer = client.request(method, path, **content)
    except httpx.HTTPError as error:
        raise OwnerError(f"no answer from {client.base_url}: {error}; is the node up?") from error
    if answer.is_success:
        return answer
    raise OwnerError(_problem(answer))


def _problem(answer: httpx.Response) -> str:
    try:
        document = answer.json()
    except ValueError:
        return f"status {answer.status_code}"
    lines = [str(document.get("detail") or document.get("title") or f"status {answer.status_code}")]
    for error in document.get("errors") or []:
        lines.append("  " + ": ".join(str(error[key]) for key in ("path", "message", "hint") if error.get(key)))
    return "\n".join(lines)


def _object(answer: httpx.Response) -> dict[str, Any]:
    document = answer.json()
    if not isinstance(document, dict):
        raise OwnerError("the node answered with something else than a JSON object; is it a PySyTFF node?")
    return document
