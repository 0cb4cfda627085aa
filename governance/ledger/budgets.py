"""Balances, reservations and debits: every SQL statement that moves an amount of budget.

Invariants
- ``lock_balances`` comes before any balance is read for a decision or changed.
- Three balances move together: the population's, the project's and the researcher's within it. They always exist from
  the first reservation on, so a quota that is set later counts what was spent before.
- committed(reserve) += u·rounds; committed(release) −= u·rounds; debited(debit) += u·rounds. Nothing else changes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from accountant.filter import add, subtract
from governance.ledger import vectors
from governance.ledger.tables import balances, debits, quotas, reservations
from governance.model import Quota, timestamp, utc_now

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
    round_curve: Vector
    rounds: int
    rounds_debited: int
    rounds_released: int
    state: str

    @property
    def scopes(self) -> tuple[Scope, ...]:
        return scopes(self.population_id, self.project_id, self.researcher_id)

    @property
    def undebited(self) -> int:
        return self.rounds - self.rounds_debited - self.rounds_released


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
_RESERVATION = sa.select(reservations).where(reservations.c.run_id == sa.bindparam("run"))
_DEBIT = debits.insert()
_QUOTAS = (
    sa.select(quotas)
    .where(quotas.c.population_id == sa.bindparam("population"))
    .order_by(quotas.c.scope, quotas.c.scope_id)
)


def lock_balances(connection: sa.Connection, population_id: str) -> None:
    """Serialises everything that touches this population's budget until the transaction ends."""
    connection.execute(_LOCK, {"population": population_id}).one()


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
    """Applies u·rounds to the three balances of a reservation, which were read under the population's lock."""
    nothing = (0,) * len(held.round_curve)
    moved = []
    for scope in held.scopes:
        if scope not in current:
            open_balance(connection, held.population_id, scope, len(held.round_curve))
        balance = current.get(scope, Balance(nothing, nothing, -1))
        committed, debited = balance.committed, balance.debited
        if commit:
            committed = add(committed, _times(held.round_curve, commit))
        if release:
            committed = subtract(committed, _times(held.round_curve, release))
        if debit:
            debited = add(debited, _times(held.round_curve, debit))
        moved.append(
            {
                "population": held.population_id,
                "in_scope": scope[0],
                "in_scope_id": scope[1],
                "new_committed": vectors.encode(committed),
                "new_debited": vectors.encode(debited),
                "new_entry": entry,
            }
        )
    connection.execute(_STORE_BALANCE, moved)


def _times(curve: Vector, rounds: int) -> Vector:
    return tuple(units * rounds for units in curve)


def reserve(connection: sa.Connection, held: Reservation, entry: int, current: Mapping[Scope, Balance]) -> None:
    """``current``: the balances of ``held.scopes`` as read under the population's lock."""
    connection.execute(
        _RESERVE,
        {
            "run_id": held.run_id,
            "population_id": held.population_id,
            "project_id": held.project_id,
            "researcher_id": held.researcher_id,
            "round_curve": vectors.encode(held.round_curve),
            "rounds": held.rounds,
            "rounds_debited": 0,
            "rounds_released": 0,
            "state": "open",
        },
    )
    _move(connection, held, entry, current, commit=held.rounds)


def reservation(connection: sa.Connection, run_id: str) -> Reservation:
    row = connection.execute(_RESERVATION, {"run": run_id}).mappings().one()
    return Reservation(**{**row, "round_curve": vectors.decode(row["round_curve"])})


def debited_before(connection: sa.Connection, run_id: str, first_round: int) -> int | None:
    """Rounds of the debit that starts at ``first_round``, or None if there was none."""
    return connection.execute(
        sa.select(debits.c.rounds).where(debits.c.run_id == run_id, debits.c.first_round == first_round)
    ).scalar_one_or_none()


def debit(
    connection: sa.Connection, held: Reservation, grant_id: str, first_round: int, rounds: int, entry: int
) -> None:
    connection.execute(
        _DEBIT,
        {
            "run_id": held.run_id,
            "first_round": first_round,
            "rounds": rounds,
            "grant_id": grant_id,
            "entry_index": entry,
        },
    )
    _update(connection, held.run_id, {"rounds_debited": held.rounds_debited + rounds})
    _move(connection, held, entry, read_balances(connection, held.population_id, held.scopes), debit=rounds)


def release_undebited(connection: sa.Connection, held: Reservation, entry: int) -> None:
    """Gives back what was never debited, and closes the reservation."""
    _update(connection, held.run_id, {"rounds_released": held.rounds_released + held.undebited, "state": "closed"})
    if held.undebited:
        current = read_balances(connection, held.population_id, held.scopes)
        _move(connection, held, entry, current, release=held.undebited)


def close(connection: sa.Connection, run_id: str) -> None:
    _update(connection, run_id, {"state": "closed"})


def quarantine(connection: sa.Connection, run_id: str) -> None:
    """What was committed stays committed: no amount moves."""
    _update(connection, run_id, {"state": "quarantined"})


def _update(connection: sa.Connection, run_id: str, values: Mapping[str, object]) -> None:
    connection.execute(reservations.update().where(reservations.c.run_id == run_id).values(**values))


def set_quota(connection: sa.Connection, quota: Quota) -> None:
    key = (
        quotas.c.population_id == quota.population_id,
        quotas.c.scope == quota.scope,
        quotas.c.scope_id == quota.scope_id,
    )
    values = {"epsilon": quota.epsilon, "set_at": timestamp(utc_now())}
    if connection.execute(quotas.update().where(*key).values(**values)).rowcount == 0:
        connection.execute(
            quotas.insert(),
            {"population_id": quota.population_id, "scope": quota.scope, "scope_id": quota.scope_id, **values},
        )


def read_quotas(connection: sa.Connection, population_id: str, wanted: tuple[Scope, ...] | None = None) -> list[Quota]:
    rows = connection.execute(_QUOTAS, {"population": population_id}).mappings()
    found = [Quota(row["population_id"], row["scope"], row["scope_id"], row["epsilon"]) for row in rows]
    return found if wanted is None else [quota for quota in found if (quota.scope, quota.scope_id) in wanted]
