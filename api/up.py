"""``pysytff-server up`` and ``serve``: which processes a node has, in which order, and when it counts as up.

In this order: (1) the folder is a whole node of this release, and nobody else runs it; (2) the API's address is free;
(3) the policy engine serves the bundle of the policies in force; (4) the API answers that it can decide; (5) the runner
polls. While it runs, policies that are activated (here or on another host) reach the engine within about a second.

Invariants
- Nothing is started before (1) and (2) are known to hold.
- The policy engine is managed here only where no other one is named; it is revived a few times if it crashes. A crash
  of anything else ends the node.

This module does not: hold rights, or talk to the database while requests are decided.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

from api import node
from api.errors import NodeError, ProcessError
from api.node import CHECKOUT
from api.processes import Child, OwnProcess, Supervisor
from api.settings import Settings
from governance.errors import GovernanceError
from governance.policy.supervisor import OpaChild

REVIVALS = 3  # of the policy engine, before the node gives up on it
REVIVALS_FORGOTTEN_S = 600.0
FIRST_BACKOFF_S = 0.5


class PolicyEngineChild:
    """The managed OPA as a ``Child``: revived with a growing pause when it crashes, and restarted for a new bundle."""

    name = "policy engine"

    def __init__(self, settings: Settings, tell: Callable[[str, str], None]) -> None:
        self._settings = settings
        self._tell = tell
        self._opa = OpaChild()
        self._revision = ""
        self._crashes: list[float] = []

    @property
    def url(self) -> str:
        return self._opa.url

    def start(self, asked_to_end: Callable[[], bool]) -> str:
        bundle = node.bundle_in_force(self._settings)
        self._revision = bundle.active.revision
        try:
            self._opa.start(bundle.path, node.opa_token(self._settings))
            self._opa.wait_ready()
        except GovernanceError as error:
            raise ProcessError(f"{self.name} did not start: {error.detail}") from error
        return f"ready on {self.url}, policies of revision {self._revision}"

    def check(self) -> None:
        if self._opa.poll() is None:
            return
        now = time.monotonic()
        self._crashes = [*(at for at in self._crashes if now - at < REVIVALS_FORGOTTEN_S), now]
        if len(self._crashes) > REVIVALS:
            raise ProcessError(
                f"{self.name} crashed {len(self._crashes)} times; its own words are above, if it had any"
            )
        pause = FIRST_BACKOFF_S * 2 ** (len(self._crashes) - 1)
        self._tell(self.name, f"crashed; requests are refused until it is back, in {pause:g} s")
        time.sleep(pause)
        self._restart()

    def follow(self) -> None:
        """Serves what is in force now, where that has changed."""
        try:
            active = node.policies_in_force(self._settings)
        except GovernanceError:
            return  # the database is away for a moment; the API says so to whoever asks
        if active is not None and active.revision != self._revision:
            self._restart()

    def stop(self, in_a_hurry: Callable[[], bool]) -> None:
        self._opa.stop()

    def _restart(self) -> None:
        try:
            bundle = node.bundle_in_force(self._settings)
            self._opa.restart()
            self._opa.wait_ready()
        except (GovernanceError, NodeError) as error:
            raise ProcessError(f"{self.name} cannot be restarted: {error}") from error
        self._revision = bundle.active.revision
        self._tell(self.name, f"serves policies of revision {self._revision}")


def up(settings: Settings, tell: Callable[[str, str], None], *, with_runner: bool = True) -> None:
    """Runs the node until a signal asks for its end. Raises ``NodeError``, ``ProcessError``."""
    node.require(settings)
    with node.in_use(settings), listen(settings) as listener:
        settings = settings.model_copy(update={"port": listener.getsockname()[1]})
        supervisor = Supervisor(tell)
        children: list[Child] = []
        engine: PolicyEngineChild | None = None
        if settings.opa_url is None:
            engine = PolicyEngineChild(settings, tell)
            children.append(engine)
        children.append(_Api(settings, listener, engine))
        if with_runner:
            children.append(_runner(settings))
        supervisor.run(
            children,
            up=lambda: tell("node", f"is up at {settings.own_url} (end it with Ctrl-C; logs in {settings.logs_dir})"),
            tick=engine.follow if engine else lambda: None,
        )


def listen(settings: Settings) -> socket.socket:
    """Binds the API's address. Raises ``NodeError`` if that is not possible, with what to do."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        where = f"{settings.host} port {settings.port}"
        raise NodeError(
            f"cannot listen on {where}: {error.strerror or error}; stop what uses it, or choose another with --port "
            "or PYSYTFF_PORT"
        ) from error
    return listener


class _Api(OwnProcess):
    """``pysytff-server serve`` on the socket that is bound here, told where the engine is when that is known."""

    def __init__(self, settings: Settings, listener: socket.socket, engine: PolicyEngineChild | None) -> None:
        self._settings, self._engine = settings, engine
        descriptor = listener.fileno()
        super().__init__(
            name="API",
            command=[sys.executable, "-m", "api.cli", "serve", "--descriptor", str(descriptor)],
            environment={},
            log=settings.logs_dir / "api.log",
            ready=lambda: _ready(settings.own_url),
            pass_fds=(descriptor,),
            working_directory=CHECKOUT,
        )

    def start(self, asked_to_end: Callable[[], bool]) -> str:
        settings = self._settings
        if self._engine is not None:
            token = SecretStr(node.opa_token(settings))
            settings = settings.model_copy(update={"opa_url": self._engine.url, "opa_token": token})
        self.environment = _child_environment(settings)
        return super().start(asked_to_end)


def _runner(settings: Settings) -> OwnProcess:
    local = settings.model_copy(update={"api_url": settings.own_url, "opa_token": None, "opa_url": None})
    environment = _child_environment(local)
    environment.pop("DATABASE_URL")  # a runner has no business in the database
    environment["PYSYTFF_RUNNER_PLAIN_HTTP"] = "1"  # whatever address the API listens on, it is on this machine
    return OwnProcess(
        name="runner",
        command=[sys.executable, "-m", "runner"],
        environment=environment,
        log=settings.logs_dir / "runner.log",
        ready=lambda: f"polls {local.own_url}",
        working_directory=CHECKOUT,
        stop_timeout_s=20.0,
    )


def _child_environment(settings: Settings) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYSYTFF_")}
    extra = {name: os.environ[name] for name in ("PYSYTFF_JOB_SECONDS",) if name in os.environ}
    return inherited | extra | _journal() | settings.environment() | {"PYTHONUNBUFFERED": "1"}


def _journal() -> dict[str, str]:
    """The runner's own setting, as seen from here: it starts elsewhere."""
    directory = os.environ.get("PYSYTFF_JOURNAL_DIR")
    return {"PYSYTFF_JOURNAL_DIR": os.path.abspath(directory)} if directory else {}


def _ready(url: str) -> str | None:
    """What to tell once the API says that it can decide; None while it does not answer yet."""
    request = urllib.request.Request(f"{url}/v1/ready", headers={"Accept": "application/json"})
    try:
        # No proxy of the environment between a node and itself.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answer:
            json.load(answer)
    except (OSError, urllib.error.URLError, ValueError):
        return None
    return f"ready on {url}"


def run_runner(settings: Settings) -> None:
    """Becomes the runner: this process is replaced. Raises ``NodeError`` where it lacks its credential."""
    node.read_secret(settings.runner_credential_file)
    environment = os.environ | _journal() | settings.environment() | {"PYSYTFF_API_URL": settings.runner_url}
    environment.pop("DATABASE_URL", None)
    os.chdir(CHECKOUT)
    os.execve(sys.executable, [sys.executable, "-m", "runner"], environment)


def checkout_module(name: str, *arguments: str) -> None:
    """Becomes ``python -m name`` of this checkout. Raises ``NodeError`` outside a checkout."""
    if not (CHECKOUT / Path(*name.split("."))).exists():
        raise NodeError(f"{name} comes with a checkout of the project; there is none at {CHECKOUT}")
    os.chdir(CHECKOUT)
    os.execve(sys.executable, [sys.executable, "-m", name, *arguments], dict(os.environ))
