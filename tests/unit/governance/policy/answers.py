"""Answers as OPA gives them, for the tests of reading and merging."""

from __future__ import annotations

from typing import Any

from governance.model import PolicyDecision
from governance.policy.bundles import ActivePolicies
from governance.policy.merge import merge

ACTIVE = ActivePolicies("7-0123456789abcdef", 7, {"organisation": "sha256:aa", "owner:digits": "sha256:bb"})
PERMISSIVE: dict[str, Any] = {"allow": True, "deny": [], "limits": {}}


def answer(**rules: Any) -> dict[str, Any]:
    """A package that allows everything, but for ``rules``."""
    return {**PERMISSIVE, **rules}


def merged(organisation: object = PERMISSIVE, owner: object = PERMISSIVE) -> PolicyDecision:
    both = {"organisation": organisation, "owner": owner}
    return merge(both, policy_id="digits", active=ACTIVE, opa_decision_id="opa-1")
