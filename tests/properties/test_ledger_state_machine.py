"""Any interleaving of admissions, debits, ends, crashes and time leaves a ledger that holds its promises.

On SQLite and PostgreSQL. ``PYSYTFF_LEDGER_MINUTES=10`` searches for so long on each, with fresh randomness and printed
seeds, and shrinks what it finds; without it the examples are the same each time.
"""

from __future__ import annotations

import os
import random
import time

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.properties.ledger_arithmetic import unit_cost
from tests.properties.ledger_machine import LedgerMachine
from tests.properties.ledger_operations import SHAPES
from tests.properties.ledger_site import Copies

MINUTES = float(os.environ.get("PYSYTFF_LEDGER_MINUTES", "0"))
BOUNDED = settings(
    max_examples=int(os.environ.get("PYSYTFF_LEDGER_EXAMPLES", "20")),
    stateful_step_count=50,
    deadline=None,
    database=None,
    derandomize=not MINUTES,
    print_blob=True,
    report_multiple_bugs=False,
    phases=(Phase.generate, Phase.shrink) if MINUTES else (Phase.generate,),  # shrinking takes minutes
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(900 + MINUTES * 60)
@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_a_ledger_keeps_its_promises_under_any_interleaving(engine: str, request: pytest.FixtureRequest) -> None:
    copies: Copies = request.getfixturevalue(f"{engine}_copies")
    for clients, pool, noise, _ in SHAPES.values():
        unit_cost(clients / pool, noise)  # before anybody waits for it
    machine = type("Machine", (LedgerMachine,), {"copies": copies})
    end = time.monotonic() + MINUTES * 60
    while True:
        number = random.SystemRandom().randrange(2**32) if MINUTES else 0
        if MINUTES:
            print(f"seed {number}", flush=True)
        run_state_machine_as_test(seed(number)(machine) if MINUTES else machine, settings=BOUNDED)
        if time.monotonic() >= end:
            return
