from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import api.app
heavy = ("tensorflow", "tensorflow_federated", "tensorflow_privacy", "jax", "keras")
print(sorted(name for name in sys.modules if name.partition(".")[0] in heavy))
"""


def test_the_api_never_imports_tensorflow() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()
