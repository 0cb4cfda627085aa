"""Applies policy limits to a request. Pure.

Invariants
- Only ``max_rounds``, ``max_clients_per_round`` and ``min_noise_multiplier`` change a parameter, and only tighter; a
  breach of any other limit refuses.
- The result is checked again with ``breaches``, which is empty for every request that this module returns as fitting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from accountant.events import MIN_NOISE_MULTIPLIER
from governance.model import Clamp, Limits, Reason, TrainRequest


def apply_limits(
    request: TrainRequest, limits: Limits, *, pool_size: int, parameters: int
) -> tuple[TrainRequest, tuple[Clamp, ...], tuple[Reason, ...]]:
    """(request within the clamping limits, clamps, reasons to refuse). ``pool_size``: units that may be sampled."""
    clamps: list[Clamp] = []

    def clamp(name: str, bound: float | int | None, tighter: Callable[[float, float], float], limit: str) -> None:
        nonlocal request
        value = getattr(request, name)
        if bound is None or tighter(value, bound) == value:
            return
        by = limits.sources.get(limit, "system")
        clamps.append(Clamp(name, value, bound, by, f"{limit} is {bound:g}"))
        changes: dict[str, Any] = {name: bound}
        request = replace(request, **changes)

    clamp("rounds", limits.max_rounds, min, "max_rounds")
    clamp("clients_per_round", limits.max_clients_per_round, min, "max_clients_per_round")
    clamp("noise_multiplier", limits.min_noise_multiplier, max, "min_noise_multiplier")
    if request.noise_multiplier < MIN_NOISE_MULTIPLIER:
        why = f"below {MIN_NOISE_MULTIPLIER:g} no accountant gives a meaningful guarantee"
        clamps.append(Clamp("noise_multiplier", request.noise_multiplier, MIN_NOISE_MULTIPLIER, "system", why))
        request = replace(request, noise_multiplier=MIN_NOISE_MULTIPLIER)
    return request, tuple(clamps), breaches(request, limits, pool_size=pool_size, parameters=parameters)


def breaches(request: TrainRequest, limits: Limits, *, pool_size: int, parameters: int) -> tuple[Reason, ...]:
    """Every limit that the request as it stands is beyond."""
    reasons: list[Reason] = []

    def refuse(name: str, limit: str, text: str) -> None:
        reasons.append(Reason(limit, text, limits.sources.get(limit, "system"), name))

    def check(name: str, value: float, limit: str) -> None:
        bound = getattr(limits, limit)
        if bound is None:
            return
        beyond = value > bound if limit.startswith("max_") else value < bound
        if beyond:
            most = "most" if limit.startswith("max_") else "least"
            refuse(name, limit, f"{name} is {value:g}; the policy allows at {most} {bound:g}")

    check("rounds", request.rounds, "max_rounds")
    check("clients_per_round", request.clients_per_round, "max_clients_per_round")
    check("noise_multiplier", request.noise_multiplier, "min_noise_multiplier")
    check("no_clients", pool_size, "min_no_clients")
    check("clipping_norm", request.clipping_norm, "max_clipping_norm")
    check("local_epochs", request.local_epochs, "max_local_epochs")
    check("batch_size", request.batch_size, "max_batch_size")
    check("model", parameters, "max_model_parameters")
    check("client_learning_rate", request.client_learning_rate, "max_client_learning_rate")
    check("server_learning_rate", request.server_learning_rate, "max_server_learning_rate")
    if request.noise_multiplier > request.max_noise_multiplier:
        refuse(
            "max_noise_multiplier",
            "max_noise_multiplier",
            f"the run needs a noise multiplier of at least {request.noise_multiplier:g}, and your "
            f"max_noise_multiplier is {request.max_noise_multiplier:g}",
        )
    for name, value, limit, allowed in (
        ("mechanism", request.mechanism, "allowed_mechanisms", limits.allowed_mechanisms),
        ("loss", request.loss, "allowed_losses", limits.allowed_losses),
    ):
        if allowed is not None and value not in allowed:
            refuse(name, limit, f"{name} {value!r} is not allowed; allowed: {', '.join(sorted(allowed))}")
    return tuple(reasons)
