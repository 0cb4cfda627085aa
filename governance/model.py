"""Frozen values of the domain.

Invariants
- Nothing here is computed from a person's data; every number is declared, requested, or an amount of privacy budget.
- Times are timezone-aware UTC. Ids are random and opaque, with a prefix that names their kind.

This module does not: decide, store, or know HTTP.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from accountant.filter import Budget
from governance.ledger.schedule import unlocked_epsilon


class Role(StrEnum):
    OWNER = "owner"
    RESEARCHER = "researcher"
    AUDITOR = "auditor"
    ADMIN = "admin"
    RUNNER = "runner"


class Outcome(StrEnum):
    APPROVED = "approved"
    CLAMPED = "clamped"
    REVIEW = "review"
    REFUSED = "refused"


class RunState(StrEnum):
    RESERVED = "reserved"  # queued: budget is held, no runner has claimed it
    RUNNING = "running"
    PUBLISHED = "published"
    CANCELLED = "cancelled"
    FAILED = "failed"
    QUARANTINED = "quarantined"

    @property
    def final(self) -> bool:
        return self not in (RunState.RESERVED, RunState.RUNNING)


class OnExceed(StrEnum):
    CLAMP = "clamp"
    REFUSE = "refuse"


CLAMPABLE = ("noise_multiplier", "clients_per_round", "rounds")  # the default clamp order, privacy rule 15


def new_id(prefix: str) -> str:
    """96 random bits: an id says nothing about order, content or size."""
    return f"{prefix}_{secrets.token_hex(12)}"


def utc_now() -> datetime:
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, fixed width, so that text order is time order."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True, slots=True)
class Principal:
    id: str
    role: Role
    email: str | None = None  # None for a runner
    display_name: str = ""


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What a researcher asks for, validated for type and range by the API's schema, with defaults filled in.

    ``no_clients`` is the expected size of the run's pool; None means that everyone may be sampled.
    """

    rounds: int
    clients_per_round: int
    noise_multiplier: float
    train_data_id: str
    label_data_id: str
    model: Mapping[str, Any]
    joined: tuple[tuple[str, str], ...] = ()  # further (features, labels) of the same people, or of disjoint ones
    no_clients: int | None = None
    max_noise_multiplier: float = 100.0
    clipping_norm: float = 1.0
    mechanism: str = "gaussian_fixed_clipping"
    loss: str = "sparse_categorical_crossentropy"
    local_epochs: int = 1
    batch_size: int = 8
    client_optimizer: str = "sgd"
    client_learning_rate: float = 0.1
    client_momentum: float = 0.0
    server_optimizer: str = "sgd"
    server_learning_rate: float = 1.0
    server_momentum: float = 0.0
    project: str | None = None  # None: the researcher's personal project
    purpose: str = "unspecified"
    on_exceed: OnExceed = OnExceed.CLAMP

    @property
    def data(self) -> tuple[tuple[str, str], ...]:
        """(features, labels) of every dataset, as asked for."""
        return ((self.train_data_id, self.label_data_id), *self.joined)

    @property
    def accounted(self) -> dict[str, int | float]:
        """The parameters that clamping may touch."""
        return {name: getattr(self, name) for name in CLAMPABLE}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why. ``code`` is the rule's own.

    ``source`` is ``organisation``, ``owner:<policy id>``, ``budget`` or ``system``.
    """

    code: str
    message: str
    source: str
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Clamp:
    parameter: str
    requested: float
    effective: float
    by: str  # as Reason.source, with the quota's name where a quota did it
    why: str


@dataclass(frozen=True, slots=True)
class Limits:
    """The closed vocabulary of policy limits after the merge.

    Only the first three clamp; a breach of another refuses.
    """

    max_rounds: int | None = None
    max_clients_per_round: int | None = None
    min_noise_multiplier: float | None = None
    min_no_clients: int | None = None
    max_clipping_norm: float | None = None
    max_local_epochs: int | None = None
    max_batch_size: int | None = None
    max_model_parameters: int | None = None
    max_client_learning_rate: float | None = None
    max_server_learning_rate: float | None = None
    allowed_mechanisms: frozenset[str] | None = None
    allowed_losses: frozenset[str] | None = None
    sources: Mapping[str, str] = field(default_factory=dict)  # limit name -> the policy that set the tightest value


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """Both packages' answers, merged. ``allowed`` is False wherever there was any doubt."""

    allowed: bool
    reasons: tuple[Reason, ...]
    warnings: tuple[Reason, ...]
    limits: Limits
    clamp_order: tuple[str, ...]
    review: tuple[Reason, ...]
    obligations: tuple[Mapping[str, Any], ...]
    revision: str
    digests: Mapping[str, str]  # "organisation" | "owner:<policy id>" -> "sha256:…"
    opa_decision_id: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run costs at the population's δ. Readings, never the guarantee (the guarantee is the population's cap)."""

    event: Mapping[str, Any]  # accountant.codec document
    epsilon_of_run_alone: float  # RDP statement of this run by itself
    committed_epsilon_before: float  # odometer over debited + reserved + quarantined
    committed_epsilon_after: float
    delta: float
    accountant: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one request. ``run_id`` is set exactly for approved and clamped requests that were submitted."""

    id: str
    outcome: Outcome
    reasons: tuple[Reason, ...]
    warnings: tuple[Reason, ...]
    requested: Mapping[str, Any]
    effective: Mapping[str, Any] | None
    clamps: tuple[Clamp, ...]
    obligations: tuple[Mapping[str, Any], ...]
    cost: Cost | None
    policy_revision: str | None
    policy_digests: Mapping[str, str]
    opa_decision_id: str | None
    input_digest: str | None  # salted
    decided_at: datetime
    timings_ms: Mapping[str, float]
    run_id: str | None = None
    entry_index: int | None = None


@dataclass(frozen=True, slots=True)
class Population:
    """Everything here is declared by the owner and immutable: the budget is for life (privacy rule 1)."""

    id: str
    name: str
    owner_id: str
    declared_size: int
    budget: Budget
    created_at: datetime

    @property
    def epsilon(self) -> float:
        return self.budget.epsilon

    @property
    def delta(self) -> float:
        return self.budget.delta

    @property
    def relation(self) -> str:
        return self.budget.relation


@dataclass(frozen=True, slots=True)
class Asset:
    """A named column group of a dataset: what ``id_at_location`` points at. All of it declared, nothing inferred."""

    id: str
    name: str
    dtype: str
    shape: tuple[int, ...]  # of one example
    description: str = ""
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    id: str
    population_id: str
    name: str
    description: str
    policy_id: str  # the owner's policy: data.owners.<policy_id>
    version: int
    version_handle: str  # random name of the data under the data root; never shown to researchers
    holdout_handle: str | None
    max_examples_per_unit: int
    assets: tuple[Asset, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Project:
    id: str
    name: str
    created_by: str
    created_at: datetime
    member_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule:
    """Unlocks a quota gradually: ``initial_epsilon``, and ``step_epsilon`` more after every ``period_days``."""

    starts_at: datetime
    initial_epsilon: float
    step_epsilon: float
    period_days: int

    def unlocked(self, epsilon: float, at: datetime) -> float:
        return unlocked_epsilon(
            epsilon,
            starts_at=self.starts_at,
            initial_epsilon=self.initial_epsilon,
            step_epsilon=self.step_epsilon,
            period_days=self.period_days,
            at=at,
        )

    def next_step(self, at: datetime) -> datetime:
        """When the next part is unlocked."""
        period = timedelta(days=self.period_days)
        return self.starts_at + period * (max((at - self.starts_at) // period, 0) + 1)

    def facts(self) -> dict[str, Any]:
        return {
            "starts_at": timestamp(self.starts_at),
            "initial_epsilon": self.initial_epsilon,
            "step_epsilon": self.step_epsilon,
            "period_days": self.period_days,
        }


@dataclass(frozen=True, slots=True)
class Quota:
    """A cap nested under a population's budget, which alone carries the claim: for one project, one researcher, or, as
    a window, for everybody together. With a schedule it is unlocked gradually."""

    population_id: str
    scope: str  # "population" | "project" | "researcher"
    scope_id: str
    epsilon: float
    schedule: Schedule | None = None

    def epsilon_at(self, at: datetime) -> float:
        return self.epsilon if self.schedule is None else self.schedule.unlocked(self.epsilon, at)


@dataclass(frozen=True, slots=True)
class BudgetReading:
    """Odometer readings of one budget (the population's, or a quota's) at its own δ."""

    scope: str  # "population" | "window" | "project" | "researcher"; a window caps the population as a quota does
    scope_id: str
    guarantee_epsilon: float  # the cap: what is promised
    delta: float
    spent_epsilon: float  # odometer over debits alone
    committed_epsilon: float  # odometer over debited + reserved + quarantined: what admission counts
    accountant: str
    as_of_entry: int  # the last entry that changed it; -1: none did
    unlocked_epsilon: float | None = None  # what a schedule has unlocked of the cap by now; None: no schedule
    next_unlock_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Run:
    id: str
    decision_id: str
    state: RunState
    researcher_id: str
    project_id: str
    population_id: str
    dataset_id: str
    requested: Mapping[str, Any]
    effective: Mapping[str, Any]
    rounds: int
    rounds_debited: int
    rounds_done: int
    created_at: datetime
    updated_at: datetime
    state_reason: str | None = None  # one generic code; never an error's text


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that a watcher sees.

    Functions of the request, declared sizes and round counts only (privacy rule 10).
    """

    id: int
    run_id: str
    at: datetime
    type: str  # "state" | "progress"
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """``body`` is the canonical bytes; ``leaf_hash`` is SHA-256(0x00 ‖ body), the RFC 6962 leaf."""

    index: int
    kind: str
    at: datetime
    body: bytes
    leaf_hash: bytes
    population_id: str | None
    project_id: str | None
    researcher_id: str | None
    dataset_id: str | None
    run_id: str | None
