"""All SQL about accounts, sessions, credentials and login attempts.

Invariants
- What may happen once (a refresh token, an invitation) is taken by one conditional UPDATE: of two callers one wins.
- Rows of ``login_attempts`` are locked in key order, so two logins never wait for each other crosswise.

This module does not: open transactions, hash, or judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from governance.ledger.identity_tables import (
    accounts,
    invitations,
    login_attempts,
    refresh_tokens,
    runner_credentials,
    token_families,
)
from governance.ledger.tables import principals
from governance.model import Principal, Role, timestamp
from governance.throttle import Counter


@dataclass(frozen=True, slots=True)
class AccountRow:
    principal: Principal
    disabled: bool
    created_at: datetime
    password_hash: str | None  # None: the invitation was not accepted yet


@dataclass(frozen=True, slots=True)
class RefreshRow:
    family_id: str
    principal_id: str
    family_expires_at: datetime
    live: bool  # the family is neither revoked nor expired, and this token not expired


@dataclass(frozen=True, slots=True)
class CredentialRow:
    id: str
    principal: Principal
    name: str
    created_at: datetime


_ACCOUNT = sa.select(principals, accounts.c.password_hash).select_from(
    principals.outerjoin(accounts, accounts.c.principal_id == principals.c.id)
)


# --- accounts ---


def account_by_email(connection: sa.Connection, email: str) -> AccountRow | None:
    return _account(connection.execute(_ACCOUNT.where(principals.c.email == email)).mappings().first())


def account_by_id(connection: sa.Connection, principal_id: str) -> AccountRow | None:
    return _account(connection.execute(_ACCOUNT.where(principals.c.id == principal_id)).mappings().first())


def people(connection: sa.Connection) -> list[AccountRow]:
    """Everybody with an e-mail address, oldest first; runners are not people."""
    query = _ACCOUNT.where(principals.c.email.is_not(None)).order_by(principals.c.created_at, principals.c.id)
    return [row for row in map(_account, connection.execute(query).mappings()) if row is not None]


def set_password(connection: sa.Connection, principal_id: str, password_hash: str, now: datetime) -> None:
    row = {"principal_id": principal_id, "password_hash": password_hash, "password_set_at": timestamp(now)}
    statement = _insert(connection, accounts).values(row)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["principal_id"], set_=_without(row, "principal_id"))
    )


def disable(connection: sa.Connection, principal_id: str) -> None:
    connection.execute(principals.update().where(principals.c.id == principal_id).values(disabled=True))


def lock_active_admins(connection: sa.Connection) -> list[str]:
    """Ids of the admins who can act, locked in id order, so that two of them cannot disable each other at once."""
    query = (
        sa.select(principals.c.id)
        .where(principals.c.role == Role.ADMIN.value, sa.not_(principals.c.disabled))
        .order_by(principals.c.id)
        .with_for_update()
    )
    return list(connection.scalars(query))


# --- invitations ---


def add_invitation(
    connection: sa.Connection, token_hash: bytes, principal_id: str, now: datetime, expires_at: datetime
) -> None:
    connection.execute(
        invitations.insert().values(
            token_hash=token_hash,
            principal_id=principal_id,
            created_at=timestamp(now),
            expires_at=timestamp(expires_at),
        )
    )


def end_invitations(connection: sa.Connection, principal_id: str, now: datetime) -> None:
    connection.execute(
        invitations.update()
        .where(invitations.c.principal_id == principal_id, invitations.c.ended_at.is_(None))
        .values(ended_at=timestamp(now))
    )


def take_invitation(connection: sa.Connection, token_hash: bytes, now: datetime) -> str | None:
    """The invited principal's id, for the first caller in time; None for everybody else."""
    taken = connection.execute(
        invitations.update()
        .where(
            invitations.c.token_hash == token_hash,
            invitations.c.ended_at.is_(None),
            invitations.c.expires_at > timestamp(now),
        )
        .values(ended_at=timestamp(now))
    )
    if taken.rowcount != 1:
        return None
    return connection.scalar(sa.select(invitations.c.principal_id).where(invitations.c.token_hash == token_hash))


# --- sessions ---


def add_family(
    connection: sa.Connection, family_id: str, principal_id: str, now: datetime, expires_at: datetime
) -> None:
    connection.execute(
        token_families.insert().values(
            id=family_id, principal_id=principal_id, created_at=timestamp(now), expires_at=timestamp(expires_at)
        )
    )


def add_refresh_token(
    connection: sa.Connection, token_hash: bytes, family_id: str, now: datetime, expires_at: datetime
) -> None:
    connection.execute(
        refresh_tokens.insert().values(
            token_hash=token_hash, family_id=family_id, issued_at=timestamp(now), expires_at=timestamp(expires_at)
        )
    )


def take_refresh_token(connection: sa.Connection, token_hash: bytes, now: datetime) -> bool:
    """True for the first use of a token, once."""
    taken = connection.execute(
        refresh_tokens.update()
        .where(refresh_tokens.c.token_hash == token_hash, refresh_tokens.c.used_at.is_(None))
        .values(used_at=timestamp(now))
    )
    return taken.rowcount == 1


def refresh_token(connection: sa.Connection, token_hash: bytes, now: datetime) -> RefreshRow | None:
    query = (
        sa.select(
            token_families.c.id,
            token_families.c.principal_id,
            token_families.c.expires_at,
            token_families.c.revoked_at,
            refresh_tokens.c.expires_at.label("token_expires_at"),
        )
        .join_from(refresh_tokens, token_families, refresh_tokens.c.family_id == token_families.c.id)
        .where(refresh_tokens.c.token_hash == token_hash)
    )
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    live = row["revoked_at"] is None and min(row["expires_at"], row["token_expires_at"]) > timestamp(now)
    return RefreshRow(row["id"], row["principal_id"], _time(row["expires_at"]), live)


def session_principal(connection: sa.Connection, family_id: str, principal_id: str, now: datetime) -> Principal | None:
    """The principal, if the session is theirs, lives, and they are not disabled."""
    query = (
        sa.select(principals)
        .join_from(principals, token_families, token_families.c.principal_id == principals.c.id)
        .where(
            principals.c.id == principal_id,
            sa.not_(principals.c.disabled),
            token_families.c.id == family_id,
            token_families.c.revoked_at.is_(None),
            token_families.c.expires_at > timestamp(now),
        )
    )
    row = connection.execute(query).mappings().first()
    return None if row is None else _principal(row)


def revoke_family(connection: sa.Connection, family_id: str, why: str, now: datetime) -> None:
    _revoke(connection, token_families.c.id == family_id, why, now)


def revoke_families_of(connection: sa.Connection, principal_id: str, why: str, now: datetime) -> None:
    _revoke(connection, token_families.c.principal_id == principal_id, why, now)


def prune_sessions(connection: sa.Connection, principal_id: str, ended_before: datetime) -> None:
    """Drops a principal's sessions that ended before the given time, with their tokens."""
    ended = sa.select(token_families.c.id).where(
        token_families.c.principal_id == principal_id, token_families.c.expires_at < timestamp(ended_before)
    )
    connection.execute(refresh_tokens.delete().where(refresh_tokens.c.family_id.in_(ended)))
    connection.execute(token_families.delete().where(token_families.c.id.in_(ended)))


# --- runner credentials ---


def add_runner_credential(
    connection: sa.Connection, credential_id: str, principal_id: str, name: str, secret: bytes, now: datetime
) -> None:
    connection.execute(
        runner_credentials.insert().values(
            id=credential_id,
            principal_id=principal_id,
            name=name,
            secret_hash=secret,
            created_at=timestamp(now),
        )
    )


def runner_by_secret(connection: sa.Connection, secret: bytes) -> CredentialRow | None:
    query = (
        sa.select(
            principals,
            runner_credentials.c.id.label("credential_id"),
            runner_credentials.c.name,
            runner_credentials.c.created_at.label("issued_at"),
        )
        .join_from(runner_credentials, principals, runner_credentials.c.principal_id == principals.c.id)
        .where(
            runner_credentials.c.secret_hash == secret,
            runner_credentials.c.revoked_at.is_(None),
            sa.not_(principals.c.disabled),
        )
    )
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    return CredentialRow(row["credential_id"], _principal(row), row["name"], _time(row["issued_at"]))


def revoke_runner_credential(connection: sa.Connection, credential_id: str, now: datetime) -> bool:
    """False where there is no such credential; revoking twice is no error."""
    found = connection.execute(
        runner_credentials.update()
        .where(runner_credentials.c.id == credential_id)
        .values(revoked_at=sa.func.coalesce(runner_credentials.c.revoked_at, timestamp(now)))
    )
    return found.rowcount == 1


# --- login attempts ---


def lock_counters(connection: sa.Connection, keys: Sequence[bytes], now: datetime) -> dict[bytes, Counter]:
    """Locks every counter, in key order; a missing one is made, at zero."""
    moment = timestamp(now)
    for key in sorted(set(keys)):
        row = {"key": key, "failures": 0, "since": moment, "last_at": moment, "not_before": moment}
        connection.execute(
            _insert(connection, login_attempts).values(row).on_conflict_do_nothing(index_elements=["key"])
        )
    query = (
        sa.select(login_attempts)
        .where(login_attempts.c.key.in_(list(keys)))
        .order_by(login_attempts.c.key)
        .with_for_update()
    )
    return {row["key"]: _counter(row) for row in connection.execute(query).mappings()}


def save_counter(connection: sa.Connection, key: bytes, counter: Counter) -> None:
    connection.execute(
        login_attempts.update()
        .where(login_attempts.c.key == key)
        .values(
            failures=counter.failures,
            since=timestamp(counter.since),
            last_at=timestamp(counter.last_at),
            not_before=timestamp(counter.not_before),
            succeeded_at=None if counter.succeeded_at is None else timestamp(counter.succeeded_at),
        )
    )


def prune_counters(connection: sa.Connection, forgotten: datetime, trust_ended: datetime) -> None:
    """Drops counters that can no longer change an answer."""
    connection.execute(
        login_attempts.delete().where(
            login_attempts.c.last_at < timestamp(forgotten),
            sa.or_(login_attempts.c.succeeded_at.is_(None), login_attempts.c.succeeded_at < timestamp(trust_ended)),
        )
    )


# --- rows to values ---


def _revoke(connection: sa.Connection, which: sa.ColumnElement[bool], why: str, now: datetime) -> None:
    connection.execute(
        token_families.update()
        .where(which, token_families.c.revoked_at.is_(None))
        .values(revoked_at=timestamp(now), revoked_why=why)
    )


def _insert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def _without(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _principal(row: Mapping[Any, Any]) -> Principal:
    return Principal(row["id"], Role(row["role"]), row["email"], row["display_name"])


def _account(row: Mapping[Any, Any] | None) -> AccountRow | None:
    if row is None:
        return None
    return AccountRow(_principal(row), row["disabled"], _time(row["created_at"]), row["password_hash"])


def _counter(row: Mapping[Any, Any]) -> Counter:
    succeeded = row["succeeded_at"]
    return Counter(
        failures=row["failures"],
        since=_time(row["since"]),
        last_at=_time(row["last_at"]),
        not_before=_time(row["not_before"]),
        succeeded_at=None if succeeded is None else _time(succeeded),
    )
