"""A transport without sockets: several systems in one process, joined by a network that a test can bend.

The frames are the bytes that sockets would carry. Everything happens in the order of the calls, so a run is
repeatable. Every frame between nodes, and between nodes and clients, passes `MemoryNetwork.route`: a
simulator that replaces it may deliver a frame now, later, twice or never. Mailboxes within a node lose
nothing short of their bound.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from actors.counters import Counters
from actors.errors import EndpointUnusable
from actors.ports import is_subscription
from actors.transport import PEER_PORT, TransportLimits

Item = TypeVar("Item")


class MemoryFrame(NamedTuple):
    """A frame on its way; what `MemoryNetwork.route` is given."""

    plane: str  # "peer", "request", "reply", "publish" or "subscribe"
    source: str  # a node, or a client's name
    destination: str
    endpoint: str  # where it is going, if to a bound port; else ""
    parts: tuple[bytes, ...]


class _Port:
    """A bound endpoint; owned by its transport."""

    __slots__ = ("endpoint", "inbox", "kind", "most_frames", "subscriptions", "transport")

    def __init__(self, transport: MemoryTransport, kind: str, endpoint: str, most_frames: int) -> None:
        self.transport = transport
        self.kind = kind
        self.endpoint = endpoint
        self.most_frames = most_frames
        self.inbox: deque[tuple[bytes, bytes]] = deque()
        self.subscriptions: dict[bytes, set[str]] = {}  # of a publisher: topic -> names of subscribers


class MemoryNetwork:
    """Joins transports, clients and subscribers; owned by the test or simulator that made it."""

    def __init__(self) -> None:
        self.route: Callable[[MemoryFrame], None] = self.deliver
        self._ports: dict[str, _Port] = {}
        self._clients: dict[str, MemoryClient] = {}
        self._subscribers: dict[str, MemorySubscriber] = {}
        self._next_number = 1

    def transport(self, limits: TransportLimits | None = None) -> MemoryTransport:
        """A transport for one System."""
        return MemoryTransport(self, limits or TransportLimits())

    def connect_client(self, endpoint: str) -> MemoryClient:
        """A connection to a client port, open or not."""
        client = MemoryClient(self, f"client-{self._number()}", endpoint)
        self._clients[client.name] = client
        return client

    def connect_subscriber(self, endpoint: str) -> MemorySubscriber:
        """A connection to a publisher."""
        subscriber = MemorySubscriber(self, f"subscriber-{self._number()}", endpoint)
        self._subscribers[subscriber.name] = subscriber
        return subscriber

    def deliver(self, frame: MemoryFrame) -> None:
        """Let a frame arrive, if there still is somebody to receive it."""
        port = self._ports.get(frame.endpoint)
        if frame.plane == "reply" and (client := self._clients.get(frame.destination)) is not None:
            client.inbox.append(frame.parts[0])
        elif (
            frame.plane == "publish" and (subscriber := self._subscribers.get(frame.destination)) is not None
        ):
            subscriber.inbox.append(list(frame.parts))
        elif port is None:
            return
        elif frame.plane == "peer":
            port.transport._arrive(port, (frame.parts[0], frame.parts[1]))
        elif frame.plane == "request":
            port.transport._arrive_from_client(port, frame)
        elif frame.plane == "subscribe":
            port.transport._arrive_from_subscriber(port, frame)

    def _number(self) -> int:
        number = self._next_number
        self._next_number += 1
        return number

    def _bind(self, port: _Port) -> None:
        if port.endpoint.endswith(":0"):
            port.endpoint = f"{port.endpoint[:-1]}{self._number()}"
        if port.endpoint in self._ports:
            raise EndpointUnusable(port.endpoint, "Address already in use")
        self._ports[port.endpoint] = port


class MemoryClient:
    """A client's connection to a client port; owned by a test."""

    __slots__ = ("_network", "endpoint", "inbox", "name")

    def __init__(self, network: MemoryNetwork, name: str, endpoint: str) -> None:
        self._network = network
        self.name = name
        self.endpoint = endpoint
        self.inbox: deque[bytes] = deque()

    def send(self, payload: bytes) -> None:
        self._network.route(MemoryFrame("request", self.name, self.endpoint, self.endpoint, (payload,)))

    def receive(self) -> list[bytes]:
        """All payloads that have arrived since the last call."""
        return _take_all(self.inbox)

    def close(self) -> None:
        self._network._clients.pop(self.name, None)


class MemorySubscriber:
    """A subscriber's connection to a publisher; owned by a test."""

    __slots__ = ("_network", "endpoint", "inbox", "name")

    def __init__(self, network: MemoryNetwork, name: str, endpoint: str) -> None:
        self._network = network
        self.name = name
        self.endpoint = endpoint
        self.inbox: deque[list[bytes]] = deque()

    def subscribe(self, topic: bytes) -> None:
        self._send(b"\x01" + topic)

    def unsubscribe(self, topic: bytes) -> None:
        self._send(b"\x00" + topic)

    def receive(self) -> list[list[bytes]]:
        """All messages that have arrived since the last call, each a list of parts."""
        return _take_all(self.inbox)

    def close(self) -> None:
        """Leave; the publisher learns of topics that nobody else subscribes to."""
        port = self._network._ports.get(self.endpoint)
        for topic in [t for t, names in port.subscriptions.items() if self.name in names] if port else []:
            self.unsubscribe(topic)
        self._network._subscribers.pop(self.name, None)

    def _send(self, payload: bytes) -> None:
        self._network.route(MemoryFrame("subscribe", self.name, self.endpoint, self.endpoint, (payload,)))


class MemoryTransport:
    """Transport over a MemoryNetwork; owned by one System."""

    def __init__(self, network: MemoryNetwork, limits: TransportLimits) -> None:
        self.limits = limits
        self._network = network
        self._node = ""
        self._mailboxes: dict[str, deque[tuple[str, bytes]]] = {}
        self._local_waiting = 0
        self._ports: dict[str, _Port] = {}
        self._peers: dict[str, str] = {}
        self._arrived = threading.Event()  # set while a wait should not block
        self._closed = False

    def attach(self, node: str, counters: Counters) -> None:
        assert not self._node, f"the transport of node {self._node} was given to node {node} too"
        self._node = node
        self._counters = counters

    def open_mailbox(self, actor: str) -> None:
        self._mailboxes[actor] = deque()

    def open_peer_port(self, endpoint: str) -> None:
        self._open(PEER_PORT, "peer", endpoint, self.limits.peer_frames)

    def open_client_port(self, port: str, endpoint: str) -> None:
        self._open(port, "client", endpoint, self.limits.client_frames)

    def open_publisher(self, port: str, endpoint: str) -> None:
        self._open(port, "publisher", endpoint, self.limits.publisher_frames)

    def _open(self, name: str, kind: str, endpoint: str, most_frames: int) -> None:
        assert name not in self._ports, f"port {name} is open already"
        port = _Port(self, kind, endpoint, most_frames)
        self._network._bind(port)
        self._ports[name] = port

    def connect_peer(self, node: str, endpoint: str) -> None:
        self._peers[node] = endpoint

    def disconnect_peer(self, node: str) -> None:
        self._peers.pop(node, None)

    def endpoint(self, port: str) -> str:
        return self._ports[port].endpoint

    def connections(self, port: str) -> int:
        """Of a publisher those who subscribe to anything; of a client port, where none is kept, 0."""
        return len(set().union(*self._ports[port].subscriptions.values()))

    def local_waiting(self) -> bool:
        return self._local_waiting > 0

    def wait(self, timeout_seconds: float | None) -> None:
        if timeout_seconds == 0.0 or self._local_waiting or any(port.inbox for port in self._ports.values()):
            self._arrived.clear()
            return
        self._arrived.wait(timeout_seconds)
        self._arrived.clear()

    def settle(self) -> None:
        """Nothing is ever on its way but by `route`."""

    def wake(self) -> None:
        self._arrived.set()

    def send_local(self, sender: str, actor: str, frame: bytes) -> bool:
        mailbox = self._mailboxes[actor]
        if len(mailbox) >= self.limits.mailbox_frames:
            self._counters.report("mailbox_full", f"actor={actor} sender={sender}")
            return False
        mailbox.append((sender, frame))
        self._local_waiting += 1
        return True

    def send_peer(self, node: str, header: bytes, frame: bytes) -> bool:
        endpoint = self._peers.get(node)
        if len(frame) > self.limits.peer_frame_bytes:
            self._counters.report("peer_frame_too_large", f"peer={node} bytes={len(frame)}")
            return False
        if endpoint is None or endpoint not in self._network._ports:
            self._counters.report("peer_unreachable", f"peer={node}")
            return False
        self._network.route(MemoryFrame("peer", self._node, node, endpoint, (header, frame)))
        return True

    def send_frame(self, port: str, connection: bytes, payload: bytes) -> bool:
        name = connection.decode("utf-8", "replace")
        if name not in self._network._clients:
            self._counters.report("client_unreachable", f"port={port}")
            return False
        self._network.route(MemoryFrame("reply", self._node, name, "", (payload,)))
        return True

    def publish(self, port: str, parts: list[bytes]) -> bool:
        names: dict[str, None] = {}  # a subscriber gets a message once, however many of its topics match
        for topic, subscribers in self._ports[port].subscriptions.items():
            if parts[0].startswith(topic):
                names.update(dict.fromkeys(sorted(subscribers)))
        for name in names:
            self._network.route(MemoryFrame("publish", self._node, name, "", tuple(parts)))
        return True

    def receive_local(self, actor: str) -> list[tuple[str, bytes]]:
        mailbox = self._mailboxes[actor]
        if not mailbox:
            return []
        taken = _drain(mailbox, self.limits)
        self._local_waiting -= len(taken)
        return taken

    def receive_peers(self) -> list[tuple[bytes, bytes]]:
        port = self._ports.get(PEER_PORT)
        return _drain(port.inbox, self.limits) if port is not None else []

    def peers_waiting(self) -> bool:
        port = self._ports.get(PEER_PORT)
        return port is not None and bool(port.inbox)

    def receive_port(self, port: str) -> list[tuple[bytes, bytes]]:
        return _drain(self._ports[port].inbox, self.limits)

    def close(self) -> None:
        """Unbind everything, as the end of the process would; what was in queues is lost."""
        self._closed = True
        for port in self._ports.values():
            self._network._ports.pop(port.endpoint, None)

    # Called by the network.

    def _arrive(self, port: _Port, frame: tuple[bytes, bytes]) -> None:
        if len(port.inbox) >= port.most_frames:
            self._counters.report(f"{port.kind}_full", f"endpoint={port.endpoint}")
            return
        port.inbox.append(frame)
        self._arrived.set()

    def _arrive_from_client(self, port: _Port, frame: MemoryFrame) -> None:
        if len(frame.parts[0]) <= self.limits.client_frame_bytes:
            self._arrive(port, (frame.source.encode(), frame.parts[0]))

    def _arrive_from_subscriber(self, port: _Port, frame: MemoryFrame) -> None:
        payload = frame.parts[0]
        topic = payload[1:]
        if not is_subscription(payload) or len(topic) > self.limits.topic_bytes:
            self._counters.report("publisher_bad_subscription", f"bytes={len(payload)}")
            return
        subscribers = port.subscriptions.setdefault(topic, set())
        if payload[0] == 1:
            subscribers.add(frame.source)
        else:
            subscribers.discard(frame.source)
            if subscribers:
                return  # only the last one to leave is told
        if not subscribers:
            del port.subscriptions[topic]
        self._arrive(port, (b"", payload))


def _take_all(queue: deque[Item]) -> list[Item]:
    taken = list(queue)
    queue.clear()
    return taken


def _drain(queue: deque[tuple[Item, bytes]], limits: TransportLimits) -> list[tuple[Item, bytes]]:
    taken: list[tuple[Item, bytes]] = []
    taken_bytes = 0
    while queue and len(taken) < limits.drain_frames and taken_bytes < limits.drain_bytes:
        taken.append(queue.popleft())
        taken_bytes += len(taken[-1][1])
    return taken
