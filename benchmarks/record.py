"""One line for each figure: in ``results.jsonl`` for machines, in a table for people.

Invariants
- Value and baseline come from the same run; ``ratio`` is value / baseline.
- Lines are appended and never changed. They hold no path and no host name.

This module does not: measure.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.table import Table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results.jsonl"
README = HERE / "README.md"
_MARKS = "<!-- table -->\n", "<!-- end of table -->"


@dataclass(frozen=True, slots=True)
class Line:
    """``aim``: on the ratio (``<= 1.1``), on the value (``<= R + 6 ms`` with R the baseline, ``< 300 MB``), or None
    where the line is for information.
    """

    name: str
    metric: str
    value: float
    unit: str
    baseline: str | None
    baseline_value: float | None
    ratio: float | None
    aim: str | None
    load1: float
    commit: str

    @property
    def met(self) -> bool | None:
        if self.aim is None:
            return None
        beyond_baseline = re.fullmatch(r"<= R \+ ([\d.]+) ms", self.aim)
        if beyond_baseline and self.baseline_value is not None:
            return self.value <= self.baseline_value + float(beyond_baseline[1])
        parts = re.fullmatch(r"(<=|>=|<|=) ([\d.]+)( \w+)?", self.aim)
        if parts is None:
            raise ValueError(f"unreadable aim {self.aim!r}")
        measured = self.value if parts[3] else self.ratio
        if measured is None:
            raise ValueError(f"{self.metric} has an aim for a ratio and no baseline")
        bound = float(parts[2])
        return {"<=": measured <= bound, ">=": measured >= bound, "<": measured < bound, "=": measured == bound}[
            parts[1]
        ]


class Recorder:
    """Lines of one benchmark."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.lines: list[Line] = []

    def add(
        self,
        metric: str,
        value: float,
        unit: str,
        *,
        baseline: tuple[str, float] | None = None,
        aim: str | None = None,
    ) -> None:
        label, reference = baseline or (None, None)
        ratio = None if reference is None else _rounded(value / reference)
        load = round(os.getloadavg()[0], 2)
        line = Line(
            self._name,
            metric,
            _rounded(value),
            unit,
            label,
            None if reference is None else _rounded(reference),
            ratio,
            aim,
            load,
            commit(),
        )
        self.lines.append(line)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(line), ensure_ascii=False) + "\n")


def commit() -> str:
    """The commit that is measured; ``+`` where tracked files outside this folder differ from it."""
    head = _git("rev-parse", "--short=10", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks")
    return (head or "unknown") + ("+" if changed else "")


def _git(*arguments: str) -> str:
    try:
        found = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()


def newest() -> list[Line]:
    """The lines of each benchmark's last run: going back until a metric comes again."""
    found: dict[str, dict[str, Line]] = {}
    ended: set[str] = set()
    for text in reversed(RESULTS.read_text(encoding="utf-8").splitlines()):
        line = Line(**json.loads(text))
        run = found.setdefault(line.name, {})
        if line.metric in run:
            ended.add(line.name)
        if line.name not in ended:
            run[line.metric] = line
    return [line for name in sorted(found) for line in reversed(found[name].values())]


def table(lines: Iterable[Line]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("benchmark", "metric"):
        shown.add_column(heading)
    for heading in ("value", "baseline", "ratio", "aim"):
        shown.add_column(heading, justify="right")
    for heading in ("", "compared with"):
        shown.add_column(heading)
    for line in lines:
        shown.add_row(*_cells(line))
    return shown


def write_readme() -> None:
    """Puts the newest figures into the README, between its marks."""
    before, _, rest = README.read_text(encoding="utf-8").partition(_MARKS[0])
    _, _, after = rest.partition(_MARKS[1])
    rows = [
        "| benchmark | metric | value | baseline | ratio | aim | | compared with |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows += ["| " + " | ".join(_cells(line)) + " |" for line in newest()]
    README.write_text(before + _MARKS[0] + "\n".join(rows) + "\n" + _MARKS[1] + after, encoding="utf-8")


def _cells(line: Line) -> tuple[str, ...]:
    reference = "" if line.baseline_value is None else f"{line.baseline_value:g} {line.unit}"
    verdict = {None: "", True: "met", False: "missed"}[line.met]
    ratio = "" if line.ratio is None else f"{line.ratio:g}"
    return (
        line.name,
        line.metric,
        f"{line.value:g} {line.unit}".strip(),
        reference,
        ratio,
        line.aim or "",
        verdict,
        line.baseline or "",
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
