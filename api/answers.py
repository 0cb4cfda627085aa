"""What goes out over REST: each field named here, nothing else leaves.

Invariants
- No data handle, no hash of a secret, nothing computed from rows: what the domain has and is not named here stays.
- Times are RFC 3339 in UTC; ids are opaque.

This module does not: look anything up.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from governance.identity import Invitation, Person, RunnerCredential, Session
from governance.model import Asset, Dataset, LedgerEntry, Population, Principal


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


# --- sessions and people ---


class TokenOut(Answer):
    access_token: str
    token_type: str = "bearer"
    expires_in: int
    refresh_token: str
    role: str
    principal_id: str

    @classmethod
    def of(cls, session: Session) -> Self:
        return cls(
            access_token=session.access_token,
            expires_in=session.expires_in,
            refresh_token=session.refresh_token,
            role=session.principal.role.value,
            principal_id=session.principal.id,
        )


class MeOut(Answer):
    id: str
    email: str | None
    role: str
    display_name: str


class InvitationOut(Answer):
    id: str
    invitation_token: str
    expires_at: datetime

    @classmethod
    def of(cls, invitation: Invitation) -> Self:
        return cls(id=invitation.principal.id, invitation_token=invitation.token, expires_at=invitation.expires_at)


class UserOut(Answer):
    id: str
    email: str | None
    role: str
    display_name: str
    status: str  # active | invited | disabled
    created_at: datetime

    @classmethod
    def of(cls, person: Person) -> Self:
        who: Principal = person.principal
        return cls(
            id=who.id,
            email=who.email,
            role=who.role.value,
            display_name=who.display_name,
            status=person.status,
            created_at=person.created_at,
        )


class UsersOut(Answer):
    items: list[UserOut]


class RunnerCredentialOut(Answer):
    id: str
    credential: str

    @classmethod
    def of(cls, credential: RunnerCredential) -> Self:
        return cls(id=credential.id, credential=credential.secret)


# --- registry ---


class ProjectOut(Answer):
    id: str
    name: str
    created_by: str
    created_at: datetime
    member_ids: list[str]


class ProjectsOut(Answer):
    items: list[ProjectOut]


class PopulationOut(Answer):
    id: str
    name: str
    owner_id: str
    declared_size: int
    epsilon: float
    delta: float
    relation: str
    created_at: datetime


class PopulationsOut(Answer):
    items: list[PopulationOut]


class ScheduleOut(Answer):
    starts_at: datetime
    initial_epsilon: float
    step_epsilon: float
    period_days: int


class QuotaOut(Answer):
    population_id: str
    scope: str
    scope_id: str
    epsilon: float
    schedule: ScheduleOut | None = None


class QuotasOut(Answer):
    items: list[QuotaOut]


class PopulationBrief(Answer):
    id: str
    name: str
    declared_size: int
    epsilon: float
    delta: float
    relation: str


class AssetOut(Answer):
    id: str
    name: str
    dtype: str
    shape: list[int]
    description: str
    minimum: float | None
    maximum: float | None

    @classmethod
    def of(cls, asset: Asset) -> Self:
        return cls.model_validate(asset)


class DatasetOut(Answer):
    id: str
    name: str
    description: str
    version: int
    population: PopulationBrief
    policy: str
    max_examples_per_unit: int
    has_public_holdout: bool
    assets: list[AssetOut]
    created_at: datetime

    @classmethod
    def of(cls, dataset: Dataset, population: Population) -> Self:
        return cls(
            id=dataset.id,
            name=dataset.name,
            description=dataset.description,
            version=dataset.version,
            population=PopulationBrief.model_validate(population),
            policy=dataset.policy_id,
            max_examples_per_unit=dataset.max_examples_per_unit,
            has_public_holdout=dataset.holdout_handle is not None,
            assets=[AssetOut.of(asset) for asset in dataset.assets],
            created_at=dataset.created_at,
        )


class DatasetsOut(Answer):
    items: list[DatasetOut]


# --- decisions and runs ---


class ReasonOut(Answer):
    code: str
    message: str
    source: str
    field: str | None


class ClampOut(Answer):
    parameter: str
    requested: float
    effective: float
    by: str
    why: str


class CostOut(Answer):
    """Readings, never the guarantee: the guarantee is the population's epsilon."""

    event: dict[str, Any]
    epsilon_of_run_alone: float
    committed_epsilon_before: float
    committed_epsilon_after: float
    delta: float
    accountant: str


class DecisionOut(Answer):
    id: str
    outcome: str
    reasons: list[ReasonOut]
    warnings: list[ReasonOut]
    requested: dict[str, Any]
    effective: dict[str, Any] | None
    clamps: list[ClampOut]
    obligations: list[dict[str, Any]]
    cost: CostOut | None
    policy_revision: str | None
    policy_digests: dict[str, str]
    opa_decision_id: str | None
    decided_at: datetime
    timings_ms: dict[str, float]
    run_id: str | None
    entry_index: int | None


class RunOut(Answer):
    id: str
    decision_id: str
    state: str
    state_reason: str | None
    researcher_id: str
    project_id: str
    population_id: str
    dataset_id: str
    requested: dict[str, Any]
    effective: dict[str, Any]
    rounds: int
    rounds_debited: int
    rounds_done: int
    created_at: datetime
    updated_at: datetime


class RunDetailOut(RunOut):
    decision: DecisionOut | None  # None: it was erased


class RunsOut(Answer):
    items: list[RunOut]
    next_cursor: str | None


class ResultOut(Answer):
    run_id: str
    weights_sha256: str
    weights_url: str
    metrics: dict[str, Any]
    privacy_statement: dict[str, Any]


# --- the ledger ---


class EntryOut(Answer):
    """``body_base64`` is what was hashed; ``body`` is the same, parsed."""

    index: int
    kind: str
    at: datetime
    leaf_hash: str
    body_base64: str
    body: dict[str, Any]

    @classmethod
    def of(cls, entry: LedgerEntry) -> Self:
        body: Mapping[str, Any] = json.loads(entry.body)
        return cls(
            index=entry.index,
            kind=entry.kind,
            at=entry.at,
            leaf_hash=entry.leaf_hash.hex(),
            body_base64=base64.b64encode(entry.body).decode(),
            body=dict(body),
        )


class EntriesOut(Answer):
    items: list[EntryOut]
    next_cursor: str | None


class BudgetReadingOut(Answer):
    """``guarantee_epsilon`` is the cap; the other two are odometer readings at ``delta``."""

    scope: str
    scope_id: str
    guarantee_epsilon: float
    delta: float
    spent_epsilon: float
    committed_epsilon: float
    accountant: str
    as_of_entry: int
    unlocked_epsilon: float | None = None
    next_unlock_at: datetime | None = None


class BudgetOut(Answer):
    items: list[BudgetReadingOut]


# --- the service itself ---


class HealthOut(Answer):
    status: str = "ok"


class ReadyOut(Answer):
    status: str = "ready"
    policy_revision: str


class IndexOut(Answer):
    name: str = "pysytff"
    version: str
    openapi: str = "/openapi.json"
    docs: str = "/docs"


# --- the runner ---


class GrantOut(Answer):
    """``runner.port.Grant.to_json``; the runner reads it with ``Grant.from_json``."""

    port_version: int
    grant_id: str
    run_id: str
    fencing_token: int
    lease_seconds: int
    rounds_per_debit: int
    model: dict[str, Any]
    parameters: dict[str, Any]
    data: dict[str, Any]


class HeartbeatOut(Answer):
    stop: bool
    lease_seconds: int


class DebitOut(Answer):
    permitted: bool
    debited_rounds: int
