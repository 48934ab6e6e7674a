"""A load on a cluster, measured: many connections, many requests in flight, each one answered and timed.

May know: zmq and the client protocol; it is a client of its own, thinner than the library's, since it
shares the machine with the nodes that it measures. Rules: one thread, one poller; as many requests to a
frame as a connection has room for; a request counts as completed only when its own result came and is
right. What an answer costs here is taken from the nodes' share of the cores, so the way of a reply
(`_receive` and `_issue`) holds no more than it must.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import repeat
from typing import Any, Final, Literal, TypeAlias

import zmq

from kvstore import protocol
from kvstore.client.load_work import VALUES, CloseSessions, Connection, Gets, OpenSessions, Puts, Work

LoadKind: TypeAlias = Literal["put", "get", "local-get"]
KINDS: Final[tuple[LoadKind, ...]] = ("put", "get", "local-get")

MAX_CONNECTIONS: Final = 10_000
_MAX_SOCKETS: Final = 65_535  # libzmq's own limit
_TICK_SECONDS: Final = 0.02
_RETRY_PAUSE_SECONDS: Final = 0.05
_STATUS_SECONDS: Final = 0.5
_FIND_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 2.0
_MAX_PATIENCE_SECONDS: Final = 16.0
_FRAME_BYTES: Final = protocol.MAX_FRAME_BYTES // 2
_PATIENT_REFUSALS: Final = 10

# Refusals after which the same bodies go out again, here or elsewhere. A write keeps its session and
# sequence, so a retry of one whose outcome is unknown cannot apply twice.
_RETRIED: Final = frozenset(
    {
        protocol.NOT_LEADER,
        protocol.NO_LEADER,
        protocol.OVERLOADED,
        protocol.SHUTTING_DOWN,
        protocol.CONFLICT_WITH_LEADER,
        protocol.OUTCOME_UNKNOWN,
        protocol.DEADLINE_EXCEEDED,
        protocol.TRANSFERRING,
    }
)


class LoadRefused(Exception):
    """The settings cannot be run: `setting` has a value other than what was `expected`."""

    __slots__ = ("expected", "setting", "value")

    def __init__(self, setting: str, value: object, expected: str) -> None:
        super().__init__(f"{setting}: {value!r} is not {expected}")
        self.setting = setting
        self.value = value
        self.expected = expected


class LoadFailed(Exception):
    """The load never began: no node was reached, or what it needs first could not be written in time."""

    __slots__ = ("endpoints", "reason")

    def __init__(self, reason: str, endpoints: Sequence[str]) -> None:
        super().__init__(f"{reason} (endpoints: {', '.join(endpoints)})")
        self.reason = reason
        self.endpoints = list(endpoints)


@dataclass(slots=True, kw_only=True)
class LoadSettings:
    """One run. Puts and gets go to the leader, whichever endpoint was given; local gets are dealt to all."""

    kind: LoadKind
    endpoints: list[str]
    connections: int = 1
    in_flight: int = 1  # requests of one connection that wait for their answer
    value_bytes: int = 256
    total: int = 10_000
    keys: int = 1_000  # key space, drawn from uniformly
    in_order: bool = False  # puts: not drawn, but one key after the other, and from the first again
    seed: int = 1
    timeout_seconds: float = 60.0  # for the whole run, with what it needs before and after
    silence_seconds: float = 1.0  # a connection that owes answers and is silent for longer is given up

    def __post_init__(self) -> None:
        limits = {
            "connections": MAX_CONNECTIONS,
            "in_flight": protocol.MAX_UNACKNOWLEDGED,
            "total": 1_000_000_000,
            "keys": 100_000_000,
        }
        for name, most in limits.items():
            if not 1 <= getattr(self, name) <= most:
                raise LoadRefused(name, getattr(self, name), f"a number from 1 to {most}")
        most = protocol.MAX_VALUE_BYTES
        if not 0 <= self.value_bytes <= most:
            raise LoadRefused("value_bytes", self.value_bytes, f"a number from 0 to {most}")
        for name in ("timeout_seconds", "silence_seconds"):
            if not getattr(self, name) > 0:
                raise LoadRefused(name, getattr(self, name), "a number above 0")
        if self.kind not in KINDS:
            raise LoadRefused("kind", self.kind, f"one of {', '.join(KINDS)}")
        if not self.endpoints:
            raise LoadRefused("endpoints", self.endpoints, "at least one endpoint")


@dataclass(slots=True)
class LoadResult:
    """What was measured. Times are of completed operations, first sending to answer, retries included."""

    kind: LoadKind
    connections: int
    in_flight: int
    value_bytes: int
    total: int
    completed: int  # answered, and rightly
    errors: int  # failed, wrong, unanswered, and answers to nothing; by reason in `failures`
    retries: int  # sent again after a refusal or a lost connection; by reason in `refusals`
    seconds: float
    ops_per_second: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    failures: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def run_load(settings: LoadSettings) -> LoadResult:
    """Runs one load to its end or its deadline. Raises LoadFailed when it could not begin."""
    load = _Load(settings)
    try:
        return load.measure()
    except zmq.ZMQError as error:
        # Not enough file descriptors for so many connections, as a rule.
        raise LoadFailed(f"a socket failed: {error}", settings.endpoints) from error
    finally:
        load.close()


def node_status(endpoint: str, timeout_seconds: float = _STATUS_SECONDS) -> dict[str, Any] | None:
    """The status map of the node at `endpoint`, or None when it does not answer in time."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(endpoint)
        socket.send(protocol.encode_request(protocol.STATUS, 0, int(timeout_seconds * 1e3), []))
        if not socket.poll(int(timeout_seconds * 1e3)):
            return None
        reply = socket.recv()
    try:
        decoded = protocol.decode_reply(reply)
        if isinstance(decoded, protocol.Refusal):
            return None
        [result] = protocol.split_results(decoded.blob, decoded.request_count)
    except protocol.MalformedFrame:
        return None
    return result[1] if len(result) == 2 and isinstance(result[1], dict) else None


class _Load:
    """Owns the context, the connections and the tally of the work in hand; lives for one run."""

    def __init__(self, settings: LoadSettings) -> None:
        self._settings = settings
        self._deadline = time.perf_counter() + settings.timeout_seconds
        self._random = random.Random(settings.seed)
        self._values = [self._random.randbytes(settings.value_bytes) for _ in range(VALUES)]
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # A closed socket keeps its place until libzmq has reaped it, and all connections may move at once.
        self._context.set(zmq.MAX_SOCKETS, min(_MAX_SOCKETS, 4 * settings.connections + 1024))
        self._poller = zmq.Poller()
        self._connections = [Connection(settings.silence_seconds) for _ in range(settings.connections)]
        self._by_socket: dict[zmq.Socket[bytes], Connection] = {}
        self._leader: str | None = None  # client endpoint, as last told
        # A frame stays well below the protocol's limits.
        body_bytes = settings.value_bytes + 128
        self._frame_requests = max(1, min(protocol.MAX_REQUESTS_PER_FRAME, _FRAME_BYTES // body_bytes))
        self._begin(OpenSessions(), 0, 1, self._deadline)

    def close(self) -> None:
        self._context.destroy(linger=0)

    # ---- the run as a whole

    def measure(self) -> LoadResult:
        settings = self._settings
        self._leader = self._find_leader()
        for number, connection in enumerate(self._connections):
            self._connect(connection, self._leader or settings.endpoints[number % len(settings.endpoints)])
        self._prepare(OpenSessions(), settings.connections, 1, "sessions could not be opened")
        work: Puts | Gets
        if settings.kind == "put":
            work = Puts(self._ordered_keys() if settings.in_order else self._random_keys(), self._values)
        else:
            self._write_keys()
            kind = protocol.STALE_READ if settings.kind == "local-get" else protocol.READ
            work = Gets(kind, self._random_keys(), settings.value_bytes)
        self._begin(work, settings.total, settings.in_flight, self._deadline)
        begun = time.perf_counter()
        self._run()
        result = self._result(time.perf_counter() - begun, work)
        if not self._unfinished:
            self._begin(CloseSessions(), settings.connections, 1, time.perf_counter() + _CLOSE_SECONDS)
            self._run()
        return result

    def _find_leader(self) -> str | None:
        """As any node tells it; None when those that answer know of none: they will tell it later."""
        give_up_at = min(self._deadline, time.perf_counter() + _FIND_SECONDS)
        while time.perf_counter() < give_up_at:
            answers = [status for endpoint in self._settings.endpoints if (status := node_status(endpoint))]
            leaders = [str(status["leader_client"]) for status in answers if status.get("leader_client")]
            if answers:
                return leaders[0] if leaders else None
        raise LoadFailed("no node answered", self._settings.endpoints)

    def _write_keys(self) -> None:
        """Gets find every key written, with a value of the expected size, at whatever node they ask."""
        settings = self._settings
        self._prepare(Puts(self._all_keys(), self._values), settings.keys, 64, "keys could not be written")
        if settings.kind == "local-get":
            for number, connection in enumerate(self._connections):
                self._connect(connection, settings.endpoints[number % len(settings.endpoints)])
            # A linearizable read is answered by a node that has applied all the puts before it.
            look = Gets(protocol.READ, self._all_keys(), settings.value_bytes)
            self._prepare(look, min(settings.connections, settings.keys), 1, "keys could not be read")

    def _prepare(self, work: Work, total: int, in_flight: int, otherwise: str) -> None:
        self._begin(work, total, in_flight, self._deadline)
        self._run()
        if self._unfinished or self._failures:
            reasons = ", ".join(sorted({*self._failures, *self._refusals})) or "no answer"
            raise LoadFailed(f"{otherwise}: {reasons}", self._settings.endpoints)

    def _all_keys(self) -> Iterator[bytes]:
        digits = max(4, len(str(self._settings.keys - 1)))
        return (b"/bench/k%0*d" % (digits, number) for number in range(self._settings.keys))

    def _ordered_keys(self) -> Iterator[bytes]:
        while True:
            yield from self._all_keys()

    def _random_keys(self) -> Iterator[bytes]:
        keys = list(self._all_keys())
        while True:
            yield from self._random.choices(keys, k=1024)

    # ---- the loop

    def _begin(self, work: Work, total: int, in_flight: int, deadline: float) -> None:
        self._work = work
        self._work_deadline = deadline
        self._in_flight = in_flight
        self._to_issue = total
        self._unfinished = total  # to be issued, or issued and not yet answered
        self._latencies: list[float] = []
        self._failures: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()

    def _run(self) -> None:
        poll, by_socket, tick_ms = self._poller.poll, self._by_socket, int(_TICK_SECONDS * 1e3)
        for connection in self._connections:
            self._issue(connection)
        look_at = time.perf_counter() + _TICK_SECONDS
        while self._unfinished:
            for socket, _ in poll(tick_ms):
                self._receive(by_socket[socket])
            now = time.perf_counter()
            if now >= look_at:
                if now >= self._work_deadline:
                    return
                self._look_after(now)
                look_at = now + _TICK_SECONDS

    def _issue(self, connection: Connection) -> None:
        """Fills the connection's window, all in one frame if the frame can hold it."""
        outstanding, work = connection.outstanding, self._work
        room = min(self._in_flight - len(outstanding), self._to_issue)
        while room > 0 and not connection.resend:
            count = min(room, self._frame_requests)
            started, first_id = time.perf_counter(), connection.next_id
            keys = work.take_keys(count)
            bodies = work.bodies(connection, keys)
            connection.next_id += count
            outstanding.update(zip(range(first_id, first_id + count), zip(repeat(started), bodies, keys)))
            self._to_issue -= count
            room -= count
            connection.heard_at = started
            self._send(connection, first_id, bodies)

    def _send(self, connection: Connection, first_id: int, bodies: list[bytes]) -> None:
        left_ms = int((self._work_deadline - time.perf_counter()) * 1e3)
        timeout_ms = min(max(1, left_ms), protocol.MAX_TIMEOUT_MILLISECONDS)
        assert connection.socket is not None, "a connection sends before it was connected"
        frame = protocol.encode_request(self._work.kind, first_id, timeout_ms, bodies)
        connection.socket.send(frame, zmq.NOBLOCK)

    def _receive(self, connection: Connection) -> None:
        assert connection.socket is not None, "a connection is readable before it was connected"
        frame = connection.socket.recv(zmq.NOBLOCK)
        now = connection.heard_at = time.perf_counter()
        connection.patience_seconds = self._settings.silence_seconds
        try:
            reply = protocol.decode_reply(frame)
            if isinstance(reply, protocol.Refusal):
                return self._refused(connection, reply)
            request_id, count, blob = reply
            results = protocol.split_results(blob, count)
        except protocol.MalformedFrame:
            self._failures["malformed_reply"] += 1
            return None
        connection.refusals_in_a_row = 0
        outstanding, judge, latencies = connection.outstanding, self._work.judge, self._latencies
        for result in results:
            operation = outstanding.pop(request_id, None)
            request_id += 1
            if operation is None:
                self._failures["answer_to_nothing"] += 1
                continue
            started, _, key = operation
            wrong = judge(connection, key, result)
            if wrong is None:
                latencies.append(now - started)
            else:
                self._failures[wrong] += 1
            self._unfinished -= 1
        if connection.resend:
            connection.resend.intersection_update(outstanding)
        return self._issue(connection)

    # ---- what goes wrong

    def _refused(self, connection: Connection, refusal: protocol.Refusal) -> None:
        first_id, last_id, code = refusal[0], refusal[0] + refusal[1], refusal.code
        ids = [number for number in connection.outstanding if first_id <= number < last_id]
        reason = protocol.CODE_NAMES.get(code, f"code_{code}")
        if code not in _RETRIED:
            for number in ids:
                del connection.outstanding[number]
            self._unfinished -= len(ids)
            self._failures[reason] += len(ids)
            return self._issue(connection)
        self._again(connection, ids, reason)
        refusals = connection.refusals_in_a_row = connection.refusals_in_a_row + 1
        if code == protocol.NOT_LEADER:
            self._leader = refusal.leader_endpoint
        # A node without a leader is likely to hear of one soon; one that is cut off from the others is not.
        if code in (protocol.NOT_LEADER, protocol.SHUTTING_DOWN) or refusals % _PATIENT_REFUSALS == 0:
            self._move(connection)
        # Who learns of the leader goes there at once, unless sent from there too: then two nodes are at odds.
        if code == protocol.NOT_LEADER and refusals == 1 and connection.endpoint == self._leader:
            self._resend(connection)
        return None

    def _again(self, connection: Connection, ids: Iterable[int], reason: str) -> None:
        before = len(connection.resend)
        connection.resend.update(ids)
        connection.resend_at = time.perf_counter() + _RETRY_PAUSE_SECONDS
        self._refusals[reason] += len(connection.resend) - before

    def _move(self, connection: Connection) -> None:
        """To the leader if another is known, else to the next endpoint. Answers owed here are given up."""
        endpoints, here = self._settings.endpoints, connection.endpoint
        if self._leader and self._leader != here:
            to = self._leader
        else:
            to = endpoints[(endpoints.index(here) + 1) % len(endpoints) if here in endpoints else 0]
        self._connect(connection, to)
        self._again(connection, connection.outstanding, "moved")

    def _connect(self, connection: Connection, endpoint: str) -> None:
        if connection.socket is not None:
            self._poller.unregister(connection.socket)
            del self._by_socket[connection.socket]
            connection.socket.close(linger=0)
        connection.socket = socket = self._context.socket(zmq.DEALER)
        connection.endpoint = endpoint
        socket.linger = 0
        # Each frame in the queue holds a request of the window, so a queue as long is never full and
        # sending never waits.
        socket.sndhwm = socket.rcvhwm = protocol.MAX_UNACKNOWLEDGED + 1
        socket.reconnect_ivl = 20  # ms
        socket.connect(endpoint)
        self._by_socket[socket] = connection
        self._poller.register(socket, zmq.POLLIN)

    def _look_after(self, now: float) -> None:
        """Sends again what has waited long enough, and gives up connections that went silent."""
        for connection in self._connections:
            if connection.resend:
                if now >= connection.resend_at:
                    self._resend(connection)
            elif connection.outstanding and now - connection.heard_at > connection.patience_seconds:
                # A busy cluster is no lost one: the next silence has to last longer.
                connection.patience_seconds = min(2 * connection.patience_seconds, _MAX_PATIENCE_SECONDS)
                if self._leader == connection.endpoint:
                    self._leader = None
                self._again(connection, connection.outstanding, "silence")
                self._move(connection)
                self._resend(connection)

    def _resend(self, connection: Connection) -> None:
        """The same bodies under the same ids: one frame for each run of consecutive ids."""
        ids = sorted(connection.resend)
        connection.resend.clear()
        connection.heard_at = time.perf_counter()
        start = 0
        for end in range(1, len(ids) + 1):
            if end == len(ids) or ids[end] != ids[end - 1] + 1 or end - start == self._frame_requests:
                bodies = [connection.outstanding[number][1] for number in ids[start:end]]
                self._send(connection, ids[start], bodies)
                start = end

    # ---- the figures

    def _result(self, seconds: float, work: Puts | Gets) -> LoadResult:
        settings, latencies = self._settings, sorted(self._latencies)
        failures = Counter(self._failures)
        failures["unanswered"] = self._unfinished
        completed = len(latencies)
        if isinstance(work, Puts):
            failures["repeated_revision"] = work.repeated_revisions()
            completed -= failures["repeated_revision"]
        failures = +failures  # without the reasons that never came up
        return LoadResult(
            kind=settings.kind,
            connections=settings.connections,
            in_flight=settings.in_flight,
            value_bytes=settings.value_bytes,
            total=settings.total,
            completed=completed,
            errors=failures.total(),
            retries=self._refusals.total(),
            seconds=seconds,
            ops_per_second=completed / seconds,
            mean_ms=1e3 * sum(latencies) / max(1, len(latencies)),
            p50_ms=percentile_ms(latencies, 0.5),
            p99_ms=percentile_ms(latencies, 0.99),
            p999_ms=percentile_ms(latencies, 0.999),
            max_ms=percentile_ms(latencies, 1.0),
            failures=dict(failures),
            refusals=dict(+self._refusals),
        )


def percentile_ms(latencies: Sequence[float], share: float) -> float:
    """Of latencies in seconds, ascending: the one that at most `1 - share` of them exceed; 0 without any."""
    if not latencies:
        return 0.0
    return 1e3 * latencies[min(len(latencies) - 1, int(len(latencies) * share))]
