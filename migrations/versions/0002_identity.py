"""Accounts, invitations, sessions, runner credentials, login attempts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_identity"
down_revision = "0001_core"
branch_labels = None
depends_on = None

_ID = sa.String(64)
_TIME = sa.String(27)
_HASH = sa.LargeBinary(32)
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("principal_id", _ID, nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("password_set_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["principal_id"], ["principals.id"], name=op.f("fk_accounts_principal_id")),
        sa.PrimaryKeyConstraint("principal_id", name=op.f("pk_accounts")),
    )
    op.create_table(
        "invitations",
        sa.Column("token_hash", _HASH, nullable=False),
        sa.Column("principal_id", _ID, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(["principal_id"], ["principals.id"], name=op.f("fk_invitations_principal_id")),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_invitations")),
    )
    op.create_index(op.f("ix_invitations_principal_id"), "invitations", ["principal_id"])
    op.create_table(
        "token_families",
        sa.Column("id", _ID, nullable=False),
        sa.Column("principal_id", _ID, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("revoked_at", _TIME, nullable=True),
        sa.Column("revoked_why", sa.String(16), nullable=True),
        sa.ForeignKeyConstraint(["principal_id"], ["principals.id"], name=op.f("fk_token_families_principal_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token_families")),
    )
    op.create_index(op.f("ix_token_families_principal_id"), "token_families", ["principal_id"])
    op.create_index(op.f("ix_token_families_expires_at"), "token_families", ["expires_at"])
    op.create_table(
        "refresh_tokens",
        sa.Column("token_hash", _HASH, nullable=False),
        sa.Column("family_id", _ID, nullable=False),
        sa.Column("issued_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("used_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(["family_id"], ["token_families.id"], name=op.f("fk_refresh_tokens_family_id")),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_refresh_tokens")),
    )
    op.create_index(op.f("ix_refresh_tokens_family_id"), "refresh_tokens", ["family_id"])
    op.create_table(
        "runner_credentials",
        sa.Column("id", _ID, nullable=False),
        sa.Column("principal_id", _ID, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("secret_hash", _HASH, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("revoked_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(["principal_id"], ["principals.id"], name=op.f("fk_runner_credentials_principal_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runner_credentials")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_runner_credentials_secret_hash")),
    )
    op.create_index(op.f("ix_runner_credentials_principal_id"), "runner_credentials", ["principal_id"])
    op.create_table(
        "login_attempts",
        sa.Column("key", _HASH, nullable=False),
        sa.Column("failures", _BIG, nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("last_at", _TIME, nullable=False),
        sa.Column("not_before", _TIME, nullable=False),
        sa.Column("succeeded_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_login_attempts")),
    )
    op.create_index(op.f("ix_login_attempts_last_at"), "login_attempts", ["last_at"])


def downgrade() -> None:
    for table in (
        "login_attempts",
        "runner_credentials",
        "refresh_tokens",
        "token_families",
        "invitations",
        "accounts",
    ):
        op.drop_table(table)
