"""A real OPA that serves a real bundle of the repository's policies."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from governance.policy.bundles import BUNDLE_FILE, ActivePolicies, build, digest_sources, revision_name
from governance.policy.locate import POLICIES_DIR, find_opa
from governance.policy.opa import PolicyEngine
from governance.policy.supervisor import OpaChild

# Beside the demonstration's: policies that go wrong only when they are asked, which no check before can find.
FAULTY = {
    "two_values": "default allow := true\n\ndeny := set()\n\nlimits := {}\n"
    'limits := {"max_rounds": input.request.rounds}',
    "failing": "default allow := true\n\ndeny := {x | x := time.parse_rfc3339_ns(input.purpose)}\n\nlimits := {}",
    "no_allow": "deny := set()\n\nlimits := {}",
    "no_limits": "default allow := true\n\ndeny := set()\n\nlimits := {} if input.request.rounds < 0",
    "allow_text": 'allow := "true"\n\ndeny := set()\n\nlimits := {}',
    "allow_one": "allow := 1\n\ndeny := set()\n\nlimits := {}",
    "allow_null": "allow := null\n\ndeny := set()\n\nlimits := {}",
    "unknown_limit": 'default allow := true\n\ndeny := set()\n\nlimits := {"max_epsilon": 3}',
    "huge": "allow := true\n\nlimits := {}\n\n"
    'deny := {x | some i in numbers.range(1, 100000); x := {"code": "a", "message": sprintf("%d", [i])}}',
    "slow": "allow if count({[a, b, c] | some a in _n; some b in _n; some c in _n; a + b == c}) > 0\n\n"
    "_n := numbers.range(1, 4000)\n\ndeny := set()\n\nlimits := {}",
    "denies": 'default allow := true\n\ndeny contains {"code": "no", "message": "No."}\n\nlimits := {}',
    "unknown_obligation": "default allow := true\n\ndeny := set()\n\nlimits := {}\n\n"
    'obligations contains {"type": "delete_data", "params": {}}',
}


@pytest.fixture(scope="session")
def opa() -> Path:
    return find_opa()


@pytest.fixture(scope="session")
def owner_policies() -> dict[str, str]:
    own = {name: (POLICIES_DIR / "demo" / f"{name}.rego").read_text() for name in ("digits", "standard")}
    return own | {name: f"package owners.{name}\n\n{body}\n" for name, body in FAULTY.items()}


@pytest.fixture(scope="session")
def active(owner_policies: dict[str, str]) -> ActivePolicies:
    digests = digest_sources(POLICIES_DIR, owner_policies)
    return ActivePolicies(revision_name(1, digests), 1, digests)


@pytest.fixture(scope="session")
def bundle(
    tmp_path_factory: pytest.TempPathFactory, active: ActivePolicies, owner_policies: dict[str, str], opa: Path
) -> Path:
    return build(
        POLICIES_DIR, owner_policies, active.revision, tmp_path_factory.mktemp("bundle") / BUNDLE_FILE, opa=opa
    )


@pytest.fixture(scope="session")
def token() -> str:
    return secrets.token_urlsafe(32)


@pytest.fixture(scope="session")
def server(bundle: Path, token: str, opa: Path) -> Iterator[OpaChild]:
    child = OpaChild(opa)
    child.start(bundle, token)
    try:
        child.wait_ready()
        yield child
    finally:
        child.stop()


@pytest.fixture(scope="session")
def engine(server: OpaChild, token: str) -> Iterator[PolicyEngine]:
    # Far above what an answer takes, so that a busy machine fails no test; the tests of deadlines set their own.
    engine = PolicyEngine(server.url, token, timeout_s=20.0)
    yield engine
    engine.close()


@pytest.fixture
def document() -> dict[str, Any]:
    """The schema's example: a sensible request of the demonstration."""
    found: dict[str, Any] = json.loads((POLICIES_DIR / "input.schema.json").read_text())["examples"][0]
    return found
