"""The ledger can be proved: a Merkle tree over its entries, reservations in several populations, schedules, evidence.

Entries keep their bytes and their leaf hashes; the tree is computed from them. The append-only guards are taken down
for the tables that gain a column, and put up again in the same transaction.
"""

from __future__ import annotations

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "0003_provable_ledger"
down_revision = "0002_identity"
branch_labels = None
depends_on = None

_ID = sa.String(64)
_TIME = sa.String(27)
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_BATCH = 5000


def upgrade() -> None:
    _new_tables()
    _grow_tree()
    _several_populations()
    _remember_datasets()


def downgrade() -> None:
    raise RuntimeError("the ledger is append-only: restore a backup instead of downgrading")


def _new_tables() -> None:
    op.create_table(
        "disjoint_populations",
        sa.Column("first_id", _ID, nullable=False),
        sa.Column("second_id", _ID, nullable=False),
        sa.Column("versions", sa.Text(), nullable=False),
        sa.Column("entry_index", _BIG, nullable=False),
        sa.ForeignKeyConstraint(["first_id"], ["populations.id"], name=op.f("fk_disjoint_populations_first_id")),
        sa.ForeignKeyConstraint(["second_id"], ["populations.id"], name=op.f("fk_disjoint_populations_second_id")),
        sa.PrimaryKeyConstraint("first_id", "second_id", name=op.f("pk_disjoint_populations")),
    )
    op.create_table(
        "run_datasets",
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("dataset_id", _ID, nullable=False),
        sa.Column("version", _BIG, nullable=False),
        sa.Column("population_id", _ID, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_run_datasets_run_id")),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_run_datasets_dataset_id")),
        sa.ForeignKeyConstraint(["population_id"], ["populations.id"], name=op.f("fk_run_datasets_population_id")),
        sa.PrimaryKeyConstraint("run_id", "dataset_id", name=op.f("pk_run_datasets")),
    )
    op.create_index("ix_run_datasets_dataset_id", "run_datasets", ["dataset_id"])
    op.create_table(
        "evidence",
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("statement", sa.Text(), nullable=False),
        sa.Column("salt", sa.LargeBinary(16), nullable=False),
        sa.Column("given_by", _ID, nullable=False),
        sa.Column("given_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_evidence_run_id")),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_evidence")),
    )
    op.create_table(
        "runner_reports",
        sa.Column("runner_id", _ID, nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("reported_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("runner_id", name=op.f("pk_runner_reports")),
    )
    for name, kind in (
        ("starts_at", _TIME),
        ("initial_epsilon", sa.Float(53)),
        ("step_epsilon", sa.Float(53)),
        ("period_days", _BIG),
    ):
        op.add_column("quotas", sa.Column(name, kind, nullable=True))


def _grow_tree() -> None:
    empty = sa.text("X''") if _is_sqlite() else sa.text("'\\x'")
    op.add_column("ledger_entries", sa.Column("subtrees", sa.LargeBinary(), nullable=False, server_default=empty))
    op.add_column("log_head", sa.Column("frontier", sa.LargeBinary(), nullable=False, server_default=empty))
    op.add_column("log_head", sa.Column("closed", sa.String(64), nullable=True))
    op.create_index("ix_ledger_entries_at", "ledger_entries", ["at"])
    op.create_index("ix_ledger_entries_dataset_id", "ledger_entries", ["dataset_id"])
    _lower_guard("ledger_entries")
    connection = op.get_bind()
    peaks: list[tuple[int, bytes]] = []  # (leaves below, hash), largest first
    position, step = (
        -1,
        sa.text('SELECT "index", leaf_hash FROM ledger_entries WHERE "index" > :after ORDER BY "index" LIMIT :many'),
    )
    store = sa.text('UPDATE ledger_entries SET subtrees = :subtrees WHERE "index" = :at')
    while rows := connection.execute(step, {"after": position, "many": _BATCH}).all():
        grown = []
        for index, leaf in rows:
            peaks.append((1, bytes(leaf)))
            completed = b""
            while len(peaks) > 1 and peaks[-2][0] == peaks[-1][0]:
                (size, right), (_, left) = peaks.pop(), peaks.pop()
                parent = hashlib.sha256(b"\x01" + left + right).digest()
                peaks.append((2 * size, parent))
                completed += parent
            if completed:
                grown.append({"at": index, "subtrees": completed})
            position = index
        if grown:
            connection.execute(store, grown)
    connection.execute(sa.text("UPDATE log_head SET frontier = :peaks"), {"peaks": b"".join(one for _, one in peaks)})
    _raise_guard("ledger_entries")


def _several_populations() -> None:
    """Reservations and debits name what they rest on; a debit has a row in each population."""
    op.add_column("reservations", sa.Column("rounds_per_charge", _BIG, nullable=False, server_default="1"))
    op.add_column("reservations", sa.Column("entry_index", _BIG, nullable=False, server_default="-1"))
    op.add_column("reservations", sa.Column("closed_entry", _BIG, nullable=True))
    of_kind = (
        '(SELECT MAX(e."index") FROM ledger_entries e WHERE e.run_id = reservations.run_id '
        "AND e.population_id = reservations.population_id AND e.kind {kinds})"
    )
    op.execute("UPDATE reservations SET entry_index = " + of_kind.format(kinds="= 'decision'"))
    op.execute("UPDATE reservations SET closed_entry = " + of_kind.format(kinds="IN ('release', 'publication')"))
    _lower_guard("debits", deletes=True)
    op.rename_table("debits", "debits_of_one_population")
    if not _is_sqlite():
        op.execute("ALTER TABLE debits_of_one_population RENAME CONSTRAINT pk_debits TO pk_debits_before")
        op.execute("ALTER TABLE debits_of_one_population RENAME CONSTRAINT fk_debits_run_id TO fk_debits_before")
    op.create_table(
        "debits",
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("population_id", _ID, nullable=False),
        sa.Column("first_round", _BIG, autoincrement=False, nullable=False),
        sa.Column("rounds", _BIG, nullable=False),
        sa.Column("grant_id", _ID, nullable=False),
        sa.Column("entry_index", _BIG, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_debits_run_id")),
        sa.ForeignKeyConstraint(["population_id"], ["populations.id"], name=op.f("fk_debits_population_id")),
        sa.PrimaryKeyConstraint("run_id", "population_id", "first_round", name=op.f("pk_debits")),
    )
    op.execute(
        "INSERT INTO debits (run_id, population_id, first_round, rounds, grant_id, entry_index) "
        "SELECT d.run_id, r.population_id, d.first_round, d.rounds, d.grant_id, d.entry_index "
        "FROM debits_of_one_population d JOIN runs r ON r.id = d.run_id"
    )
    op.drop_table("debits_of_one_population")
    _raise_guard("debits", deletes=True)


def _remember_datasets() -> None:
    connection = op.get_bind()
    handles = connection.execute(sa.text("SELECT version_handle, version FROM dataset_versions")).all()
    versions = {row[0]: row[1] for row in handles}
    rows = connection.execute(sa.text("SELECT id, dataset_id, population_id, grant_template FROM runs")).all()
    found = [
        {
            "run": run_id,
            "dataset": dataset_id,
            "population": population_id,
            "version": versions[json.loads(template)["data"]["version_handle"]],
        }
        for run_id, dataset_id, population_id, template in rows
    ]
    if found:
        connection.execute(
            sa.text(
                "INSERT INTO run_datasets (run_id, dataset_id, version, population_id) "
                "VALUES (:run, :dataset, :version, :population)"
            ),
            found,
        )


# --- the guards of 0001, for the tables that change here ---


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _lower_guard(table: str, *, deletes: bool = False) -> None:
    ends = ("no_update", "no_delete", "no_truncate") if deletes else ("no_update",)
    for end in ends:
        if _is_sqlite():
            if end != "no_truncate":
                op.execute(f"DROP TRIGGER {table}_{end}")
        else:
            op.execute(f"DROP TRIGGER {table}_{end} ON {table}")


def _raise_guard(table: str, *, deletes: bool = False) -> None:
    if _is_sqlite():
        op.execute(
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
        if deletes:
            op.execute(
                f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'rows of {table} are never deleted'); END"
            )
        return
    op.execute(
        f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION pysytff_append_only()"
    )
    if deletes:
        op.execute(
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION pysytff_append_only()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION pysytff_append_only()"
        )
