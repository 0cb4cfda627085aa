"""Runs every check and every test of this checkout, one line each: what ``make test`` and ``make lint`` call.

Invariants
- A check that fails shows all that it printed; the others still run, and the exit status is 1.
- Tests run only after every check has passed, so that a typing error is not found after ten minutes of training.

This module does not: install anything, or decide what the checks are set to (``pyproject.toml`` does).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scripts import get_opa

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lint", action="store_true", help="the checks only, without the tests")
    only_checks: bool = parser.parse_args(arguments).lint
    opa = get_opa.ensure()
    started = time.monotonic()
    failed = [name for name, command in checks(opa.path) if not _run(name, command)]
    if not failed and not only_checks:
        failed = [name for name, command in tests() if not _run(name, command, shown=True)]
    took = f"{time.monotonic() - started:.0f} s"
    print(f"\nfailed after {took}: {', '.join(failed)}" if failed else f"\nall passed in {took}", flush=True)
    return 1 if failed else 0


def checks(opa: Path) -> list[tuple[str, list[str]]]:
    strict = [str(opa), "check", "--strict"]
    typed = ["--schema", "policies/input.schema.json", "--capabilities", "policies/capabilities.json"]
    decided = [f"policies/{name}" for name in ("gate.rego", "gate_test.rego", "admission", "demo", "testing")]
    return [
        ("ruff check", [str(BIN / "ruff"), "check", "."]),
        ("ruff format", [str(BIN / "ruff"), "format", "--check", "."]),
        ("mypy --strict", [str(BIN / "mypy")]),
        ("import directions", [str(BIN / "lint-imports")]),
        ("opa fmt", [str(opa), "fmt", "--diff", "--fail", "policies"]),
        ("opa check", [*strict, *typed, *decided]),
        ("opa check system", [*strict, "policies/system"]),  # OPA's own rules have another input
        ("opa test", [str(opa), "test", "--ignore", "*.json", "--fail-on-empty", "policies"]),
    ]


def tests() -> list[tuple[str, list[str]]]:
    """End-to-end tests run one at a time: each trains with TensorFlow, on its own as much as two processors give."""
    pytest = [str(BIN / "python"), "-m", "pytest", "-q"]
    return [
        (
            "unit, property and integration tests",
            [*pytest, "-n", "2", "--dist", "loadfile", *_there("unit", "properties", "integration")],
        ),
        ("end-to-end tests", [*pytest, *_there("e2e")]),
    ]


def _there(*names: str) -> list[str]:
    return [f"tests/{name}" for name in names if (ROOT / "tests" / name).is_dir()]


def _run(name: str, command: list[str], *, shown: bool = False) -> bool:
    started = time.monotonic()
    if shown:
        print(f"\n--- {name}", flush=True)
    result = subprocess.run(command, cwd=ROOT, env=_environment(), text=True, capture_output=not shown)
    passed = result.returncode == 0
    print(f"{'ok  ' if passed else 'FAIL'} {name} ({time.monotonic() - started:.1f} s)", flush=True)
    if not passed and not shown:
        print((result.stdout + result.stderr).rstrip(), flush=True)
    return passed


def _environment() -> dict[str, str]:
    """The tests find OPA as a user's process does, and no setting of this machine's own node reaches them."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("PYSYTFF_") and name != "DATABASE_URL"
    }
    return kept | {"PYSYTFF_OPA_PATH": os.environ["PYSYTFF_OPA_PATH"]} if "PYSYTFF_OPA_PATH" in os.environ else kept


if __name__ == "__main__":
    try:
        sys.exit(main())
    except get_opa.OpaError as failure:
        sys.exit(f"OPA: {failure}")
