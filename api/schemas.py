"""What comes in over REST: strict models with ranges (privacy rule 13), and no coercion.

Invariants
- A number is a number: text is not one, true is not 1; an integer stands for a float, never the other way round.
- Unknown fields are refused. Every accepted number is finite and inside its range before governance sees it.
- ``TrainRequestIn`` fills in every default, so the answer shows what will really run.

This module does not: check models (``runner.model_spec`` does, at admission) or look anything up.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, Self

import rfc8785
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from accountant.weights import PlannedUse
from governance.evidence import Evidence
from governance.model import Asset, OnExceed, Role, Schedule, TrainRequest
from governance.policy.wire import is_plain_text

LARGEST_COUNT = 10**10  # of people; far below 2^53


def _plain(text: str) -> str:
    if not is_plain_text(text):
        raise ValueError("holds control characters, or characters that reorder what a reader sees")
    return text


Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_plain)]
Text = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$")]
Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=320, pattern=r"^[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+$"),
]
Cursor = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_=.:-]{1,200}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Query(BaseModel):
    """Query strings are text, so they are read as numbers where a number is meant."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- sessions and people ---


class TokenForm(BaseModel):
    """OAuth2 password flow (RFC 6749 sections 4.3 and 6). Clients may send fields that we do not use."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    grant_type: Literal["password", "refresh_token"]
    username: Annotated[str, Field(max_length=320, description="the e-mail address, for grant_type=password")] = ""
    password: Annotated[str, Field(max_length=1024, description="for grant_type=password")] = ""
    refresh_token: Annotated[str, Field(max_length=200, description="for grant_type=refresh_token")] = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.grant_type == "password" and not (self.username and self.password):
            raise ValueError("grant_type=password needs username and password")
        if self.grant_type == "refresh_token" and not self.refresh_token:
            raise ValueError("grant_type=refresh_token needs refresh_token")
        return self


class UserIn(Body):
    email: Annotated[Email, Field(description="an e-mail address; it becomes the user name")]
    role: Literal["owner", "researcher", "auditor", "admin"]
    display_name: Name

    @property
    def domain_role(self) -> Role:
        return Role(self.role)


class AcceptIn(Body):
    invitation_token: Annotated[str, Field(min_length=1, max_length=200)]
    password: Annotated[str, Field(max_length=1024, description="12 characters or more")]


class RunnerCredentialIn(Body):
    name: Name


# --- registry ---


class ProjectIn(Body):
    name: Name


class MemberIn(Body):
    principal_id: Id


class PlannedUseIn(Body):
    sampling_probability: Annotated[Finite, Field(gt=0, le=1, description="clients per round over declared size")]
    noise_multiplier: Annotated[Finite, Field(ge=0.1, le=1e4)]

    def to_domain(self) -> PlannedUse:
        return PlannedUse(self.sampling_probability, self.noise_multiplier)


class PopulationIn(Body):
    name: Name
    declared_size: Annotated[
        int,
        Field(ge=2, le=LARGEST_COUNT, description="how many people, as the owner declares it (rounded as they like)"),
    ]
    epsilon: Annotated[Finite, Field(gt=0, le=1000, description="the lifetime guarantee; it never changes")]
    delta: Annotated[Finite, Field(gt=0, lt=1, description="well below 1/declared_size")]
    relation: Annotated[
        Literal["ADD_OR_REMOVE_ONE", "REPLACE_ONE", "REPLACE_SPECIAL"],
        Field(description="neighbouring relation of everything that is ever charged; it never changes"),
    ] = "ADD_OR_REMOVE_ONE"
    planned_use: Annotated[
        PlannedUseIn | None, Field(description="the rounds that you expect; the filter's weights are chosen for them")
    ] = None


class ScheduleIn(Body):
    """Unlocks a quota gradually; what is not used in one period stays for the next."""

    starts_at: Annotated[AwareDatetime, Field(strict=False, description="RFC 3339, with its offset from UTC")]
    initial_epsilon: Annotated[Finite, Field(gt=0, le=1000, description="unlocked from the beginning")]
    step_epsilon: Annotated[Finite, Field(gt=0, le=1000, description="unlocked more after every period")]
    period_days: Annotated[int, Field(ge=1, le=3660)]

    def to_domain(self) -> Schedule:
        return Schedule(self.starts_at, self.initial_epsilon, self.step_epsilon, self.period_days)


class QuotaIn(Body):
    scope: Annotated[
        Literal["population", "project", "researcher"],
        Field(description="population: a window on what everybody together has"),
    ]
    scope_id: Annotated[Id, Field(description="the project's, the researcher's, or the population's own id")]
    epsilon: Annotated[Finite, Field(gt=0, le=1000)]
    schedule: ScheduleIn | None = None


class AssetIn(Body):
    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    dtype: Literal["float32", "float64", "int32", "int64", "uint8"]
    shape: Annotated[
        list[Annotated[int, Field(ge=1, le=10**6)]], Field(max_length=4, description="of one example; [] for a scalar")
    ]
    description: Text = ""
    minimum: Finite | None = None
    maximum: Finite | None = None

    def to_domain(self) -> Asset:
        return Asset("", self.name, self.dtype, tuple(self.shape), self.description, self.minimum, self.maximum)


Handle = Annotated[str, StringConstraints(pattern=r"^ver_[0-9a-f]{24}$")]


class DatasetIn(Body):
    population_id: Id
    name: Name
    description: Text
    policy: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    max_examples_per_unit: Annotated[int, Field(ge=1, le=10**6)]
    version_handle: Annotated[Handle, Field(description="what ingestion printed: ver_ and 24 hexadecimal digits")]
    holdout_handle: Annotated[Handle | None, Field(description="a version marked public by its owner")] = None
    assets: Annotated[list[AssetIn], Field(min_length=1, max_length=64)]


# --- training ---


class JoinedDataIn(Body):
    train_data_id: Id
    label_data_id: Id


class TrainRequestIn(Body):
    """What a researcher asks for. Everything but the first six fields has a default, which the answer shows."""

    rounds: Annotated[int, Field(ge=1, le=10**7, description="training rounds, 1 to 10000000")]
    clients_per_round: Annotated[
        int, Field(ge=1, le=LARGEST_COUNT, description="expected number of privacy units in a round")
    ]
    noise_multiplier: Annotated[
        Finite,
        Field(
            gt=0,
            le=1e4,
            description="standard deviation of the noise over clipping_norm, up to 10000; below 0.1 it will be clamped",
        ),
    ]
    train_data_id: Annotated[Id, Field(description="id of the asset that feeds the model")]
    label_data_id: Annotated[Id, Field(description="id of the asset that holds the labels")]
    model: Annotated[dict[str, Any], Field(description="a pysytff.model/1 document")]
    joined: Annotated[
        list[JoinedDataIn],
        Field(max_length=7, description="further datasets of the same shape; a person's examples in all are one unit"),
    ] = []
    no_clients: Annotated[
        int | None,
        Field(ge=1, le=LARGEST_COUNT, description="expected size of the run's pool; left out: everyone may be sampled"),
    ] = None
    max_noise_multiplier: Annotated[
        Finite, Field(ge=0.1, le=1e4, description="clamping raises noise_multiplier up to this, 0.1 to 10000")
    ] = 100.0
    clipping_norm: Annotated[Finite, Field(ge=1e-6, le=1e6, description="bound on a unit's update, 1e-6 to 1e6")] = 1.0
    mechanism: Literal["gaussian_fixed_clipping"] = "gaussian_fixed_clipping"
    loss: Literal[
        "sparse_categorical_crossentropy",
        "categorical_crossentropy",
        "binary_crossentropy",
        "mean_squared_error",
        "mean_absolute_error",
    ] = "sparse_categorical_crossentropy"
    local_epochs: Annotated[int, Field(ge=1, le=100, description="passes over a unit's examples, 1 to 100")] = 1
    batch_size: Annotated[int, Field(ge=1, le=4096, description="examples in a local step, 1 to 4096")] = 8
    client_optimizer: Literal["sgd"] = "sgd"
    client_learning_rate: Annotated[Finite, Field(gt=0, le=1e6, description="above 0")] = 0.1
    client_momentum: Annotated[Finite, Field(ge=0, lt=1, description="0 to below 1")] = 0.0
    server_optimizer: Literal["sgd", "adam"] = "sgd"
    server_learning_rate: Annotated[Finite, Field(gt=0, le=1e6, description="above 0")] = 1.0
    server_momentum: Annotated[Finite, Field(ge=0, lt=1, description="0 to below 1")] = 0.0
    project: Annotated[Id | None, Field(description="id of a project of yours; left out: your personal one")] = None
    purpose: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000), AfterValidator(_plain)
    ] = "unspecified"
    on_exceed: Literal["clamp", "refuse"] = "clamp"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.no_clients is not None and self.no_clients < self.clients_per_round:
            raise ValueError(
                f"no_clients ({self.no_clients}) is below clients_per_round ({self.clients_per_round}): "
                "a round samples from the pool, so the pool is at least as large"
            )
        if self.max_noise_multiplier < self.noise_multiplier:
            raise ValueError(
                f"max_noise_multiplier ({self.max_noise_multiplier:g}) is below noise_multiplier "
                f"({self.noise_multiplier:g}): raise it, or ask for less noise"
            )
        return self

    def to_domain(self) -> TrainRequest:
        return TrainRequest(
            **self.model_dump(exclude={"on_exceed", "joined"}),
            joined=tuple((one.train_data_id, one.label_data_id) for one in self.joined),
            on_exceed=OnExceed(self.on_exceed),
        )

    def digest(self) -> bytes:
        """SHA-256 over the canonical JSON of the validated request: equal meaning, equal digest."""
        # A request without joined data means what it meant before there was any.
        return hashlib.sha256(rfc8785.dumps(self.model_dump(exclude=None if self.joined else {"joined"}))).digest()


# --- queries ---


class RunsQuery(Query):
    state: Literal["reserved", "running", "published", "cancelled", "failed", "quarantined"] | None = None
    cursor: Cursor | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class BudgetQuery(Query):
    population_id: Id


class EvidenceIn(Body):
    """Why a quarantined run ended, from outside the data."""

    kind: Annotated[
        Literal["host_lost", "power_loss", "process_killed", "network_lost", "operator_stopped"],
        Field(description="an end that may depend on the data is no evidence"),
    ]
    statement: Annotated[str, Field(min_length=10, max_length=2000, description="what happened, when, how you know")]

    def to_domain(self) -> Evidence:
        return Evidence(self.kind, self.statement)


# --- the runner ---

_TOKEN = Annotated[int, Field(ge=0, le=2**53 - 1)]


class FencedIn(Body):
    fencing_token: _TOKEN


class DebitIn(FencedIn):
    first_round: Annotated[int, Field(ge=0, le=10**7)]
    rounds: Annotated[int, Field(ge=1, le=10**7)]


class ProgressIn(FencedIn):
    rounds_done: Annotated[int, Field(ge=0, le=10**7)]


class FailIn(FencedIn):
    touched_data: bool


class GrantReportIn(Body):
    """``runner.port.GrantReport.to_json``."""

    grant_id: Id
    run_id: Id
    fencing_token: _TOKEN
    version_handles: Annotated[tuple[Handle, ...], Field(min_length=1, max_length=1000)]
    sampling_probability: Annotated[float, Field(gt=0, le=1)]
    noise_multiplier: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    rounds_permitted: Annotated[int, Field(ge=0, le=10**7)]
    ended: bool


class ResultMeta(Body):
    """The header ``Result-Meta`` of an upload."""

    rounds: Annotated[int, Field(ge=1, le=10**7)]
    public_metrics: dict[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")], Finite]
    generator: Name
    runner_version: Name
