"""Spectators: clients that do nothing but watch, and a record of all that they were told.

What decides is the client library's own: its core and its watches, which know no socket. Here is the wire
under them, on the simulated network: requests to a node's client port, subscriptions to its watch plane, both
over links that lose, delay and repeat. A connection ends with the life of the node it was made to, as TCP
tells it, or when the node has been silent for as long as ZeroMQ's own heartbeat allows. A spectator takes
what came at once or late, breaks off and goes on elsewhere, and begins again where its past is compacted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Protocol

from actors.memory import MemoryClient, MemorySubscriber
from kvstore import errors, watch_streams
from kvstore.client import watch as watching
from kvstore.client import watched
from kvstore.client.core import ClientCore
from kvstore.client.trees import TreeWatch
from kvstore.client.watch import Watch, Watches
from tests.simulator.cluster import Cluster, SimulatedNode, client_endpoint
from tests.simulator.oracles import Oracles
from tests.simulator.swarm import Swarm
from tests.simulator.tracing import Violation
from tests.watching.validators import Recorded, Truth, complaints_about

CONNECT_SECONDS = 0.001
RECONNECT_SECONDS = 0.1  # between two attempts to reach a node that is not there
HALF_OPEN_SECONDS = 3.0  # a node that says nothing at all for longer is given up by ZeroMQ
LEAST_WAIT_SECONDS = 0.001
MOST_ROUNDS = 8  # of one wake-up: what one part did may concern the other
FEW_BATCHES = 6  # undelivered ones of a watch, in runs with tiny queues
MOST_REPORTED = 5


class Sink(Protocol):
    """Whom a wire tells what arrived, and when a connection begins and ends."""

    def on_connected(self, connection: int) -> None: ...

    def on_refused(self, connection: int) -> None: ...

    def on_lost(self, connection: int) -> None: ...

    def on_arrival(self) -> None: ...


class Connection:
    """One attempt to reach a node, and what becomes of it. Owned by its wire."""

    __slots__ = ("endpoint", "is_subscriber", "life", "node", "paused_since", "socket", "waiting")

    def __init__(self, endpoint: str, node: SimulatedNode | None, *, is_subscriber: bool) -> None:
        self.endpoint = endpoint
        self.node = node  # None: nobody was ever there
        self.is_subscriber = is_subscriber
        self.life = 0  # of the node, when it was reached; 0: it was not
        self.socket: MemoryClient | MemorySubscriber | None = None  # once it is connected
        self.waiting: list[bytes] = []  # what is to be sent as soon as it is
        self.paused_since: float | None = None


class SimulatedWire:
    """Requests and subscriptions of one client; what the library's sockets are in production."""

    def __init__(self, cluster: Cluster, sink: Sink) -> None:
        self._cluster = cluster
        self._sink = sink
        self.connections: dict[int, Connection] = {}

    # -- as the core and the watches see it ------------------------------------------------------------

    def open(self, connection: int, endpoint: str) -> None:
        self._open(connection, endpoint, is_subscriber=False)

    def open_subscriber(self, connection: int, endpoint: str) -> None:
        self._open(connection, endpoint, is_subscriber=True)

    def _open(self, number: int, endpoint: str, *, is_subscriber: bool) -> None:
        node = self._cluster.node_at(endpoint)
        self.connections[number] = Connection(endpoint, node, is_subscriber=is_subscriber)
        self._cluster.schedule.after(CONNECT_SECONDS, lambda: self._connect(number))

    def _connect(self, number: int) -> None:
        found = self.connections.get(number)
        if found is None:
            return
        node = found.node
        if node is None or not node.runs:
            self._cluster.schedule.after(RECONNECT_SECONDS, lambda: self._connect(number))
            if node is None or not node.alive:  # of a process that is stopped nothing at all is heard
                self._sink.on_refused(number)
            return
        network = self._cluster.network
        found.life = node.life
        found.socket = (
            network.memory.connect_subscriber(found.endpoint)
            if found.is_subscriber
            else network.memory.connect_client(found.endpoint)
        )
        network.apart.add(found.socket.name)
        self._cluster.listeners[found.socket.name] = self._sink.on_arrival
        waiting, found.waiting = found.waiting, []
        for payload in waiting:
            self._pass_on(found, payload)
        self._sink.on_connected(number)

    def close(self, connection: int) -> None:
        found = self.connections.pop(connection)
        if found.socket is not None:
            found.socket.close()
            del self._cluster.listeners[found.socket.name]

    def close_all(self) -> None:
        for number in list(self.connections):
            self.close(number)

    def send(self, connection: int, frame: bytes) -> bool:
        self._pass_on(self.connections[connection], frame)
        return True

    def subscribe(self, connection: int, topic: bytes) -> None:
        self._pass_on(self.connections[connection], b"\x01" + topic)

    def unsubscribe(self, connection: int, topic: bytes) -> None:
        self._pass_on(self.connections[connection], b"\x00" + topic)

    @staticmethod
    def _pass_on(found: Connection, payload: bytes) -> None:
        socket = found.socket
        if socket is None:
            found.waiting.append(payload)
        elif isinstance(socket, MemoryClient):
            socket.send(payload)
        elif payload[0] == 1:
            socket.subscribe(payload[1:])
        else:
            socket.unsubscribe(payload[1:])

    # -- the ends of connections -----------------------------------------------------------------------

    def look_for_ends(self) -> None:
        """Nodes that died, and those that were stopped for too long, are noticed."""
        now = self._cluster.schedule.now
        for number, found in list(self.connections.items()):
            node = found.node
            if found.socket is None or node is None:
                continue
            if not node.paused:
                found.paused_since = None
            elif found.paused_since is None:
                found.paused_since = now
            is_silent = found.paused_since is not None and now - found.paused_since > HALF_OPEN_SECONDS
            if not node.alive or node.life != found.life or is_silent:
                self._cluster.trace.counts["watcher's connection ended"] += 1
                self._sink.on_lost(number)


class Client:
    """Core, watches and wire: the library's engine without its sockets. Owned by a spectator."""

    def __init__(self, cluster: Cluster, rng: Random, on_turn: Callable[[], None]) -> None:
        self._schedule = cluster.schedule
        self._on_turn = on_turn
        self.wire = SimulatedWire(cluster, self)
        endpoints = [client_endpoint(name) for name in sorted(cluster.nodes)]
        rng.shuffle(endpoints)
        self.core = ClientCore(endpoints, self.wire, rng=Random(rng.getrandbits(64)), max_outstanding=64)
        self.watches = Watches(self.core, self.wire)
        self._wake_at: float | None = None
        self._is_closed = False

    @property
    def now(self) -> float:
        return self._schedule.now

    def close(self) -> None:
        """As the end of its process would: nobody is told."""
        self._is_closed = True
        self.wire.close_all()

    # -- reports of the wire ---------------------------------------------------------------------------

    def on_connected(self, connection: int) -> None:
        self.core.on_connected(connection, self.now)
        self.turn()

    def on_refused(self, connection: int) -> None:
        self.core.on_refused(connection, self.now)
        self.watches.on_lost(connection, self.now)
        self.turn()

    def on_lost(self, connection: int) -> None:
        self.core.on_lost(connection, self.now)
        self.watches.on_lost(connection, self.now)

    def on_arrival(self) -> None:
        self.turn()

    # -- turns -----------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Read what arrived, do what is due, and say when to come again."""
        if self._is_closed:
            return
        self._receive()
        self.wire.look_for_ends()
        now = self.now
        for _ in range(MOST_ROUNDS):
            self.watches.on_time(now)
            due_at = self.core.next_deadline()
            if due_at is None or due_at > now:
                self.core.flush(now)
                break
            self.core.on_time(now)
        self.watches.on_time(now)
        self._on_turn()
        self._arrange()

    def _receive(self) -> None:
        for number, found in list(self.wire.connections.items()):
            socket = found.socket
            if isinstance(socket, MemoryClient):
                for payload in socket.receive():
                    self.core.on_frame(number, payload, self.now)
            elif socket is not None:
                for parts in socket.receive():
                    self.watches.on_message(number, parts, self.now)

    def _arrange(self) -> None:
        deadlines = [at for at in (self.core.next_deadline(), self.watches.next_deadline()) if at is not None]
        if not deadlines or self._is_closed:
            return
        wake_at = max(min(deadlines), self.now + LEAST_WAIT_SECONDS)
        if self._wake_at is not None and self.now < self._wake_at <= wake_at:
            return
        self._wake_at = wake_at
        self._schedule.at(wake_at, lambda: self._wake(wake_at))

    def _wake(self, at: float) -> None:
        if self._wake_at == at:
            self._wake_at = None
            self.turn()


class Audience:
    """Owns the spectators of one run."""

    def __init__(
        self, cluster: Cluster, oracles: Oracles, rng: Random, newest_told: Callable[[], int]
    ) -> None:
        self.cluster = cluster
        self.model = oracles.model
        self.membership = oracles.membership
        self.newest_told = newest_told  # the newest revision that any client was told
        self.is_closing = False
        self.spectators = [
            Spectator(self, f"w{number}", Random(rng.getrandbits(64)))
            for number in range(1, cluster.swarm.watchers + 1)
        ]

    def start(self) -> None:
        for spectator in self.spectators:
            spectator.begin()

    def close(self) -> None:
        """From now on everybody takes what comes at once, and nobody breaks off."""
        self.is_closing = True
        for spectator in self.spectators:
            spectator.look()

    def have_seen_all(self) -> bool:
        return all(spectator.has_seen_all() for spectator in self.spectators)

    def check(self) -> None:
        """Raises Violation unless each watch kept its promises."""
        truth = Truth(self.model.compact_revision)
        for revision, key, record in self.model.changes:
            truth.add(revision, key, record)
        counts = self.cluster.trace.counts
        for spectator in self.spectators:
            spectator.count()
            for recorded in spectator.records:
                counts["watches"] += 1
                counts["watch batches"] += len(recorded.batches)
                is_over = recorded is spectator.records[-1] and not spectator.is_stranded()
                complaints = complaints_about(recorded, truth, is_over=is_over)
                if complaints:
                    raise Violation("; ".join(complaints[:MOST_REPORTED]))


class Spectator:
    """One client and the one watch that it has at a time. Owned by the audience."""

    def __init__(self, audience: Audience, name: str, rng: Random) -> None:
        self.name = name
        self._audience = audience
        self._cluster = audience.cluster
        self._rng = rng
        self._client = Client(self._cluster, rng, self.look)
        self._watch: Watch | None = None
        self._is_slow = False
        self._is_late = False  # a slow one has something to take, and will
        self.records: list[Recorded] = []  # of all watches so far; the last one is going on

    @property
    def _record(self) -> Recorded:
        return self.records[-1]

    # -- watches ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Watch something, from some revision on."""
        rng, newest = self._rng, self._audience.newest_told()
        swarm = self._cluster.swarm
        bounds = (b"/k/0", b"/k1", b"/k-") if swarm.trees else (b"k0", b"k2", b"k1")
        spans = [
            swarm.all_keys,
            (b"\x00", b"\x00"),
            (bounds[0], b""),
            (swarm.key_names[0], bounds[1]),
            (bounds[2], b"\x00"),
        ]
        start = rng.choice([0, 0, 1, max(1, newest - rng.randint(0, 30)), newest + rng.randint(1, 10)])
        span, path = rng.choice(spans), b""
        if swarm.trees and rng.random() < 0.4:
            path = rng.choice([b"/k", b"/k/0", b"/k1"])
        self._begin(*span, start, path)

    def _begin(self, key: bytes, range_end: bytes, start_revision: int, path: bytes = b"") -> None:
        """Of a path, the tree is watched, and no other range."""
        rng = self._rng
        previous = rng.random() < 0.4
        puts, deletes = rng.choice([(True, True), (True, True), (True, False), (False, True)])
        options = {
            "progress": rng.random() < 0.5,
            "previous": previous,
            "puts": puts,
            "deletes": deletes,
        }
        if path:
            self._cluster.trace.counts["watch of a tree"] += 1
            watch: Watch = TreeWatch(path, start_revision, **options)
        else:
            watch = Watch(key, range_end, start_revision, **options)
        name = f"{self.name}.{len(self.records) + 1} from {start_revision} on"
        self.records.append(
            Recorded(
                watch.key,
                watch.range_end,
                start_revision,
                path=path,
                wants_previous=previous,
                no_puts=not puts,
                no_deletes=not deletes,
                name=name,
            )
        )
        self._watch = watch
        self._is_slow = rng.random() < 0.3
        watch.on_ready = self._registered
        self._client.watches.start(watch, self._client.now)
        self._cluster.trace.say(self.name, "watch", f"{key!r} {range_end!r} from {start_revision}")
        election_seconds = self._cluster.swarm.election_seconds
        self._cluster.schedule.after(election_seconds * rng.uniform(1, 60), lambda: self._break_off(watch))
        self._client.turn()

    def _begin_again(self, start_revision: int) -> None:
        """The same keys as before."""
        last = self._record
        self._begin(last.key, last.range_end, start_revision, last.path)

    def _registered(self) -> None:
        """Called first when the history was answered: what was "now" for a watch from now on."""
        watch, record = self._watch, self._record
        if watch is not None and watch.is_established and record.registered is None:
            record.registered = record.start_revision or watch.next_revision - 1

    def look(self) -> None:
        """After each turn of the client: take what came, all at once or a little every now and then."""
        if not self._is_slow or self._audience.is_closing:
            self._take(1 << 30)
        elif not self._is_late and self._watch is not None and self._watch.queue:
            self._is_late = True
            self._cluster.schedule.after(self._rng.uniform(0.05, 1.5), self._take_late)
        if self._watch is not None and self._rng.random() < 0.01:
            self._client.watches.request_progress(self._watch, self._client.now)
        self._see_to_end()

    def _take_late(self) -> None:
        self._is_late = False
        self._take(self._rng.randint(1, 5))
        self.look()

    def _take(self, most: int) -> None:
        watch = self._watch
        if watch is None:
            return
        for _ in range(most):
            batch = self._client.watches.take(watch, self._client.now)
            if batch is None:
                return
            model = self._audience.model
            if batch.revision > model.revision:
                raise Violation(
                    f"{self._record.name} hears of revision {batch.revision} before it is applied"
                )
            self._record.note(batch.revision, batch.events, model.compact_revision)

    def _see_to_end(self) -> None:
        watch = self._watch
        if watch is None or watch.phase is not watching.Phase.ENDED or watch.queue:
            return
        if not isinstance(watch.error, errors.Compacted):
            raise Violation(f"{self._record.name} ended with {watch.error!r}")
        self._record.compacted = watch.error.compact_revision
        if watch.error.compact_revision > self._audience.model.compact_revision:
            raise Violation(f"{self._record.name} is told of a compaction before it is applied")
        self._cluster.trace.say(self.name, "watch compacted", f"oldest={watch.error.compact_revision}")
        start = self._rng.choice([0, watch.error.compact_revision])
        self._watch = None
        self._cluster.schedule.after(0.01, lambda: self._begin_again(start))

    def _break_off(self, watch: Watch) -> None:
        """Go on where this one was, now and then with another client; or watch something else."""
        if watch is not self._watch or self._audience.is_closing or watch.phase is watching.Phase.ENDED:
            return
        revision = watch.revision  # all up to here was taken, says the library
        if watch.is_established and revision <= self._audience.model.revision:
            self._record.promise(revision)
        self._client.watches.cancel(watch)
        if self._rng.random() < 0.3:
            self.count()
            self._client.close()
            self._client = Client(self._cluster, self._rng, self.look)
        if self._rng.random() < 0.7 and watch.is_established:
            self._cluster.trace.counts["watch resumed"] += 1
            self._begin_again(revision + 1)
        else:
            self.begin()

    # -- at the end ------------------------------------------------------------------------------------

    def has_seen_all(self) -> bool:
        watch = self._watch
        return self.is_stranded() or (
            watch is not None
            and watch.is_established
            and not watch.queue
            and watch.next_revision > self._audience.model.revision
        )

    def is_stranded(self) -> bool:
        """On a node that nobody told of its removal: a learner that was away then, which is a known limit."""
        subscriber = None if self._watch is None else self._watch.subscriber
        node = None if subscriber is None else self._cluster.node_at(subscriber.link.endpoint)
        if node is None or not node.alive or node.core.is_removed:
            return False
        return (
            node.core.leader_id is None
            and node.name not in self._audience.membership.committed[-1][1].members
        )

    def count(self) -> None:
        """What the library counted, for coverage."""
        for name, number in self._client.core.counters.items():
            if name.startswith("watch_"):
                self._cluster.trace.counts[name.replace("_", " ")] += number


@contextmanager
def bounded_watches(swarm: Swarm) -> Iterator[None]:
    """In runs with tiny queues a watch is full when a few batches wait for their consumer; in runs with
    crowds a stream has one from its first subscriber on."""
    before, pause_seconds = watched.MAX_BATCHES, watch_streams.PAUSE_SECONDS_PER_SUBSCRIBER
    for module in (watching, watched):
        vars(module)["MAX_BATCHES"] = FEW_BATCHES if swarm.tiny_queues else before
    if swarm.crowds:
        vars(watch_streams)["PAUSE_SECONDS_PER_SUBSCRIBER"] = watch_streams.MOST_PAUSE_SECONDS
    try:
        yield
    finally:
        for module in (watching, watched):
            vars(module)["MAX_BATCHES"] = before
        vars(watch_streams)["PAUSE_SECONDS_PER_SUBSCRIBER"] = pause_seconds
