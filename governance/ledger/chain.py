"""What an entry is, as bytes: canonical JSON and its RFC 6962 leaf hash. Pure: the offline verifier imports it.

Invariants
- The body is RFC 8785 canonical JSON with the entry's own index, kind and time in it; the leaf hash is over these
  bytes.
- Times are text of one fixed form in UTC, so text order is time order.
- Amounts of budget are decimal strings: canonical JSON has no integers beyond 2^53.
- ``ENTRY_VERSION`` is stored in each body; a stored meaning never changes, a new version is added.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from accountant.codec import canonical_bytes

ENTRY_VERSION = 1
KINDS = (
    "population_opened",
    "quota_set",
    "dataset_registered",
    "populations_disjoint",
    "policy_activated",
    "decision",
    "granted",
    "debit",
    "release",
    "quarantine",
    "quarantine_resolved",
    "publication",
    "key_enrolled",
    "adjustment",
    "reconciled",
)
SUBJECTS = ("population_id", "project_id", "researcher_id", "dataset_id", "run_id")
TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z", re.ASCII)


def entry_body(index: int, kind: str, at: str, subjects: Mapping[str, str], facts: Mapping[str, Any]) -> bytes:
    """Canonical bytes of an entry at the UTC time ``at``. ``subjects`` are the opaque ids that it is about.

    Raises ``ValueError``.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is not a kind of ledger entry")
    if not TIME.fullmatch(at):
        raise ValueError(f"{at!r} is not a time in UTC with microseconds")
    return canonical_bytes(
        {
            "v": ENTRY_VERSION,
            "index": index,
            "kind": kind,
            "at": at,
            "subjects": dict(subjects),
            "facts": dict(facts),
        }
    )


def leaf_hash(body: bytes) -> bytes:
    """RFC 6962 section 2.1: SHA-256(0x00 ‖ body)."""
    return hashlib.sha256(b"\x00" + body).digest()
