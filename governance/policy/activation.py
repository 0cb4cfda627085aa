"""Puts a set of policies in force: checked, tested, recorded, bundled, in this order.

Invariants
- Nothing is recorded before every new or changed policy has passed ``gate.check`` and the organisation's own tests.
- The registry's record comes before the bundle. Between the two OPA answers with the old revision, and every decision
  is refused: late, never wrong. An interrupted activation is completed by the next call.
- Policies that the registry already holds stay in force; the given ones are added, or replace those of the same id.

This module does not: restart OPA, or decide who may activate.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from governance.errors import ConflictError, InvalidRequestError
from governance.policy import gate
from governance.policy.bundles import BUNDLE_FILE, ActivePolicies, build, digest_of, digest_sources, owner_key, stage
from governance.policy.locate import find_opa
from governance.policy.tool import run_opa


@dataclass(frozen=True, slots=True)
class ActivationStore:
    """What activation asks of the registry. ``activate_policies``: one transaction, one ledger entry."""

    active_policies: Callable[[], ActivePolicies | None]
    owner_policies: Callable[[], Mapping[str, str]]  # policy id -> Rego source, of those in force
    activate_policies: Callable[[str | None, Mapping[str, str], Mapping[str, str]], ActivePolicies]


def activate(
    store: ActivationStore,
    organisation_dir: Path,
    owner_policies: Mapping[str, str],
    bundle_dir: Path,
    *,
    principal_id: str | None = None,
    opa: Path | None = None,
) -> ActivePolicies:
    """The policies in force, with ``bundle_dir / BUNDLE_FILE`` of that revision in place.

    Raises ``InvalidRequestError`` with every finding, ``ConflictError`` where a stored policy is not what was recorded,
    ``PolicyEngineError`` where OPA can't be run or the organisation's own policy does not pass.
    """
    binary = opa or find_opa()
    active = store.active_policies()
    held = _verified(store.owner_policies(), active)
    wanted = {**held, **owner_policies}
    digests = digest_sources(organisation_dir, wanted)
    if active is None or dict(active.digests) != digests:
        recorded = {} if active is None else active.digests
        _check(organisation_dir, wanted, digests, recorded, binary)
        active = store.activate_policies(principal_id, digests, wanted)
    # Always: it is quick, and a bundle that was lost, cut short or changed by hand is right again.
    build(organisation_dir, wanted, active.revision, bundle_dir / BUNDLE_FILE, opa=binary)
    return active


def _verified(sources: Mapping[str, str], active: ActivePolicies | None) -> Mapping[str, str]:
    for policy_id, source in sources.items():
        if active is None or active.digests.get(owner_key(policy_id)) != digest_of(source):
            raise ConflictError(f"The stored policy {policy_id!r} is not the one that was put in force.")
    return sources


def _check(
    organisation_dir: Path,
    wanted: Mapping[str, str],
    digests: Mapping[str, str],
    recorded: Mapping[str, str],
    opa: Path,
) -> None:
    if digests["organisation"] != recorded.get("organisation"):
        _check_organisation(organisation_dir, opa)
    for policy_id, source in wanted.items():
        # A changed base means another schema or gate, so everybody is checked again.
        if digests["organisation"] != recorded.get("organisation") or digests[owner_key(policy_id)] != recorded.get(
            owner_key(policy_id)
        ):
            gate.check(policy_id, source, organisation_dir=organisation_dir, opa=opa)


def _check_organisation(organisation_dir: Path, opa: Path) -> None:
    """``opa check --strict`` of what is served, and the tests that lie beside it."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        stage(organisation_dir, {}, directory)
        schema, capabilities = (
            str((organisation_dir / n).resolve()) for n in ("input.schema.json", "capabilities.json")
        )
        strict = ["check", "--strict"]
        bounded = [*strict, "--schema", schema, "--capabilities", capabilities, "gate.rego", "admission"]
        for arguments in (bounded, [*strict, "system"]):  # OPA's own rules have another input, and read its environment
            ran = run_opa(opa, arguments, directory=directory)
            if not ran.succeeded:
                raise _refused("does not pass opa check", ran.errors or ran.output)
    tests = ["test", "--ignore", "*.json", "--fail-on-empty", str(organisation_dir.resolve())]
    ran = run_opa(opa, tests, directory=organisation_dir)
    if not ran.succeeded:
        raise _refused("does not pass its tests", ran.output or ran.errors)


def _refused(what: str, text: str) -> InvalidRequestError:
    findings = [{"path": "rego", "message": line, "hint": "see `make lint`"} for line in text.strip().splitlines()[:40]]
    return InvalidRequestError(f"The organisation's policy {what}.", findings)
