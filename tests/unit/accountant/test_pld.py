from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from accountant import pld
from accountant.events import (
    AdaptiveClippingGaussian,
    Event,
    FixedSizeGaussian,
    PoissonGaussian,
    PoissonGaussianStatistics,
    TreeGaussian,
)
from accountant.odometer import run_statement
from accountant.orders import DEFAULT_ORDERS
from accountant.pld import PldStatement, pld_epsilon, pld_epsilon_here
from accountant.relations import ADD_OR_REMOVE_ONE, REPLACE_ONE, REPLACE_SPECIAL

pytestmark = pytest.mark.filterwarnings("ignore:np.find_common_type:DeprecationWarning")  # SciPy's own

RUN = PoissonGaussian(0.01, 1.0, 100)


def open_files() -> set[str]:
    return {os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _exists(name)}


def _exists(name: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{name}")


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def epsilon(event: Event, delta: float, relation: str = ADD_OR_REMOVE_ONE) -> float:
    stated = pld_epsilon_here(event, delta, relation)
    assert stated.epsilon is not None, stated.why
    return stated.epsilon


def exact_gaussian_delta(eps: float, z: float) -> float:
    """Balle and Wang (2018, theorem 8)."""

    def below(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    return below(1 / (2 * z) - eps * z) - math.exp(eps) * below(-1 / (2 * z) - eps * z)


GRID: list[tuple[Event, str]] = [
    (PoissonGaussian(0.001, 0.6, 2000), ADD_OR_REMOVE_ONE),
    (PoissonGaussian(0.01, 1.0, 1000), ADD_OR_REMOVE_ONE),
    (PoissonGaussian(0.1, 3.0, 300), REPLACE_SPECIAL),
    (PoissonGaussian(0.5, 20.0, 10), ADD_OR_REMOVE_ONE),
    (PoissonGaussian(1e-4, 0.5, 100), ADD_OR_REMOVE_ONE),
    (PoissonGaussian(1.0, 4.0, 30), REPLACE_ONE),
    (PoissonGaussianStatistics(0.01, (1.5, 2.0), 100), ADD_OR_REMOVE_ONE),
    (AdaptiveClippingGaussian(0.02, 1.1, 20.0, 100), ADD_OR_REMOVE_ONE),
    (FixedSizeGaussian(50, 50, 8.0, 10), REPLACE_ONE),
    (TreeGaussian(7.0, 2000, 6, 313), REPLACE_SPECIAL),
    (TreeGaussian(7.0, 2000, 6, 313), REPLACE_ONE),
]


@pytest.mark.parametrize(("event", "relation"), GRID)
def test_it_never_states_more_than_renyi_divergence(event: Event, relation: str) -> None:
    assert 0.0 < epsilon(event, 1e-6, relation) <= run_statement(event, 1e-6, DEFAULT_ORDERS, relation)


@pytest.mark.parametrize(("z", "rounds"), [(0.7, 2), (3.0, 50), (40.0, 1), (0.3, 1)])
@pytest.mark.parametrize("delta", [1e-4, 1e-9])
def test_a_gaussian_run_has_the_exact_epsilon(z: float, rounds: int, delta: float) -> None:
    stated = epsilon(PoissonGaussian(1.0, z, rounds), delta)
    alone = z / math.sqrt(rounds)

    assert exact_gaussian_delta(stated, alone) <= delta * (1 + 1e-6)
    assert exact_gaussian_delta(stated * (1 - 1e-4), alone) > delta


def test_a_tree_is_one_gaussian_mechanism() -> None:
    stated = epsilon(TreeGaussian(7.0, 2000, 6, 313), 1e-10, REPLACE_SPECIAL)

    assert 1e-10 == pytest.approx(exact_gaussian_delta(stated, 7.0 / math.sqrt(79)), rel=1e-3)


def test_statistics_of_one_cohort_cost_what_they_are_together() -> None:
    # Privacy rule 9: 7.7 if added as two events, 17.2 in truth.
    assert 17.2 == pytest.approx(epsilon(PoissonGaussianStatistics(0.01, (0.5, 0.5), 100), 1e-5), rel=0.01)


def test_sampling_nearly_everybody_is_nearly_the_gaussian_mechanism() -> None:
    # Two quite different paths: a Fourier transform, and a closed form.
    assert epsilon(PoissonGaussian(1.0, 8.0, 30), 1e-6) == pytest.approx(
        epsilon(PoissonGaussian(1 - 1e-9, 8.0, 30), 1e-6), rel=1e-3
    )


def test_the_child_states_what_this_process_states() -> None:
    before, others = open_files(), children()  # who else ran tests in this process may have left some
    stated = pld_epsilon(RUN, 1e-5, ADD_OR_REMOVE_ONE)

    assert pld_epsilon_here(RUN, 1e-5, ADD_OR_REMOVE_ONE) == stated
    assert stated.why is None
    assert "dp_accounting 0.4.3" in stated.accountant
    assert before == open_files()
    assert others == children()


def test_a_child_out_of_time_is_killed_and_leaves_nothing() -> None:
    before, others = open_files(), children()
    stated = pld_epsilon(RUN, 1e-5, ADD_OR_REMOVE_ONE, seconds=0.05)

    assert stated.epsilon is None
    assert "0.05 s" in (stated.why or "")
    assert before == open_files()
    assert others == children()


def test_a_child_out_of_memory_says_so() -> None:
    stated = pld_epsilon(RUN, 1e-5, ADD_OR_REMOVE_ONE, megabytes=40)

    assert stated.epsilon is None
    assert "40 MB" in (stated.why or "")


def test_a_child_that_cannot_be_started_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    stated = pld_epsilon(RUN, 1e-5, ADD_OR_REMOVE_ONE)
    assert (None, True) == (stated.epsilon, "No such file" in (stated.why or ""))


@pytest.mark.parametrize("program", ["", "print('{')", "print('[]')", 'print(\'{"epsilon": -1, "why": null}\')'])
def test_a_child_that_answers_nonsense_is_no_number(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    start = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **options: start([sys.executable, "-c", program], **options)
    )

    stated = pld_epsilon(RUN, 1e-5, ADD_OR_REMOVE_ONE)
    assert stated.epsilon is None
    assert stated.why


@pytest.mark.parametrize("delta", [0.0, 1.0, math.nan, math.inf, -1e-6, None, "1e-6", True])
def test_a_bad_delta_is_no_number(delta: Any) -> None:
    stated = pld_epsilon(RUN, delta, ADD_OR_REMOVE_ONE)

    assert (None, True) == (stated.epsilon, "delta" in (stated.why or ""))


@pytest.mark.parametrize("bound", [0, -1, math.nan, math.inf, True, None, "1", 10**9])
def test_a_bad_bound_is_no_number(bound: Any) -> None:
    for bounds in ({"seconds": bound}, {"megabytes": bound}):
        stated = pld_epsilon(RUN, 1e-5, ADD_OR_REMOVE_ONE, **bounds)

        assert (None, True) == (stated.epsilon, next(iter(bounds)) in (stated.why or ""))


@pytest.mark.parametrize(
    ("event", "delta", "relation", "why"),
    [
        (FixedSizeGaussian(100, 10, 1.0, 10), 1e-6, REPLACE_ONE, "without replacement"),
        (FixedSizeGaussian(100, 10, 1.0, 10), 1e-6, ADD_OR_REMOVE_ONE, "REPLACE_ONE"),
        (PoissonGaussian(0.5, 1.0, 10), 1e-6, REPLACE_ONE, "exchanged"),
        (PoissonGaussian(0.5, 1.0, 1000), 1e-13, ADD_OR_REMOVE_ONE, "roundoff"),
        (RUN, 1e-6, "REPLACE", "relation"),
        ("poisson_gaussian", 1e-6, ADD_OR_REMOVE_ONE, "unknown event"),
    ],
)
def test_what_is_not_supported_says_why_without_a_child(
    monkeypatch: pytest.MonkeyPatch, event: Any, delta: float, relation: str, why: str
) -> None:
    monkeypatch.delattr(subprocess, "Popen")

    stated = pld_epsilon(event, delta, relation)
    assert (None, True) == (stated.epsilon, why in (stated.why or ""))


def test_a_run_whose_losses_leave_the_range_of_floats_is_no_number() -> None:
    stated = pld_epsilon(PoissonGaussian(1.0, 0.1, 10**7), 1e-6, ADD_OR_REMOVE_ONE)

    assert (None, True) == (stated.epsilon, "dp_accounting" in (stated.why or ""))


def test_a_tiny_run_is_never_free() -> None:
    assert epsilon(PoissonGaussian(1e-7, 1e4, 1), 1e-3) > 0.0


def test_the_child_needs_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    assert pld_epsilon(RUN, 1e-5, ADD_OR_REMOVE_ONE).epsilon is not None


def test_the_child_limits_itself() -> None:
    program = "import resource, accountant.pld as pld; pld.main(); print(); print(*resource.getrlimit(resource.{}))"
    question = {"event": None, "delta": 0.5, "relation": "x", "seconds": 7.5, "megabytes": 2000.0}
    for limit, expected in (("RLIMIT_AS", 2000 * 2**20), ("RLIMIT_CPU", 8), ("RLIMIT_CORE", 0)):
        command = [sys.executable, "-c", program.format(limit)]
        child = subprocess.run(
            command, input=json.dumps(question), capture_output=True, text=True, check=True, env=pld._environment()
        )
        answer, limits = child.stdout.splitlines()

        assert [str(expected)] * 2 == limits.split()
        assert json.loads(answer)["epsilon"] is None


def test_a_statement_is_a_number_or_a_reason() -> None:
    assert PldStatement(1.0, why=None) == PldStatement(1.0)
    assert "pld/1" in PldStatement(None, why="because").accountant
