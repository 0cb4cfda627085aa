"""A domain node, as the one who logged in sees it.

Invariants
- A model travels as a document, never as code; ``model_fn`` runs in this process only.
- One call of ``submit`` is one request: it has one idempotency key, however often it is sent.
- A property asks the node when it is read; what it returns is a snapshot.

This module does not: wait for runs (``pysytff.runs``), or build Keras models from results (``pysytff.tff``).
"""

from __future__ import annotations

import getpass
import os
import uuid
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from pysytff import keras
from pysytff.display import Listing
from pysytff.errors import (
    ClampedWarning,
    ForbiddenError,
    PolicyWarning,
    ProblemError,
    RequestRefusedError,
    UnexpectedAnswerError,
    UnknownNameError,
)
from pysytff.ledger import Ledger
from pysytff.models import (
    Asset,
    BudgetReading,
    Dataset,
    Decision,
    Identity,
    Population,
    Project,
)
from pysytff.params import first_dataset, request_body
from pysytff.runs import Run, Runs
from pysytff.tokens import MemoryTokens
from pysytff.transport import DEFAULT_PORT, Transport, base_url

ModelSource = Callable[[], Any] | Mapping[str, Any] | str
"""A function that builds a Keras model, or a model document, or a Keras model's JSON."""


def login(
    *,
    email: str,
    password: str | None = None,
    port: int = DEFAULT_PORT,
    host: str = "127.0.0.1",
    url: str | None = None,
) -> Domain:
    """Logs in to a node. Without ``password``, the environment's PYSYTFF_PASSWORD is taken, or you are asked.

    ``url`` is an address such as "https://node.example"; without it, ``host`` and ``port`` say where, by HTTPS unless
    it is this machine. Raises ``InsecureTransportError`` for plain HTTP to another machine, before anything is sent;
    ``AuthenticationError``, ``ThrottledError``, ``UnreachableError``.
    """
    transport = Transport(base_url(url, host, port))
    if password is None:
        password = os.environ.get("PYSYTFF_PASSWORD") or getpass.getpass(f"Password of {email}: ")
    transport.keeper = MemoryTokens(transport.log_in(email, password))
    return Domain(transport)


class Domain:
    """Everything that a node offers to one person. ``sy.login`` makes it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def url(self) -> str:
        return self._transport.url

    @property
    def me(self) -> Identity:
        return Identity.of(self._transport.get("/v1/auth/me"))

    def logout(self) -> None:
        """Ends the session on the node too."""
        self._transport.log_out()

    def close(self) -> None:
        """Closes the connections and keeps the session."""
        self._transport.close()

    def __enter__(self) -> Domain:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    # --- what there is ---

    @property
    def datasets(self) -> Listing[Dataset]:
        """By position, name or id: ``domain.datasets[0]['images'].id_at_location.to_string()``."""
        found = [Dataset.of(item) for item in self._transport.items("/v1/datasets")]
        columns = ("name", "id", "description", "population.name", "population.declared_size", "has_public_holdout")
        return Listing(found, "Datasets", columns)

    @property
    def dataset(self) -> Listing[Dataset]:
        """The announcement's other spelling of ``datasets``."""
        return self.datasets

    @property
    def projects(self) -> Listing[Project]:
        found = [Project.of(item) for item in self._transport.items("/v1/projects")]
        return Listing(found, "Projects", ("name", "id", "created_at"))

    def create_project(self, name: str) -> Project:
        answer = self._transport.request("POST", "/v1/projects", json={"name": name})
        return Project.of(self._transport.json(answer))

    @property
    def populations(self) -> Listing[Population]:
        """Those of the datasets that you see, and your own where you are an owner."""
        found = {dataset.population.id: dataset.population for dataset in self.datasets}
        try:
            for item in self._transport.items("/v1/populations"):
                found.setdefault(str(item["id"]), Population.of(item))
        except ForbiddenError:
            pass  # a researcher lists no populations: those of the datasets are all there is to see
        return Listing(list(found.values()), "Populations", ("name", "id", "declared_size", "epsilon", "delta"))

    def budget(self, population: str | Population | None = None) -> Listing[BudgetReading]:
        """Guarantee and odometer readings of a population (name or id), or of all that you see."""
        if isinstance(population, Population):
            ids = [population.id]
        elif population is None:
            ids = [item.id for item in self.populations]
        else:
            ids = [self._population_id(population)]
        items = [item for one in ids for item in self._transport.items("/v1/ledger/budget", population_id=one)]
        columns = (
            "scope",
            "scope_id",
            "guarantee_epsilon",
            "unlocked_epsilon",
            "committed_epsilon",
            "spent_epsilon",
            "delta",
            "accountant",
        )
        return Listing([BudgetReading.of(item) for item in items], "Budget", columns)

    def _population_id(self, name_or_id: str) -> str:
        try:
            return self.populations[name_or_id].id
        except UnknownNameError:
            # An id that is in no listing may still be readable; a name with a typing error is better explained here.
            if name_or_id.startswith("pop_"):
                return name_or_id
            raise

    @property
    def ledger(self) -> Ledger:
        """``domain.ledger.entries(…)``, ``.odometer(…)``, ``.explain(…)``, ``.remaining(…)``, ``.export(…)``."""
        return Ledger(self._transport, self._population_id)

    @property
    def runs(self) -> Runs:
        """By position (newest first) or id: ``domain.runs['run_…'].watch()``."""
        return Runs(self._transport)

    def runs_in(self, state: str | None) -> Runs:
        """Runs in one state only; None: in any."""
        return Runs(self._transport, state)

    # --- training ---

    def preview(self, model_fn: ModelSource, params: Mapping[str, Any]) -> Decision:
        """What the node would decide and what it would cost. Nothing is recorded or charged."""
        body = {**request_body(params), "model": self.model_document(model_fn, params)}
        answer = self._transport.request("POST", "/v1/train-requests:preview", retry=True, json=body)
        return Decision.of(self._transport.json(answer))

    def submit(
        self,
        model_fn: ModelSource,
        params: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        stacklevel: int = 2,
    ) -> Run:
        """Submits and returns the run without waiting for it. ``stacklevel``: as in ``warnings.warn``.

        Warns with ``ClampedWarning`` where the node made a parameter stricter. Raises ``ParameterError`` and
        ``UnsupportedModelError`` before anything is sent; ``RequestRefusedError`` with the node's reasons. After an
        ``UnreachableError``, call again with the same ``idempotency_key``: the node then answers as it did before.
        """
        body = {**request_body(params), "model": self.model_document(model_fn, params)}
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        try:
            sent = self._transport.request("POST", "/v1/train-requests", retry=True, headers=headers, json=body)
        except ProblemError as error:
            if error.code == "refused":
                raise _refusal(error) from None
            raise
        decision = Decision.of(self._transport.json(sent))
        if decision.run_id is None:
            raise UnexpectedAnswerError(f"decision {decision.id} ({decision.outcome}) names no run")
        if decision.clamps:
            warnings.warn(ClampedWarning(decision), stacklevel=stacklevel)
        for warning in decision.warnings:
            warnings.warn(PolicyWarning(str(warning)), stacklevel=stacklevel)
        return Run(self._transport, decision.run_id, decision=decision)

    def model_document(self, model_fn: ModelSource, params: Mapping[str, Any]) -> dict[str, Any]:
        """What would travel for this model. A model without an input shape gets that of ``params['train_data_id']``."""
        model = model_fn() if callable(model_fn) else model_fn
        if keras.lacks_input(model):
            asset = self._asset(str(first_dataset(params)))
            if asset is not None:
                keras.ensure_input(model, asset.shape)
        return keras.to_document(model)

    def _asset(self, asset_id: str) -> Asset | None:
        assets = (asset for dataset in self.datasets for asset in dataset.assets)
        return next((asset for asset in assets if asset.id == asset_id), None)

    def __repr__(self) -> str:
        return f"<Domain {self.url}>"


def _refusal(error: ProblemError) -> RequestRefusedError:
    answer = error.problem.get("decision")
    return RequestRefusedError(error.problem, error.status, Decision.of(answer) if isinstance(answer, dict) else None)
