"""``python -m tests.properties.ledger_victim TOLD``: comes to a point of one operation, says "here", and waits there.

``TOLD`` is base64 of a pickle of (URL, folder, time, operation, point), from ``test_ledger_crashes``.
"""

from __future__ import annotations

import base64
import pickle
import signal
import sys
from typing import Any

from tests.properties.ledger_operations import perform
from tests.properties.ledger_points import points
from tests.properties.ledger_site import Clock, Node


def _stop(_: Any) -> None:
    print("here", flush=True)
    signal.pause()


if __name__ == "__main__":
    url, folder, now, operation, point = pickle.loads(base64.b64decode(sys.argv[1]))
    node = Node(url, None, Clock(now), folder / "results")
    with points(node.database, point, _stop):
        perform(node, None, operation)  # type: ignore[arg-type]  # what needs a site is not asked for
