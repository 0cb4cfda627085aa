"""What an event costs under a population's neighbouring relation.

Invariants
- A charge is a curve and a number of rounds; its amounts are exact integers, so that debits in any batches and order
  equal their reservation.
- A tree run is atomic: it has one cost for all its rounds, and there is no amount for a part of it.
- The same mechanism under the same orders always has the identical curve.

This module does not: admit, hold budgets, or know which rounds were debited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from accountant.curve import Curve, curve_of, own_units
from accountant.errors import InvalidBudgetError, InvalidVectorError
from accountant.events import Event, TreeGaussian
from accountant.filter import Vector
from accountant.mechanisms import resolve


@dataclass(frozen=True, slots=True)
class Charge:
    """``curve`` is the cost of ``rounds_per_charge`` rounds, of ``rounds`` in all. Raises ``InvalidVectorError``."""

    curve: Curve
    rounds: int
    rounds_per_charge: int = 1

    def __post_init__(self) -> None:
        # Charges come back from stored entries too.
        for name, value in (("rounds", self.rounds), ("rounds_per_charge", self.rounds_per_charge)):
            if type(value) is not int or value < 1:
                raise InvalidVectorError(f"{name} = {value!r}: must be a positive integer")
        if self.rounds % self.rounds_per_charge:
            raise InvalidVectorError(f"{self.rounds} rounds cannot be charged {self.rounds_per_charge} at a time")

    def amount(self, rounds: int) -> Vector:
        """The cost of ``rounds`` rounds, exact. Raises ``InvalidVectorError`` unless they are whole charges."""
        if type(rounds) is not int or rounds < 0:
            raise InvalidVectorError(f"rounds = {rounds!r}: must be an integer, not negative")
        charges, rest = divmod(rounds, self.rounds_per_charge)
        if rest:
            raise InvalidVectorError(
                f"{rounds} rounds have no cost of their own: {self.rounds_per_charge} are charged at a time"
            )
        return self.curve.times(charges)

    @property
    def total(self) -> Vector:
        return self.amount(self.rounds)


def charge(event: Event, orders: Sequence[float], relation: str) -> Charge:
    """What ``event`` costs a population with this relation.

    The first call for a new mechanism takes 50 ms to 2 s. Raises ``NotComposableError``, ``InvalidBudgetError``
    (relation, orders), ``CurveDisagreementError``, ``InvalidCurveError``.
    """
    mechanism = resolve(event, relation)
    return Charge(curve_of(mechanism, _grid(orders)), event.rounds, _rounds_per_charge(event))


def own_estimate(event: Event, orders: Sequence[float], relation: str) -> Vector:
    """Units of one charge (a round, or a whole tree run) by our own computation alone: never above the charged.

    Fast, for who checks many stored charges without the libraries. Raises as ``charge``, but for disagreement.
    """
    return own_units(resolve(event, relation), _grid(orders))


def _rounds_per_charge(event: Event) -> int:
    return event.rounds if isinstance(event, TreeGaussian) else 1


def _grid(orders: Sequence[float]) -> tuple[float, ...]:
    if not isinstance(orders, tuple | list):
        raise InvalidBudgetError("orders", orders, "must be a list of orders")
    return tuple(orders)
