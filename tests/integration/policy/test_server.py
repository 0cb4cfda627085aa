"""OPA as the node runs it: who may ask it what, and what becomes of it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from governance.errors import PolicyEngineError, PolicyUnreachableError
from governance.policy.bundles import ActivePolicies
from governance.policy.locate import POLICIES_DIR
from governance.policy.opa import PolicyEngine
from governance.policy.supervisor import OpaChild
from tests.integration.policy import peers

ALLOW_ALL = "package organisation.admission\n\nallow := true\n"


def status_of(
    server: OpaChild,
    method: str,
    path: str,
    token: str | None,
    body: str | None = None,
    content: str = "application/json",
) -> int:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    headers = {"Content-Type": content} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


ATTEMPTS = [
    ("PUT", "/v1/policies/organisation", ALLOW_ALL, "text/plain"),
    ("PUT", "/v1/policies/system%2Fauthz", ALLOW_ALL, "text/plain"),
    ("DELETE", "/v1/policies/system/authz.rego", None, "text/plain"),
    ("GET", "/v1/policies", None, "text/plain"),
    ("PUT", "/v1/data/organisation", '{"admission": {"allow": true}}', "application/json"),
    ("PATCH", "/v1/data", '[{"op": "add", "path": "/x", "value": 1}]', "application/json-patch+json"),
    ("DELETE", "/v1/data/organisation", None, "application/json"),
    ("GET", "/v1/data", None, "application/json"),
    ("GET", "/v1/data/pysytff/gate", None, "application/json"),
    ("POST", "/v1/data", '{"input": {}}', "application/json"),
    ("POST", "/v1/data/organisation/admission", '{"input": {}}', "application/json"),
    ("POST", "/v1/data/pysytff/gate/owner", '{"input": {}}', "application/json"),
    ("POST", "/v1/data/pysytff%2Fgate", '{"input": {}}', "application/json"),
    ("POST", "/v1//data/pysytff/gate", '{"input": {}}', "application/json"),
    ("POST", "/v1/data/pysytff/gate?explain=full", '{"input": {}}', "application/json"),
    ("POST", "/v0/data/pysytff/gate", "{}", "application/json"),
    ("POST", "/v1/query", '{"query": "x := opa.runtime()"}', "application/json"),
    ("GET", "/v1/query?q=x%3Dopa.runtime()", None, "application/json"),
    ("POST", "/v1/compile", '{"query": "true"}', "application/json"),
    ("POST", "/", "{}", "application/json"),
    ("GET", "/", None, "application/json"),
    ("GET", "/v1/config", None, "application/json"),
    ("GET", "/metrics", None, "application/json"),
    ("GET", "/health/live", None, "application/json"),
]


@pytest.mark.parametrize("with_token", [False, True], ids=["without token", "with token"])
@pytest.mark.parametrize(("method", "path", "body", "content"), ATTEMPTS)
def test_everything_but_a_decision_is_refused(
    server: OpaChild, token: str, with_token: bool, method: str, path: str, body: str | None, content: str
) -> None:
    status = status_of(server, method, path, token if with_token else None, body, content)
    assert status in (301, 307, 401)  # a path that is not canonical is redirected, to one that is refused too
    assert status == 401 or "//" in path


def test_no_attempt_changed_what_is_decided(engine: PolicyEngine, active: ActivePolicies) -> None:
    engine.ready(active)


@pytest.mark.parametrize("other", [None, "", "x" * 43, "0" * 64])
def test_a_decision_needs_the_token(server: OpaChild, other: str | None) -> None:
    assert 401 == status_of(server, "POST", "/v1/data/pysytff/gate", other, '{"input": {}}')


def test_a_decision_with_the_token_is_answered(server: OpaChild, token: str) -> None:
    assert 200 == status_of(server, "POST", "/v1/data/pysytff/gate", token, '{"input": {}}')


@pytest.mark.parametrize("path", ["/health", "/health?bundles"])
def test_health_needs_no_token(server: OpaChild, path: str) -> None:
    assert 200 == status_of(server, "GET", path, None)


def test_a_request_beyond_any_input_is_not_read(server: OpaChild, token: str) -> None:
    body = json.dumps({"input": "x" * 200_000})
    assert status_of(server, "POST", "/v1/data/pysytff/gate", token, body) in (400, 413)


def test_only_loopback_is_listened_on(server: OpaChild) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    listening = [
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    ]
    assert [f"0100007F:{port:04X}"] == [address for address in listening if address.endswith(f":{port:04X}")]
    assert f":{port:04X}" not in Path("/proc/net/tcp6").read_text()


def test_the_token_is_in_no_argument(server: OpaChild, token: str) -> None:
    assert token not in Path(f"/proc/{server.pid}/cmdline").read_text()


def test_opa_cannot_gain_privileges_and_is_no_root(server: OpaChild) -> None:
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    status = {line.split(":")[0]: line.split()[1:] for line in lines if ":" in line}
    assert ["1"] == status["NoNewPrivs"]
    assert int(status["CapEff"][0], 16) == 0
    assert "0" not in status["Uid"]


def test_opa_prints_no_decision(tmp_path: Path, bundle: Path, token: str) -> None:
    script = (
        "import sys, http.client; from pathlib import Path; from governance.policy.supervisor import OpaChild\n"
        f"child = OpaChild(); child.start(Path({str(bundle)!r}), {token!r}); child.wait_ready()\n"
        "c = http.client.HTTPConnection(child.url.removeprefix('http://'))\n"
        f"c.request('POST', '/v1/data/pysytff/gate', '{{\"input\": {{\"purpose\": \"very private\"}}}}',"
        f" {{'Authorization': 'Bearer ' + {token!r}, 'Content-Type': 'application/json'}})\n"
        "assert c.getresponse().status == 200\n"
        "child.stop()\n"
    )
    root = POLICIES_DIR.parent
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, timeout=60)
    assert (0, "", "") == (ran.returncode, ran.stdout, ran.stderr)


# --- its life


def gone(pid: int) -> bool:
    """Whether the process ended, within a generous time."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":  # ended, not yet reaped by whoever inherited it
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_opa_ends_with_its_parent_however_that_ends(bundle: Path, token: str, ending: signal.Signals) -> None:
    script = (
        "import sys, time; from pathlib import Path; from governance.policy.supervisor import OpaChild\n"
        f"child = OpaChild(); child.start(Path({str(bundle)!r}), {token!r}); child.wait_ready()\n"
        "print(child.pid, flush=True); time.sleep(600)\n"
    )
    root = POLICIES_DIR.parent
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
        parent.send_signal(ending)
    assert gone(pid)


def test_a_crash_is_seen_and_a_restart_heals_it(bundle: Path, token: str, opa: Path, active: ActivePolicies) -> None:
    child = OpaChild(opa)
    child.start(bundle, token)
    child.wait_ready()
    engine = PolicyEngine(child.url, token, timeout_s=20.0)
    try:
        assert child.poll() is None
        os.kill(child.pid, signal.SIGKILL)
        while child.poll() is None:
            time.sleep(0.01)
        assert -signal.SIGKILL == child.poll()
        with pytest.raises(PolicyUnreachableError):
            engine.ready(active)
        child.restart()
        child.wait_ready()
        engine.ready(active)
    finally:
        engine.close()
        child.stop()
    assert child.poll() is not None
    child.stop()


def test_a_bundle_that_is_none_is_no_start(tmp_path: Path, token: str, opa: Path) -> None:
    (tmp_path / "bundle.tar.gz").write_bytes(b"not a bundle")
    child = OpaChild(opa)
    child.start(tmp_path / "bundle.tar.gz", token)
    with pytest.raises(PolicyEngineError):
        child.wait_ready(timeout_s=1)  # OPA itself gives the bundle ten seconds before it gives up
    child.stop()


def test_a_port_that_another_process_holds_is_no_start(bundle: Path, token: str, opa: Path) -> None:
    with peers.answering(b"") as url:
        child = OpaChild(opa)
        child.start(bundle, token, int(url.rsplit(":", 1)[1]))
        with pytest.raises(PolicyUnreachableError):
            child.wait_ready(timeout_s=30)
        child.stop()


def test_a_missing_bundle_a_guessable_token_and_a_second_start_are_refused(
    tmp_path: Path, bundle: Path, token: str, server: OpaChild, opa: Path
) -> None:
    child = OpaChild(opa)
    with pytest.raises(PolicyEngineError, match="not started"):
        child.poll()
    with pytest.raises(PolicyEngineError, match="no policy bundle"):
        child.start(tmp_path / "missing.tar.gz", token)
    with pytest.raises(PolicyEngineError, match="at least 32"):
        child.start(bundle, "short")
    with pytest.raises(PolicyEngineError, match="runs already"):
        server.start(bundle, token)
    child.stop()
