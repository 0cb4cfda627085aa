"""Becomes OPA, with bounds: ``python -I -S confine.py '{"executable": …, "arguments": […], …}'``.

A program of its own rather than ``preexec_fn``, which may deadlock where the parent has threads.

Invariants
- OPA inherits limits on memory (and processor time, where asked), no core dumps, and no way to gain privileges.
- ``parent`` given: OPA is killed when that process's starting thread ends, by whatever means (``PR_SET_PDEATHSIG``).
- ``unprivileged`` given, and started by root: OPA runs under a user id that nobody else has. It may then be unable to
  reach the binary and the bundle by path, so both are opened before, and ``{bundle}`` in an argument becomes the open
  file's name.
- Standard library only, and nothing of ours: it runs isolated, without site packages.

This module does not: choose the limits, or read the environment (OPA gets what this process was given).
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_UNUSED_USER_IDS = range(61184, 65520)  # what systemd takes its dynamic users from: no real account lies there


def main(specification: str) -> None:
    wanted: dict[str, Any] = json.loads(specification)
    executable = os.open(wanted["executable"], os.O_RDONLY | os.O_CLOEXEC)
    bundle = f"/proc/self/fd/{_open_to_inherit(wanted['bundle'])}" if "bundle" in wanted else ""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (wanted["address_space"], wanted["address_space"]))
    if "cpu_seconds" in wanted:
        resource.setrlimit(resource.RLIMIT_CPU, (wanted["cpu_seconds"], wanted["cpu_seconds"]))
    if wanted.get("unprivileged") and os.geteuid() == 0:
        _leave_root()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if "parent" in wanted:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which clears it
        if os.getppid() != wanted["parent"]:
            sys.exit("the parent ended before OPA could start")
    arguments = [argument.replace("{bundle}", bundle) for argument in wanted["arguments"]]
    os.execve(executable, ["opa", *arguments], dict(os.environ))


def _open_to_inherit(path: str) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    return descriptor


def _leave_root() -> None:
    user = random.SystemRandom().choice(_UNUSED_USER_IDS)
    try:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    except OSError as error:
        # A user namespace that maps no such id: its "root" is no root of the machine, and there is nothing to drop.
        print(f"OPA keeps its user: {error}", file=sys.stderr)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main(sys.argv[1])
