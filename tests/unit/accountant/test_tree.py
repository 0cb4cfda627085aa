"""The squared sensitivity of trees against exhaustive enumeration and against tensorflow-privacy's own function."""

from __future__ import annotations

import itertools
import random
import sys
from types import ModuleType

import dp_accounting
import numpy as np
import pytest
from dp_accounting import rdp

from accountant import tree
from accountant.errors import CurveDisagreementError
from accountant.mechanisms import GaussianTrees
from accountant.orders import DEFAULT_ORDERS
from accountant.tree import backward_squared_sensitivity, forward_squared_sensitivity

BOTH = [forward_squared_sensitivity, backward_squared_sensitivity]


@pytest.fixture(scope="module")
def library() -> ModuleType:
    sys.skip_tf_privacy_import = True  # type: ignore[attr-defined]  # the package's own switch: without TensorFlow
    from tensorflow_privacy.privacy.analysis import tree_aggregation_accountant

    return tree_aggregation_accountant  # type: ignore[no-any-return]


def enumerated(trees: tuple[int, ...], max_participation: int, min_separation: int) -> int:
    """Every pattern of participations, every complete node, straight from the definition."""
    nodes, start = [], 0
    for length in trees:
        size = 1
        while size <= length:
            nodes += [range(start + at, start + at + size) for at in range(0, length - size + 1, size)]
            size *= 2
        start += length
    return max(
        sum(sum(leaf in node for leaf in pattern) ** 2 for node in nodes)
        for count in range(1, max_participation + 1)
        for pattern in itertools.combinations(range(sum(trees)), count)
        if all(later - earlier > min_separation for earlier, later in itertools.pairwise(pattern))
    )


@pytest.mark.parametrize("rounds", range(1, 14))
@pytest.mark.parametrize("min_separation", [0, 1, 2, 3, 5, 8])
def test_one_tree_agrees_with_every_pattern(rounds: int, min_separation: int) -> None:
    for most in (1, 2, 3, 4):
        expected = enumerated((rounds,), most, min_separation)

        assert [expected, expected] == [compute((rounds,), most, min_separation) for compute in BOTH]


def test_random_restarts_agree_with_every_pattern() -> None:
    random_cases = random.Random(20260101)
    for _ in range(150):
        trees = tuple(random_cases.randint(1, 7) for _ in range(random_cases.randint(1, 3)))
        most, separation = random_cases.randint(1, 4), random_cases.randint(0, 6)
        expected = enumerated(trees, most, separation)

        assert [expected, expected] == [compute(trees, most, separation) for compute in BOTH], (trees, most, separation)


def test_random_trees_agree_with_tensorflow_privacy(library: ModuleType) -> None:
    random_cases = random.Random(20260102)
    for _ in range(80):
        rounds = random_cases.randint(1, 300)
        most, separation = random_cases.randint(1, 6), random_cases.randint(0, 12)
        library._tree_sensitivity_square_sum.cache_clear()
        expected = library._max_tree_sensitivity_square_sum(most, separation, rounds)

        assert [expected, expected] == [compute((rounds,), most, separation) for compute in BOTH]


@pytest.mark.parametrize(("rounds", "most", "separation"), [(512, 4, 30), (600, 3, 20), (1000, 8, 9)])
def test_medium_trees_have_tensorflow_privacys_curve(
    library: ModuleType, rounds: int, most: int, separation: int
) -> None:
    orders = list(DEFAULT_ORDERS)
    expected = library.compute_rdp_single_tree(1.7, rounds, most, separation, orders)

    for curve in tree.both_curves(GaussianTrees(1.7, (rounds,), most, separation), DEFAULT_ORDERS):
        np.testing.assert_allclose(curve, expected, rtol=1e-12)


@pytest.mark.parametrize("trees", [(1,), (8,), (9, 9), (1600,), (100, 300, 77), (1, 2, 3, 4, 5)])
def test_one_participation_in_each_tree_agrees_with_the_librarys_restarts(
    library: ModuleType, trees: tuple[int, ...]
) -> None:
    # The library has one participation in every tree, at its worst place. Apart, each tree alone is that.
    expected = library.compute_rdp_tree_restart(1.7, list(trees), 2.0)

    assert expected == pytest.approx(sum(forward_squared_sensitivity((length,), 1, 0) for length in trees) / 1.7**2)


@pytest.mark.parametrize("trees", [(1,), (2,), (7,), (8,), (1600,), (100, 300, 77)])
def test_one_participation_in_all_agrees_with_dp_accountings_event(trees: tuple[int, ...]) -> None:
    accountant = rdp.RdpAccountant([2.0], dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    accountant.compose(dp_accounting.SingleEpochTreeAggregationDpEvent(1.7, list(trees)))

    for compute in BOTH:
        assert accountant.rdp[0] == pytest.approx(compute(trees, 1, 0) / 1.7**2)


def test_the_es_es_job_has_79() -> None:
    # In tensorflow-privacy this takes minutes. What it takes here is measured by benchmarks/tree.py.
    assert [79, 79] == [compute((2000,), 6, 313) for compute in BOTH]


@pytest.mark.parametrize("trees", [(2**20 - 1,), (2**19, 2**19), (777,) * 64])
@pytest.mark.parametrize("most", [1, 7, 128])
def test_long_runs_agree_both_ways(trees: tuple[int, ...], most: int) -> None:
    separation = sum(trees) // 100

    assert 1 == len({compute(trees, most, separation) for compute in BOTH})


def test_everybody_always_fills_every_node() -> None:
    # 16 leaves: 16·1 + 8·4 + 4·16 + 2·64 + 256
    assert 16 + 32 + 64 + 128 + 256 == forward_squared_sensitivity((16,), 16, 0)


def test_more_participations_less_separation_and_fewer_restarts_never_cost_less() -> None:
    for rounds in (37, 64, 100):
        by_participation = [forward_squared_sensitivity((rounds,), most, 4) for most in range(1, 20)]
        by_separation = [forward_squared_sensitivity((rounds,), 5, separation) for separation in range(20)]

        assert by_participation == sorted(by_participation)
        assert by_separation == sorted(by_separation, reverse=True)
    assert forward_squared_sensitivity((32, 32), 6, 4) <= forward_squared_sensitivity((64,), 6, 4)


def test_the_limits_hold_across_a_restart() -> None:
    # Alone, each tree could hold one participation; together they hold one, because they are too near.
    assert forward_squared_sensitivity((4, 4), 2, 7) == forward_squared_sensitivity((4,), 1, 0) == 3


def test_two_programmes_that_differ_charge_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "backward_squared_sensitivity", lambda *job: forward_squared_sensitivity(*job) + 1)

    with pytest.raises(CurveDisagreementError):
        tree.both_curves(GaussianTrees(3.0, (2000,), 6, 313), (2.0, 3.0))
