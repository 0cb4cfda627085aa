"""Fits a request into what remains of its budgets. Pure; the solvers are ``accountant.calibration``.

Invariants
- Clamping only tightens (privacy rule 15): a higher noise multiplier, fewer clients per round, fewer rounds.
- In the order given each parameter is used as far as it goes before the next one is touched.
- What is returned fits every cap with the curve that will be charged, not with an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from accountant import calibration
from accountant.calibration import Cap
from accountant.charge import Charge, charge
from accountant.curve import DEFAULT_ORDERS, estimate, round_curve
from accountant.errors import NotComposableError
from accountant.events import PoissonGaussian
from accountant.filter import Vector
from accountant.mechanisms import resolve
from accountant.relations import ADD_OR_REMOVE_ONE
from governance.model import Clamp, TrainRequest


@dataclass(frozen=True, slots=True)
class Fitted:
    request: TrainRequest
    event: PoissonGaussian
    charge: Charge
    clamps: tuple[Clamp, ...]


def event_of(request: TrainRequest, pool_size: int) -> PoissonGaussian:
    """What the run will be charged as.

    Drawing the pool earns no credit: the probability is within the pool (rule 6).
    """
    return PoissonGaussian(request.clients_per_round / pool_size, request.noise_multiplier, request.rounds)


def warm_up() -> None:
    """Computes one curve, so that the accounting library is loaded (about a second) before somebody waits for it."""
    round_curve(0.01, 1.0, DEFAULT_ORDERS)


def fit(request: TrainRequest, caps: Sequence[Cap], order: Sequence[str], *, pool_size: int) -> Fitted | Cap:
    """The request, clamped where it has to be; or the cap that cannot be met: of several, the one with the least room.

    ``caps`` share their orders and their relation. Raises ``AccountantError``, also where the request's mechanism
    cannot be composed under that relation.
    """
    orders = caps[0].budget.orders
    _require_composable(event_of(request, pool_size), caps[0].budget.relation)
    if _fits(request, caps, orders, pool_size):
        return _fitted(request, request, caps, pool_size, ())
    original = request
    for parameter in order:
        request, done = _tighten(request, parameter, caps, orders, pool_size)
        if done:
            if not _fits(request, caps, orders, pool_size):
                break  # a solver that does not keep its promise must not approve
            return _fitted(original, request, caps, pool_size, order)
    return _tightest(caps, _guess(event_of(request, pool_size), orders))


def _require_composable(event: PoissonGaussian, relation: str) -> None:
    """Raises ``NotComposableError`` where the relation does not hold the event, or holds it at another cost than the
    solvers reckon with."""
    if resolve(event, relation) != resolve(event, ADD_OR_REMOVE_ONE):
        why = "there its noise counts half, which the clamp does not reckon with"
        raise NotComposableError("Poisson-sampled training", relation, why, "ask the owner for a population of its own")


def _tighten(
    request: TrainRequest, parameter: str, caps: Sequence[Cap], orders: tuple[float, ...], pool_size: int
) -> tuple[TrainRequest, bool]:
    """The request with this one parameter tightened, and whether it fits now."""
    sampling_probability = request.clients_per_round / pool_size
    if parameter == "noise_multiplier":
        noise = calibration.smallest_noise_multiplier(
            caps,
            sampling_probability,
            request.rounds,
            at_least=request.noise_multiplier,
            at_most=request.max_noise_multiplier,
        )
        best = request.max_noise_multiplier if noise is None else noise
        return replace(request, noise_multiplier=max(request.noise_multiplier, best)), noise is not None
    if parameter == "clients_per_round":
        clients = calibration.largest_clients_per_round(
            caps, pool_size, request.noise_multiplier, request.rounds, at_most=request.clients_per_round
        )
        return replace(request, clients_per_round=max(1, clients)), clients >= 1
    if parameter == "rounds":
        curve = round_curve(sampling_probability, request.noise_multiplier, orders)
        rounds = calibration.largest_rounds(caps, curve, at_most=request.rounds)
        return replace(request, rounds=max(1, rounds)), rounds >= 1
    raise ValueError(f"{parameter!r} cannot be clamped")


def _fits(request: TrainRequest, caps: Sequence[Cap], orders: tuple[float, ...], pool_size: int) -> bool:
    event = event_of(request, pool_size)
    # The estimate is never above what is charged: what does not fit by it need not wait for the charged curve.
    if calibration.fits(caps, _guess(event, orders)) is not None:
        return False
    curve = round_curve(event.sampling_probability, event.noise_multiplier, orders)
    return calibration.fits(caps, curve.times(event.rounds)) is None


def _guess(event: PoissonGaussian, orders: tuple[float, ...]) -> Vector:
    units = estimate(event.sampling_probability, event.noise_multiplier, orders)
    return tuple([one * event.rounds for one in units])


def _tightest(caps: Sequence[Cap], cost: Vector) -> Cap:
    """Under which the cost could grow least, at its best order, before it does not fit."""

    def room(cap: Cap) -> float:
        at_orders = zip(cap.budget.thresholds(), cap.spent, cost, strict=True)
        return max([(bound - spent) / max(units, 1) for bound, spent, units in at_orders])

    return min(caps, key=room)


def _fitted(
    original: TrainRequest,
    request: TrainRequest,
    caps: Sequence[Cap],
    pool_size: int,
    order: Sequence[str],
) -> Fitted:
    event = event_of(request, pool_size)
    budget = caps[0].budget
    charged = charge(event, budget.orders, budget.relation)
    changed = [name for name in order if getattr(original, name) != getattr(request, name)]
    if not changed:
        return Fitted(request, event, charged, ())
    why = f"what remains of {_tightest(caps, charged.total).name} does not allow more"
    clamps = [Clamp(name, getattr(original, name), getattr(request, name), "budget", why) for name in changed]
    return Fitted(request, event, charged, tuple(clamps))
