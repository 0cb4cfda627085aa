"""Tables of accounts, invitations, sessions, runner credentials and login attempts.

Invariants
- No secret is stored: passwords as argon2id hashes, every random token as its SHA-256 (256 random bits need no salt).
- ``login_attempts.key`` is a keyed hash of account and address, so the table names neither.
- Nothing here is part of the ledger: rows are updated, and pruned once they mean nothing.

This module does not: query (``identity_store.py`` does).
"""

from __future__ import annotations

import sqlalchemy as sa

from governance.ledger.database import metadata
from governance.ledger.tables import BIG, ID, TIME

HASH = sa.LargeBinary(32)

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("principal_id", ID, sa.ForeignKey("principals.id"), primary_key=True),
    sa.Column("password_hash", sa.Text, nullable=False),
    sa.Column("password_set_at", TIME, nullable=False),
)

invitations = sa.Table(
    "invitations",
    metadata,
    sa.Column("token_hash", HASH, primary_key=True),
    sa.Column("principal_id", ID, sa.ForeignKey("principals.id"), nullable=False, index=True),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("expires_at", TIME, nullable=False),
    sa.Column("ended_at", TIME),  # used, or replaced by a newer one
)

token_families = sa.Table(  # one login and everything refreshed from it
    "token_families",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("principal_id", ID, sa.ForeignKey("principals.id"), nullable=False, index=True),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("expires_at", TIME, nullable=False, index=True),
    sa.Column("revoked_at", TIME),
    sa.Column("revoked_why", sa.String(16)),  # logout | reuse | disabled | password
)

refresh_tokens = sa.Table(
    "refresh_tokens",
    metadata,
    sa.Column("token_hash", HASH, primary_key=True),
    sa.Column("family_id", ID, sa.ForeignKey("token_families.id"), nullable=False, index=True),
    sa.Column("issued_at", TIME, nullable=False),
    sa.Column("expires_at", TIME, nullable=False),
    sa.Column("used_at", TIME),
)

runner_credentials = sa.Table(
    "runner_credentials",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("principal_id", ID, sa.ForeignKey("principals.id"), nullable=False, index=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("secret_hash", HASH, nullable=False, unique=True),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("revoked_at", TIME),
)

login_attempts = sa.Table(  # governance/throttle.py says what a counter means
    "login_attempts",
    metadata,
    sa.Column("key", HASH, primary_key=True),
    sa.Column("failures", BIG, nullable=False),
    sa.Column("since", TIME, nullable=False),
    sa.Column("last_at", TIME, nullable=False, index=True),
    sa.Column("not_before", TIME, nullable=False),
    sa.Column("succeeded_at", TIME),
)

IDENTITY_TABLES = (accounts, invitations, token_families, refresh_tokens, runner_credentials, login_attempts)
