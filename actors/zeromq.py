"""Transport on ZeroMQ sockets: may know zmq and bytes, nothing of messages or actors' behaviour.

Inside the node every actor has a ROUTER bound to inproc://, and every sender a DEALER to it; between nodes
there is one ROUTER per node, and a DEALER per peer. All of it belongs to the thread of the loop. Waiting is a
raw zmq.Poller over the *descriptors* of the outward sockets and a socket pair that wakes it: asking a socket
costs libzmq two system calls, asking all descriptors costs one. A descriptor rings when something new came
for its socket, once: so a socket that rang is read until it is empty, and one that was sent to is asked,
since sending may take in the ring. Mailboxes need no polling: the loop knows what it has sent.
"""

from __future__ import annotations

import socket as posix
import time
from contextlib import suppress

import zmq

from actors import sockets
from actors.counters import Counters
from actors.door import Door
from actors.ports import is_subscription
from actors.sockets import Socket
from actors.transport import PEER_PORT, TransportLimits

# As plain integers: looking an option up by its enumeration takes longer than asking for it.
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_DONTWAIT = int(zmq.DONTWAIT)
_SENDMORE = int(zmq.DONTWAIT | zmq.SNDMORE)
_SETTLE_SECONDS = 0.002


class _Mailbox:
    """The receiving end of an actor's mailbox; owned by its transport."""

    __slots__ = ("socket", "waiting")

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.waiting = 0  # frames sent to it and not yet received


class _Sender:
    """A DEALER to a mailbox or to a peer; owned by its transport."""

    __slots__ = ("send", "socket")

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.send = sockets.quick_send(socket)


class _Port:
    """A bound outward socket; owned by its transport."""

    __slots__ = ("endpoint", "is_publisher", "name", "ready", "send", "socket", "unsure")

    def __init__(self, name: str, socket: Socket, endpoint: str) -> None:
        self.name = name
        self.socket = socket
        self.send = sockets.quick_send(socket)
        self.endpoint = endpoint
        self.is_publisher = socket.type == zmq.XPUB
        self.ready = False  # the last wait found frames, or the last drain left some
        self.unsure = False  # sent to since it was last asked: its descriptor may have rung unheard


class ZeroMqTransport:
    """Transport over ZeroMQ; owned by one System, and used by one thread."""

    def __init__(self, limits: TransportLimits | None = None) -> None:
        self.limits = limits or TransportLimits()
        self._context = sockets.make_context()
        self._poller = zmq.Poller()  # of descriptors, all there is to wait for
        self._mailboxes: dict[str, _Mailbox] = {}
        self._senders: dict[tuple[str, str], _Sender] = {}
        self._local_waiting = 0
        self._ports: dict[str, _Port] = {}
        self._by_descriptor: dict[int, _Port] = {}
        self._peers: dict[str, _Sender] = {}
        self._node = ""
        self._woken = False
        self._wake_receiver, self._wake_sender = posix.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self._poller.register(self._wake_receiver.fileno(), zmq.POLLIN)
        self._door = Door(self._context, self._poller, self.limits.client_connections)
        self._door_rang = False

    def attach(self, node: str, counters: Counters) -> None:
        assert not self._node, f"the transport of node {self._node} was given to node {node} too"
        self._node = node
        self._counters = counters

    # Putting it together.

    def open_mailbox(self, actor: str) -> None:
        socket = sockets.mailbox_socket(self._context, self.limits)
        sockets.bind(socket, f"inproc://{actor}")
        self._mailboxes[actor] = _Mailbox(socket)

    def open_peer_port(self, endpoint: str) -> None:
        self._open(PEER_PORT, sockets.peer_listener(self._context, self.limits), endpoint)

    def open_client_port(self, port: str, endpoint: str) -> None:
        socket = sockets.client_listener(self._context, self.limits)
        self._door.guard(socket, port)
        self._open(port, socket, endpoint)

    def open_publisher(self, port: str, endpoint: str) -> None:
        socket = sockets.publisher_listener(self._context, self.limits)
        self._door.guard(socket, port)
        self._open(port, socket, endpoint)

    def _open(self, name: str, socket: Socket, endpoint: str) -> None:
        assert name not in self._ports, f"port {name} is open already"
        try:
            real_endpoint = sockets.bind(socket, endpoint)
        except BaseException:
            socket.close()
            raise
        port = _Port(name, socket, real_endpoint)
        descriptor = sockets.descriptor(socket)
        self._ports[name] = self._by_descriptor[descriptor] = port
        self._poller.register(descriptor, zmq.POLLIN)

    def connect_peer(self, node: str, endpoint: str) -> None:
        socket = sockets.peer_sender(self._context, self.limits)
        try:
            sockets.connect(socket, endpoint)
        except BaseException:
            socket.close()
            raise
        self.disconnect_peer(node)
        self._peers[node] = _Sender(socket)

    def disconnect_peer(self, node: str) -> None:
        peer = self._peers.pop(node, None)
        if peer is not None:
            peer.socket.close()

    def endpoint(self, port: str) -> str:
        return self._ports[port].endpoint

    def connections(self, port: str) -> int:
        return self._door.connections(port)

    # Waiting.

    def local_waiting(self) -> bool:
        return self._local_waiting > 0

    def wait(self, timeout_seconds: float | None) -> None:
        is_ready = bool(self._local_waiting) or self._woken or self._door_rang
        for port in self._ports.values():
            if port.unsure:
                self._ask(port)
            is_ready = is_ready or port.ready
        if is_ready:
            timeout_ms = 0
        elif timeout_seconds is None:
            timeout_ms = -1
        else:
            # Rounded up: a wait that ends before its deadline would only be followed by another one.
            timeout_ms = int(timeout_seconds * 1000.0) + 1 if timeout_seconds > 0.0 else 0
        for descriptor, _ in self._poller.poll(timeout_ms):
            self._rang(descriptor)
        if self._door_rang:
            self._door_rang = self._door.serve(self._counters)

    def _rang(self, descriptor: object) -> None:
        port = self._by_descriptor.get(descriptor)  # type: ignore[call-overload]
        if port is not None:
            port.ready = True  # a frame, most often; to find none costs less than to ask each time
        elif descriptor == self._wake_receiver.fileno():
            self._take_wake_bytes()
        else:
            self._door_rang = True

    @staticmethod
    def _ask(port: _Port) -> None:
        port.unsure = False
        if int(port.socket.get(_EVENTS)) & _POLLIN:
            port.ready = True

    def settle(self) -> None:
        # The I/O thread was stopped as the loop was; it needs a moment of its own to read what the kernel
        # holds.
        time.sleep(_SETTLE_SECONDS)
        self.wait(0.0)

    def wake(self) -> None:
        self._woken = True
        with suppress(BlockingIOError, OSError):  # full: it is awake already; closed: it is over
            self._wake_sender.send(b"\0")

    def _take_wake_bytes(self) -> None:
        self._woken = False
        with suppress(BlockingIOError):
            self._wake_receiver.recv(4096)

    # Sending.

    def send_local(self, sender: str, actor: str, frame: bytes) -> bool:
        found = self._senders.get((sender, actor))
        if found is None:
            found = self._connect_mailbox(sender, actor)
        try:
            found.send(frame, _DONTWAIT)
        except zmq.Again:
            # The mailbox's reports of what it has read are themselves read only now and then, or when
            # asked for.
            if not self._retry_local(found, frame):
                self._counters.report("mailbox_full", f"actor={actor} sender={sender}")
                return False
        self._mailboxes[actor].waiting += 1
        self._local_waiting += 1
        return True

    def _retry_local(self, sender: _Sender, frame: bytes) -> bool:
        sender.socket.get(_EVENTS)
        try:
            sender.send(frame, _DONTWAIT)
        except zmq.Again:
            return False
        return True

    def _connect_mailbox(self, sender: str, actor: str) -> _Sender:
        socket = sockets.mailbox_sender(self._context, self.limits, sender)
        sockets.connect(socket, f"inproc://{actor}")
        found = self._senders[(sender, actor)] = _Sender(socket)
        return found

    def send_peer(self, node: str, header: bytes, frame: bytes) -> bool:
        if len(frame) > self.limits.peer_frame_bytes:
            self._counters.report("peer_frame_too_large", f"peer={node} bytes={len(frame)}")
            return False
        peer = self._peers.get(node)
        if peer is None:
            self._counters.report("peer_unreachable", f"peer={node}")
            return False
        try:
            # Only a first part can find a queue full, so a frame goes whole or not at all.
            peer.send(header, _SENDMORE)
            peer.send(frame, _DONTWAIT)
        except zmq.Again:
            # No connection, or its queue is full. Either way what is in the queue is older and goes first.
            self._counters.report("peer_unreachable", f"peer={node}")
            return False
        return True

    def send_frame(self, port: str, connection: bytes, payload: bytes) -> bool:
        found = self._ports[port]
        found.unsure = True
        send = found.send
        try:
            send(connection, _SENDMORE)
            send(payload, _DONTWAIT)
        except zmq.Again:
            self._counters.report("client_full", f"port={port}")
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._counters.report("client_unreachable", f"port={port}")
            return False
        return True

    def publish(self, port: str, parts: list[bytes]) -> bool:
        found = self._ports[port]
        found.unsure = True
        send = found.send
        try:
            for part in parts[:-1]:
                send(part, _SENDMORE)
            send(parts[-1], _DONTWAIT)
        except zmq.Again:
            self._counters.report("publisher_full", f"port={port}")
            return False
        return True

    # Receiving. A receive that finds nothing raises, which takes as long as receiving three frames.

    def receive_local(self, actor: str) -> list[tuple[str, bytes]]:
        mailbox = self._mailboxes[actor]
        if not mailbox.waiting:
            return []
        receive = mailbox.socket.recv
        taken: list[tuple[str, bytes]] = []
        taken_bytes = 0
        most_frames, most_bytes = self.limits.drain_frames, self.limits.drain_bytes
        for _ in range(min(mailbox.waiting, most_frames)):
            sender = receive(_DONTWAIT)
            frame = receive(_DONTWAIT)
            taken.append((sender.decode(), frame))
            taken_bytes += len(frame)
            if taken_bytes >= most_bytes:
                break
        mailbox.waiting -= len(taken)
        self._local_waiting -= len(taken)
        return taken

    def receive_peers(self) -> list[tuple[bytes, bytes]]:
        port = self._ports.get(PEER_PORT)
        if port is None or not port.ready:
            return []
        return [(parts[1], parts[2]) for parts in self._drain(port, 3, "peer_wrong_parts")]

    def peers_waiting(self) -> bool:
        port = self._ports.get(PEER_PORT)
        return port is not None and port.ready

    def receive_port(self, port: str) -> list[tuple[bytes, bytes]]:
        found = self._ports[port]
        if not found.ready:
            return []
        if found.is_publisher:
            return self._drain_subscriptions(found)
        return [(parts[0], parts[1]) for parts in self._drain(found, 2, "client_wrong_parts")]

    def _drain(self, port: _Port, part_count: int, reason: str) -> list[list[bytes]]:
        """Frames of exactly so many parts; others are dropped and counted. Ends with `ready` False if all is
        read."""
        taken: list[list[bytes]] = []
        taken_bytes = 0
        socket = port.socket
        receive = socket.recv
        for turn in range(self.limits.drain_frames):
            if turn == 1 and not int(socket.get(_EVENTS)) & _POLLIN:
                port.ready = False  # one frame is the usual case, and asking is cheaper than an exception
                return taken
            try:
                parts = [receive(_DONTWAIT)]
            except zmq.Again:
                port.ready = False
                return taken
            last = receive(_DONTWAIT, copy=False)
            while last.more and len(parts) < part_count:
                parts.append(last.bytes)
                last = receive(_DONTWAIT, copy=False)
            parts.append(last.bytes)
            taken_bytes += sum(map(len, parts))
            if len(parts) != part_count:
                _skip_parts(socket, last.more)
                self._counters.report(reason, f"port={port.name}")
            else:
                taken.append(parts)
            if taken_bytes >= self.limits.drain_bytes:
                break
        return taken

    def _drain_subscriptions(self, port: _Port) -> list[tuple[bytes, bytes]]:
        taken: list[tuple[bytes, bytes]] = []
        for _ in range(self.limits.drain_frames):
            try:
                frame = port.socket.recv(_DONTWAIT, copy=False)
            except zmq.Again:
                port.ready = False
                return taken
            payload = frame.bytes
            if frame.more or not is_subscription(payload) or len(payload) > self.limits.topic_bytes + 1:
                _skip_parts(port.socket, frame.more)
                self._counters.report("publisher_bad_subscription", f"port={port.name} bytes={len(payload)}")
            else:
                taken.append((b"", payload))
        return taken

    def close(self) -> None:
        """Close all sockets; waits at most as long as the client ports linger."""
        if self._context.closed:
            return
        for port in self._ports.values():
            port.socket.disable_monitor()
            port.socket.close()
        self._door.close()
        for mailbox in self._mailboxes.values():
            mailbox.socket.close()
        for sender in (*self._senders.values(), *self._peers.values()):
            sender.socket.close()
        self._wake_sender.close()
        self._wake_receiver.close()
        self._context.term()


def _skip_parts(socket: Socket, more: bool) -> None:
    """Leave the rest of a frame unread; all of its parts are here, for libzmq delivers frames whole."""
    while more:
        more = socket.recv(_DONTWAIT, copy=False).more
