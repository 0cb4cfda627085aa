"""``python -m tests.e2e.leftovers REPORT COMMAND…``: runs a command and writes what it left behind to REPORT, as JSON.

Orphans go to their nearest ancestor that asked for them (``PR_SET_CHILD_SUBREAPER``): whatever outlives the command
becomes a child of this process. What is still there after a grace of ``GRACE_S`` is listed, and killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from api.processes import die_with
from tests.e2e.programs import descendants
from tests.integration.processes.nodes import command_line, is_gone

GRACE_S = 40.0
_PR_SET_CHILD_SUBREAPER = 36


def main(report: Path, command: list[str]) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER failed")
    process = subprocess.Popen(command, preexec_fn=die_with(os.getpid()))
    status = process.wait()
    deadline = time.monotonic() + GRACE_S
    while (left := _living()) and time.monotonic() < deadline:
        time.sleep(0.1)
    report.write_text(json.dumps({"status": status, "left": [command_line(pid) for pid in left]}))
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _living() -> list[int]:
    return [pid for pid in descendants(os.getpid()) if not is_gone(pid)]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
