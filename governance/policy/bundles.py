"""The policies in force, and the one bundle that OPA serves them from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ActivePolicies:
    """What the registry says is in force. ``digests``: "organisation" | "owner:<policy id>" -> "sha256:…".

    ``revision`` names exactly this set: ``f"{sequence}-{first 16 hex digits of the digest of all digests}"``.
    """

    revision: str
    sequence: int
    digests: Mapping[str, str]
