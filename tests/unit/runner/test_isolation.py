"""Where the kernel allows it, a job has a network of its own; elsewhere nothing changes, and it is told so."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, socket, sys
from runner.isolation import enter_private_network
before = os.listdir('/sys/class/net'), os.geteuid(), os.readlink('/proc/self/ns/net')
entered = enter_private_network()
assert os.geteuid() == before[1]
if not entered:
    assert os.readlink('/proc/self/ns/net') == before[2]
    sys.exit(0)
assert [line.split(':')[0].strip() for line in open('/proc/net/dev')][2:] == ['lo']
with socket.create_server(('127.0.0.1', 0)) as server:  # loopback works
    socket.create_connection(server.getsockname()).close()
try:
    socket.create_connection(('192.0.2.1', 9), timeout=2)
except OSError as error:
    assert 'unreachable' in str(error), error
else:
    sys.exit('there is a way out')
"""


def test_a_private_network_has_loopback_and_no_way_out_or_is_not_entered_at_all() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert "" == done.stderr
    assert 0 == done.returncode
