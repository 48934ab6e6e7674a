"""Connections that do nothing: a process for each node holds bare DEALER sockets which were greeted.

Run by `bench.growth`, and by hand as `python -m bench.idle ENDPOINT COUNT`, until the end of standard input.
Each socket reads a key once, of what the node has applied, and is counted when the answer is there. From then
on it is libzmq that answers the node's pings, and nobody else has work with it.
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import zmq

from actors.transport import TransportLimits
from bench.processes import ROOT
from kvstore import protocol

DESCRIPTORS_EACH = 2  # of the holder: the connection, and the socket's own wake-up
_RESERVED_DESCRIPTORS = 512  # of either side, for whatever else it has open
_RESERVED_CONNECTIONS = 128  # of a node's bound, for the load itself
_AT_ONCE = 64  # a node cuts connections whose handshake it did not get round to
_GREETING_SECONDS = 30.0
_CONNECT_SECONDS = 600.0


class NotHeld(Exception):
    """A node did not greet as many connections as were opened to it, or has lost some of them."""


def raise_descriptor_limit() -> int:
    """The soft limit becomes the hard one, for this process and all that it starts; that one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def most_connections(descriptors: int, nodes: int) -> int:
    """So many can be held within this limit of one process, spread over so many nodes."""
    of_holder = (descriptors - _RESERVED_DESCRIPTORS) // DESCRIPTORS_EACH
    of_node = TransportLimits().client_connections - _RESERVED_CONNECTIONS
    return max(0, nodes * min(of_holder, of_node))


def shares_of(count: int, nodes: int) -> list[int]:
    """As even as can be."""
    return [len(range(number, count, nodes)) for number in range(nodes)]


@contextlib.contextmanager
def idle_connections(endpoints: Sequence[str], count: int) -> Iterator[None]:
    """Open and greeted from the beginning of the block to its end. Raises NotHeld."""
    with contextlib.ExitStack() as stack:
        holders = []
        for endpoint, share in zip(endpoints, shares_of(count, len(endpoints))):
            if share:
                command = [sys.executable, "-m", "bench.idle", endpoint, str(share)]
                holder = subprocess.Popen(
                    command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
                holders.append(stack.enter_context(holder))
                stack.callback(holder.kill)  # before it is waited for
        for holder in holders:
            assert holder.stdout is not None, "a holder without standard output"
            if (told := holder.stdout.readline().strip()) != "ready":
                raise NotHeld(told or "a process that holds connections has ended")
        yield


def hold(endpoint: str, count: int) -> None:
    """Opens them a few at a time, says so, and keeps them until nobody is there any more."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, count + _AT_ONCE)
    give_up_at = time.monotonic() + _CONNECT_SECONDS
    # Of all that can be asked for, a status takes the longest: it counts the connections that are there.
    timeout_ms = int(1e3 * _GREETING_SECONDS)
    question = protocol.encode_request(protocol.STALE_READ, 0, timeout_ms, [protocol.range_body(b"/")])
    held: list[zmq.Socket[bytes]] = []
    try:
        while len(held) < count:
            some = [context.socket(zmq.DEALER) for _ in range(min(_AT_ONCE, count - len(held)))]
            held += some
            for socket in some:
                socket.connect(endpoint)
                socket.send(question)
            for socket in some:
                if not socket.poll(timeout_ms) or time.monotonic() > give_up_at:
                    print(f"{endpoint} has greeted fewer than {len(held)} connections", flush=True)
                    return
                socket.recv()
        print("ready", flush=True)
        sys.stdin.read()
    finally:
        context.destroy(linger=0)


if __name__ == "__main__":
    hold(sys.argv[1], int(sys.argv[2]))
