"""TFF's ``worker_binary``: started, owned and ended by us. Never imports TensorFlow itself.

TFF starts this process on its own and leaves it behind when its parent is killed. Here it is started before
TensorFlow is loaded (so while there is one thread only), with a parent-death signal: however its parent ends, it
ends too.

Invariants
- The child dies with the thread that started it; call ``start`` on the main thread of a process that is used for one
  job.
- It inherits no file descriptor but its log.

It listens on all interfaces without any authentication, and TFF has no switch for that: ``runner.isolation`` gives
the job a network of its own wherever the kernel allows it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import IO, Final

from runner.errors import ExecutorError

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
START_SECONDS: Final = 60.0
EXECUTOR_DIED: Final = 70  # EX_SOFTWARE


def die_with_parent(parent: int) -> None:
    """The kernel kills this process when the thread that started it ends; ``parent`` is that thread's process."""
    if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_PDEATHSIG failed")
    if os.getppid() != parent:  # it ended before the request was in force
        os.kill(os.getpid(), signal.SIGKILL)


def worker_binary() -> Path:
    """Where TFF's wheel keeps it. Found without importing TFF, which takes seconds."""
    package = importlib.util.find_spec("tensorflow_federated")
    if package is None or package.origin is None:
        raise ExecutorError("tensorflow_federated is not installed")
    path = Path(package.origin).parent / "data" / "worker_binary"
    if not path.is_file():
        raise ExecutorError(f"tensorflow_federated has no worker_binary at {path}")
    return path


class Executor:
    """One running ``worker_binary``. ``port`` is where it listens on loopback."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self._stopping = threading.Event()

    @classmethod
    def start(cls, log: IO[bytes] | int) -> Executor:
        port = _free_port()
        parent = os.getpid()
        process = subprocess.Popen(
            [str(worker_binary()), f"--port={port}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            close_fds=True,
            env={"PATH": os.defpath, "TF_CPP_MIN_LOG_LEVEL": "2"},
            preexec_fn=lambda: die_with_parent(parent),
        )
        return cls(process, port)

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Returns when it accepts connections. Raises ``ExecutorError`` if it ends or takes too long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (status := self.process.poll()) is not None:
                raise ExecutorError(f"worker_binary ended with status {status}")
            try:
                socket.create_connection(("localhost", self.port), timeout=1.0).close()
                return
            except OSError:
                time.sleep(0.05)
        raise ExecutorError(f"worker_binary did not listen within {seconds:.0f} s")

    def end_us_if_it_ends(self) -> None:
        """Ends this process at once, with ``EXECUTOR_DIED``, when the child ends before ``stop``.

        TFF would try for ever to reach it again, and a job that hangs keeps its lease.
        """

        def watch() -> None:
            status = self.process.wait()
            if not self._stopping.is_set():
                os.write(2, f"worker_binary ended with status {status}\n".encode())
                os._exit(EXECUTOR_DIED)

        threading.Thread(target=watch, name="executor", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()
        self.process.kill()
        self.process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
