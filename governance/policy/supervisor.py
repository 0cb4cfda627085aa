"""Owns the OPA process of a node on one machine.

Invariants
- OPA listens on loopback, asks for the token, and lets ``system.authz`` decide about every request to it.
- The token reaches OPA in its environment alone: no argument, file or log holds it.
- OPA ends with the thread that started it, even on ``kill -9``. So start it from the process's main thread.
- One bundle, read once at the start: a new bundle takes force by ``restart``, on the same port. (OPA's ``--watch`` may
  miss the replacement of a file, and its bundle plugin reads a file once. A restart takes a fifth of a second, during
  which decisions are refused; between the registry's record and that moment the revision check refuses them anyway.)

This module does not: decide when to restart (``pysytff-server up`` polls), or speak to OPA but for its health.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from governance.errors import PolicyEngineError, PolicyTimeoutError, PolicyUnreachableError
from governance.policy.bundles import BUNDLE_NAME
from governance.policy.locate import find_opa
from governance.policy.tool import confined

HOST = "127.0.0.1"
TOKEN_VARIABLE = "PYSYTFF_OPA_TOKEN"  # system/authz.rego reads it
MIN_TOKEN_LENGTH = 32
ADDRESS_SPACE = 4 * 2**30
MEMORY_TARGET = "512MiB"
MAX_REQUEST_BYTES = 128 * 1024
READY_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class _Started:
    bundle: Path
    token: str
    port: int
    process: subprocess.Popen[bytes]


class OpaChild:
    """``start`` → ``wait_ready`` → (``poll`` → ``restart`` → ``wait_ready``)* → ``stop``. Not thread-safe."""

    def __init__(self, opa: Path | None = None) -> None:
        self._opa = opa
        self._started: _Started | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._current().port}"

    @property
    def pid(self) -> int:
        return self._current().process.pid

    def start(self, bundle: Path, token: str, port: int = 0) -> None:
        """Returns at once; OPA answers after ``wait_ready``. Port 0: a free one. Raises ``PolicyEngineError``."""
        if self._started is not None and self._started.process.poll() is None:
            raise PolicyEngineError("OPA runs already.")
        if len(token) < MIN_TOKEN_LENGTH:
            raise PolicyEngineError(f"OPA's token needs at least {MIN_TOKEN_LENGTH} characters.")
        if not bundle.is_file():
            raise PolicyEngineError(f"There is no policy bundle at {bundle}.")
        chosen = port or _free_port()
        self._started = _Started(bundle, token, chosen, self._spawn(bundle, token, chosen))

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Until OPA answers, with its bundle. Raises ``PolicyUnreachableError``, ``PolicyTimeoutError``."""
        started = self._current()
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            # Health first: where OPA could not bind, another process may be answering on that port.
            healthy = _healthy(started.port)
            status = started.process.poll()
            if status is not None:
                raise PolicyUnreachableError(f"OPA ended with status {status} before it was ready.", status=status)
            if healthy:
                return
            time.sleep(_POLL_S)
        raise PolicyTimeoutError(f"OPA was not ready within {timeout_s:g} s.")

    def poll(self) -> int | None:
        """None while OPA runs; else its exit status."""
        return self._current().process.poll()

    def restart(self) -> None:
        """Stops OPA if it runs, and starts it with the same bundle file, token and port."""
        started = self._current()
        self.stop()
        self.start(started.bundle, started.token, started.port)

    def stop(self) -> None:
        """Idempotent. OPA gets time to answer what it is answering, then is killed."""
        if self._started is None or self._started.process.poll() is not None:
            return
        process = self._started.process
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _current(self) -> _Started:
        if self._started is None:
            raise PolicyEngineError("OPA was not started.")
        return self._started

    def _spawn(self, bundle: Path, token: str, port: int) -> subprocess.Popen[bytes]:
        specification: dict[str, object] = {
            "executable": str(self._opa or find_opa()),
            "arguments": server_arguments(f"{HOST}:{port}"),
            "bundle": str(bundle.resolve()),
            "address_space": ADDRESS_SPACE,
            "parent": os.getpid(),
            "unprivileged": True,
        }
        try:
            return subprocess.Popen(
                confined(specification),
                cwd="/",
                env={TOKEN_VARIABLE: token, "GOMEMLIMIT": MEMORY_TARGET},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # errors go to this process's standard error
                start_new_session=True,  # Ctrl-C reaches the parent alone, which ends its children in order
            )
        except OSError as error:
            raise PolicyUnreachableError(f"OPA could not be started: {error.strerror}.") from error


def server_arguments(address: str) -> list[str]:
    """The flags of a server that serves our bundle; ``{bundle}`` stands for the bundle's file name."""
    settings = (
        f"bundles.{BUNDLE_NAME}.resource=file://{{bundle}}",
        "decision_logs.console=true",  # OPA gives decision ids only then; system.log drops every event
        f"server.decoding.max_length={MAX_REQUEST_BYTES}",
        f"server.decoding.gzip.max_length={MAX_REQUEST_BYTES}",
    )
    flags = [
        "run",
        "--server",
        f"--addr={address}",
        "--authentication=token",
        "--authorization=basic",
        "--log-level=error",
        "--skip-version-check",  # no call home
        "--ready-timeout=10",
        "--shutdown-grace-period=2",
    ]
    return flags + [f"--set={setting}" for setting in settings]


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=1.0)
    try:
        connection.request("GET", "/health?bundles")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
