"""The sockets of clients, as many as a process of many clients needs."""

from __future__ import annotations

import subprocess
import sys

# libzmq's own bound is 1023 sockets, and a connection takes three.
MANY_CONNECTIONS = """
import resource
from kvstore.client.engine import Engine
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
connections = Engine(["tcp://127.0.0.1:1"], max_outstanding=1).connections
for number in range(1000, 1350):
    connections.open(number, "tcp://127.0.0.1:1")
for number in range(1000, 1350):
    connections.close(number)
print("all open")
"""


def test_a_process_may_have_more_connections_than_libzmq_allows_by_itself() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", MANY_CONNECTIONS], capture_output=True, text=True, timeout=60
    )
    assert ended.stdout == "all open\n", ended.stderr
