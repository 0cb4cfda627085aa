"""SQL of policies: immutable sources, and the sequence of activations (the newest one is in force)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa

from governance.ledger.tables import policy_activations, policy_sources
from governance.model import timestamp
from governance.policy.bundles import ActivePolicies

_ACTIVE = sa.select(policy_activations).order_by(policy_activations.c.sequence.desc()).limit(1)


def active(connection: sa.Connection) -> ActivePolicies | None:
    row = connection.execute(_ACTIVE).mappings().one_or_none()
    return None if row is None else ActivePolicies(row["revision"], row["sequence"], json.loads(row["digests"]))


def source(connection: sa.Connection, policy_id: str, digest: str) -> str | None:
    return connection.execute(
        sa.select(policy_sources.c.source).where(
            policy_sources.c.policy_id == policy_id, policy_sources.c.digest == digest
        )
    ).scalar_one_or_none()


def insert_source(connection: sa.Connection, policy_id: str, digest: str, text: str, at: datetime) -> None:
    """A version that is already stored stays as it is."""
    if source(connection, policy_id, digest) is None:
        connection.execute(
            policy_sources.insert(),
            {"policy_id": policy_id, "digest": digest, "source": text, "created_at": timestamp(at)},
        )


def insert_activation(
    connection: sa.Connection, policies: ActivePolicies, activated_by: str | None, at: datetime
) -> None:
    digests: Mapping[str, str] = policies.digests
    connection.execute(
        policy_activations.insert(),
        {
            "sequence": policies.sequence,
            "revision": policies.revision,
            "digests": json.dumps(dict(digests), sort_keys=True),
            "activated_by": activated_by,
            "activated_at": timestamp(at),
        },
    )
