"""SQL of decisions' side table and of idempotency keys.

The side table may be erased; the ledger keeps salted digests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from governance.errors import IdempotencyMismatchError
from governance.ledger.tables import decisions, idempotency_keys
from governance.model import timestamp

_INSERT = decisions.insert()
_REMEMBER = idempotency_keys.insert()
_RECALL = sa.select(idempotency_keys).where(
    idempotency_keys.c.principal_id == sa.bindparam("principal"),
    idempotency_keys.c.route == sa.bindparam("on_route"),
    idempotency_keys.c.key == sa.bindparam("given"),
)


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Unique per principal and route. ``request_digest``: SHA-256 of the validated body's canonical JSON."""

    principal_id: str
    route: str
    key: str
    request_digest: bytes


def insert(
    connection: sa.Connection,
    decision_id: str,
    researcher_id: str,
    population_id: str,
    document: Mapping[str, Any],
    policy_input: bytes,
    salt: bytes,
    at: datetime,
) -> None:
    connection.execute(
        _INSERT,
        {
            "id": decision_id,
            "researcher_id": researcher_id,
            "population_id": population_id,
            "document": json.dumps(dict(document)),
            "policy_input": policy_input.decode(),
            "salt": salt,
            "created_at": timestamp(at),
        },
    )


def document(connection: sa.Connection, decision_id: str) -> dict[str, Any] | None:
    text = connection.execute(sa.select(decisions.c.document).where(decisions.c.id == decision_id)).scalar_one_or_none()
    return None if text is None else dict(json.loads(text))


@dataclass(frozen=True, slots=True)
class Subjects:
    researcher_id: str
    population_id: str


def subjects(connection: sa.Connection, decision_id: str) -> Subjects | None:
    """Whom a decision is about; None if it does not exist."""
    query = sa.select(decisions.c.researcher_id, decisions.c.population_id).where(decisions.c.id == decision_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else Subjects(*row)


def remember(connection: sa.Connection, key: IdempotencyKey, decision_id: str, at: datetime) -> None:
    """Raises ``sqlalchemy.exc.IntegrityError`` if another transaction was first: the caller rereads the winner."""
    connection.execute(
        _REMEMBER,
        {
            "principal_id": key.principal_id,
            "route": key.route,
            "key": key.key,
            "request_digest": key.request_digest,
            "decision_id": decision_id,
            "created_at": timestamp(at),
        },
    )


def recall(connection: sa.Connection, key: IdempotencyKey) -> str | None:
    """The stored decision's id, or None. Raises ``IdempotencyMismatchError`` if the key came with another body."""
    asked = {"principal": key.principal_id, "on_route": key.route, "given": key.key}
    row = connection.execute(_RECALL, asked).mappings().one_or_none()
    if row is None:
        return None
    if bytes(row["request_digest"]) != key.request_digest:
        raise IdempotencyMismatchError(
            "this Idempotency-Key was used before with another request; send a new key for a new request"
        )
    return str(row["decision_id"])
