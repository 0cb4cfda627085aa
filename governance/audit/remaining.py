"""What remains, in the owner's own terms: how many more runs like one that there was.

Invariants
- Exact, in closed form on integers: with n runs more every cap admits, with one more than that it does not.
- For each cap by itself, and for all of them together: nobody's allowance is read from one of them alone. Runs of
  another kind fit in other numbers, because composition is not subtraction (privacy rule 5).

This module does not: promise. Whoever asks first is admitted first.
"""

from __future__ import annotations

from dataclasses import dataclass

from accountant.calibration import Cap
from accountant.curve import MAX_AMOUNT
from accountant.filter import Vector
from governance.budget_state import BudgetState
from governance.ledger.budgets import Reservation


@dataclass(frozen=True, slots=True)
class Fits:
    """How many runs, or rounds, one cap admits by itself.

    ``limit``: population_budget, population_window, project_quota or researcher_quota; ``name`` says it in words.
    """

    limit: str
    name: str
    count: int


@dataclass(frozen=True, slots=True)
class Remaining:
    """``caps``: each by itself, as it is now. ``runs``: under all of them; ``binding`` is the tightest."""

    population_id: str
    like_run: str
    rounds: int
    runs: int
    binding: Fits
    caps: tuple[Fits, ...]
    sentence: str


def remaining(state: BudgetState, held: Reservation) -> Remaining:
    """How many more runs like ``held`` fit, its undebited rounds included, as if none of it had been released."""
    amount = held.amount(held.rounds)
    caps = tuple(Fits(cap.limit, cap.name, largest_count(cap, amount)) for cap in state.caps)
    binding = min(caps, key=lambda cap: cap.count)
    runs = binding.count
    return Remaining(
        held.population_id, held.run_id, held.rounds, runs, binding, caps, _sentence(runs, held.run_id, binding.name)
    )


def largest_count(cap: Cap, amount: Vector) -> int:
    """The greatest n with ``admits(budget, spent, n · amount)``; 0 if not even one is admitted."""
    room = zip(cap.budget.thresholds(), cap.spent, amount, strict=True)
    fitting = max([(bound - spent) // each for bound, spent, each in room])
    # Beyond 127 bits at any order the filter refuses to add, however much room another order has.
    countable = min([(MAX_AMOUNT - spent) // each for spent, each in zip(cap.spent, amount, strict=True)])
    return max(0, min(fitting, countable))


def _sentence(runs: int, like: str, name: str) -> str:
    if runs == 0:
        return f"no more run like {like} fits: {name} does not admit another"
    many = "about one more run" if runs == 1 else f"about {runs} more runs"
    return f"{many} like {like}; then {name} admits no other"
