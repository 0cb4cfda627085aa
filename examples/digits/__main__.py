"""``python -m examples.digits``: makes a node in a folder of its own, runs the demo against it, and removes it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from api import node
from api.cli_common import load_settings
from api.processes import die_with
from examples.digits import seed
from examples.digits.demo import Demo

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 45.0


def main() -> int:
    console = Console(width=max(100, Console().width))
    with tempfile.TemporaryDirectory(prefix="pysytff-demo-") as folder, _running(Path(folder), console) as url:
        good = Demo(url, console).run()
    console.print()
    if not good:
        return 1
    console.print("That was a governed, private training. How to go on:")
    console.print("  make serve DEMO=1   this node on http://127.0.0.1:8081, for the notebook in the README")
    console.print("  make serve          a node of your own")
    return 0


@contextlib.contextmanager
def _running(folder: Path, console: Console) -> Iterator[str]:
    """The address of a demo node, which ends with the block."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYSYTFF_")}
    environment.pop("DATABASE_URL", None)
    os.environ.clear()
    os.environ.update(environment)
    settings = load_settings(folder / "node", port=_free_port())
    with console.status("Making a node: database, policies, people, data …"):
        node.create(settings, "admin@stargate.net", demo=True)
        seed.seed(settings)
    log = folder / "node.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "api.cli", "up", "--data-dir", str(settings.data_dir), "--port", str(settings.port)],
            cwd=node.CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with(os.getpid()),  # a node whose passwords everybody knows does not outlive a killed demo
        )
    try:
        with console.status("Starting policy engine, API and runner …"):
            _wait(process, settings.own_url, log)
        console.print(f"A node is up on {settings.own_url}.")
        yield settings.own_url
    except BaseException:
        _show_logs(folder, console)
        raise
    finally:
        _stop(process)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the node ended with status {process.returncode}:\n{log.read_text(errors='replace')}")
        try:
            with opener.open(f"{url}/v1/ready", timeout=5) as answer:
                json.load(answer)
            return
        except (urllib.error.URLError, OSError, ValueError):
            time.sleep(0.2)
    raise RuntimeError(f"the node was not ready within {START_TIMEOUT_S:g} s:\n{log.read_text(errors='replace')}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _show_logs(folder: Path, console: Console) -> None:
    for log in (folder / "node.log", *sorted((folder / "node" / "logs").glob("*.log"))):
        if log.exists():
            tail = log.read_text(errors="replace").splitlines()[-15:]
            console.print(f"--- {log.name}", *tail, sep="\n", markup=False, highlight=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


if __name__ == "__main__":
    sys.exit(main())
