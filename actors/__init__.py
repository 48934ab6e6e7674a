"""Actors that talk over ZeroMQ: mailboxes, a loop, a codec that trusts no stranger, and a network made of
memory for tests.

    system = System("n1", ZeroMqTransport(), SystemClock(), codec)
    system.add(MyActor())
    system.run()
"""

from __future__ import annotations

from actors.actor import Actor
from actors.address import Address
from actors.clock import Clock, ManualClock, SystemClock
from actors.codec import Codec
from actors.counters import Counters
from actors.errors import EndpointUnusable, MalformedFrame, UnusableLibrary
from actors.memory import MemoryClient, MemoryFrame, MemoryNetwork, MemorySubscriber, MemoryTransport
from actors.ports import Subscription, read_subscription
from actors.sockets import library_version
from actors.system import System
from actors.transport import Transport, TransportLimits
from actors.zeromq import ZeroMqTransport

__all__ = [
    "Actor",
    "Address",
    "Clock",
    "Codec",
    "Counters",
    "EndpointUnusable",
    "MalformedFrame",
    "ManualClock",
    "MemoryClient",
    "MemoryFrame",
    "MemoryNetwork",
    "MemorySubscriber",
    "MemoryTransport",
    "Subscription",
    "System",
    "SystemClock",
    "Transport",
    "TransportLimits",
    "UnusableLibrary",
    "ZeroMqTransport",
    "library_version",
    "read_subscription",
]
