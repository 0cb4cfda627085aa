"""``history``: admission through REST with 100,000 entries in the ledger against 10, in turns, on both databases.

The entries are those of past runs, from request to publication, in a valid tree.

Beside it, what a gate would pay that recomposes the history with ``dp_accounting`` for every request, at 100 runs.
"""

from __future__ import annotations

from contextlib import ExitStack

import dp_accounting
from dp_accounting import rdp

from benchmarks.past import add_entries
from benchmarks.record import Recorder
from benchmarks.stage import POSTGRES, SQLITE, Submitter, api, stage
from benchmarks.timing import interleaved, milliseconds, p50

_MANY, _FEW = 100_000, 10  # entries
_TURNS, _WARM_UP = 300, 40
RECOMPOSED_RUNS = 100


def run(recorder: Recorder) -> None:
    admission = 0.0
    for engine in (SQLITE, POSTGRES):
        with stage() as theatre, ExitStack() as stack:
            submit = {}
            for count in (_MANY, _FEW):
                site = theatre.site(engine)
                add_entries(site, theatre.opa, count)
                served = stack.enter_context(api(site))
                submit[f"{count:,} entries"] = Submitter(site, served.port)
            took = interleaved(dict(submit), times=_TURNS, warm_up=_WARM_UP)
        many, few = (p50(took[name]) for name in submit)
        recorder.add(f"{engine}, {_MANY:,} entries, p50", many, "ms", baseline=(f"{_FEW} entries", few), aim="<= 1.1")
        admission = admission or many
    recorder.add(
        f"recomposition of {RECOMPOSED_RUNS} runs by dp_accounting",
        p50([milliseconds(_recompose) for _ in range(3)]),
        "ms",
        baseline=(f"{SQLITE}, admission with {_MANY:,} entries", admission),
    )


def past_events() -> list[dp_accounting.DpEvent]:
    """100 runs, no two alike, of the size of the digits demo's."""
    return [
        dp_accounting.SelfComposedDpEvent(
            dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(z)), rounds
        )
        for q, z, rounds in past_parameters()
    ]


def past_parameters() -> list[tuple[float, float, int]]:
    """(sampling probability, noise multiplier, rounds) of each past run."""
    return [((20 + number) / 10_000, 1.5 + number / 50, 10 + number) for number in range(RECOMPOSED_RUNS)]


def _recompose() -> float:
    accountant = rdp.RdpAccountant()
    for past in past_events():
        accountant.compose(past)
    return float(accountant.get_epsilon(1e-6))
