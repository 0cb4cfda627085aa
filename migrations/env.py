"""Alembic's environment: runs online against the ``Database`` that ``migrations.run`` hands over."""

from __future__ import annotations

from alembic import context

import governance.ledger.identity_tables
import governance.ledger.tables  # noqa: F401  (both register their tables on the shared metadata)
from governance.ledger.database import Database, metadata

database: Database = context.config.attributes["database"]
with database.write() as connection:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=database.is_sqlite)
    with context.begin_transaction():
        context.run_migrations()
