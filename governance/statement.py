"""The privacy statement that travels with every published model. Pure.

Invariants
- It names its unit, relation, mechanism, accountant and version, and what it covers (Dwork, Kohli and Mulligan 2019).
- The run's own ε and the population's guarantee are two fields with two names; they are never added (privacy rule 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accountant.codec import encode_event
from accountant.curve import ACCOUNTANT
from accountant.events import PoissonGaussian
from accountant.filter import Budget
from accountant.odometer import run_statement
from runner.port import TrainParameters

SCHEMA = "pysytff.privacy-statement/1"


def privacy_statement(
    *,
    run_id: str,
    population_id: str,
    budget: Budget,
    event: PoissonGaussian,
    parameters: TrainParameters,
    generator: str,
    runner_version: str,
    public_metrics: Mapping[str, float],
) -> dict[str, Any]:
    """``event`` is what the run was debited as. Deterministic in its arguments."""
    return {
        "schema": SCHEMA,
        "run": run_id,
        "population": population_id,
        "privacy_unit": "one person of the population, with all their rows",
        "neighbouring_relation": budget.relation,
        "mechanism": {
            "name": "DP-FedAvg: per-unit clipping of the whole update, Gaussian noise on the sum, fixed denominator",
            "event": encode_event(event),
            "clipping_norm": parameters.clipping_norm,
            "pool_probability": parameters.pool_probability,
            "noise_generator": generator,
            "runner_version": runner_version,
        },
        "this_run": {
            "epsilon": run_statement(event, budget.delta, budget.orders),
            "delta": budget.delta,
            "accountant": ACCOUNTANT,
            "conversion": "Canonne-Kamath-Steinke 2020, Proposition 12",
            "means": "the run by itself, its parameters fixed before it began",
        },
        "population_guarantee": {
            "epsilon": budget.epsilon,
            "delta": budget.delta,
            "means": "the cap on everything ever published about this population, enforced by a privacy filter",
        },
        "covers": ["the published weights"],
        "costs_nothing": dict.fromkeys(sorted(public_metrics), "computed on data its owner marked public"),
        "assumes": [
            "the generator's key stays secret",
            "noise is drawn in float64; what floating point leaks is in the threat model",
            "each person is one privacy unit of this population and of no other",
        ],
    }
