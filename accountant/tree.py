"""The curve of a whole DP-FTRL run: Gaussian noise on every complete node of binary trees, computed twice.

**What is released.** Round t (from 0) of a tree of ``n`` rounds adds a leaf: the sum of clipped contributions. For
every j, the nodes of height j are the blocks of leaves [k 2^j, (k+1) 2^j) that lie wholly within the tree's rounds, and
each node's sum is released once, with fresh noise of standard deviation z·C. What a trainer uses of it (prefix sums,
least-squares combinations of nodes, momentum) is post-processing. Where n is no power of two there is no node for the
incomplete rest: an n-round tree is a row of complete trees whose sizes are the powers of two of n, largest first, and
a run with restarts is the row of the rows.

**Sensitivity.** Fix a pattern: the rounds in which one unit takes part. It is laid out beforehand over fixed slots, at
most ``max_participation`` of the run's rounds and ``min_separation`` or more rounds between two. In the order in which
nodes are completed, the run is an adaptive composition of Gaussian mechanisms: given all earlier outputs, both
neighbours compute the same models, every round's contribution moves by at most C, and so a node that holds k of the
unit's rounds by at most k·C; then z·C of noise costs k²·α/(2z²) at order α, and the costs add up (Mironov 2017,
proposition 1). The total is s·α/(2z²) with s = Σ_nodes k². The pattern is not known here, so s is the largest over all
patterns: an upper bound for each, and the least there is, because some pattern has it (Kairouz et al. 2021, arXiv
2103.00039, appendix D). Were the pattern chosen while the run goes on, s still bounds the sum on every path, which is
what fully adaptive composition needs.

**The maximum** is found twice: by ``forward_squared_sensitivity`` from the first round on, and by
``backward_squared_sensitivity``, another programme, from the last round back. Both are exact, and they must agree, else
nothing is charged. The curve is computed from one of them here, and from the other by dp_accounting.
(tensorflow-privacy's function gives the same numbers wherever it ends in time; the tests compare. It takes
(participations · separation)² steps for each height, minutes for a real job, so it cannot be the second computation
here. Its nodes are those above, also for trees whose size is no power of two.)

*Forward.* A node's state is the first of its rounds that the unit may use. For each number of participations within
it the result is a list of pairs: first round allowed after the node, Σ k² within it. A pair that another beats in both
is dropped: who may start earlier can do whatever who may start later can. The two children's lists combine, and
the node adds the square of its own number. A node no longer than ``min_separation + 1`` holds at most one
participation, as early as possible: one for each height. Equal nodes in equal states are computed once.

*Backward.* The same run, read from its end, is a row of the same trees in the opposite order, and a complete tree is
its own mirror image. For each number of participations a map from Σ k² to the fewest rounds that become closed.

Invariants
- The squared sensitivity is exact: the maximum over patterns of Σ_nodes k².
- Bounded: at most a few seconds within the bounds of ``events``; the es-ES Gboard job takes milliseconds.

This module does not: validate (``events`` does), halve the noise multiplier (``mechanisms`` does), pad or round.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from accountant.errors import CurveDisagreementError
from accountant.mechanisms import GaussianTrees
from accountant.units import RELATIVE_GAP, Floats, checked

_Front = list[tuple[int, int]]  # (first round allowed afterwards, Σ k²), both increasing
_Fronts = list[_Front]  # by number of participations


def own_curve(mechanism: GaussianTrees, orders: tuple[float, ...]) -> Floats:
    """s·α/(2z²) of the whole run, by the forward programme. Raises ``InvalidCurveError``."""
    squared = squared_sensitivity(mechanism.trees, mechanism.max_participation, mechanism.min_separation)
    return checked(mechanism, squared * np.array(orders) / (2 * mechanism.noise_multiplier**2))


def both_curves(mechanism: GaussianTrees, orders: tuple[float, ...]) -> tuple[Floats, Floats]:
    """By the forward programme, and by the backward one with dp_accounting's Gaussian mechanism. Raises
    ``CurveDisagreementError``, ``InvalidCurveError``."""
    import dp_accounting  # here, at the first new curve: it takes a second and most of SciPy
    from dp_accounting import rdp

    own = own_curve(mechanism, orders)
    squared = backward_squared_sensitivity(mechanism.trees, mechanism.max_participation, mechanism.min_separation)
    accountant = rdp.RdpAccountant(list(orders), dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    accountant.compose(dp_accounting.GaussianDpEvent(mechanism.noise_multiplier / math.sqrt(squared)))
    second: Floats = np.asarray(accountant.rdp, dtype=np.float64)
    agrees = np.abs(second - own) <= RELATIVE_GAP * own  # NaN: False. The squares are integers: one more is far beyond.
    if not agrees.all():
        worst = int(np.argmin(agrees))
        raise CurveDisagreementError(mechanism, orders[worst], float(own[worst]), float(second[worst]))
    return own, second


@lru_cache(maxsize=1024)
def squared_sensitivity(trees: tuple[int, ...], max_participation: int, min_separation: int) -> int:
    """The largest Σ_nodes k² that one unit's participations can reach: remembered ``forward_squared_sensitivity``."""
    return forward_squared_sensitivity(trees, max_participation, min_separation)


def forward_squared_sensitivity(trees: tuple[int, ...], max_participation: int, min_separation: int) -> int:
    """The maximum over patterns, from the first round on. ``trees``: their lengths, one after another."""
    programme = _Forward(max_participation, min_separation + 1)
    fronts: _Fronts = [[(0, 0)]]
    for length in trees:
        for height in _heights(length):
            fronts = programme.append(fronts, height)
    return max(value for front in fronts for _, value in front)


def _heights(length: int) -> list[int]:
    """Of the complete trees that a tree of ``length`` leaves consists of, in order."""
    return [height for height in reversed(range(length.bit_length())) if length >> height & 1]


class _Forward:
    """One evaluation, with what it remembers. ``period``: the least distance between two participations."""

    def __init__(self, most: int, period: int) -> None:
        self._most = most
        self._period = period
        self._known: dict[tuple[int, int], _Fronts] = {}

    def append(self, before: _Fronts, height: int) -> _Fronts:
        """The fronts of a row with one more complete tree at its end."""
        found: _Fronts = []
        for count, front in enumerate(before):
            for start, value in front:
                for more, after in enumerate(self._node(height, start)):
                    if count + more > self._most:
                        break
                    while len(found) <= count + more:
                        found.append([])
                    found[count + more].extend([(end, value + inner) for end, inner in after])
        return [_pruned(front) for front in found]

    def _node(self, height: int, start: int) -> _Fronts:
        """The fronts of one complete tree of which the rounds before ``start`` are closed. The recursion is as deep as
        the tree is high: 20 at most."""
        size = 1 << height
        if size <= self._period:
            unused: _Front = [(max(start - size, 0), 0)]
            return [unused, [(start + self._period - size, height + 1)]] if start < size else [unused]
        known = self._known.get((height, start))
        if known is None:
            halves = self.append(self._node(height - 1, start), height - 1)
            known = self._known[height, start] = [
                [(end, value + count * count) for end, value in front] for count, front in enumerate(halves)
            ]
        return known


def _pruned(front: _Front) -> _Front:
    """Without the pairs that another beats: least end first, and then only what is worth more."""
    front.sort(key=lambda pair: (pair[0], -pair[1]))
    kept: _Front = []
    for end, value in front:
        if not kept or value > kept[-1][1]:
            kept.append((end, value))
    return kept


_Closed = dict[int, dict[int, int]]  # number of participations → Σ k² → fewest rounds closed just before


def backward_squared_sensitivity(trees: tuple[int, ...], max_participation: int, min_separation: int) -> int:
    """The maximum over patterns, from the last round back."""
    sizes = [size for length in trees for size in _powers_of_two(length)]
    programme = _Backward(max_participation, min_separation)
    best: _Closed = {0: {0: 0}}
    for size in reversed(sizes):
        best = programme.precede(size, best)
    return max(max(by_value) for by_value in best.values())


def _powers_of_two(length: int) -> list[int]:
    """That sum to ``length``, largest first."""
    powers = []
    while length:
        powers.append(length & -length)
        length &= length - 1
    return powers[::-1]


class _Backward:
    """One evaluation, with what it remembers. "Closed" rounds lie too near to a participation that comes later."""

    def __init__(self, most: int, separation: int) -> None:
        self._most = most
        self._separation = separation
        self._remembered: dict[tuple[int, int], _Closed] = {}

    def precede(self, size: int, later: _Closed) -> _Closed:
        """What can be reached with one more complete tree, of ``size`` leaves, before what comes later."""
        reached: _Closed = {}
        for count, by_value in later.items():
            for value, closed in by_value.items():
                for own_count, own_values in self._tree(size, closed).items():
                    if count + own_count > self._most:
                        continue
                    slots = reached.setdefault(count + own_count, {})
                    for own_value, closes in own_values.items():
                        if closes < slots.get(value + own_value, closes + 1):
                            slots[value + own_value] = closes
        return {count: _useful(by_value) for count, by_value in reached.items()}

    def _tree(self, size: int, closed: int) -> _Closed:
        """A complete tree of which the last ``closed`` leaves are closed."""
        if (size, closed) in self._remembered:
            return self._remembered[size, closed]
        reached: _Closed
        if size <= self._separation + 1:
            reached = {0: {0: max(0, closed - size)}}
            latest = size - 1 - closed  # the leaf that closes least of what lies before
            if latest >= 0:
                reached[1] = {size.bit_length(): self._separation - latest}
        else:
            halves = self.precede(size // 2, self._tree(size // 2, closed))
            reached = {
                count: {value + count**2: closes for value, closes in by_value.items()}
                for count, by_value in halves.items()
            }
        self._remembered[size, closed] = reached
        return reached


def _useful(by_value: dict[int, int]) -> dict[int, int]:
    """Without what closes no fewer rounds than something that is worth more."""
    useful: dict[int, int] = {}
    fewest = math.inf
    for value in sorted(by_value, reverse=True):
        if by_value[value] < fewest:
            useful[value] = by_value[value]
            fewest = by_value[value]
    return useful
