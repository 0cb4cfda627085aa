"""Measuring: interleaved, so that what else the machine does falls on all sides alike; medians after a warm-up."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Work = Callable[[], object]


def milliseconds(work: Work) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def interleaved(works: Mapping[str, Work], *, times: int, warm_up: int = 0) -> dict[str, list[float]]:
    """Milliseconds of each work, one after another in turns. Every other turn goes backwards."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(-warm_up, times):
        for name in list(works) if turn % 2 else reversed(list(works)):
            took = milliseconds(works[name])
            if turn >= 0:
                found[name].append(took)
    return found


def p50(values: Sequence[float]) -> float:
    return statistics.median(values)


def p99(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def fsync_milliseconds(folder: Path, times: int = 50) -> float:
    """Median of one 4 kB append that reaches the disk: a commit cannot be faster."""
    file = os.open(folder / "fsync", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:

        def append() -> None:
            os.write(file, b"\0" * 4096)
            os.fdatasync(file)

        return p50([milliseconds(append) for _ in range(times)])
    finally:
        os.close(file)
        (folder / "fsync").unlink()
