"""What a job does to itself before it opens anything: its own network, no rights for others on what it writes.

Invariants
- ``enter_private_network`` runs while the process has one thread, and before the first file of data is opened.
- Inside, there is a loopback device and nothing else: no data can leave by network, and nobody outside can reach
  TFF's ``worker_binary``, which listens on all interfaces without authentication.

It needs user namespaces, which some hosts and container runtimes forbid. Then it returns False and changes nothing:
the operator is warned, and the host's firewall has to do it (docs/threat-model.md). Standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Final

_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP_RUNNING: Final = 0x1 | 0x40


def enter_private_network() -> bool:
    """True if this process and its children now have only a loopback device of their own."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()
    # A child tries first, because a half-entered namespace cannot be left again.
    if not _works_in_a_child(libc, uid, gid):
        return False
    _enter(libc, uid, gid)
    return True


def _works_in_a_child(libc: ctypes.CDLL, uid: int, gid: int) -> bool:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _enter(libc, uid, gid)
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def _enter(libc: ctypes.CDLL, uid: int, gid: int) -> None:
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare failed")
    # Keep the ids: files are owned as before.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP_RUNNING))
