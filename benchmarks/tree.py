"""``tree``: what a DP-FTRL run costs, by us and by tensorflow-privacy's ``compute_rdp_single_tree``.

The job is that of the es-ES Gboard model (2000 rounds, 6 participations at most, 313 rounds between two). The library
takes minutes for it, so it runs in a child process that is killed after ``_BOUND`` seconds: unless it ends before, its
figure is a lower bound, our ratio an upper bound, and the table says so. A smaller job, which the library ends, shows
a ratio without a bound, and that both say the same.

Our time is the whole charge of a run that was never asked for: both of our dynamic programmes and dp_accounting's curve
at all orders. The libraries are loaded beforehand on both sides.
"""

from __future__ import annotations

import json
import subprocess
import sys

from accountant import curve, tree
from accountant.charge import charge
from accountant.curve import DEFAULT_ORDERS, UNITS_PER_NAT
from accountant.events import TreeGaussian
from accountant.relations import REPLACE_SPECIAL
from benchmarks.record import Recorder
from benchmarks.timing import milliseconds, p50

_ES_ES = TreeGaussian(7.0, 2000, 6, 313)
_SMALL = TreeGaussian(7.0, 1000, 6, 12)
_BOUND = 90  # seconds
_TIMES = 20

_LIBRARY = """
import json, sys, time
sys.skip_tf_privacy_import = True  # the package's own switch: without TensorFlow
from tensorflow_privacy.privacy.analysis import tree_aggregation_accountant as library
noise, rounds, most, separation, orders = json.load(sys.stdin)
began = time.perf_counter()
curve = library.compute_rdp_single_tree(noise, rounds, most, separation, orders)
print(json.dumps([time.perf_counter() - began, list(curve)]))
"""


def run(recorder: Recorder) -> None:
    charge(TreeGaussian(9.0, 10, 1, 0), DEFAULT_ORDERS, REPLACE_SPECIAL)  # loads the library
    ours = p50([_cold(_ES_ES) for _ in range(_TIMES)]) / 1000
    small = p50([_cold(_SMALL) for _ in range(_TIMES)]) / 1000
    seconds, name = _BOUND * 1.0, f"compute_rdp_single_tree, killed after {_BOUND} s: the ratio is an upper bound"
    ended = _library(_ES_ES, _BOUND)
    if ended is not None:
        seconds, name = ended, "compute_rdp_single_tree"
    recorder.add("es-ES job, charged curve", ours, "s", baseline=(name, seconds), aim="<= 0.004")
    recorder.add("es-ES job, charged curve, in seconds", ours, "s", aim="< 1 s")
    squared = tree.squared_sensitivity(_ES_ES.trees, _ES_ES.participations, _ES_ES.min_separation)
    recorder.add("es-ES job, squared sensitivity", squared, "", baseline=("published", 79), aim="= 1")
    within = _library(_SMALL, _BOUND)
    if within is not None:
        label = "compute_rdp_single_tree, to its end"
        recorder.add("1000 rounds, 6 participations, 12 between", small, "s", baseline=(label, within))


def _cold(event: TreeGaussian) -> float:
    curve._memo.clear()
    tree.squared_sensitivity.cache_clear()
    return milliseconds(lambda: charge(event, DEFAULT_ORDERS, REPLACE_SPECIAL))


def _library(event: TreeGaussian, bound: float) -> float | None:
    """Seconds that the library takes, or None if it does not end in time. Its curve must be ours."""
    question = (event.noise_multiplier, event.rounds, event.max_participation, event.min_separation, DEFAULT_ORDERS)
    command = [sys.executable, "-c", _LIBRARY]
    try:
        ended = subprocess.run(
            command, input=json.dumps(question), capture_output=True, text=True, check=True, timeout=bound
        )
    except subprocess.TimeoutExpired:  # it is dead then
        return None
    seconds, theirs = json.loads(ended.stdout)
    units = charge(event, DEFAULT_ORDERS, REPLACE_SPECIAL).total
    for own, other in zip(units, theirs, strict=True):
        if not other * UNITS_PER_NAT <= own <= other * UNITS_PER_NAT * (1 + 1e-8) + 10:
            raise RuntimeError(f"not the same curve: {own / UNITS_PER_NAT} against {other}")
    return float(seconds)
