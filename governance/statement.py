"""The privacy statement that travels with every published model. Pure.

Invariants
- It names its unit, relation, mechanism, accountant and version, and what it covers (Dwork, Kohli and Mulligan 2019).
- The run's own ε and the population's guarantee are two fields with two names; they are never added (privacy rule 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from accountant.codec import encode_event
from accountant.curve import ACCOUNTANT
from accountant.events import PoissonGaussian
from accountant.odometer import run_statement
from accountant.pld import PldStatement
from governance.model import Population
from runner.port import TrainParameters

SCHEMA = "pysytff.privacy-statement/2"


def privacy_statement(
    *,
    run_id: str,
    populations: Sequence[Population],
    event: PoissonGaussian,
    parameters: TrainParameters,
    generator: str,
    runner_version: str,
    public_metrics: Mapping[str, float],
    pld: PldStatement,
) -> dict[str, Any]:
    """``event`` is what the run was debited as, in each of ``populations``. Deterministic in its arguments."""
    first = populations[0]
    statement: dict[str, Any] = {
        "schema": SCHEMA,
        "run": run_id,
        "population": first.id,
        "privacy_unit": "one person of the population, with all their rows",
        "neighbouring_relation": first.relation,
        "mechanism": {
            "name": "DP-FedAvg: per-unit clipping of the whole update, Gaussian noise on the sum, fixed denominator",
            "event": encode_event(event),
            "clipping_norm": parameters.clipping_norm,
            "pool_probability": parameters.pool_probability,
            "noise_generator": generator,
            "runner_version": runner_version,
        },
        "this_run": {
            "epsilon": run_statement(event, first.delta, first.budget.orders),
            "delta": first.delta,
            "accountant": ACCOUNTANT,
            "conversion": "Canonne-Kamath-Steinke 2020, Proposition 12",
            "means": "the run by itself, its parameters fixed before it began",
        },
        "this_run_by_pld": {
            "epsilon": pld.epsilon,
            "delta": first.delta,
            "accountant": pld.accountant,
            "why_none": pld.why,
            "means": "the same run by privacy loss distributions: tighter, and for reports only, never for admission",
        },
        "population_guarantee": _guarantee(first),
        "covers": ["the published weights"],
        "does_not_cover": [
            "what a reader learns about people in general, who need not be in the population",
            "whoever sees the data itself: its owner, and the operator of the node",
            "the same person in another population, or in data elsewhere",
        ],
        "costs_nothing": dict.fromkeys(sorted(public_metrics), "computed on data its owner marked public"),
        "trust_model": "central: the node and its runner see the data and are trusted; nobody else is",
        "side_channels": [
            "which units took part is secret, and a run's visible life depends on its request and schedule alone",
            "how long a round takes may depend on the data; what of that is left is in the threat model",
        ],
        "assumes": [
            "the generator's key stays secret",
            "noise is drawn in float64; what floating point leaks is in the threat model",
            "each person is one privacy unit of this population and of no other",
        ],
    }
    if len(populations) > 1:
        statement["populations"] = [{"id": one.id, "guarantee": _guarantee(one)} for one in populations]
    return statement


def _guarantee(population: Population) -> dict[str, Any]:
    return {
        "epsilon": population.epsilon,
        "delta": population.delta,
        "means": "the cap on everything ever published about this population, enforced by a privacy filter",
    }
