"""One way to drive systems over both transports: queues in memory, and real sockets on free ports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import zmq

from actors import (
    Actor,
    Address,
    Clock,
    Codec,
    MemoryNetwork,
    System,
    SystemClock,
    Transport,
    TransportLimits,
    ZeroMqTransport,
)

DEADLINE_SECONDS = 10.0
CLUSTER_ID = 7


@dataclass(slots=True)
class Note:
    """A message that other nodes may send."""

    number: int
    body: bytes = b""


@dataclass(slots=True)
class Inward:
    """A message of the own node only."""

    bodies: list[bytes]


def make_codec() -> Codec:
    codec = Codec()
    codec.register(1, Note, remote=True)
    codec.register(2, Inward)
    return codec


class Recorder(Actor):
    """Keeps all that happens to it, in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[tuple[object, ...]] = []

    def on_start(self) -> None:
        self.events.append(("start",))

    def on_stop(self) -> None:
        self.events.append(("stop",))

    def receive(self, batch: list[tuple[Address, object]]) -> None:
        self.events.extend(("message", sender, message) for sender, message in batch)

    def receive_frames(self, port: str, frames: list[tuple[bytes, bytes]]) -> None:
        self.events.extend(("frame", port, connection, payload) for connection, payload in frames)

    def on_deadline(self) -> None:
        self.events.append(("deadline", self.now()))

    def messages(self) -> list[object]:
        return [event[2] for event in self.events if event[0] == "message"]

    def numbers(self) -> list[int]:
        return [message.number for message in self.messages() if isinstance(message, Note)]

    def frames(self) -> list[tuple[object, object]]:
        return [(event[2], event[3]) for event in self.events if event[0] == "frame"]

    def payloads(self) -> list[object]:
        return [payload for _, payload in self.frames()]


class Client(Protocol):
    def send(self, payload: bytes) -> None: ...
    def receive(self) -> list[bytes]: ...


class Subscriber(Protocol):
    def subscribe(self, topic: bytes) -> None: ...
    def unsubscribe(self, topic: bytes) -> None: ...
    def receive(self) -> list[list[bytes]]: ...


class World(Protocol):
    """Makes the transports, clients and subscribers of one test; closed by the fixture."""

    def transport(self, limits: TransportLimits | None = None) -> Transport: ...
    def client(self, endpoint: str) -> Client: ...
    def subscriber(self, endpoint: str) -> Subscriber: ...
    def close(self) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.network = MemoryNetwork()

    def transport(self, limits: TransportLimits | None = None) -> Transport:
        return self.network.transport(limits)

    def client(self, endpoint: str) -> Client:
        return self.network.connect_client(endpoint)

    def subscriber(self, endpoint: str) -> Subscriber:
        return self.network.connect_subscriber(endpoint)

    def close(self) -> None:
        pass


class SocketClient:
    """A DEALER as any client of any language would have it."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        *,
        kind: int = zmq.DEALER,
        most_frames: int = 1000,
    ) -> None:
        self.socket = context.socket(kind)
        self.socket.set(zmq.RCVHWM, most_frames)
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.SNDTIMEO, 5000)
        if endpoint:
            self.socket.connect(endpoint)

    def send(self, payload: bytes) -> None:
        self.socket.send(payload)

    def send_parts(self, parts: list[bytes]) -> None:
        self.socket.send_multipart(parts)

    def receive(self) -> list[bytes]:
        return [b"".join(parts) for parts in self._receive_parts()]

    def _receive_parts(self) -> list[list[bytes]]:
        taken = []
        while self.socket.poll(0):
            taken.append(self.socket.recv_multipart())
        return taken


class SocketSubscriber(SocketClient):
    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        super().__init__(context, endpoint, kind=zmq.SUB)

    def subscribe(self, topic: bytes) -> None:
        self.socket.set(zmq.SUBSCRIBE, topic)

    def unsubscribe(self, topic: bytes) -> None:
        self.socket.set(zmq.UNSUBSCRIBE, topic)

    def receive(self) -> list[list[bytes]]:  # type: ignore[override]
        return self._receive_parts()


class SocketWorld:
    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # Kept until the end of the test, and closed then if the test did not.
        self.made: list[SocketClient] = []
        self.transports: list[ZeroMqTransport] = []

    def transport(self, limits: TransportLimits | None = None) -> Transport:
        self.transports.append(ZeroMqTransport(limits))
        return self.transports[-1]

    def client(self, endpoint: str, most_frames: int = 1000) -> SocketClient:
        self.made.append(SocketClient(self.context, endpoint, most_frames=most_frames))
        return self.made[-1]

    def listener(self, most_frames: int) -> str:
        """The endpoint of a ROUTER, the last of `made`, that takes part in handshakes and is never read."""
        self.made.append(SocketClient(self.context, "", kind=zmq.ROUTER, most_frames=most_frames))
        self.made[-1].socket.bind("tcp://127.0.0.1:0")
        return self.made[-1].socket.get_string(zmq.LAST_ENDPOINT)

    def subscriber(self, endpoint: str) -> Subscriber:
        subscriber = SocketSubscriber(self.context, endpoint)
        self.made.append(subscriber)
        return subscriber

    def close(self) -> None:
        for transport in self.transports:
            transport.close()
        self.context.destroy(linger=0)


class Node:
    """A system with one recorder, its peer port open; turned by `pump`."""

    def __init__(
        self,
        world: World,
        name: str,
        *,
        limits: TransportLimits | None = None,
        clock: Clock | None = None,
        endpoint: str = "tcp://127.0.0.1:0",
        cluster_id: int = CLUSTER_ID,
    ) -> None:
        self.name = name
        transport = world.transport(limits)
        self.system = System(name, transport, clock or SystemClock(), make_codec(), cluster_id=cluster_id)
        self.recorder = Recorder("recorder")
        self.system.add(self.recorder)
        self.system.open_peer_port(endpoint)
        self.counters = self.system.counters

    @property
    def endpoint(self) -> str:
        return self.system.endpoint("peer")

    def send(self, node: str, message: object) -> None:
        """As the recorder would, at once."""
        self.system.start()
        self.recorder.send(Address(node, "recorder"), message)
        self.recorder.flush()

    def turn(self, timeout_seconds: float = 0.0) -> None:
        self.system.turn(timeout_seconds)

    def close(self) -> None:
        self.system.close()


def connect_all(*nodes: Node) -> None:
    for node in nodes:
        for peer in nodes:
            if node is not peer:
                node.system.connect_peer(peer.name, peer.endpoint)


def pump(
    systems: Iterable[System], until: Callable[[], bool], *, each: Callable[[], object] = lambda: None
) -> None:
    """Turn the systems until the condition holds; fails at the deadline. `each` runs once a round."""
    systems = list(systems)
    ends_at = time.monotonic() + DEADLINE_SECONDS
    while not until():
        assert time.monotonic() < ends_at, f"not reached: {[system.counters for system in systems]}"
        each()
        for system in systems:
            system.turn(0.001)


def link(sender: Node, receiver: Node) -> None:
    """Send notes numbered 0 until one has arrived, so that the connection is known to stand."""
    before = receiver.recorder.numbers().count(0)
    pump(
        [sender.system, receiver.system],
        lambda: receiver.recorder.numbers().count(0) > before,
        each=lambda: sender.send(receiver.name, Note(0)),
    )
    settle([sender.system, receiver.system], receiver.recorder)


def settle(systems: Iterable[System], recorder: Recorder) -> None:
    """Turn until the recorder has heard nothing new for a few rounds, for what is still on its way."""
    quiet_rounds = 0
    systems = list(systems)
    while quiet_rounds < 5:
        before = len(recorder.events)
        for system in systems:
            system.turn(0.002)
        quiet_rounds = quiet_rounds + 1 if len(recorder.events) == before else 0
