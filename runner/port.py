"""What governance and runner say to each other. Standard library only.

Invariants
- A ``Grant`` holds everything that one run needs, and nothing else about the world: the job sees only its grant and
  its data.
- Every call by a runner carries the grant's fencing token; a stale token is refused.
- A debit comes before the rounds it pays for. ``DebitAnswer.permitted`` is true for exactly one caller, once.
- What was stored by an earlier release is still read: a grant without ``joined`` has one version.

This module does not: talk to a network, touch a file, know the database.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

PORT_VERSION = 1


@dataclass(frozen=True, slots=True)
class TrainParameters:
    """The effective (clamped) parameters, exactly as they were accounted.

    ``sampling_probability`` is per round, within the pool; ``pool_probability`` is 1.0 where everyone may be sampled.
    ``expected_clients`` (= clients_per_round) is the fixed denominator of the average. ``noise_multiplier`` is the
    standard deviation of the noise on the *sum* of clipped updates, divided by ``clipping_norm``.
    """

    rounds: int
    expected_clients: int
    sampling_probability: float
    pool_probability: float
    noise_multiplier: float
    clipping_norm: float
    mechanism: str  # "gaussian_fixed_clipping"
    local_epochs: int
    batch_size: int
    loss: str
    client_optimizer: str  # "sgd"
    client_learning_rate: float
    client_momentum: float
    server_optimizer: str  # "sgd" | "adam"
    server_learning_rate: float
    server_momentum: float


@dataclass(frozen=True, slots=True)
class JoinedData:
    """One more version whose examples belong to the same run, joined by unit. As the fields of ``DataGrant``."""

    version_handle: str
    features: str
    labels: str
    max_examples_per_unit: int


@dataclass(frozen=True, slots=True)
class DataGrant:
    """Handles, never paths. ``version_handle`` names an immutable dataset version under the data root.

    With ``joined``, a unit's examples are those of every version, in this order, each capped by its own
    ``max_examples_per_unit``; a unit of only some of the versions is still one unit.
    """

    version_handle: str
    features: str  # name of the asset (column group) that feeds the model
    labels: str
    max_examples_per_unit: int
    holdout_handle: str | None  # a version that its owner marked public; None: nothing is evaluated
    joined: tuple[JoinedData, ...] = ()

    @property
    def version_handles(self) -> tuple[str, ...]:
        """Every version that is trained on, in the grant's order."""
        return (self.version_handle, *(one.version_handle for one in self.joined))


@dataclass(frozen=True, slots=True)
class Grant:
    grant_id: str
    run_id: str
    fencing_token: int
    lease_seconds: int
    rounds_per_debit: int
    model: Mapping[str, Any]  # a runner.model_spec document, checked at admission and again by the job
    parameters: TrainParameters
    data: DataGrant

    def to_json(self) -> dict[str, Any]:
        document = dataclasses.asdict(self) | {"port_version": PORT_VERSION}
        # Said only where there is something to say: runners of earlier releases know no such field.
        if joined := document["data"].pop("joined"):
            document["data"]["joined"] = list(joined)
        return document

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Grant:
        """Raises ``ValueError`` for another port version, ``TypeError`` for unknown or missing fields."""
        fields = dict(document)
        version = fields.pop("port_version", None)
        if version != PORT_VERSION:
            raise ValueError(f"port version {version!r} is not {PORT_VERSION}: update runner and service together")
        fields["parameters"] = TrainParameters(**fields["parameters"])
        data = dict(fields["data"])
        data["joined"] = tuple(JoinedData(**one) for one in data.get("joined", ()))
        fields["data"] = DataGrant(**data)
        return Grant(**fields)


@dataclass(frozen=True, slots=True)
class GrantReport:
    """What one grant was permitted to run, from a runner's own journal: rounds [0, ``rounds_permitted``).

    ``ended``: nothing of it is running, or will ever run, on this runner.
    """

    grant_id: str
    run_id: str
    fencing_token: int
    version_handles: tuple[str, ...]
    sampling_probability: float
    noise_multiplier: float
    rounds_permitted: int
    ended: bool

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"version_handles": list(self.version_handles)}

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> GrantReport:
        """Raises ``TypeError`` for unknown or missing fields and other types, ``ValueError`` for other values."""
        fields = dict(document)
        handles = fields.get("version_handles")
        if (
            not isinstance(handles, list | tuple)
            or not handles
            or not all(isinstance(handle, str) for handle in handles)
        ):
            raise TypeError("version_handles must list handles")
        for name, kinds in _REPORTED.items():
            if type(fields.get(name)) not in kinds:
                raise TypeError(f"{name} is missing or of another type")
        for name in ("sampling_probability", "noise_multiplier"):
            fields[name] = float(fields[name])  # canonical JSON writes 1.0 as 1
        report = GrantReport(**fields | {"version_handles": tuple(handles)})
        # Written so that NaN refuses.
        if not (0.0 < report.sampling_probability <= 1.0 and 0.0 < report.noise_multiplier < float("inf")):
            raise ValueError("a sampling probability or noise multiplier that nobody granted")
        if report.rounds_permitted < 0 or report.fencing_token < 0:
            raise ValueError("a count below zero")
        return report


_REPORTED: Mapping[str, tuple[type, ...]] = {
    "grant_id": (str,),
    "run_id": (str,),
    "fencing_token": (int,),
    "sampling_probability": (float, int),
    "noise_multiplier": (float, int),
    "rounds_permitted": (int,),
    "ended": (bool,),
}


@dataclass(frozen=True, slots=True)
class DebitAnswer:
    """``permitted``: these rounds may run now, once. False: they were debited before; they may not run again."""

    permitted: bool
    debited_rounds: int  # total debited so far on this grant


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """``stop``: the run was cancelled; end without a result. The lease was extended by ``lease_seconds``."""

    stop: bool
    lease_seconds: int


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a finished job hands over: DP-noised weights and metrics of the public hold-out only."""

    weights: bytes  # safetensors
    rounds: int
    public_metrics: Mapping[str, float]  # e.g. {"holdout_loss": …, "holdout_accuracy": …, "holdout_examples": …}
    generator: str  # name and version of the noise generator, for the statement
    runner_version: str


class Governor(Protocol):
    """The runner's view of governance. Implementations: ``runner.http`` and, in process, ``governance.settlement``."""

    def claim(self) -> Grant | None:
        """The oldest queued run as a new grant with a new fencing token, or None."""

    def heartbeat(self, grant_id: str, fencing_token: int) -> Heartbeat: ...

    def debit(self, grant_id: str, fencing_token: int, first_round: int, rounds: int) -> DebitAnswer:
        """Durably debits rounds [first_round, first_round + rounds), 0-based. Idempotent by (grant, first_round)."""

    def progress(self, grant_id: str, fencing_token: int, rounds_done: int) -> None: ...

    def publish(self, grant_id: str, fencing_token: int, result: RunResult) -> None: ...

    def fail(self, grant_id: str, fencing_token: int, *, touched_data: bool) -> None:
        """``touched_data`` is False only if the job ended before it opened data: then undebited rounds are released."""

    def report(self, reports: Sequence[GrantReport]) -> None:
        """Everything that this runner ever was permitted to run, from its journal; the service keeps it for
        reconciliation after a restore.
        """
