from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
EVERYTHING = (
    "import accountant.calibration, accountant.charge, accountant.codec, accountant.odometer, accountant.pld, "
    "accountant.weights, sys; "
)


def loaded(code: str) -> set[str]:
    command = [sys.executable, "-c", f"{EVERYTHING}{code}; print(*sys.modules)"]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_accountant_loads_neither_tensorflow_nor_the_slow_libraries() -> None:
    assert set() == loaded("pass") & {"tensorflow", "jax", "dp_accounting", "scipy", "sqlalchemy", "httpx"}


def test_charging_a_curve_loads_dp_accounting_and_still_no_tensorflow() -> None:
    modules = loaded("from accountant.curve import round_curve; round_curve(0.5, 1.0, (2.0, 3.0))")

    assert "dp_accounting" in modules
    assert set() == modules & {"tensorflow", "tensorflow_privacy", "jax"}


def test_charging_a_tree_loads_neither_tensorflow_nor_tensorflow_privacy() -> None:
    modules = loaded(
        "from accountant.charge import charge; from accountant.events import TreeGaussian; "
        "charge(TreeGaussian(7.0, 2000, 6, 313), (2.0, 3.0), 'REPLACE_SPECIAL')"
    )

    assert set() == modules & {"tensorflow", "tensorflow_privacy", "jax"}


def test_our_own_estimates_load_no_library() -> None:
    modules = loaded(
        "from accountant.charge import own_estimate; from accountant.events import FixedSizeGaussian; "
        "own_estimate(FixedSizeGaussian(100, 10, 1.0, 5), (2.0, 3.0), 'REPLACE_ONE')"
    )

    assert set() == modules & {"dp_accounting", "scipy", "tensorflow"}
