"""Reads what a run is charged, and checks it against our own kernel.

Invariants
- An event is decoded by the accountant's allow-list, and a charge holds nothing else that could change its meaning.
- What counts as one charge unit follows from the event, not from what the entry says.
- A charge that passes is never below the true cost: our kernel's estimate is padded (privacy rule 13), and the slack,
  for processors whose floating-point functions differ in their last bits, is less than half of the pad.

With ``full_curves`` each charge is also computed anew as it was charged, by dp_accounting and by our kernel: slow.

This module does not: admit, or know balances.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from accountant.charge import charge as compute_charge
from accountant.charge import own_estimate
from accountant.codec import decode_event
from accountant.curve import ACCOUNTANT, Curve
from accountant.errors import AccountantError
from accountant.events import Event, TreeGaussian
from accountant.filter import Budget, Vector
from governance.ledger import facts as read
from governance.ledger.findings import BadEntryError, shown
from governance.ledger.replay_state import Charged, Population

_FIELDS = {"event", "accountant", "units_per_round", "rounds_per_charge"}
_REMEMBERED = 1024  # curves; one of 185 orders takes some 25 kB
_DIGITS = 39  # 2**127
_DECIMAL = re.compile("[1-9][0-9]*", re.ASCII)


_Curve = tuple[Charged, bool, str | None]  # as in ``Charge``


class Charge(NamedTuple):
    event: Event
    charged: Charged
    too_low: bool
    mismatch: str | None  # how it differs from a full computation


class Charges:
    """Remembers the curves it has read: in a ledger most runs are like some earlier one, but for their rounds."""

    def __init__(self, full_curves: bool = False) -> None:
        self._full_curves = full_curves
        self._grids: dict[tuple[tuple[float, ...], str], int] = {}  # short names of orders and relations
        self.computed = 0  # curves since somebody set it to 0
        self._known: OrderedDict[tuple[object, ...], tuple[list[Any], _Curve]] = OrderedDict()

    def grid(self, budget: Budget) -> int:
        return self._grids.setdefault((budget.orders, budget.relation), len(self._grids))

    def read(self, facts: Mapping[str, Any], population: Population) -> Charge:
        """The charge of a decision's or an adjustment's facts.

        Raises ``BadEntryError``.
        """
        units, accountant = facts.get("units_per_round"), read.text(facts, "accountant")
        if type(units) is not list or not facts.keys() <= _FIELDS:
            raise BadEntryError("bad_facts", "a charge holds an event, an accountant and units_per_round, nothing else")
        try:
            event = decode_event(facts.get("event"))
        except AccountantError as error:
            raise BadEntryError("bad_facts", f"the event is none: {shown(str(error))}") from error
        per_charge = facts.get("rounds_per_charge", 1)
        if type(per_charge) is not int or per_charge != rounds_per_charge(event):
            why = f"rounds_per_charge = {shown(per_charge)}: of this event it is {rounds_per_charge(event)}"
            raise BadEntryError("bad_facts", why)
        if population.grid is None:
            population.grid = self.grid(population.budget)
        unit = event if per_charge > 1 else replace(event, rounds=1)  # what one charge unit is of
        # By the list's identity, which is its own for as long as it is remembered here: the reader gives the same list
        # for the same bytes, and nobody changes it.
        key = (population.grid, unit, accountant, id(units))
        known = self._known.get(key)
        if known is None:
            curve = self._curve(unit, units, accountant, per_charge, population.budget)
            known = self._known[key] = (units, curve)
            self.computed += 1
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return Charge(event, *known[1])

    def _curve(self, event: Event, units: list[Any], accountant: str, per_charge: int, budget: Budget) -> _Curve:
        for unit in units:
            if type(unit) is not str or len(unit) > _DIGITS or not _DECIMAL.fullmatch(unit):
                raise BadEntryError(
                    "bad_facts", f"units_per_round holds {shown(unit)}: must be positive decimal numbers"
                )
        try:
            charged = Curve(budget.orders, tuple(map(int, units))).units
            own = own_estimate(event, budget.orders, budget.relation)
        except AccountantError as error:
            raise BadEntryError("bad_facts", f"the charge is none: {shown(str(error))}") from error
        too_low, mismatch = is_below(charged, own), None
        if self._full_curves:
            more_too_low, mismatch = _compared(event, charged, accountant, budget)
            too_low = too_low or more_too_low
        return Charged(charged, per_charge), too_low, mismatch


def _compared(event: Event, charged: Vector, accountant: str, budget: Budget) -> tuple[bool, str | None]:
    """Whether a charge is below the curve of both computations, and how it differs from it."""
    try:
        computed = compute_charge(event, budget.orders, budget.relation).curve.units
    except AccountantError as error:
        return False, f"the curve cannot be computed again: {shown(str(error))}"
    below, above = is_below(charged, computed), is_below(computed, charged)
    if accountant == ACCOUNTANT and (below or above):
        return below, f"the charged curve is not the one that {ACCOUNTANT} computes"
    return below, None


def rounds_per_charge(event: Event) -> int:
    """An event of tree aggregation is debited whole (privacy rule 3); the others by the round."""
    return event.rounds if isinstance(event, TreeGaussian) else 1


def is_below(charged: Vector, own: Vector) -> bool:
    """Whether a charge lies below our own figure by more than two processors can differ."""
    return any(theirs + 1 + (theirs >> 33) < ours for theirs, ours in zip(charged, own, strict=True))
