"""Applies the migrations, from code and from the command line alike.

Invariants
- The location of the scripts is this package, so an installed service needs no ``alembic.ini``.
- All revisions of an upgrade are one transaction (``env.py``), on PostgreSQL and on SQLite: what fails leaves the
  database as it was, and the upgrade may be run again.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from governance.ledger.database import Database


def configuration(database: Database) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["database"] = database
    return config


def upgrade(url: str, revision: str = "head") -> None:
    """Brings the database at ``url`` to ``revision``. Raises ``StorageError`` if it cannot be opened or written."""
    database = Database.open(url)
    try:
        command.upgrade(configuration(database), revision)
    finally:
        database.dispose()


def is_current(database: Database) -> bool:
    """True if every migration has been applied, and none that this release does not know."""
    heads = set(ScriptDirectory.from_config(configuration(database)).get_heads())
    with database.read() as connection:
        return set(MigrationContext.configure(connection).get_current_heads()) == heads
