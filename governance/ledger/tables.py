"""The tables of registry, budget, runs and ledger. SQLAlchemy Core; no queries here.

Invariants
- ``ledger_entries``, ``populations``, ``dataset_versions``, ``debits``, ``policy_sources`` and ``policy_activations``
  are append-only: triggers refuse UPDATE, DELETE and TRUNCATE (``APPEND_ONLY``; the migration makes them).
- Amounts of budget are vectors of big integers in a BLOB (``vectors.py``), never SQL numbers, so nothing can wrap or
  round.
- ``ledger_entries.subtrees`` and ``log_head.frontier`` are the Merkle tree, kept in the transaction that appends
  (``merkle.py`` says how). ``log_head.closed`` names why nothing may be appended until the ledger is reconciled.
- A run has one reservation, and one row for each debit, in every population that it touches.
- A balance keeps two vectors. ``committed`` = debited + reserved + quarantined is what admission counts; ``debited`` is
  what was spent. Quarantine therefore moves no amount, and a debit never changes ``committed``.
- Personal text (e-mail, names, purpose, the policy's input) stays out of ``ledger_entries``.
"""

from __future__ import annotations

import sqlalchemy as sa

from governance.ledger.database import metadata

ID = sa.String(64)
TIME = sa.String(27)  # governance.model.timestamp: fixed width, so text order is time order
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

APPEND_ONLY = (
    "ledger_entries",
    "populations",
    "dataset_versions",
    "debits",
    "policy_sources",
    "policy_activations",
)

# --- people and projects ---

principals = sa.Table(
    "principals",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("email", sa.String(320), unique=True),  # lower case
    sa.Column("display_name", sa.String(200), nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False, default=False),
    sa.Column("created_at", TIME, nullable=False),
)

projects = sa.Table(
    "projects",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("created_by", ID, sa.ForeignKey("principals.id"), nullable=False),
    sa.Column("personal_of", ID, sa.ForeignKey("principals.id"), unique=True),  # a researcher's default project
    sa.Column("created_at", TIME, nullable=False),
)

project_members = sa.Table(
    "project_members",
    metadata,
    sa.Column("project_id", ID, sa.ForeignKey("projects.id"), primary_key=True),
    sa.Column("principal_id", ID, sa.ForeignKey("principals.id"), primary_key=True),
)

# --- populations, budgets, datasets ---

populations = sa.Table(
    "populations",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("name", sa.String(200), nullable=False, unique=True),
    sa.Column("owner_id", ID, sa.ForeignKey("principals.id"), nullable=False),
    sa.Column("declared_size", BIG, nullable=False),
    sa.Column("budget", sa.Text, nullable=False),  # accountant.filter.Budget as canonical JSON: ε, δ, orders, weights
    sa.Column("created_at", TIME, nullable=False),
)

balances = sa.Table(
    "balances",
    metadata,
    sa.Column("population_id", ID, sa.ForeignKey("populations.id"), primary_key=True),
    sa.Column("scope", sa.String(16), primary_key=True),  # population | project | researcher
    sa.Column("scope_id", ID, primary_key=True),
    sa.Column("committed", sa.LargeBinary, nullable=False),
    sa.Column("debited", sa.LargeBinary, nullable=False),
    sa.Column("as_of_entry", BIG, nullable=False),
)

quotas = sa.Table(
    "quotas",
    metadata,
    sa.Column("population_id", ID, sa.ForeignKey("populations.id"), primary_key=True),
    sa.Column("scope", sa.String(16), primary_key=True),  # population | project | researcher
    sa.Column("scope_id", ID, primary_key=True),
    sa.Column("epsilon", sa.Float(53), nullable=False),
    sa.Column("set_at", TIME, nullable=False),
    # A schedule unlocks the quota's epsilon gradually; all four or none.
    sa.Column("starts_at", TIME),
    sa.Column("initial_epsilon", sa.Float(53)),
    sa.Column("step_epsilon", sa.Float(53)),
    sa.Column("period_days", BIG),
)

disjoint_populations = sa.Table(  # checked on the data: nobody of these versions is in both
    "disjoint_populations",
    metadata,
    sa.Column("first_id", ID, sa.ForeignKey("populations.id"), primary_key=True),  # first_id < second_id
    sa.Column("second_id", ID, sa.ForeignKey("populations.id"), primary_key=True),
    sa.Column("versions", sa.Text, nullable=False),  # JSON: dataset id -> version that was checked
    sa.Column("entry_index", BIG, nullable=False),
)

datasets = sa.Table(
    "datasets",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("population_id", ID, sa.ForeignKey("populations.id"), nullable=False, index=True),
    sa.Column("name", sa.String(200), nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("policy_id", sa.String(40), nullable=False),
    sa.Column("max_examples_per_unit", BIG, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
)

dataset_versions = sa.Table(
    "dataset_versions",
    metadata,
    sa.Column("dataset_id", ID, sa.ForeignKey("datasets.id"), primary_key=True),
    sa.Column("version", BIG, primary_key=True),
    sa.Column("version_handle", ID, nullable=False, unique=True),
    sa.Column("holdout_handle", ID),
    sa.Column("created_at", TIME, nullable=False),
)

assets = sa.Table(
    "assets",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("dataset_id", ID, sa.ForeignKey("datasets.id"), nullable=False, index=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("dtype", sa.String(16), nullable=False),
    sa.Column("shape", sa.Text, nullable=False),  # JSON array
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("minimum", sa.Float(53)),
    sa.Column("maximum", sa.Float(53)),
    sa.UniqueConstraint("dataset_id", "name"),
)

# --- the ledger ---

log_head = sa.Table(  # one row; whoever appends locks it, so indexes are dense and in commit order
    "log_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("size", BIG, nullable=False),  # entries so far = next index
    sa.Column("events", BIG, nullable=False),  # run events so far
    sa.Column("fencing", BIG, nullable=False),  # fencing tokens handed out so far
    sa.Column("frontier", sa.LargeBinary, nullable=False),  # hashes of the tree's complete subtrees, largest first
    sa.Column("closed", sa.String(64)),  # why nothing is appended; NULL: the ledger is open
)

ledger_entries = sa.Table(
    "ledger_entries",
    metadata,
    sa.Column("index", BIG, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("at", TIME, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("leaf_hash", sa.LargeBinary(32), nullable=False),
    sa.Column("subtrees", sa.LargeBinary, nullable=False),  # hashes of the subtrees that this leaf completes
    sa.Column("population_id", ID),
    sa.Column("project_id", ID),
    sa.Column("researcher_id", ID),
    sa.Column("dataset_id", ID),
    sa.Column("run_id", ID),
)
for _walked in ("kind", "at", "population_id", "project_id", "researcher_id", "run_id"):
    sa.Index(f"ix_ledger_entries_{_walked}_index", ledger_entries.c[_walked], ledger_entries.c.index)

# --- decisions (side table: may be erased; the ledger keeps the salted digest) ---------------------------------------

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("researcher_id", ID, nullable=False, index=True),
    sa.Column("population_id", ID, nullable=False, index=True),
    sa.Column("document", sa.Text, nullable=False),  # the whole answer, as given
    sa.Column("policy_input", sa.Text, nullable=False),
    sa.Column("salt", sa.LargeBinary(16), nullable=False),
    sa.Column("created_at", TIME, nullable=False),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("principal_id", ID, primary_key=True),
    sa.Column("route", sa.String(64), primary_key=True),
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("request_digest", sa.LargeBinary(32), nullable=False),
    sa.Column("decision_id", ID, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
)

# --- runs ---

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("decision_id", ID, nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("state_reason", sa.String(64)),
    sa.Column("researcher_id", ID, sa.ForeignKey("principals.id"), nullable=False, index=True),
    sa.Column("project_id", ID, sa.ForeignKey("projects.id"), nullable=False),
    sa.Column("population_id", ID, sa.ForeignKey("populations.id"), nullable=False, index=True),
    sa.Column("dataset_id", ID, sa.ForeignKey("datasets.id"), nullable=False),
    sa.Column("requested", sa.Text, nullable=False),
    sa.Column("effective", sa.Text, nullable=False),
    sa.Column("rounds", BIG, nullable=False),
    sa.Column("rounds_done", BIG, nullable=False),
    sa.Column("grant_template", sa.Text, nullable=False),  # what a claim turns into a runner.port.Grant
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("updated_at", TIME, nullable=False),
)
sa.Index("ix_runs_queue", runs.c.state, runs.c.created_at)

run_datasets = sa.Table(  # every dataset that a run trains on, at the version that its grant pins
    "run_datasets",
    metadata,
    sa.Column("run_id", ID, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("dataset_id", ID, sa.ForeignKey("datasets.id"), primary_key=True),
    sa.Column("version", BIG, nullable=False),
    sa.Column("population_id", ID, sa.ForeignKey("populations.id"), nullable=False),
)
sa.Index("ix_run_datasets_dataset_id", run_datasets.c.dataset_id)

reservations = sa.Table(  # one for each population that a run touches
    "reservations",
    metadata,
    sa.Column("run_id", ID, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("population_id", ID, sa.ForeignKey("populations.id"), primary_key=True),
    sa.Column("project_id", ID, nullable=False),
    sa.Column("researcher_id", ID, nullable=False),
    sa.Column("round_curve", sa.LargeBinary, nullable=False),  # units per charge and order
    sa.Column("rounds_per_charge", BIG, nullable=False),  # 1, or all rounds of an event that is debited whole
    sa.Column("entry_index", BIG, nullable=False),  # of the decision that reserved
    sa.Column("closed_entry", BIG),  # of the release, resolution or publication that ended it
    sa.Column("rounds", BIG, nullable=False),
    sa.Column("rounds_debited", BIG, nullable=False),
    sa.Column("rounds_released", BIG, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # open | closed | quarantined
    sa.CheckConstraint("rounds_debited + rounds_released <= rounds", name="never_more_than_reserved"),
    sa.CheckConstraint("rounds_debited >= 0 AND rounds_released >= 0", name="never_negative"),
)
sa.Index("ix_reservations_population_id_entry_index", reservations.c.population_id, reservations.c.entry_index)

debits = sa.Table(
    "debits",
    metadata,
    sa.Column("run_id", ID, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("population_id", ID, sa.ForeignKey("populations.id"), primary_key=True),
    sa.Column("first_round", BIG, primary_key=True, autoincrement=False),
    sa.Column("rounds", BIG, nullable=False),
    sa.Column("grant_id", ID, nullable=False),
    sa.Column("entry_index", BIG, nullable=False),
)

grants = sa.Table(
    "grants",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("run_id", ID, sa.ForeignKey("runs.id"), nullable=False, unique=True),
    sa.Column("runner_id", ID, nullable=False),
    sa.Column("fencing_token", BIG, nullable=False, unique=True),
    sa.Column("state", sa.String(16), nullable=False),  # active | ended
    sa.Column("lease_expires_at", TIME, nullable=False),
)
sa.Index("ix_grants_lease", grants.c.state, grants.c.lease_expires_at)

evidence = sa.Table(  # what a quarantine was resolved on (side table: may be erased; the entry keeps a salted digest)
    "evidence",
    metadata,
    sa.Column("run_id", ID, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("statement", sa.Text, nullable=False),
    sa.Column("salt", sa.LargeBinary(16), nullable=False),
    sa.Column("given_by", ID, nullable=False),
    sa.Column("given_at", TIME, nullable=False),
)

runner_reports = sa.Table(  # the newest report of each runner: what it was ever permitted to run
    "runner_reports",
    metadata,
    sa.Column("runner_id", ID, primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("reported_at", TIME, nullable=False),
)

results = sa.Table(
    "results",
    metadata,
    sa.Column("run_id", ID, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("weights_sha256", sa.String(64), nullable=False),
    sa.Column("weights_bytes", BIG, nullable=False),
    sa.Column("metrics", sa.Text, nullable=False),
    sa.Column("privacy_statement", sa.Text, nullable=False),
    sa.Column("published_at", TIME, nullable=False),
)

run_events = sa.Table(
    "run_events",
    metadata,
    sa.Column("id", BIG, primary_key=True, autoincrement=False),
    sa.Column("run_id", ID, sa.ForeignKey("runs.id"), nullable=False, index=True),
    sa.Column("at", TIME, nullable=False),
    sa.Column("type", sa.String(16), nullable=False),
    sa.Column("data", sa.Text, nullable=False),
)

# --- policies ---

policy_sources = sa.Table(
    "policy_sources",
    metadata,
    sa.Column("digest", sa.String(71), primary_key=True),  # sha256:…
    sa.Column("policy_id", sa.String(40), primary_key=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
)

policy_activations = sa.Table(
    "policy_activations",
    metadata,
    sa.Column("sequence", BIG, primary_key=True, autoincrement=False),
    sa.Column("revision", sa.String(64), nullable=False),
    sa.Column("digests", sa.Text, nullable=False),
    sa.Column("activated_by", ID),
    sa.Column("activated_at", TIME, nullable=False),
)
