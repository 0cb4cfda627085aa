"""Adversaries who choose parameters after seeing results, and the δ that they reach, by sums that are exact.

Every mechanism here has finitely many outcomes, so that the δ of a whole game is a finite sum: what is found for a rule
is really reached under it. A Gaussian is used with its output rounded into bins, which costs no more than the Gaussian.
The last mechanism of a game has two outcomes: outcome 1 has probability p with the person and p' without.

If the loss so far is ℓ, a mechanism adds Σ_o max(0, p_o − e^(ε−ℓ) p'_o) to what lies beyond e^ε; the δ of the game is
the expectation of that, with the person.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from accountant.curve import UNITS_PER_NAT
from accountant.filter import Budget
from accountant.kernel import Floats

TWENTY_ORDERS = (*(half / 2 for half in range(4, 12)), *map(float, (6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 32, 64)))
WITHOUT = np.exp(np.linspace(math.log(1e-18), math.log(0.5), 160))  # p'


@dataclass(frozen=True)
class Rule:
    """What a rule admits: all that is debited must fit under one of the bounds."""

    epsilon: float
    orders: tuple[float, ...]
    bounds: Floats  # in nats

    @property
    def alpha(self) -> Floats:
        return np.array(self.orders)


def naive(epsilon: float, delta: float, orders: tuple[float, ...]) -> Rule:
    """ "Some order still fits", with the usual conversion at the full δ."""
    alpha = np.array(orders)
    return Rule(epsilon, orders, epsilon - np.log1p(-1 / alpha) + np.log(delta * alpha) / (alpha - 1))


def ours(budget: Budget) -> Rule:
    return Rule(budget.epsilon, budget.orders, np.array(budget.thresholds(), dtype=np.float64) / UNITS_PER_NAT)


def divergence(order: float, p: Floats, without: Floats) -> Floats:
    """Rényi divergence between the two outcomes' distributions, the larger direction."""
    larger = np.zeros_like(p)
    for a, b in ((p, without), (without, p)):
        one = order * np.log(a) + (1 - order) * np.log(b)
        zero = order * np.log1p(-a) + (1 - order) * np.log1p(-b)
        larger = np.maximum(larger, np.logaddexp(one, zero) / (order - 1))
    return larger


def greatest_with(order: float, room: float) -> Floats:
    """For each p' the greatest p that costs at most ``room`` at this order, by bisection from below."""
    low, high = np.log(WITHOUT), np.full_like(WITHOUT, math.log1p(-1e-15))
    for _ in range(50):
        middle = (low + high) / 2
        affordable = divergence(order, np.exp(middle), WITHOUT) <= room
        low, high = np.where(affordable, middle, low), np.where(affordable, high, middle)
    greatest: Floats = np.exp(low)
    return greatest


def excess(epsilon: float, loss: Floats, p: Floats, without: Floats) -> Floats:
    """By how much each two-outcome mechanism (columns) exceeds e^ε after each loss (rows)."""
    factor = np.exp(epsilon - loss)[:, np.newaxis]
    beyond: Floats = np.maximum(0, p - factor * without) + np.maximum(0, (1 - p) - factor * (1 - without))
    return beyond


def best_last_move(rule: Rule, debited: Floats, loss: Floats) -> Floats:
    """For each order (rows) and loss so far (columns): what the best last mechanism reaches that fits at this order.
    Nothing, where not even what is debited fits."""
    stop = np.maximum(0, 1 - np.exp(rule.epsilon - loss))
    moves = []
    for order, room in zip(rule.orders, rule.bounds - debited, strict=True):
        if room < 0:
            moves.append(np.zeros_like(loss))
        else:
            frontier = greatest_with(order, room)
            moves.append(np.maximum(stop, excess(rule.epsilon, loss, frontier, WITHOUT).max(axis=1)))
    return np.array(moves)


def gaussian_in_bins(cost: float) -> tuple[Floats, Floats]:
    """Probability with the person, and loss, of each bin of a Gaussian whose curve is ``cost``·α."""
    shift = math.sqrt(2 * cost)
    edges = np.concatenate(([-np.inf], np.linspace(-8, shift + 8, 400), [np.inf]))
    with_person, without = _between(edges - shift), _between(edges)
    return with_person, np.log(with_person / without)


def _between(edges: Floats) -> Floats:
    """Mass of the standard normal between neighbouring edges; in the upper half by its mirror, where digits are."""
    lower, upper = edges[:-1], edges[1:]
    mass: Floats = np.where(lower > 0, ndtr(-lower) - ndtr(-upper), ndtr(upper) - ndtr(lower))
    return mass


def gaussian_then_two_outcomes(rule: Rule, first_cost: float) -> tuple[float, Floats]:
    """The δ that is reached by choosing the second mechanism from the first's output, and with each order alone."""
    probability, loss = gaussian_in_bins(first_cost)
    moves = best_last_move(rule, first_cost * rule.alpha, loss)
    return float(probability @ moves.max(axis=0)), moves @ probability


@dataclass(frozen=True)
class Coin:
    """Randomised response: the loss is ``step`` times ``unit`` or minus that, so that losses lie on a lattice."""

    step: int
    unit: float

    @property
    def loss(self) -> float:
        return self.step * self.unit

    @property
    def up(self) -> float:
        return 1 / (1 + math.exp(-self.loss))

    def curve(self, alpha: Floats) -> Floats:
        p, q = math.log(self.up), math.log1p(-self.up)
        cost: Floats = np.logaddexp(alpha * p + (1 - alpha) * q, alpha * q + (1 - alpha) * p) / (alpha - 1)
        return cost


def two_runs_at_once(rule: Rule, coins: tuple[Coin, Coin], rounds: tuple[int, int]) -> float:
    """The δ of the best adversary with two open reservations, by backward induction.

    After every outcome: another round of either run, or release what both have not debited and spend all room that is
    then left on a last mechanism.
    """
    a, b = coins
    reach = a.step * rounds[0] + b.step * rounds[1]
    lattice = np.arange(-reach, reach + 1) * a.unit
    value: dict[tuple[int, int], Floats] = {}
    for i in range(rounds[0], -1, -1):
        for j in range(rounds[1], -1, -1):
            debited = i * a.curve(rule.alpha) + j * b.curve(rule.alpha)
            best = best_last_move(rule, debited, lattice).max(axis=0)
            for coin, after in ((a, (i + 1, j)), (b, (i, j + 1))):
                if after in value:
                    best = np.maximum(best, _expected(coin, value[after]))
            value[i, j] = best
    return float(value[0, 0][reach])


def _expected(coin: Coin, value: Floats) -> Floats:
    """Beyond the lattice's ends nobody comes: there the value is not used."""
    higher = np.concatenate((value[coin.step :], np.zeros(coin.step)))
    lower = np.concatenate((np.zeros(coin.step), value[: -coin.step]))
    expected: Floats = coin.up * higher + (1 - coin.up) * lower
    return expected


def units(curve: Sequence[float] | Floats) -> tuple[int, ...]:
    """As it would be charged: rounded up."""
    return tuple(math.ceil(float(cost) * UNITS_PER_NAT) + 1 for cost in curve)
