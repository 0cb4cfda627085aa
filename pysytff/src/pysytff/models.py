"""What a node says, as frozen values. They show themselves as tables in a terminal and in a notebook.

Invariants
- Unknown fields are ignored and unknown codes kept as text, so that a newer node can be read.
- A field keeps the name it has in the node's REST answers; a guarantee and an odometer reading are never mixed.

This module does not: speak HTTP.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pysytff.display import Table, Tabular, cell
from pysytff.errors import UnexpectedAnswerError, UnknownNameError
from pysytff.names import nearest

Read = TypeVar("Read", bound="Value")

# JSON has no infinity: a node writes null for a reading that is without bound.
Reading = Annotated[float, BeforeValidator(lambda told: math.inf if told is None else told)]


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    @classmethod
    def of(cls: type[Read], answer: object) -> Read:
        """Reads a node's answer. Raises ``UnexpectedAnswerError``."""
        try:
            return cls.model_validate(answer)
        except ValidationError as error:
            message = f"The node's answer is no {cls.__name__} that this version of pysytff can read: {error}"
            raise UnexpectedAnswerError(message) from error


class AssetId(str):
    """Names one asset (a column group) of one dataset; a plain string with the announcement's ``to_string()``."""

    def to_string(self) -> str:
        return str(self)


class Asset(Value):
    """Declared by the data owner; nothing here was computed from the data. ``shape`` is that of one example."""

    id: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    description: str = ""
    minimum: float | None = None
    maximum: float | None = None

    @property
    def id_at_location(self) -> AssetId:
        return AssetId(self.id)


class Population(Tabular, Value):
    """The people that one budget protects. (``epsilon``, ``delta``) is the guarantee, for life."""

    id: str
    name: str
    declared_size: int
    epsilon: float
    delta: float
    relation: str = "ADD_OR_REMOVE_ONE"

    def table(self) -> Table:
        rows = [(name, getattr(self, name)) for name in ("id", "declared_size", "epsilon", "delta", "relation")]
        return Table(f"Population {self.name}", ("field", "value"), rows)


class Dataset(Tabular, Value):
    """A dataset's metadata: never rows, and no statistic of them."""

    id: str
    name: str
    description: str = ""
    version: int
    population: Population
    policy: str
    max_examples_per_unit: int
    has_public_holdout: bool
    assets: tuple[Asset, ...]
    created_at: datetime | None = None

    def __getitem__(self, key: str | int) -> Asset:
        """The asset of this name, id or position."""
        if isinstance(key, int):
            return self.assets[key]
        for asset in self.assets:
            if key in (asset.name, asset.id):
                return asset
        names = [asset.name for asset in self.assets]
        raise UnknownNameError(f"dataset {self.name!r} has no asset {key!r}{nearest(key, names)}")

    def table(self) -> Table:
        rows = [
            (asset.name, asset.dtype, list(asset.shape), asset.minimum, asset.maximum, asset.description, asset.id)
            for asset in self.assets
        ]
        columns = ("asset", "dtype", "shape", "minimum", "maximum", "description", "id")
        note = (
            f"{self.id}, version {self.version}, population {self.population.name} of declared size "
            f"{self.population.declared_size}, policy {self.policy}"
        )
        return Table(f"Dataset {self.name}", columns, rows, note=note)


class Reason(Value):
    code: str
    message: str
    source: str
    field: str | None = None

    def __str__(self) -> str:
        where = f" [{self.field}]" if self.field else ""
        return f"{self.message}{where} ({self.code}, by {self.source})"


class Clamp(Value):
    parameter: str
    requested: float
    effective: float
    by: str
    why: str

    def __str__(self) -> str:
        asked, allowed = cell(self.requested), cell(self.effective)
        return f"{self.parameter}: asked {asked}, allowed {allowed}, because {self.why} (by {self.by})"


class Cost(Value):
    """What the run costs, read at ``delta``. Readings of an odometer, not the guarantee."""

    event: Mapping[str, Any]
    epsilon_of_run_alone: Reading
    committed_epsilon_before: Reading
    committed_epsilon_after: Reading
    delta: float
    accountant: str


class Decision(Tabular, Value):
    """The answer to a request. ``outcome``: approved, clamped, review or refused. ``run_id``: None for a preview."""

    id: str
    outcome: str
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[Reason, ...] = ()
    requested: Mapping[str, Any] = Field(default_factory=dict)
    effective: Mapping[str, Any] | None = None
    clamps: tuple[Clamp, ...] = ()
    obligations: tuple[Mapping[str, Any], ...] = ()
    cost: Cost | None = None
    policy_revision: str | None = None
    policy_digests: Mapping[str, str] = Field(default_factory=dict)
    opa_decision_id: str | None = None
    decided_at: datetime | None = None
    timings_ms: Mapping[str, float] = Field(default_factory=dict)
    run_id: str | None = None
    entry_index: int | None = None

    @property
    def allowed(self) -> bool:
        return self.outcome in ("approved", "clamped")

    def table(self) -> Table:
        why: dict[str, str] = {}
        for clamp in self.clamps:  # a parameter may be clamped twice: by a policy, then by the budget
            why[clamp.parameter] = "; ".join(filter(None, [why.get(clamp.parameter), f"{clamp.why} (by {clamp.by})"]))
        effective = self.effective or {}
        rows = [
            (name, value, effective.get(name, "–"), why.get(name, ""))
            for name, value in self.requested.items()
            if name != "model"
        ]
        notes = [f"reason: {reason}" for reason in self.reasons]
        notes += [f"warning: {warning}" for warning in self.warnings]
        if self.cost is not None:
            cost = self.cost
            before, after = cost.committed_epsilon_before, cost.committed_epsilon_after
            notes.append(
                f"ε of this run alone {cost.epsilon_of_run_alone:.4g}; the population's committed ε goes from "
                f"{before:.4g} to {after:.4g} (odometer readings at δ = {cost.delta:g}, {cost.accountant})"
            )
        columns = ("parameter", "requested", "effective", "why")
        return Table(f"Decision: {self.outcome}", columns, rows, note="\n".join(notes))


class RunInfo(Value):
    """The state of a run as the node tells it."""

    id: str
    decision_id: str
    state: str
    researcher_id: str
    project_id: str
    population_id: str
    dataset_id: str
    requested: Mapping[str, Any] = Field(default_factory=dict)
    effective: Mapping[str, Any] = Field(default_factory=dict)
    rounds: int
    rounds_debited: int = 0
    rounds_done: int = 0
    created_at: datetime
    updated_at: datetime
    state_reason: str | None = None
    decision: Decision | None = None


class RunEvent(Value):
    """One thing that a watcher sees: a change of state, or rounds done."""

    run_id: str
    state: str
    rounds: int
    rounds_done: int = 0
    at: datetime | None = None

    @property
    def final(self) -> bool:
        return is_final(self.state)


class ResultInfo(Value):
    run_id: str
    weights_sha256: str
    metrics: Mapping[str, Any] = Field(default_factory=dict)
    privacy_statement: Mapping[str, Any] = Field(default_factory=dict)


class BudgetReading(Value):
    """``guarantee_epsilon`` is the cap; ``spent`` and ``committed`` are odometer readings at the same ``delta``.

    ``unlocked_epsilon``: what a schedule has unlocked of the cap by now; None where there is no schedule.
    """

    scope: str
    scope_id: str
    guarantee_epsilon: float
    delta: float
    spent_epsilon: Reading
    committed_epsilon: Reading
    accountant: str
    as_of_entry: int
    unlocked_epsilon: float | None = None
    next_unlock_at: datetime | None = None


class LedgerEntry(Value):
    index: int
    kind: str
    at: datetime
    leaf_hash: str
    body_base64: str
    body: Mapping[str, Any]


class Project(Value):
    id: str
    name: str
    created_by: str = ""
    created_at: datetime | None = None
    member_ids: tuple[str, ...] = ()


class Identity(Value):
    id: str
    email: str | None = None
    role: str
    display_name: str = ""


def is_final(state: str) -> bool:
    """States that a run never leaves. An unknown state is not final: better to wait than to give up a run."""
    return state in ("published", "refused", "cancelled", "failed", "quarantined")
