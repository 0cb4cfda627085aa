"""The policies in force, and the one bundle that OPA serves them from.

Invariants
- A digest is SHA-256 of the policy's text; the organisation's is that of all its files, by name. The same text gives
  the same digest everywhere, and the revision names the whole set: a decision that carries it was made by these.
- The bundle holds the organisation's policy, the gate, OPA's own rules (authorization, log) and the owners' policies.
  Tests, templates, the demonstration and other files never get in: only what ``organisation_files`` names does.
- The bundle owns all of OPA's documents (its roots are everything), so nothing can be pushed beside it.
- A reader of the bundle file sees the old one or the new one, whole.

This module does not: check an owner's policy (``gate`` does), or record what is in force (the registry does).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from governance.errors import PolicyEngineError
from governance.policy.locate import find_opa
from governance.policy.tool import run_opa

BUNDLE_NAME = "pysytff"  # the name under which OPA reports the revision
BUNDLE_FILE = "policies.tar.gz"
POLICY_ID = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TEST_SUFFIX = "_test.rego"


@dataclass(frozen=True)
class ActivePolicies:
    """What the registry says is in force. ``digests``: "organisation" | "owner:<policy id>" -> "sha256:…".

    ``revision`` names exactly this set: ``revision_name(sequence, digests)``.
    """

    revision: str
    sequence: int
    digests: Mapping[str, str]


def revision_name(sequence: int, digests: Mapping[str, str]) -> str:
    return f"{sequence}-{hashlib.sha256(_canonical(digests)).hexdigest()[:16]}"


def owner_key(policy_id: str) -> str:
    return f"owner:{policy_id}"


def digest_of(source: str) -> str:
    return f"sha256:{hashlib.sha256(source.encode()).hexdigest()}"


def digest_sources(organisation_dir: Path, owner_policies: Mapping[str, str]) -> dict[str, str]:
    """The digest of each policy: "organisation" and "owner:<policy id>"."""
    organisation = digest_of(_canonical(organisation_files(organisation_dir)).decode())
    owners = {owner_key(policy_id): digest_of(source) for policy_id, source in sorted(owner_policies.items())}
    return {"organisation": organisation, **owners}


def organisation_files(organisation_dir: Path) -> dict[str, str]:
    """Relative path -> text of what goes into the bundle from the organisation's folder."""
    found = [
        organisation_dir / "gate.rego",
        *sorted((organisation_dir / "system").glob("*.rego")),
        *sorted((organisation_dir / "admission").rglob("*.rego")),
    ]
    kept = [path for path in found if not path.name.endswith(_TEST_SUFFIX)]
    try:
        return {path.relative_to(organisation_dir).as_posix(): path.read_text("utf-8") for path in kept}
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyEngineError(f"The organisation's policy in {organisation_dir} can't be read: {error}.") from error


def stage(organisation_dir: Path, owner_policies: Mapping[str, str], directory: Path) -> None:
    """Writes the files of a bundle under ``directory``."""
    for policy_id in owner_policies:
        if not POLICY_ID.fullmatch(policy_id):  # it becomes a file's name
            raise PolicyEngineError(f"{policy_id!r} is no policy id.")
    owners = {f"owners/{policy_id}.rego": source for policy_id, source in owner_policies.items()}
    for name, text in (organisation_files(organisation_dir) | owners).items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")


def build(
    organisation_dir: Path,
    owner_policies: Mapping[str, str],
    revision: str,
    destination: Path,
    *,
    opa: Path | None = None,
) -> Path:
    """Writes ``destination`` atomically, readable by OPA's own user. Raises ``PolicyEngineError``."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory(dir=destination.parent) as beside:
        stage(organisation_dir, owner_policies, Path(scratch))
        built = Path(beside) / BUNDLE_FILE
        ran = run_opa(
            opa or find_opa(),
            ["build", "--bundle", ".", "--revision", revision, "--output", str(built)],
            directory=Path(scratch),
        )
        if not ran.succeeded:
            raise PolicyEngineError(
                f"The policy bundle could not be built: {(ran.errors or ran.output).strip()[:2000]}"
            )
        built.chmod(0o644)  # it holds no secret, and OPA runs as a user of its own
        _sync(built)
        built.replace(destination)
        _sync(destination.parent)
    return destination


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _canonical(document: Mapping[str, str]) -> bytes:
    """Text to text, so sorted keys and no spaces are canonical enough: there are no numbers to spell."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
