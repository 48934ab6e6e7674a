"""Reads and puts mixed on the same connections: one put, nine linearizable reads, one put, and so on.

May know: zmq and the client protocol. As thin as `kvstore.client.load`, whose bodies and judgement of answers
it takes: that has one kind of request in hand at a time, and this two. Rules: every tenth operation of all is
a put, whichever connection it falls to; a request counts only when its own result came and is right; nothing
is sent again, so a refusal, or a leader that changes, is an error of the run.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import zmq

from bench.filling import key_of, puts
from kvstore import protocol
from kvstore.client.load import node_status, percentile_ms
from kvstore.client.load_work import VALUES, Connection, Gets, OpenSessions, Puts, Work

PUT_EVERY = 10  # operations
KEYS = 10_000
_POLL_MILLISECONDS = 100


class MixedFailed(Exception):
    """The load never began: no leader was found, or no session was opened."""


@dataclass(slots=True)
class MixedResult:
    """Of reads and puts together; times are of those that were answered rightly."""

    ops_per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    completed: int
    puts: int  # of those
    errors: int  # failed, wrong, or unanswered


class MixedConnection(Connection):
    __slots__ = ("writes",)

    def __init__(self) -> None:
        super().__init__(patience_seconds=0.0)
        self.writes: set[int] = set()  # ids in `outstanding` which are not reads


def mixed_load(
    endpoints: Sequence[str],
    connections: int,
    in_flight: int,
    total: int,
    *,
    value_bytes: int = 256,
    keys: int = KEYS,
    timeout_seconds: float = 120.0,
) -> MixedResult:
    """One run of so many operations, all on the leader; every key is written before it begins."""
    puts(endpoints, total=keys, keys=keys, value_bytes=value_bytes, in_order=True)
    statuses = filter(None, map(node_status, endpoints))
    leader = next((str(status["leader_client"]) for status in statuses if status["leader_client"]), None)
    if leader is None:
        raise MixedFailed(f"none of {', '.join(endpoints)} knows a leader")
    load = _MixedLoad([key_of(number, keys) for number in range(keys)], value_bytes, timeout_seconds)
    try:
        load.connect(leader, connections)
        return load.run(total, in_flight)
    finally:
        load.close()


def puts_among(first: int, count: int) -> int:
    """How many are puts of so many operations from number `first` on: those that PUT_EVERY divides."""
    return -(-(first + count) // PUT_EVERY) - -(-first // PUT_EVERY)


class _MixedLoad:
    """Owns the context and the connections; lives for one run."""

    def __init__(self, keys: list[bytes], value_bytes: int, timeout_seconds: float) -> None:
        self._random = random.Random(1)
        self._deadline = time.perf_counter() + timeout_seconds
        values = [self._random.randbytes(value_bytes) for _ in range(VALUES)]
        self._puts = Puts(self._drawn(keys), values)
        self._gets = Gets(protocol.READ, self._drawn(keys), value_bytes)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._connections: dict[zmq.Socket[bytes], MixedConnection] = {}
        self._issued = self._answered = self._errors = 0
        self._latencies: list[float] = []

    def close(self) -> None:
        self._context.destroy(linger=0)

    def connect(self, leader: str, connections: int) -> None:
        """Each connection has a session of its own."""
        opening = OpenSessions()
        for _ in range(connections):
            connection = MixedConnection()
            connection.socket = socket = self._context.socket(zmq.DEALER)
            socket.sndhwm = socket.rcvhwm = protocol.MAX_UNACKNOWLEDGED + 1
            socket.connect(leader)
            self._connections[socket] = connection
            self._poller.register(socket, zmq.POLLIN)
            self._send(connection, opening, 1)
        for socket, connection in self._connections.items():
            if not socket.poll(self._left_ms()):
                raise MixedFailed(f"{leader} opens no session")
            self._receive(connection, opening)
        if self._errors:
            raise MixedFailed(f"{leader} refuses a session")

    def run(self, total: int, in_flight: int) -> MixedResult:
        self._answered = 0
        self._latencies.clear()
        begun = time.perf_counter()
        for connection in self._connections.values():
            self._issue(connection, total, in_flight)
        while self._answered < total and time.perf_counter() < self._deadline:
            for socket, _ in self._poller.poll(_POLL_MILLISECONDS):
                connection = self._connections[socket]
                self._receive(connection, self._gets)
                self._issue(connection, total, in_flight)
        return self._result(total, time.perf_counter() - begun)

    def _drawn(self, keys: list[bytes]) -> Iterator[bytes]:
        while True:
            yield from self._random.choices(keys, k=1024)

    def _left_ms(self) -> int:
        left = int(1e3 * (self._deadline - time.perf_counter()))
        return min(max(1, left), protocol.MAX_TIMEOUT_MILLISECONDS)

    def _issue(self, connection: MixedConnection, total: int, in_flight: int) -> None:
        """Fills the connection's window, with a frame of each kind."""
        room = min(in_flight - len(connection.outstanding), total - self._issued)
        if room > 0:
            writes = puts_among(self._issued, room)
            self._issued += room
            connection.writes.update(range(connection.next_id, connection.next_id + writes))
            self._send(connection, self._puts, writes)
            self._send(connection, self._gets, room - writes)

    def _send(self, connection: MixedConnection, work: Work, count: int) -> None:
        if not count:
            return
        started, first_id = time.perf_counter(), connection.next_id
        keys = work.take_keys(count)
        bodies = work.bodies(connection, keys)
        connection.next_id += count
        for request_id, body, key in zip(range(first_id, first_id + count), bodies, keys):
            connection.outstanding[request_id] = (started, body, key)
        assert connection.socket is not None, "a connection sends before it was connected"
        frame = protocol.encode_request(work.kind, first_id, self._left_ms(), bodies)
        connection.socket.send(frame, zmq.NOBLOCK)

    def _receive(self, connection: MixedConnection, otherwise: Work) -> None:
        """One frame of answers: of puts, or of what is no put."""
        assert connection.socket is not None, "a connection is readable before it was connected"
        reply = protocol.decode_reply(connection.socket.recv(zmq.NOBLOCK))
        now, outstanding, writes = time.perf_counter(), connection.outstanding, connection.writes
        if isinstance(reply, protocol.Refusal):
            for request_id in range(reply[0], reply[0] + reply[1]):
                writes.discard(request_id)
                self._answered += outstanding.pop(request_id, None) is not None
            self._errors += reply[1]
            return
        request_id, count, blob = reply
        for result in protocol.split_results(blob, count):
            started, _, key = outstanding.pop(request_id)
            work = self._puts if request_id in writes else otherwise
            writes.discard(request_id)
            request_id += 1
            self._answered += 1
            if work.judge(connection, key, result) is None:
                self._latencies.append(now - started)
            else:
                self._errors += 1

    def _result(self, total: int, seconds: float) -> MixedResult:
        latencies = sorted(self._latencies)
        return MixedResult(
            ops_per_second=len(latencies) / seconds,
            p50_ms=percentile_ms(latencies, 0.5),
            p99_ms=percentile_ms(latencies, 0.99),
            p999_ms=percentile_ms(latencies, 0.999),
            completed=len(latencies),
            puts=len(self._puts.revisions),
            errors=self._errors + total - self._answered + self._puts.repeated_revisions(),
        )
