"""Bounds the connections of the outward ports: may know zmq's monitors and its ZAP protocol, nothing of
frames.

ZeroMQ itself takes connections until the process has no descriptors left, and then no file can be opened
either. So each port reports its connections as they come and go, and asks before a handshake ends (ZAP, RFC
27). One beyond the bound is refused for now; its client tries again by itself. Peers are not asked about.
"""

from __future__ import annotations

import struct

import zmq

from actors.counters import Counters
from actors.sockets import Socket, descriptor

_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_EVENT = struct.Struct("=HI")
_ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_ZAP_VERSION = b"1.0"
_WELCOME = b"200"
# "Temporary error": unlike a plain refusal, after which a client's socket is dead for good, it lets it try
# again. The connection is cut when the time for its handshake is over, and has its place among those counted
# until then.
_TRY_AGAIN = b"300"
# Reports and questions answered in one turn; the rest waits for the next.
_MOST_IN_TURN = 256


class _Guarded:
    """One port's connections; owned by the Door."""

    __slots__ = ("descriptors", "monitor", "port")

    def __init__(self, port: str, monitor: Socket) -> None:
        self.port = port
        self.monitor = monitor
        self.descriptors: set[int] = set()


class Door:
    """Counts and refuses connections; owned by a ZeroMqTransport, used by its thread."""

    def __init__(self, context: zmq.Context[Socket], poller: zmq.Poller, most_connections: int) -> None:
        self._context = context
        self._poller = poller
        self._most_connections = most_connections
        self._guarded: dict[str, _Guarded] = {}
        self._questions = context.socket(zmq.REP)
        self._questions.set(zmq.LINGER, 0)
        self._questions.bind(_ZAP_ENDPOINT)
        poller.register(descriptor(self._questions), zmq.POLLIN)

    def guard(self, socket: Socket, port: str) -> None:
        """Ask about each connection of a socket that is yet to be bound."""
        socket.set(zmq.ZAP_DOMAIN, port.encode())
        endpoint = f"inproc://connections-of-{port}"
        socket.monitor(endpoint, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        monitor = self._context.socket(zmq.PAIR)
        monitor.set(zmq.LINGER, 0)
        # A full queue of reports would block the I/O thread. They are few bytes each, and bounded by what a
        # machine can open and close while the loop turns once.
        monitor.set(zmq.RCVHWM, 0)
        monitor.connect(endpoint)
        self._poller.register(descriptor(monitor), zmq.POLLIN)
        self._guarded[port] = _Guarded(port, monitor)

    def connections(self, port: str) -> int:
        return len(self._guarded[port].descriptors)

    def serve(self, counters: Counters) -> bool:
        """Take in the reports, then answer the questions; called when a descriptor of the door rang.

        True if more is waiting, which will not ring again.
        """
        more = [self._take_reports(guarded) for guarded in self._guarded.values()]
        for _ in range(_MOST_IN_TURN):
            if not int(self._questions.get(_EVENTS)) & _POLLIN:
                return any(more)
            self._answer(self._questions.recv_multipart(zmq.DONTWAIT), counters)
        return True

    def close(self) -> None:
        self._questions.close()
        for guarded in self._guarded.values():
            guarded.monitor.close()

    def _take_reports(self, guarded: _Guarded) -> bool:
        """True if some are left for the next turn."""
        for _ in range(_MOST_IN_TURN):
            if not int(guarded.monitor.get(_EVENTS)) & _POLLIN:
                return False
            event, number = _EVENT.unpack(guarded.monitor.recv_multipart(zmq.DONTWAIT)[0])
            if event == zmq.EVENT_ACCEPTED:
                guarded.descriptors.add(number)
            else:
                guarded.descriptors.discard(number)
        return True

    def _answer(self, question: list[bytes], counters: Counters) -> None:
        # version, request id, domain, address, routing id, mechanism, and then what the mechanism adds
        guarded = self._guarded[question[2].decode()]
        status = _WELCOME
        if len(guarded.descriptors) > self._most_connections:
            status = _TRY_AGAIN
            counters.report("connection_refused", f"port={guarded.port} most={self._most_connections}")
        self._questions.send_multipart([_ZAP_VERSION, question[1], status, b"", b"", b""], zmq.DONTWAIT)
