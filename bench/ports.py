"""Ports of loopback for servers that are killed and started again. Standard library only."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

LOWEST = 15_000
_FIRST_EPHEMERAL = 32_768  # where the kernel does not tell


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all held at once so that none is given twice.

    They lie below those which the kernel gives to outgoing connections. A peer that keeps dialling a dead
    node's port could otherwise be given that very port as its own, be connected to itself, and keep the
    node from coming back.
    """
    source = random.SystemRandom()
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            port = source.randrange(LOWEST, first_ephemeral_port())
            holder = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                holder.bind(("127.0.0.1", port))
                found.append(port)
    return found


def first_ephemeral_port() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _FIRST_EPHEMERAL
    return first if first > LOWEST + 1_000 else _FIRST_EPHEMERAL
