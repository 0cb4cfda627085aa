"""Compares what a run is charged for with the parameters that the same entry says it runs with.

Invariants
- Rounds and noise are the event's own; the sampling probability is clients_per_round over the pool, divided as
  admission divides it, so that the two are equal to the last bit (privacy rule 6).
- The pool is at most what the owners declared of all populations of the decision.

This module does not: know whether the charge is what the event costs (``replay_charge`` does).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accountant.events import Event, PoissonGaussian, PoissonGaussianStatistics
from governance.ledger import facts as read

_MECHANISMS = {"gaussian_fixed_clipping": PoissonGaussian}


def difference(event: Event, effective: Mapping[str, Any], declared: int) -> str | None:
    """What the entry's parameters say otherwise than the event that was charged; None if nothing.

    ``declared``: people in all populations of the decision. Raises ``BadEntryError``.
    """
    mechanism = effective.get("mechanism")
    expected = _MECHANISMS.get(mechanism) if type(mechanism) is str else None
    if expected is not None and type(event) is not expected:
        return f"it runs {mechanism} and was charged for another event"
    rounds = read.integer(effective, "rounds", 1)
    if rounds != event.rounds:
        return f"it runs {rounds} rounds and was charged for {event.rounds}"
    if not isinstance(event, PoissonGaussianStatistics):  # of these, each statistic has its own
        noise = read.number(effective, "noise_multiplier")
        if noise != event.noise_multiplier:
            return f"its noise multiplier is {noise!r} and it was charged for {event.noise_multiplier!r}"
    charged = getattr(event, "sampling_probability", None)
    return None if charged is None else _sampling(charged, effective, declared)


def _sampling(charged: float, effective: Mapping[str, Any], declared: int) -> str | None:
    clients = read.integer(effective, "clients_per_round", 1)
    pool = declared if effective.get("no_clients") is None else read.integer(effective, "no_clients", 1)
    if pool > declared:
        return f"its pool is of {pool} people and {declared} are declared"
    if clients / pool != charged:
        return f"it samples {clients} of {pool} people and was charged for a probability of {charged!r}"
    return None
