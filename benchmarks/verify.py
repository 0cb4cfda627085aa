"""``verify``: ``pysytff-verify`` over a million entries, offline, in a process of its own.

The baseline does what any reader of the same file must: SHA-256 over the bytes, and ``json.loads`` of every line, in a
process of its own too. Neither needs the other's results. The aims are a minute and 500 MB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.record import ROOT, Recorder
from benchmarks.verify_ledger import Made, make

_ENTRIES = 1_000_000
_BASELINE = """
import hashlib, json, sys
digest = hashlib.sha256()
with open(sys.argv[1], "rb", buffering=2**20) as file:
    for line in file:
        digest.update(line)
        json.loads(line)
"""


class _Child(NamedTuple):
    seconds: float
    processor: float  # seconds of it
    megabytes: float  # resident, at most
    output: str


def run(recorder: Recorder) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = make(Path(folder), _ENTRIES)
        size = made.ledger.stat().st_size / 2**20
        baseline = _child([sys.executable, "-c", _BASELINE, str(made.ledger)])
        ours = _child(_command(made))
        report = json.loads(ours.output)
        if not report["verified"] or report["entries"] != _ENTRIES:
            raise RuntimeError(f"the ledger was not verified: {report['findings'][:3]}")
    label = f"SHA-256 and json.loads of the same {size:.0f} MiB"
    recorder.add("a million entries, offline", ours.seconds, "s", baseline=(label, baseline.seconds), aim="< 60 s")
    recorder.add("the same, processor time", ours.processor, "s", baseline=(label, baseline.processor))
    recorder.add("peak memory", ours.megabytes, "MB", aim="< 500 MB")


def _command(made: Made) -> list[str]:
    module = [sys.executable, "-m", "governance.ledger.verify_main", str(made.ledger)]
    return [*module, "--checkpoint", str(made.checkpoint), "--log-key", made.log_key, "--json"]


def _child(command: list[str]) -> _Child:
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode != 0:
        raise RuntimeError(f"{command[1:3]} ended with {process.returncode}: {output[-2000:]}")
    processor = usage.ru_utime + usage.ru_stime
    return _Child(seconds, processor, usage.ru_maxrss * 1024 / 10**6, output)
