"""Which debits a reservation allows, and which metrics a result may carry: checked before anything is written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from accountant.errors import InvalidVectorError
from governance.errors import ConflictError, InvalidRequestError
from governance.ledger.budgets import Reservation
from governance.settlement import _check_debit, _check_metrics
from runner.port import RunResult

ROUNDS = Reservation("run", "pop", "prj", "usr", (3, 5), 1, 10, 4, 0, "open", 0)
ATOMIC = replace(ROUNDS, rounds_per_charge=10, rounds_debited=0)


@pytest.mark.parametrize(("first_round", "rounds"), [(4, 1), (4, 6)])
def test_the_next_rounds_of_a_reservation_may_be_debited(first_round: int, rounds: int) -> None:
    _check_debit(ROUNDS, first_round, rounds)


@pytest.mark.parametrize(("first_round", "rounds"), [(3, 1), (5, 1), (0, 4), (4, 0), (4, -1), (4, 7), (10, 1)])
def test_no_round_is_debited_twice_skipped_or_beyond_what_was_reserved(first_round: int, rounds: int) -> None:
    with pytest.raises(ConflictError):
        _check_debit(ROUNDS, first_round, rounds)


def test_a_run_whose_noise_is_one_mechanism_is_debited_whole() -> None:
    _check_debit(ATOMIC, 0, 10)
    assert (3, 5) == ATOMIC.amount(10)
    assert (0, 0) == ATOMIC.amount(0)


@pytest.mark.parametrize("rounds", [1, 5, 9])
def test_no_part_of_a_run_whose_noise_is_one_mechanism_is_debited_or_has_a_cost(rounds: int) -> None:
    with pytest.raises(ConflictError):
        _check_debit(ATOMIC, 0, rounds)
    with pytest.raises(InvalidVectorError):
        ATOMIC.amount(rounds)


def result(**metrics: float) -> RunResult:
    return RunResult(b"", 10, metrics, "generator/1", "1.0")


def test_metrics_of_the_public_holdout_may_be_published() -> None:
    _check_metrics(result(holdout_loss=0.5, holdout_accuracy=0.9), has_holdout=True)
    _check_metrics(result(), has_holdout=False)


@pytest.mark.parametrize("name", ["training_loss", "loss", "clipped_fraction", "examples", ""])
def test_no_other_statistic_is_published_not_even_beside_a_holdout(name: str) -> None:
    with pytest.raises(InvalidRequestError):
        _check_metrics(result(holdout_loss=0.5, **{name: 0.1}), has_holdout=True)


def test_without_a_public_holdout_no_metric_is_published() -> None:
    with pytest.raises(InvalidRequestError):
        _check_metrics(result(holdout_loss=0.5), has_holdout=False)
