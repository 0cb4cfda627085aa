"""Balances, reservations and debits: every SQL statement that moves an amount of budget.

Invariants
- ``lock_balances`` comes before any balance is read for a decision or changed.
- Three balances move together: the population's, the project's and the researcher's within it. They always exist from
  the first reservation on, so a quota that is set later counts what was spent before.
- A run over several populations has a reservation in each; whatever happens to one happens to all, in one transaction.
- committed(reserve) += amount; committed(release) −= amount; debited(debit) += amount, where amount(rounds) = u·rounds
  (an event that is debited whole has its u for all rounds together). Nothing else changes them, but for
  ``adjust``, which adds rounds of which the entries were lost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from accountant.errors import InvalidVectorError
from accountant.filter import add, subtract
from governance.ledger import vectors
from governance.ledger.tables import balances, debits, reservations, runs

Vector = tuple[int, ...]
Scope = tuple[str, str]  # (scope, scope id)


@dataclass(frozen=True, slots=True)
class Balance:
    committed: Vector
    debited: Vector
    as_of_entry: int


@dataclass(frozen=True, slots=True)
class Reservation:
    run_id: str
    population_id: str
    project_id: str
    researcher_id: str
    round_curve: Vector  # units of one charge
    rounds_per_charge: int
    rounds: int
    rounds_debited: int
    rounds_released: int
    state: str  # open | quarantined | closed
    entry_index: int  # of the decision that reserved
    closed_entry: int | None = None

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return scopes(self.population_id, self.project_id, self.researcher_id)

    @property
    def undebited(self) -> int:
        return self.rounds - self.rounds_debited - self.rounds_released

    def amount(self, rounds: int) -> Vector:
        """What ``rounds`` of it cost, exact. Raises ``InvalidVectorError`` unless they are whole charges."""
        charges, rest = divmod(rounds, self.rounds_per_charge)
        if rest:
            raise InvalidVectorError(f"{rounds} rounds are not whole charges of {self.rounds_per_charge}")
        return tuple([units * charges for units in self.round_curve])


def scopes(population_id: str, project_id: str, researcher_id: str) -> tuple[Scope, ...]:
    return (("population", population_id), ("project", project_id), ("researcher", researcher_id))


_LOCK = (
    sa.select(balances.c.as_of_entry)
    .where(
        balances.c.population_id == sa.bindparam("population"),
        balances.c.scope == "population",
        balances.c.scope_id == sa.bindparam("population"),
    )
    .with_for_update()
)
_BALANCES = sa.select(balances).where(
    balances.c.population_id == sa.bindparam("population"),
    balances.c.scope_id.in_(sa.bindparam("ids", expanding=True)),
)
_STORE_BALANCE = (
    balances.update()
    .where(
        balances.c.population_id == sa.bindparam("population"),
        balances.c.scope == sa.bindparam("in_scope"),
        balances.c.scope_id == sa.bindparam("in_scope_id"),
    )
    .values(
        committed=sa.bindparam("new_committed"),
        debited=sa.bindparam("new_debited"),
        as_of_entry=sa.bindparam("new_entry"),
    )
)
_OPEN_BALANCE = balances.insert()
_RESERVE = reservations.insert()
_RESERVATIONS = (
    sa.select(reservations).where(reservations.c.run_id == sa.bindparam("run")).order_by(reservations.c.population_id)
)
_DEBIT = debits.insert()


def lock_balances(connection: sa.Connection, population_id: str) -> None:
    """Serialises everything that touches this population's budget until the transaction ends."""
    connection.execute(_LOCK, {"population": population_id}).one()


def lock_everything(connection: sa.Connection) -> None:
    """Every population's balance, then every run, in the order in which everybody locks them (reconciliation only)."""
    populations = sa.select(balances.c.population_id).where(balances.c.scope == "population")
    connection.execute(populations.order_by(balances.c.population_id).with_for_update()).all()
    connection.execute(sa.select(runs.c.id).order_by(runs.c.id).with_for_update()).all()


def open_balance(connection: sa.Connection, population_id: str, scope: Scope, orders: int) -> None:
    zero = vectors.encode((0,) * orders)
    connection.execute(
        _OPEN_BALANCE,
        {
            "population_id": population_id,
            "scope": scope[0],
            "scope_id": scope[1],
            "committed": zero,
            "debited": zero,
            "as_of_entry": -1,
        },
    )


def read_balances(connection: sa.Connection, population_id: str, wanted: tuple[Scope, ...]) -> dict[Scope, Balance]:
    """The balances that exist among ``wanted``."""
    asked = {"population": population_id, "ids": [name for _, name in wanted]}
    return {
        (row["scope"], row["scope_id"]): Balance(
            vectors.decode(row["committed"]), vectors.decode(row["debited"]), row["as_of_entry"]
        )
        for row in connection.execute(_BALANCES, asked).mappings()
        if (row["scope"], row["scope_id"]) in wanted
    }


def _move(
    connection: sa.Connection,
    held: Reservation,
    entry: int,
    current: Mapping[Scope, Balance],
    *,
    commit: int = 0,
    release: int = 0,
    debit: int = 0,
) -> None:
    """Applies the amounts of these rounds to the three balances of a reservation, read under the population's lock."""
    nothing = (0,) * len(held.round_curve)
    moved = []
    for scope in held.scopes:
        if scope not in current:
            open_balance(connection, held.population_id, scope, len(held.round_curve))
        balance = current.get(scope, Balance(nothing, nothing, -1))
        committed, debited = balance.committed, balance.debited
        if commit:
            committed = add(committed, held.amount(commit))
        if release:
            committed = subtract(committed, held.amount(release))
        if debit:
            debited = add(debited, held.amount(debit))
        moved.append(_stored(held.population_id, scope, Balance(committed, debited, entry)))
    connection.execute(_STORE_BALANCE, moved)


def _stored(population_id: str, scope: Scope, balance: Balance) -> dict[str, object]:
    return {
        "population": population_id,
        "in_scope": scope[0],
        "in_scope_id": scope[1],
        "new_committed": vectors.encode(balance.committed),
        "new_debited": vectors.encode(balance.debited),
        "new_entry": balance.as_of_entry,
    }


def reserve(connection: sa.Connection, held: Reservation, current: Mapping[Scope, Balance]) -> None:
    """``current``: the balances of ``held.scopes`` as read under the population's lock."""
    row = {field.name: getattr(held, field.name) for field in dataclasses.fields(held)}
    connection.execute(_RESERVE, row | {"round_curve": vectors.encode(held.round_curve)})
    _move(connection, held, held.entry_index, current, commit=held.rounds)


def reservations_of(connection: sa.Connection, run_id: str) -> tuple[Reservation, ...]:
    """One for each population of the run, in the populations' order. They differ in curve and population only."""
    if not (found := find_reservations(connection, run_id)):
        raise LookupError(f"run {run_id} has no reservation")
    return found


def find_reservations(connection: sa.Connection, run_id: str) -> tuple[Reservation, ...]:
    """The same; empty for a run that this database does not know."""
    rows = connection.execute(_RESERVATIONS, {"run": run_id}).mappings()
    return tuple([Reservation(**{**row, "round_curve": vectors.decode(row["round_curve"])}) for row in rows])


def debited_before(connection: sa.Connection, run_id: str, first_round: int) -> int | None:
    """Rounds of the debit that starts at ``first_round``, or None if there was none."""
    query = sa.select(debits.c.rounds).where(debits.c.run_id == run_id, debits.c.first_round == first_round)
    return connection.execute(query.limit(1)).scalar_one_or_none()


def debit(
    connection: sa.Connection, held: Reservation, grant_id: str, first_round: int, rounds: int, entry: int
) -> None:
    connection.execute(
        _DEBIT,
        {
            "run_id": held.run_id,
            "population_id": held.population_id,
            "first_round": first_round,
            "rounds": rounds,
            "grant_id": grant_id,
            "entry_index": entry,
        },
    )
    _update(connection, held, {"rounds_debited": held.rounds_debited + rounds})
    _move(connection, held, entry, read_balances(connection, held.population_id, held.scopes), debit=rounds)


def release_undebited(connection: sa.Connection, held: Reservation, entry: int) -> None:
    """Gives back what was never debited, and closes the reservation."""
    released = held.rounds_released + held.undebited
    _update(connection, held, {"rounds_released": released, "state": "closed", "closed_entry": entry})
    if held.undebited:
        current = read_balances(connection, held.population_id, held.scopes)
        _move(connection, held, entry, current, release=held.undebited)


def close(connection: sa.Connection, held: Reservation, entry: int) -> None:
    _update(connection, held, {"state": "closed", "closed_entry": entry})


def quarantine(connection: sa.Connection, held: Reservation) -> None:
    """What was committed stays committed: no amount moves."""
    _update(connection, held, {"state": "quarantined"})


def adjust(connection: sa.Connection, population_id: str, amount: Vector, entry: int) -> None:
    """Adds what a runner ran and whose entries were lost: debited and committed, in the population's own balance."""
    scope = ("population", population_id)
    balance = read_balances(connection, population_id, (scope,))[scope]
    changed = Balance(add(balance.committed, amount), add(balance.debited, amount), entry)
    connection.execute(_STORE_BALANCE, [_stored(population_id, scope, changed)])


def overwrite_balance(connection: sa.Connection, population_id: str, scope: Scope, balance: Balance) -> None:
    """Reconciliation only: sets what the replayed entries give."""
    if scope not in read_balances(connection, population_id, (scope,)):
        open_balance(connection, population_id, scope, len(balance.committed))
    connection.execute(_STORE_BALANCE, [_stored(population_id, scope, balance)])


def _update(connection: sa.Connection, held: Reservation, values: Mapping[str, object]) -> None:
    key = (reservations.c.run_id == held.run_id, reservations.c.population_id == held.population_id)
    connection.execute(reservations.update().where(*key).values(**values))
