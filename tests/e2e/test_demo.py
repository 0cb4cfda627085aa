"""``make demo`` without the set-up: the story ends by itself with status 0, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path

from tests.e2e.nodes import Json
from tests.e2e.programs import Program, matching, wait_until
from tests.integration.processes.nodes import environment


class Demo:
    """The demo, under somebody who sees what outlives it."""

    def __init__(self, folder: Path) -> None:
        self._report = folder / "report.json"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        variables = environment(folder / "unused") | {"TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "tests.e2e.leftovers", str(self._report)]
        self.program = Program(
            [*command, sys.executable, "-m", "examples.digits"], variables | {"COLUMNS": "160"}, folder / "demo.log"
        )

    def ended(self) -> Json:
        wait_until(lambda: self.program.process.poll() is not None, "the demo has ended", patience_s=280.0)
        found: Json = json.loads(self._report.read_text())
        return found


def test_the_demo_tells_its_story_ends_with_status_0_and_leaves_nothing_behind(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    try:
        ended, told = demo.ended(), demo.program.said()
    finally:
        demo.program.stop()

    assert {"status": 0, "left": []} == ended, told
    assert [] == list(demo.temporary.glob("pysytff-demo-*"))
    accuracy = re.search(r"accuracy on the public hold-out +(0\.\d+)", told)
    epsilon = re.search(r"ε of this run by itself \(RDP\) +(\d+\.\d+) at δ = 1e-05", told)
    assert accuracy is not None
    assert epsilon is not None
    assert float(accuracy[1]) >= 0.90
    assert 0.0 < float(epsilon[1]) <= 8.0
    for line in (
        r"^ +approved +approved +100 +60 +2\.0",
        r"^ +clamped +clamped +10 +2 +0\.05 → \d",
        r"^ +refused by policy +refused .*purpose_not_permitted",
        r"^ +refused by budget +refused ",
        r"they agree to the last bit",
        r"make serve DEMO=1 .*8081",
    ):
        assert re.search(line, told, re.MULTILINE), line


def test_a_demo_that_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    try:
        demo.program.wait_said("A node is up on")
        (story,) = [pid for pid in matching(demo.program.pid, "-m examples.digits") if _is_story(pid)]
        os.kill(story, signal.SIGKILL)
        ended = demo.ended()
    finally:
        demo.program.stop()

    assert {"status": -signal.SIGKILL, "left": []} == ended


def _is_story(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(f"{sys.executable}\0-m\0examples.digits\0".encode())
