"""ε of one run by its privacy loss distribution (PLD): tighter than Rényi divergence, for statements beside it.

Never for admission: a filter over privacy losses is not valid against adaptive choices (privacy rule 4). It is computed
by dp_accounting in a child process of bounded time and memory, because a careless call asks for 25 GiB, and off the
path of a request, because an ordinary one takes 1 to 3 s.

What is stated is pessimistic: the "connect the dots" discretisation (Doroshenko et al. 2022, arXiv 2207.04380) only
rounds towards more loss, and δ is lowered by a bound on what the Fourier transform's roundoff adds up to. A Gaussian
run is one Gaussian mechanism of noise multiplier z/√rounds, a tree run with squared sensitivity s one of z/√s.

Invariants
- ``pld_epsilon`` never raises for what it is asked: there is an ε, or None and a reason.
- When it returns, its child is dead and reaped, and no pipe is left open. The child limits itself as well, so that it
  ends also if its parent is killed.
- The child gets the question on its standard input and nothing else; of the environment, only where Python finds its
  modules.

This module does not: hold budgets, remember statements, or account for mechanisms of which dp_accounting has no privacy
loss distribution (sampling without replacement).
"""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accountant.codec import decode_event, encode_event
from accountant.curve import DEFAULT_ORDERS, own_units
from accountant.errors import AccountantError
from accountant.events import Event
from accountant.filter import check_delta
from accountant.mechanisms import (
    GaussianTrees,
    Mechanism,
    SampledGaussian,
    SampledWithoutReplacementGaussian,
    resolve,
)
from accountant.tree import squared_sensitivity
from accountant.units import UNITS_PER_NAT

ACCOUNTANT = "pld/1 (dp_accounting 0.4.3, connect the dots)"
MAX_SECONDS = 600.0
MAX_MEGABYTES = 16384.0

# One round's distribution costs about 15 µs per point, for both directions; the composition one Fourier transform.
_POINTS_OF_ONE_ROUND = 60_000
_POINTS_OF_A_RUN = 2**20
_LEAST_INTERVAL = 1e-7
# Roundoff. In masses of one round: about 1e-16 over the interval, in every round. In the δ of a composition by Fourier
# transform: measured below 5e-17 per round, against the closed form of Gaussian mechanisms.
_LEAST_INTERVAL_PER_ROUND = 1e-11
_DELTA_ROUNDOFF_PER_ROUND = 1e-15
_LOG_TAIL = math.log(1e15)  # beyond it lies no more than the library discards anyhow
_LEAST_STATEMENT = 1 / UNITS_PER_NAT  # something was spent all the same


@dataclass(frozen=True, slots=True)
class PldStatement:
    """``epsilon`` is None where there is no number; ``why`` says so then, and is None otherwise."""

    epsilon: float | None
    accountant: str = ACCOUNTANT
    why: str | None = None


def pld_epsilon(
    event: Event, delta: float, relation: str, *, seconds: float = 20, megabytes: float = 1024
) -> PldStatement:
    """ε at ``delta`` of one run alone, from a child process that gets no more than ``seconds`` of time, as much of
    processor time, and ``megabytes`` of address space."""
    try:
        question = {
            "event": encode_event(event),
            "delta": check_delta(delta),
            "relation": relation,
            "seconds": _limit("seconds", seconds, MAX_SECONDS),
            "megabytes": _limit("megabytes", megabytes, MAX_MEGABYTES),
        }
        why = _unsupported(resolve(event, relation), event.rounds, delta)
    except (AccountantError, ValueError) as e:
        return PldStatement(None, why=str(e))
    return PldStatement(None, why=why) if why else _ask(question)


def pld_epsilon_here(event: Event, delta: float, relation: str) -> PldStatement:
    """The same in this process: without bounds. Raises ``AccountantError``, and whatever the library raises."""
    mechanism, delta = resolve(event, relation), check_delta(delta)
    why = _unsupported(mechanism, event.rounds, delta)
    if why:
        return PldStatement(None, why=why)
    gaussian = _as_gaussian(mechanism, event.rounds)
    if gaussian is not None:
        epsilon = _gaussian(gaussian, delta)
    elif isinstance(mechanism, SampledGaussian):
        epsilon = _sampled(mechanism, event.rounds, delta - event.rounds * _DELTA_ROUNDOFF_PER_ROUND)
    else:
        raise TypeError(f"no privacy loss distribution of {mechanism}")
    if not math.isfinite(epsilon):
        return PldStatement(None, why=f"the discarded tails alone weigh more than delta = {delta!r}")
    return PldStatement(max(float(epsilon), _LEAST_STATEMENT))


def main() -> int:
    """The child: a question on standard input, its answer on standard output."""
    question = json.load(sys.stdin)
    memory, seconds = int(question["megabytes"] * 2**20), math.ceil(question["seconds"])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        stated = pld_epsilon_here(decode_event(question["event"]), question["delta"], question["relation"])
    except MemoryError:
        stated = PldStatement(None, why=_out_of("memory", question))
    except (AccountantError, ArithmeticError, ValueError) as e:
        stated = PldStatement(None, why=f"dp_accounting cannot compute it: {e}")
    json.dump({"epsilon": stated.epsilon, "why": stated.why}, sys.stdout)
    return 0


def _limit(name: str, value: object, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise ValueError(f"{name} = {value!r}: must be a number above 0 and at most {most:g}")
    return float(value)


def _unsupported(mechanism: Mechanism, rounds: int, delta: float) -> str | None:
    if _as_gaussian(mechanism, rounds) is not None:
        return None
    if not isinstance(mechanism, SampledGaussian):
        return "dp_accounting has no privacy loss distribution of sampling without replacement; see the RDP value"
    roundoff = rounds * _DELTA_ROUNDOFF_PER_ROUND
    if delta < 2 * roundoff:
        return f"roundoff over {rounds} rounds ({roundoff:g}) comes too near to delta = {delta!r}; see the RDP value"
    return None


def _as_gaussian(mechanism: Mechanism, rounds: int) -> float | None:
    """The noise multiplier of the one Gaussian mechanism that the whole run is, if it is one."""
    match mechanism:
        case SampledGaussian(q, z):
            return z / math.sqrt(rounds) if q == 1.0 else None
        case SampledWithoutReplacementGaussian(population_size, sample_size, z):
            return z / math.sqrt(rounds) if sample_size == population_size else None
        case GaussianTrees(z, trees, max_participation, min_separation):
            return z / math.sqrt(squared_sensitivity(trees, max_participation, min_separation))


def _gaussian(noise_multiplier: float, delta: float) -> float:
    from dp_accounting.pld import privacy_loss_distribution as pld

    low, high = _range(noise_multiplier, 1.0)
    interval = max((high - low) / _POINTS_OF_ONE_ROUND, _LEAST_INTERVAL)
    loss = pld.from_gaussian_mechanism(noise_multiplier, value_discretization_interval=interval)
    return float(loss.get_epsilon_for_delta(delta))


def _sampled(mechanism: SampledGaussian, rounds: int, delta: float) -> float:
    from dp_accounting.pld import privacy_loss_distribution as pld

    q, z = mechanism.sampling_probability, mechanism.noise_multiplier
    low, high = _range(z, q)
    # The losses of a run lie within ±reach, but for a tail: Chernoff's bound, from our own Rényi curve.
    costs = zip(own_units(mechanism, DEFAULT_ORDERS), DEFAULT_ORDERS, strict=True)
    reach = min(rounds * units / UNITS_PER_NAT + _LOG_TAIL / (order - 1) for units, order in costs)
    interval = max(
        (high - low) / _POINTS_OF_ONE_ROUND,
        2 * (reach + high - low) / _POINTS_OF_A_RUN,
        _LEAST_INTERVAL,
        _LEAST_INTERVAL_PER_ROUND * rounds,
    )
    loss = pld.from_gaussian_mechanism(z, sampling_prob=q, value_discretization_interval=interval)
    return float(loss.self_compose(rounds).get_epsilon_for_delta(delta))


def _range(noise_multiplier: float, sampling_probability: float) -> tuple[float, float]:
    """The losses of one round that the library lays a grid over, of both directions."""
    from dp_accounting.pld import privacy_loss_mechanism as mechanisms

    found = [
        mechanisms.GaussianPrivacyLoss(
            noise_multiplier, sampling_prob=sampling_probability, adjacency_type=direction
        ).connect_dots_bounds()
        for direction in (mechanisms.AdjacencyType.ADD, mechanisms.AdjacencyType.REMOVE)
    ]
    return min(bound.epsilon_lower for bound in found), max(bound.epsilon_upper for bound in found)


def _ask(question: dict[str, Any]) -> PldStatement:
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "accountant.pld"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            cwd=_ROOT,
        )
    except OSError as e:
        return PldStatement(None, why=f"no process could be started for it: {e.strerror}")
    with child:  # closes the pipes and waits
        try:
            answer, _ = child.communicate(json.dumps(question).encode(), timeout=question["seconds"])
        except subprocess.TimeoutExpired:
            return PldStatement(None, why=_out_of("time", question))
        except OSError as e:
            return PldStatement(None, why=f"its process could not be asked: {e.strerror}")
        finally:
            child.kill()  # whatever happened, also an interrupt; nothing if it has ended
    return _read(answer, child.returncode, question)


def _read(answer: bytes, status: int, question: dict[str, Any]) -> PldStatement:
    try:
        document = json.loads(answer)
        epsilon, why = document["epsilon"], document["why"]
    except (ValueError, TypeError, KeyError):
        # Killed by the kernel, or out of memory where not even an exception could be made of it.
        limits = f"{question['seconds']:g} s or {question['megabytes']:g} MB"
        return PldStatement(None, why=f"its process ended without an answer (status {status}): beyond {limits}")
    if epsilon is None or not (isinstance(epsilon, float) and math.isfinite(epsilon) and epsilon > 0.0):
        return PldStatement(None, why=str(why or f"its process answered {epsilon!r}"))
    return PldStatement(epsilon)


def _out_of(what: str, question: dict[str, Any]) -> str:
    bound = f"{question['seconds']:g} s" if what == "time" else f"{question['megabytes']:g} MB"
    return f"it takes more {what} than the {bound} that it gets; see the RDP value"


_ROOT = Path(__file__).resolve().parents[1]


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PYTHONHOME") if name in os.environ}
    path = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    # One thread: each more takes address space for buffers that are not used.
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**kept, **threads, "PYTHONPATH": os.pathsep.join(path)}


if __name__ == "__main__":
    sys.exit(main())
