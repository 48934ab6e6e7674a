"""Sockets: the one place of the client that knows ZeroMQ.

Moves bytes and notices the beginning and the end of connections; knows nothing of what the bytes say.
Rules: one thread at a time; nothing blocks; the descriptor of a ZeroMQ socket tells of changes only, so a
socket that was sent to or received from is drained before anybody waits for its descriptor again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import zmq

# As plain integers: looking an option up by its enumeration takes longer than asking for it.
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)
_DONTWAIT: Final = int(zmq.DONTWAIT)

_EVENT: Final = struct.Struct("=H")  # the beginning of what a monitor says
_REFUSED: Final = int(zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_CLOSED)
_LOST: Final = int(zmq.EVENT_DISCONNECTED)
_CONNECTED: Final = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_MOST_RECEIVED_AT_ONCE: Final = 1000  # from one socket, before the others have their turn
_MAX_REPLY_BYTES: Final = 256 << 20
# Of a node's watch plane; none is larger than 64 KiB. What comes then waits at the node, and what that has no
# room for is a gap.
MOST_UNREAD_MESSAGES: Final = 2048
MOST_SOCKETS: Final = 32_768  # of a process with libzmq's common context; its default is 1023

_OPTIONS: Final = {
    zmq.LINGER: 0,
    zmq.SNDHWM: 1000,
    zmq.RCVHWM: 16_384,
    zmq.MAXMSGSIZE: _MAX_REPLY_BYTES,
    zmq.RECONNECT_IVL: 20,  # milliseconds; only until the first connection, after which the core decides
    zmq.RECONNECT_IVL_MAX: 250,
    zmq.HANDSHAKE_IVL: 5000,
    # A half-open connection is noticed even while nothing is sent.
    zmq.HEARTBEAT_IVL: 1000,
    zmq.HEARTBEAT_TIMEOUT: 3000,
}


class Sink(Protocol):
    """Whom the sockets report to."""

    def on_connected(self, connection: int) -> None: ...

    def on_refused(self, connection: int) -> None: ...

    def on_lost(self, connection: int) -> None: ...

    def on_unusable(self, connection: int, reason: str) -> None:
        """There is no socket for it; of no use but to be closed."""
        ...

    def on_frame(self, connection: int, payload: bytes) -> None: ...

    def on_message(self, connection: int, parts: list[bytes]) -> None: ...


class _Connection:
    """One connecting socket and its monitor; owned by Connections."""

    __slots__ = ("descriptor", "is_subscriber", "monitor", "monitor_descriptor", "number", "socket")

    def __init__(self, number: int, socket: zmq.Socket[bytes], *, is_subscriber: bool) -> None:
        for option, value in _OPTIONS.items():
            socket.setsockopt(option, value)
        if is_subscriber:
            socket.setsockopt(zmq.RCVHWM, MOST_UNREAD_MESSAGES)
        self.number = number
        self.socket = socket
        self.is_subscriber = is_subscriber
        self.monitor: zmq.Socket[bytes] = socket.get_monitor_socket(_REFUSED | _LOST | _CONNECTED)
        self.monitor.setsockopt(zmq.LINGER, 0)
        self.descriptor: int = socket.getsockopt(zmq.FD)  # type: ignore[assignment]
        self.monitor_descriptor: int = self.monitor.getsockopt(zmq.FD)  # type: ignore[assignment]


class Connections:
    """The sockets of one client, which owns this and enters it with one thread at a time."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._context: zmq.Context[Any] = zmq.Context.instance()
        # A connection takes three, with its monitor; it counts only before the first socket of the process.
        self._context.set(zmq.MAX_SOCKETS, MOST_SOCKETS)
        self._connections: dict[int, _Connection] = {}
        self._by_socket: dict[int, int] = {}  # descriptor to number
        self._by_monitor: dict[int, int] = {}
        self._touched: set[int] = set()  # numbers whose sockets are to be drained before anybody waits
        self._readable: set[int] = set()  # of these, the ones where something most likely has arrived
        self._noticed: set[int] = set()  # as _touched, for their monitors
        self._reported = 0  # events and frames so far
        self._unusable: set[int] = set()  # could not even begin to connect, to be reported
        self._missing: dict[int, str] = {}  # numbers without a socket, and why: to be reported
        # Told of each descriptor to be waited for (True) and not to be (False).
        self.on_descriptor: Callable[[int, bool], None] = _ignore

    # -- the wire, as the core and the watches see it ----------------------------------------------------

    def open(self, connection: int, endpoint: str) -> None:
        self._open(connection, endpoint, zmq.DEALER)

    def open_subscriber(self, connection: int, endpoint: str) -> None:
        self._open(connection, endpoint, zmq.SUB)

    def _open(self, number: int, endpoint: str, kind: int) -> None:
        opened = self._make(number, kind)
        if opened is None:
            return
        self._connections[number] = opened
        self._by_socket[opened.descriptor] = number
        self._by_monitor[opened.monitor_descriptor] = number
        self.on_descriptor(opened.descriptor, True)
        self.on_descriptor(opened.monitor_descriptor, True)
        try:
            opened.socket.connect(endpoint)
        except zmq.ZMQError:
            self._unusable.add(number)  # an endpoint that a server told of may be anything
        # A descriptor begins to tell of arrivals only when its socket was found empty once.
        self._touched.add(number)
        self._noticed.add(number)

    def _make(self, number: int, kind: int) -> _Connection | None:
        """None if this process has no descriptor or no socket left, which may pass: reported by drain(), for
        whoever opens a connection is in the middle of something."""
        socket: zmq.Socket[bytes] | None = None
        try:
            socket = self._context.socket(kind)
            return _Connection(number, socket, is_subscriber=kind == zmq.SUB)
        except zmq.ZMQError as error:
            if socket is not None:
                socket.close(0)
            self._missing[number] = error.strerror
            return None

    def close(self, connection: int) -> None:
        self._missing.pop(connection, None)
        closed = self._connections.pop(connection, None)
        if closed is None:
            return
        self._touched.discard(connection)
        self._noticed.discard(connection)
        del self._by_socket[closed.descriptor]
        del self._by_monitor[closed.monitor_descriptor]
        self.on_descriptor(closed.descriptor, False)
        self.on_descriptor(closed.monitor_descriptor, False)
        closed.socket.disable_monitor()
        closed.monitor.close(0)
        closed.socket.close(0)

    def send(self, connection: int, frame: bytes) -> bool:
        found = self._connections.get(connection)
        if found is None:
            return False
        try:
            found.socket.send(frame, _DONTWAIT)
        except zmq.Again:
            return False
        self._touched.add(connection)
        return True

    def subscribe(self, connection: int, topic: bytes) -> None:
        self._set(connection, zmq.SUBSCRIBE, topic)

    def unsubscribe(self, connection: int, topic: bytes) -> None:
        self._set(connection, zmq.UNSUBSCRIBE, topic)

    def _set(self, connection: int, option: int, topic: bytes) -> None:
        found = self._connections.get(connection)
        if found is not None:
            found.socket.setsockopt(option, topic)
            self._touched.add(connection)

    # -- what arrived ------------------------------------------------------------------------------------

    @property
    def has_touched(self) -> bool:
        """True if drain() is to be called before anybody waits for descriptors."""
        return bool(self._touched or self._noticed or self._missing)

    def touch(self, descriptors: Iterable[int]) -> None:
        """These descriptors are readable. Unknown ones belonged to a socket that is closed."""
        for descriptor in descriptors:
            number = self._by_socket.get(descriptor)
            if number is not None:
                self._touched.add(number)
                self._readable.add(number)
            elif descriptor in self._by_monitor:
                self._noticed.add(self._by_monitor[descriptor])

    def drain(self) -> bool:
        """Reports what arrived at the touched sockets; those that have more stay touched. True if any did."""
        if not self.has_touched:
            return False
        reported = self._reported
        missing, self._missing = self._missing, {}
        for number, reason in missing.items():
            self._reported += 1
            self._sink.on_unusable(number, reason)
        unusable, self._unusable = self._unusable, set()
        for number in unusable:
            if number in self._connections:
                self._reported += 1
                self._sink.on_refused(number)
        noticed, self._noticed = self._noticed, set()
        for number in noticed:
            found = self._connections.get(number)
            if found is not None:
                self._drain_events(found)
        touched, self._touched = self._touched, set()
        readable, self._readable = self._readable, set()
        for number in touched:
            found = self._connections.get(number)  # a lost connection is closed by now
            if found is not None:
                self._drain_frames(found, is_likely=number in readable)
        return self._reported != reported

    def _drain_events(self, found: _Connection) -> None:
        monitor = found.monitor
        while not monitor.closed and has_input(monitor):
            (event,) = _EVENT.unpack_from(monitor.recv_multipart(_DONTWAIT)[0])
            self._reported += 1
            if event == _CONNECTED:
                self._sink.on_connected(found.number)
            elif event & _LOST:
                # What arrived before the end is still to be read: each answer in it is one retry less.
                self._drain_frames(found, is_likely=False)
                self._sink.on_lost(found.number)
            elif event & _REFUSED:
                self._sink.on_refused(found.number)

    def _drain_frames(self, found: _Connection, *, is_likely: bool) -> None:
        """To ask whether there is something costs as much as to receive it; in vain, receiving costs more."""
        socket, number, sink = found.socket, found.number, self._sink
        for _ in range(_MOST_RECEIVED_AT_ONCE):
            if socket.closed or not (is_likely or has_input(socket)):
                return
            is_likely = False
            try:
                parts = socket.recv_multipart(_DONTWAIT) if found.is_subscriber else [socket.recv(_DONTWAIT)]
            except zmq.Again:
                return
            self._reported += 1
            if found.is_subscriber:
                sink.on_message(number, parts)
            else:
                sink.on_frame(number, parts[0])
        self._touched.add(number)

    def close_all(self) -> None:
        for number in list(self._connections):
            self.close(number)


def _ignore(_descriptor: int, _is_open: bool) -> None:
    pass


def has_input(socket: zmq.Socket[bytes]) -> bool:
    events: Any = socket.getsockopt(_EVENTS)
    return bool(events & _POLLIN)
