"""A real OPA over the shipped policies, shared by the session: its bundle is what a node's first activation names."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from governance.model import Principal
from governance.policy.bundles import ActivePolicies, build, digest_sources, revision_name
from governance.policy.opa import PolicyEngine
from governance.policy.supervisor import OpaChild
from governance.registry import Registry

POLICIES = Path(__file__).parents[2] / "policies"


@dataclass(frozen=True)
class ServedPolicies:
    engine: PolicyEngine
    child: OpaChild
    digests: Mapping[str, str]
    sources: Mapping[str, str]

    def activate(self, registry: Registry, by: Principal | None = None) -> ActivePolicies:
        """Records in a fresh registry what OPA serves."""
        return registry.activate_policies(by.id if by else None, self.digests, self.sources)


@pytest.fixture(scope="session")
def served_policies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedPolicies]:
    sources = {name: (POLICIES / "demo" / f"{name}.rego").read_text() for name in ("digits", "standard")}
    digests = digest_sources(POLICIES, sources)
    bundle = build(POLICIES, sources, revision_name(1, digests), tmp_path_factory.mktemp("opa") / "bundle.tar.gz")
    token = secrets.token_hex(24)
    child = OpaChild()
    child.start(bundle, token)
    engine = PolicyEngine(child.url, token, timeout_s=5.0)
    try:
        child.wait_ready()
        yield ServedPolicies(engine, child, digests, sources)
    finally:
        engine.close()
        child.stop()
