"""The privacy filter: what may still be admitted under a budget, whatever was asked before.

A weighted-union Rényi filter. Orders and weights w_α with Σ w_α ≤ 1 are fixed when the budget is opened; a
candidate is admitted while some order has ``spent(α) + candidate(α) ≤ B(α) = ε − log(1 − 1/α) + log(δ w_α α)/(α −
1)``. For one fixed order that is a valid filter under full adaptivity (Feldman and Zrnic 2021) with the conversion
of Canonne, Kamath and Steinke (2020, proposition 12); the weights are the union bound over orders.
docs/privacy-proof.md states and proves it.

Invariants
- B(α) is rounded down, in integer arithmetic with error bounds, never by floats.
- Amounts are exact integers between 0 and 2**127 − 1; anything else refuses.
- A budget is a value: nothing of it changes after it is opened.

This module does not: know which amounts are debited, reserved or quarantined (all of them are ``spent``), or store
anything.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

from accountant.curve import MAX_AMOUNT, UNITS_PER_NAT
from accountant.errors import InvalidBudgetError, InvalidVectorError
from accountant.orders import DEFAULT_ORDERS, check_orders
from accountant.relations import ADD_OR_REMOVE_ONE, RELATIONS
from accountant.weights import PlannedUse, choose_weights

__all__ = [
    "ADD_OR_REMOVE_ONE",
    "RELATIONS",
    "Budget",
    "PlannedUse",
    "Vector",
    "add",
    "admits",
    "check_delta",
    "check_epsilon",
    "conversion_offsets",
    "subtract",
    "zero",
]

MIN_EPSILON = 1e-6
MAX_EPSILON = 1e6

Vector = tuple[int, ...]

# Offsets are kept 64 bits finer than amounts, so that adding one to an amount is exact.
FINE_BITS = 64
FINE_PER_NAT = UNITS_PER_NAT << FINE_BITS
_DIGITS = 50


@dataclass(frozen=True, slots=True)
class Budget:
    """(ε, δ) for life, with the orders and weights of its filter. Raises ``InvalidBudgetError``."""

    epsilon: float
    delta: float
    orders: tuple[float, ...]
    weights: tuple[float, ...]
    relation: str = ADD_OR_REMOVE_ONE

    def __post_init__(self) -> None:
        epsilon, delta = check_epsilon(self.epsilon), check_delta(self.delta)
        object.__setattr__(self, "epsilon", epsilon)
        object.__setattr__(self, "delta", delta)
        check_orders(self.orders)
        _check_weights(self.weights, len(self.orders))
        if self.relation not in RELATIONS:
            raise InvalidBudgetError("relation", self.relation, f"must be one of {', '.join(RELATIONS)}")
        if max(self.thresholds()) <= 0:
            why = f"too small for delta = {delta!r}: no order could admit anything; raise epsilon or delta"
            raise InvalidBudgetError("epsilon", epsilon, why)

    def thresholds(self) -> Vector:
        """B(α) in units of 2**-40 nats, rounded down. Negative where an order can never admit anything."""
        return _thresholds(self.epsilon, self.delta, self.orders, self.weights)

    @staticmethod
    def open(
        epsilon: float,
        delta: float,
        orders: tuple[float, ...] = DEFAULT_ORDERS,
        relation: str = ADD_OR_REMOVE_ONE,
        planned_use: PlannedUse | None = None,
    ) -> Budget:
        """A new budget, with weights chosen for the planned use, or else for Gaussian-like use (``weights`` says how).
        The plan is not kept: it binds nobody. Raises ``InvalidBudgetError``."""
        epsilon, delta = check_epsilon(epsilon), check_delta(delta)
        weights = choose_weights(epsilon, delta, check_orders(orders), planned_use, relation)
        return Budget(epsilon, delta, orders, weights, relation)

    def to_document(self) -> dict[str, Any]:
        """A JSON document; ``from_document`` gives back an equal budget."""
        return {
            "type": "weighted_union_rdp_filter",
            "version": 1,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "orders": list(self.orders),
            "weights": list(self.weights),
            "relation": self.relation,
        }

    @staticmethod
    def from_document(document: object) -> Budget:
        """The budget of a document, or ``InvalidBudgetError``. Canonical JSON writes 2.0 as 2: whole numbers are
        floats here."""
        keys = {"type", "version", "epsilon", "delta", "orders", "weights", "relation"}
        if not isinstance(document, Mapping) or set(document) != keys:
            raise InvalidBudgetError("budget", document, f"must be an object with exactly {', '.join(sorted(keys))}")
        if document["type"] != "weighted_union_rdp_filter" or type(document["version"]) is not int:
            raise InvalidBudgetError("type", document["type"], "unknown")
        if document["version"] != 1:
            raise InvalidBudgetError("version", document["version"], "unknown")
        orders, weights = (_floats(name, document[name]) for name in ("orders", "weights"))
        return Budget(document["epsilon"], document["delta"], orders, weights, document["relation"])


def zero(orders: tuple[float, ...]) -> Vector:
    """Nothing spent."""
    return (0,) * len(orders)


def add(a: Vector, b: Vector) -> Vector:
    """a + b, exact. Raises ``InvalidVectorError``."""
    _check_vector(a, len(a))
    _check_vector(b, len(a))
    return _check_vector(tuple([x + y for x, y in zip(a, b, strict=True)]), len(a))


def subtract(a: Vector, b: Vector) -> Vector:
    """a − b, exact. Raises ``InvalidVectorError`` if any amount would be negative: more would be given back than
    was held."""
    _check_vector(a, len(a))
    _check_vector(b, len(a))
    return _check_vector(tuple([x - y for x, y in zip(a, b, strict=True)]), len(a))


def admits(budget: Budget, spent: Vector, candidate: Vector) -> bool:
    """Whether ``candidate`` may be added to ``spent`` (debited, reserved and quarantined together). Raises
    ``InvalidVectorError``."""
    if len(spent) != len(budget.orders):
        raise InvalidVectorError(f"{len(spent)} amounts for {len(budget.orders)} orders")
    total = add(spent, candidate)
    # `<=` on integers: there is no NaN to slip through.
    return any(amount <= bound for amount, bound in zip(total, budget.thresholds(), strict=True))


@lru_cache(maxsize=1024)
def conversion_offsets(delta: float, orders: tuple[float, ...], weights: tuple[float, ...]) -> Vector:
    """``log(1 − 1/α) − log(δ w α)/(α − 1)`` at each order, rounded up, in units of ``1 / FINE_PER_NAT`` nats.

    It is what Rényi divergence at α costs on top of itself to become (ε, δ w): ε = spent(α) + offset(α).
    """
    with decimal.localcontext(decimal.Context(prec=_DIGITS)):
        # Every operation is correctly rounded to 50 digits: the error is far below the fine unit (5e-32) that is added.
        offsets = []
        for order, weight in zip(orders, weights, strict=True):
            gap = Decimal(order) - 1
            offset = _ln_ratio(order) - (_ln(delta) + _ln(weight) + _ln(order)) / gap
            offsets.append(math.floor(offset * FINE_PER_NAT) + 2)
        return tuple(offsets)


@lru_cache(maxsize=8192)
def _ln(value: float) -> Decimal:
    return Decimal(value).ln(decimal.Context(prec=_DIGITS))


@lru_cache(maxsize=2048)
def _ln_ratio(order: float) -> Decimal:
    context = decimal.Context(prec=_DIGITS)
    return context.ln(context.divide(context.subtract(Decimal(order), Decimal(1)), Decimal(order)))


def check_epsilon(value: object) -> float:
    """``value`` as a float within the budget's range, or ``InvalidBudgetError``."""
    number = _number("epsilon", value)
    if not MIN_EPSILON <= number <= MAX_EPSILON:
        raise InvalidBudgetError("epsilon", value, f"must be between {MIN_EPSILON:g} and {MAX_EPSILON:g}")
    return number


def check_delta(value: object) -> float:
    """``value`` as a float in (0, 1), or ``InvalidBudgetError``."""
    number = _number("delta", value)
    if not 0.0 < number < 1.0:
        raise InvalidBudgetError("delta", value, "must be above 0 and below 1")
    return number


@lru_cache(maxsize=1024)
def _thresholds(epsilon: float, delta: float, orders: tuple[float, ...], weights: tuple[float, ...]) -> Vector:
    cap = math.floor(Fraction(epsilon) * FINE_PER_NAT)
    return tuple([(cap - offset) >> FINE_BITS for offset in conversion_offsets(delta, orders, weights)])


def _check_weights(weights: tuple[float, ...], count: int) -> None:
    if len(weights) != count:
        raise InvalidBudgetError("weights", len(weights), f"must be one for each of the {count} orders")
    for weight in weights:
        if type(weight) is not float or not 0.0 < weight <= 1.0:
            raise InvalidBudgetError("weights", weight, "each must be a float above 0 and at most 1")
    if sum(map(Fraction, weights)) > 1:  # exactly: the union bound has no tolerance
        raise InvalidBudgetError("weights", math.fsum(weights), "must not sum to more than 1")


def _check_vector(vector: Vector, count: int) -> Vector:
    if len(vector) != count:
        raise InvalidVectorError(f"{len(vector)} amounts for {count} orders")
    if set(map(type, vector)) != {int}:  # neither bool nor a numpy integer that would wrap
        raise InvalidVectorError("every amount must be an integer")
    if min(vector) < 0 or max(vector) > MAX_AMOUNT:
        raise InvalidVectorError("an amount is negative or leaves 127 bits")
    return vector


def _number(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidBudgetError(field, value, "must be a number")
    try:
        return float(value)
    except OverflowError as e:
        raise InvalidBudgetError(field, value, "must be finite") from e


def _floats(field: str, values: object) -> tuple[float, ...]:
    if not isinstance(values, list | tuple):
        raise InvalidBudgetError(field, values, "must be a list of numbers")
    return tuple(_number(field, value) for value in values)
