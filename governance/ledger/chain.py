"""What an entry is, as bytes: canonical JSON and its RFC 6962 leaf hash. No database, no SQLAlchemy.

Invariants
- The body is RFC 8785 canonical JSON with the entry's own index, kind and time in it; the leaf hash is over these
  bytes.
- Amounts of budget are decimal strings: canonical JSON has no integers beyond 2^53.
- ``ENTRY_VERSION`` is stored in each body; a stored meaning never changes, a new version is added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from accountant.codec import canonical_bytes
from governance.model import timestamp

ENTRY_VERSION = 1
KINDS = (
    "population_opened",
    "quota_set",
    "dataset_registered",
    "policy_activated",
    "decision",
    "granted",
    "debit",
    "release",
    "quarantine",
    "publication",
)


def entry_body(index: int, kind: str, at: datetime, subjects: Mapping[str, str], facts: Mapping[str, Any]) -> bytes:
    """Canonical bytes of an entry. ``subjects`` are the opaque ids that it is about. Raises ``ValueError``."""
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is not a kind of ledger entry")
    return canonical_bytes(
        {
            "v": ENTRY_VERSION,
            "index": index,
            "kind": kind,
            "at": timestamp(at),
            "subjects": dict(subjects),
            "facts": dict(facts),
        }
    )


def leaf_hash(body: bytes) -> bytes:
    """RFC 6962 section 2.1: SHA-256(0x00 ‖ body)."""
    return hashlib.sha256(b"\x00" + body).digest()
