"""``python -m benchmarks [--only NAME] [--list]``: measures, appends to results.jsonl, updates the README's table."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time

from rich.console import Console

from benchmarks import record
from benchmarks.record import Recorder

BENCHMARKS = {
    "admission": "one decision through REST, durable, against a raw query of the policy engine",
    "history": "admission with 100,000 entries in the ledger against 10",
    "contention": "reservations and debits by 32 clients at once, against bare transactions of the same rows",
    "append": "one entry with the Merkle tree against the same transaction without it",
    "proofs": "proofs out of a million entries against computing them from all leaves",
    "verify": "a million entries verified offline, against hashing and parsing the same bytes",
    "clamp": "solve time of a clamp against dp_accounting's calibration",
    "tree": "the charge of a DP-FTRL run, the es-ES job, against tensorflow-privacy's compute_rdp_single_tree",
    "weights": "rounds that the filter's weights cost, against the single best order with all of δ",
    "governed": "governed training against a plain tff.learning script",
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures what PySyTFF costs.")
    parser.add_argument("--only", metavar="NAME", choices=BENCHMARKS, help=f"one of {', '.join(BENCHMARKS)}")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and end")
    options = parser.parse_args(arguments)
    console = Console(width=max(120, Console().width))
    if options.list:
        for name, about in BENCHMARKS.items():
            console.print(f"{name:<10} {about}", highlight=False)
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in [options.only] if options.only else BENCHMARKS:
        console.print(f"[bold]{name}[/bold]: {BENCHMARKS[name]} …", highlight=False)
        recorder, began = Recorder(name), time.monotonic()
        importlib.import_module(f"benchmarks.{name}").run(recorder)
        console.print(record.table(recorder.lines))
        load, took = os.getloadavg()[0], time.monotonic() - began
        console.print(f"{took:.0f} s; load average {load:.1f}\n", highlight=False)
    record.write_readme()
    return 0


if __name__ == "__main__":
    sys.exit(main())
