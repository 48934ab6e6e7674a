"""From one actor to another of the same node: outbox, frame, transport, mailbox, and what a turn costs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from actors import Actor, Address, MemoryNetwork, System, SystemClock, Transport, ZeroMqTransport
from bench.layers.material import bodies, node_codec
from bench.layers.timing import Laps, Layer, MakeLaps
from raft.actor_messages import Propose


class Relay(Actor):
    """Sends on whatever it gets; owned by its System."""

    def __init__(self, name: str, to: str) -> None:
        super().__init__()
        self.name = name
        self.received = 0
        self._to = to

    def receive(self, batch: list[tuple[Address, object]]) -> None:
        self.received += len(batch)
        for _, message in batch:
            self.send_local(self._to, message)


def pair(transport: Transport) -> tuple[System, Relay, Relay]:
    system = System("n1", transport, SystemClock(), node_codec())
    first, second = Relay("first", "second"), Relay("second", "first")
    system.add(first)
    system.add(second)
    return system, first, second


def hops(make_transport: Callable[[], Transport]) -> MakeLaps:
    """A put is proposed to and fro, four times in a turn."""

    def laps(_: Path, calls: int) -> Laps:
        system, first, second = pair(make_transport())
        with closing(system):
            system.post("first", Propose([1], [1], bodies(1, 1)))

            def lap() -> None:
                until = first.received + second.received + calls
                while first.received + second.received < until:
                    system.turn(0.0)

            while True:
                yield lap

    return laps


def empty_turns(_: Path, calls: int) -> Laps:
    """What each turn costs before anybody has anything to do."""
    system, *_relays = pair(ZeroMqTransport())
    with closing(system):

        def lap() -> None:
            for _ in range(calls):
                system.turn(0.0)

        while True:
            yield lap


LAYERS = [
    Layer("mailbox hop, zeromq", 10_000, hops(ZeroMqTransport)),
    Layer("mailbox hop, memory", 10_000, hops(lambda: MemoryNetwork().transport())),
    Layer("mailbox turn with nothing in it", 5_000, empty_turns),
]
