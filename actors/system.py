"""The loop of one node: may know actors, the codec, the gate, and the transport and clock only as protocols.

One turn: wait; take in the peers' frames, bounded; then run each actor on all that has arrived for it and let
its outbox go, so that a message to a later actor is received within the turn; then once more if that left
messages to earlier ones. Actors with `runs_last` come behind all others. One thread runs a system; only
`stop` and `post` may be called from elsewhere. An exception out of an actor ends `run`.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque

from actors.actor import Actor
from actors.address import Address
from actors.clock import Clock
from actors.codec import MOST_MESSAGES_IN_FRAME, Codec
from actors.counters import Counters
from actors.errors import MalformedFrame
from actors.gate import Gate, Prefixes
from actors.transport import Transport

# Beyond this a turn endangers heartbeats, and its length is said in the log.
SLOW_TURN_SECONDS = 0.2
# Beyond this the process was stopped or starved, and the kernel may hold frames that the I/O thread has not
# read.
STALL_SECONDS = 0.1
# A turn that leaves peers' frames unread does not call the deadlines of `runs_last` actors, for they might
# judge by what is not read yet; but a flood must not silence them for longer than so many turns.
MOST_TURNS_HELD = 4
# Messages to a peer are joined into frames of no more than this: a heartbeat that is sent a moment later
# waits for the rest of one frame, and the receiver hears something as often.
JOINED_FRAME_BYTES = 1 << 20
# How long a turn waits at most once the system was told to stop, and an actor asked for a delay.
STOPPING_TURN_SECONDS = 0.005
# The sender of what was posted: nobody has this name, so nobody can be answered.
OUTSIDE = ""


class _Cell:
    """What the system keeps for one actor; owned by the System."""

    __slots__ = ("actor", "addresses", "hears", "incoming", "ports", "refused")

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        # An actor without `receive` is a programmer's error if its own node writes to it, not if a peer does.
        self.hears = type(actor).receive is not Actor.receive
        self.ports: list[str] = []
        self.incoming: list[tuple[Address, object]] = []  # from peers, taken in at the beginning of the turn
        self.addresses: dict[str, Address] = {}  # of local senders
        self.refused: list[tuple[Address, object]] = []  # of nodes with another storage id


class System:
    """The actors of one node and their loop; owns its actors and its transport.

    Use: add actors, open ports, connect peers, `run`. Or, instead of `run`, call `turn` (tests, simulators)
    and at the end `close`. `incarnation` must differ in every life of the node; by default it is random.
    `storage_id` names what the node remembers with, and is different after that was lost. With
    `welcomes_strangers`, frames of the own cluster are let in from nodes that were never connected, too; the
    own cluster is any with `cluster_id` None.
    """

    def __init__(
        self,
        node: str,
        transport: Transport,
        clock: Clock,
        codec: Codec,
        *,
        cluster_id: int | None = 0,
        incarnation: int | None = None,
        storage_id: int = 0,
        welcomes_strangers: bool = False,
    ) -> None:
        assert 0 <= (cluster_id or 0) < 2**64, f"cluster id {cluster_id} is out of range"
        self.node = node
        self.incarnation = secrets.randbits(63) if incarnation is None else incarnation
        self.counters = Counters(clock)
        self._transport = transport
        self._clock = clock
        self._codec = codec
        self._cells: list[_Cell] = []  # in the order in which they run
        self._by_name: dict[str, _Cell] = {}
        self._gate = Gate(node, cluster_id, self.counters, welcomes_strangers=welcomes_strangers)
        self._prefixes = Prefixes(node, cluster_id or 0, self.incarnation, storage_id)
        self._peers: dict[str, str] = {}  # those connected, and where
        self._owner: int | None = None  # the thread that runs the loop
        self._stopping = False
        self._grace_seconds = 0.0
        self._outside = Address(node, OUTSIDE)
        self._posted: deque[tuple[str, object]] = deque()  # (actor, message); any thread appends
        self._post_announced = False  # True: the loop was woken for them, and has not looked yet
        self._turns_held = 0
        self._stalled = False
        self._longest_turn_seconds = 0.0
        transport.attach(node, self.counters)

    # Putting a node together.

    def add(self, actor: Actor) -> None:
        """Actors run in the order in which they were added, those with `runs_last` behind all others."""
        assert actor.name not in self._by_name, f"two actors are named {actor.name}"
        assert self._owner is None, f"actor {actor.name} was added to a running system"
        actor._context = self
        actor._outbox = {}
        cell = self._by_name[actor.name] = _Cell(actor)
        self._cells.append(cell)
        self._cells.sort(key=lambda each: each.actor.runs_last)  # stable
        self._transport.open_mailbox(actor.name)

    def open_peer_port(self, endpoint: str) -> None:
        """Bind the endpoint that other nodes connect to; `endpoint("peer")` tells what it became."""
        self._transport.open_peer_port(endpoint)

    def open_client_port(self, actor: Actor, port: str, endpoint: str) -> None:
        """Bind a port for clients; the actor gets and sends its raw frames."""
        self._transport.open_client_port(port, endpoint)
        self._by_name[actor.name].ports.append(port)

    def open_publisher(self, actor: Actor, port: str, endpoint: str) -> None:
        """Bind a port for subscribers; the actor gets their subscriptions and publishes."""
        self._transport.open_publisher(port, endpoint)
        self._by_name[actor.name].ports.append(port)

    def connect_peer(self, node: str, endpoint: str, storage_id: int = 0) -> None:
        """Frames from `node` are let in, and those for it go to `endpoint`; again, with another one, moves
        it. With a `storage_id` it is let in only if it has that one. At any time, also by an actor."""
        assert node != self.node, f"node {node} is no peer of itself"
        if self._peers.get(node) != endpoint:
            self._transport.connect_peer(node, endpoint)
            self._peers[node] = endpoint
        self._gate.allow(node, storage_id)

    def disconnect_peer(self, node: str) -> None:
        """Frames from `node` are those of a stranger, and those for it are dropped."""
        if self._peers.pop(node, None) is not None:
            self._gate.refuse(node)
            self._transport.disconnect_peer(node)
            self._prefixes.forget(node)

    def storage_of(self, node: str) -> int:
        """The storage id of a connected peer as it is known, else 0."""
        return self._gate.storage_of(node)

    def endpoint(self, port: str) -> str:
        """Where a port, or the one named "peer", is really bound: with a number in place of port 0."""
        return self._transport.endpoint(port)

    def connections(self, port: str) -> int:
        """How many are connected to a client port or a publisher."""
        return self._transport.connections(port)

    # Running it.

    def run(self) -> None:
        """Turn until `stop`; then stop the actors and close. What an actor raises is raised again, with
        nothing but the sockets closed: the state it left behind cannot be trusted."""
        try:
            self.start()
            while not self._stopping:
                self.turn(None)
            self._prepare_to_stop()
            self._stop_actors()
        finally:
            self._transport.close()

    def stop(self, grace_seconds: float = 0.0) -> None:
        """End `run` after the present turn, or when all actors agree, at the latest after `grace_seconds`;
        from any thread, or from a signal handler. Called again, it can only shorten the grace."""
        self._grace_seconds = min(grace_seconds, self._grace_seconds) if self._stopping else grace_seconds
        self._stopping = True
        self._transport.wake()

    def _prepare_to_stop(self) -> None:
        """Turn on until nobody minds."""
        began_at = self._clock.now()
        while self._clock.now() - began_at < self._grace_seconds:
            waiting = [cell for cell in self._cells if not cell.actor.may_stop()]
            for cell in waiting:
                self.flush(cell.actor)  # what it takes to be able to stop
            if not waiting:
                return
            self.turn(STOPPING_TURN_SECONDS)

    def post(self, actor: str, message: object) -> None:
        """Give a message to an actor from outside the loop; from any thread. The actor gets the very object.

        Messages of one thread arrive in order. How many may wait is the poster's to bound.
        """
        assert actor in self._by_name, f"a message was posted to {actor}, which does not exist"
        self._posted.append((actor, message))
        if not self._post_announced:
            self._post_announced = True
            self._transport.wake()

    def start(self) -> None:
        """Start the actors, unless that was done; this thread owns the system from here on."""
        if self._owner is not None:
            return
        self._owner = threading.get_ident()
        for cell in self._cells:
            cell.actor.on_start()
            self.flush(cell.actor)

    def close(self) -> None:
        """For those who call `turn` themselves: stop the actors and close the transport."""
        try:
            if self._owner is not None:
                self._stop_actors()
        finally:
            self._transport.close()

    def abort(self) -> None:
        """For those who call `turn` themselves: close the transport, and tell the actors nothing."""
        self._transport.close()

    def turn(self, timeout_seconds: float | None = 0.0) -> None:
        """One turn, after a wait of at most the timeout (None: until the first deadline or frame)."""
        self.start()
        assert self._owner == threading.get_ident(), "a system is run by the thread that started it"
        self._wait(timeout_seconds)
        # Deadlines are judged by the time before anything is read, so what had arrived by then is received
        # first.
        started_at = self._clock.now()
        self._receive_peers(started_at)
        if self._posted:
            self._receive_posted()
        held = self._holds_deadlines()
        self._run_actors(started_at, held)
        if self._transport.local_waiting():
            # What a later actor sent to an earlier one, an answer most often, need not wait until the sockets
            # were asked again. Once only: a ring of actors that never rest must not keep peers waiting.
            self._run_actors(started_at, held)
        self._judge_turn(self._clock.now() - started_at)

    def next_deadline(self) -> float | None:
        """The time at which an actor next wants to be called; for whoever drives `turn` with a clock of its
        own."""
        deadlines = [cell.actor._deadline for cell in self._cells if cell.actor._deadline is not None]
        return min(deadlines, default=None)

    # What actors call, by their base class.

    def now(self) -> float:
        return self._clock.now()

    def send_frame(self, port: str, connection: bytes, payload: bytes) -> None:
        self._transport.send_frame(port, connection, payload)

    def publish(self, port: str, parts: list[bytes]) -> None:
        self._transport.publish(port, parts)

    def flush(self, actor: Actor) -> None:
        """Let an actor's outbox go: one frame for each destination, each message encoded once."""
        outbox = actor._outbox
        if not outbox:
            return
        assert self._owner == threading.get_ident(), (
            f"actor {actor.name} sends from a thread that is not its own"
        )
        actor._outbox = {}
        if len(outbox) == 1:
            for to, messages in outbox.items():
                if to.node == self.node and len(messages) <= MOST_MESSAGES_IN_FRAME:
                    self._send_local(actor.name, to, self._codec.encode(messages))
                    return
        encoded: dict[int, bytes] = {}  # by the message's identity; the outbox keeps the messages alive
        for to, messages in outbox.items():
            if to.node == self.node:
                self._send_local(actor.name, to, self._join(messages, encoded))
            else:
                self._send_to_peer(actor.name, to, messages, encoded)

    # Private.

    def _send_local(self, sender: str, to: Address, frame: bytes) -> None:
        assert to.actor in self._by_name, f"actor {sender} sends to {to.actor}, which does not exist"
        self._transport.send_local(sender, to.actor, frame)

    def _encode_once(self, message: object, encoded: dict[int, bytes]) -> bytes:
        frame = encoded.get(id(message))
        if frame is None:
            frame = encoded[id(message)] = self._codec.encode((message,))
        return frame

    def _join(self, messages: list[object], encoded: dict[int, bytes]) -> bytes:
        if len(messages) == 1:
            return self._encode_once(messages[0], encoded)
        return self._codec.join([self._encode_once(message, encoded) for message in messages])

    def _send_to_peer(
        self, sender: str, to: Address, messages: list[object], encoded: dict[int, bytes]
    ) -> None:
        """In one frame, unless the messages are large or very many. One message is never divided."""
        most_bytes = min(JOINED_FRAME_BYTES, self._transport.limits.peer_frame_bytes) - 16  # with its head
        frames: list[bytes] = []
        waiting_bytes = 0
        for message in messages:
            frame = self._encode_once(message, encoded)
            if frames and (waiting_bytes + len(frame) > most_bytes or len(frames) == MOST_MESSAGES_IN_FRAME):
                self._send_frames_to_peer(sender, to, frames)
                frames, waiting_bytes = [], 0
            frames.append(frame)
            waiting_bytes += len(frame)
        self._send_frames_to_peer(sender, to, frames)

    def _send_frames_to_peer(self, sender: str, to: Address, frames: list[bytes]) -> None:
        frame = frames[0] if len(frames) == 1 else self._codec.join(frames)
        self._transport.send_peer(to.node, self._prefixes.header(sender, to), frame)

    def _wait(self, timeout_seconds: float | None) -> None:
        is_over = self._stopping and timeout_seconds is None
        if timeout_seconds == 0.0 or is_over or self._transport.local_waiting():
            self._transport.wait(0.0)
        else:
            self._wait_for_deadline(timeout_seconds)
        if self._stalled:
            self._stalled = False
            self._transport.settle()

    def _wait_for_deadline(self, timeout_seconds: float | None) -> None:
        deadline = self.next_deadline()
        before = self._clock.now()
        if deadline is not None:
            until_deadline = max(0.0, deadline - before)
            if timeout_seconds is None or until_deadline < timeout_seconds:
                timeout_seconds = until_deadline
        self._transport.wait(timeout_seconds)
        if timeout_seconds is not None:
            overslept = self._clock.now() - before - timeout_seconds
            self._stalled = self._stalled or overslept > STALL_SECONDS

    def _receive_peers(self, now: float) -> None:
        for encoded_header, frame in self._transport.receive_peers():
            header = self._gate.admit(encoded_header, now)
            if header is None:
                if self._gate.turned_away is not None:
                    self._pass_on_refused(frame)
                continue
            cell = self._by_name.get(header.destination.actor)
            if cell is None or not cell.hears:
                self.counters.report("peer_unknown_actor", f"actor={header.destination.actor!r}")
                continue
            try:
                messages = self._codec.decode_remote(frame)
            except MalformedFrame as error:
                self.counters.report(
                    "peer_malformed_frame", f"peer={header.source.node} reason={error.reason!r}"
                )
                continue
            source = header.source
            cell.incoming.extend([(source, message) for message in messages])

    def _pass_on_refused(self, frame: bytes) -> None:
        """An actor that answers senders of a data directory that is not theirs is told what they wrote."""
        header, self._gate.turned_away = self._gate.turned_away, None
        assert header is not None
        cell = self._by_name.get(header.destination.actor)
        if cell is None or type(cell.actor).receive_refused is Actor.receive_refused:
            return
        try:
            messages = self._codec.decode_remote(frame)
        except MalformedFrame:
            return
        cell.refused += [(header.source, message) for message in messages]

    def _receive_posted(self) -> None:
        self._post_announced = False  # before the look: who posts from here on wakes the loop again
        posted = self._posted
        for _ in range(len(posted)):
            actor, message = posted.popleft()
            self._by_name[actor].incoming.append((self._outside, message))

    def _holds_deadlines(self) -> bool:
        if self._transport.peers_waiting() and self._turns_held < MOST_TURNS_HELD:
            self._turns_held += 1
            return True
        self._turns_held = 0
        return False

    def _run_actors(self, now: float, held: bool) -> None:
        for cell in self._cells:
            self._run_actor(cell, now, held)

    def _run_actor(self, cell: _Cell, now: float, held: bool) -> None:
        actor = cell.actor
        for port in cell.ports:
            frames = self._transport.receive_port(port)
            if frames:
                actor.receive_frames(port, frames)
        if cell.refused:
            refused, cell.refused = cell.refused, []
            actor.receive_refused(refused)
        batch = cell.incoming
        local = self._transport.receive_local(actor.name)
        if local:
            self._decode_local(cell, local)
        if batch:
            cell.incoming = []
            actor.receive(batch)
        deadline = actor._deadline
        if deadline is not None and deadline <= now and not (held and actor.runs_last):
            actor._deadline = None
            actor.on_deadline()
        if actor._outbox:
            self.flush(actor)

    def _decode_local(self, cell: _Cell, frames: list[tuple[str, bytes]]) -> None:
        batch = cell.incoming
        for sender, frame in frames:
            source = cell.addresses.get(sender)
            if source is None:
                source = cell.addresses[sender] = Address(self.node, sender)
            for message in self._codec.decode_local(frame):
                batch.append((source, message))

    def _judge_turn(self, seconds: float) -> None:
        if seconds > STALL_SECONDS:
            self._stalled = True
        if seconds > self._longest_turn_seconds:
            self._longest_turn_seconds = seconds
            self.counters["turn_max_microseconds"] = int(seconds * 1e6)
        if seconds > SLOW_TURN_SECONDS:
            self.counters.report("slow_turn", f"seconds={seconds:.3f}")

    def _stop_actors(self) -> None:
        for cell in self._cells:
            cell.actor.on_stop()
            self.flush(cell.actor)
