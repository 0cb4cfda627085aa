"""Indexes that a page of an auditor's search walks: what it is about, then the entry's index.

They take the places of the ones without the entry's index. That of the dataset goes: a run's entries do not name their
dataset, so a dataset is searched for within its population.
"""

from __future__ import annotations

from alembic import op

revision = "0004_audit_indexes"
down_revision = "0003_provable_ledger"
branch_labels = None
depends_on = None

_WALKED = ("kind", "at", "population_id", "project_id", "researcher_id", "run_id")


def upgrade() -> None:
    for column in _WALKED:
        op.drop_index(f"ix_ledger_entries_{column}", "ledger_entries")
        op.create_index(f"ix_ledger_entries_{column}_index", "ledger_entries", [column, "index"])
    op.drop_index("ix_ledger_entries_dataset_id", "ledger_entries")
    op.create_index("ix_reservations_population_id_entry_index", "reservations", ["population_id", "entry_index"])


def downgrade() -> None:
    raise RuntimeError("the ledger is append-only: restore a backup instead of downgrading")
