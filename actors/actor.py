"""The base class of actors: may know addresses and nothing of transports, threads or the clock of the
machine.

An actor's methods run one at a time on its system's loop thread. It shares no object with another actor: what
it sends is encoded when the outbox leaves, so it must not change a message after `send`. An exception out of
any method ends the process: a half-dead node is worse than a dead one.
"""

from __future__ import annotations

from typing import Protocol

from actors.address import Address


class Context(Protocol):
    """What a system gives to its actors."""

    node: str

    def now(self) -> float: ...

    def flush(self, actor: Actor) -> None: ...

    def send_frame(self, port: str, connection: bytes, payload: bytes) -> None: ...

    def publish(self, port: str, parts: list[bytes]) -> None: ...

    def connect_peer(self, node: str, endpoint: str, storage_id: int = 0) -> None: ...

    def disconnect_peer(self, node: str) -> None: ...

    def storage_of(self, node: str) -> int: ...


class Actor:
    """Subclass me. Owned by exactly one System, from `System.add` on."""

    name: str  # the actor's name within its node; a class attribute
    runs_last = False  # True: runs behind all others in a turn, to judge by what they have heard

    _context: Context
    _outbox: dict[Address, list[object]]  # in order of sending for each destination
    _deadline: float | None = None

    # What a subclass overrides. None of them may block. `receive` and `receive_frames` need not be there: an
    # actor may only send, or have no port. To be given what it cannot take is then an error of the program.

    def on_start(self) -> None:
        """Before the first turn; the ports are open, and messages may be sent."""

    def on_stop(self) -> None:
        """After the last turn of a system that was told to stop; not after an exception."""

    def receive(self, batch: list[tuple[Address, object]]) -> None:
        """All messages that arrived in this turn, as (sender, message), in order of arrival for each
        sender."""
        raise NotImplementedError(f"actor {self.name} was sent messages and has no receive")

    def receive_frames(self, port: str, frames: list[tuple[bytes, bytes]]) -> None:
        """What came in by a port of its own: (connection, payload) pairs of a client port, which a stranger
        wrote; (b"", subscription) of a publisher, see actors.ports."""
        raise NotImplementedError(f"actor {self.name} has port {port} and no receive_frames")

    def receive_refused(self, batch: list[tuple[Address, object]]) -> None:
        """Messages to this actor from nodes that have another data directory than they had. They are not let
        in; this is here so that the node can be told, and for nothing else."""

    def may_stop(self) -> bool:
        """Asked in each turn once the system was told to stop; a False delays that, within a bound."""
        return True

    def on_deadline(self) -> None:
        """The deadline is due, and cleared; everything that had arrived before it was received first."""

    # What a subclass calls.

    @property
    def node(self) -> str:
        """The name of the node that this actor lives on."""
        return self._context.node

    def send(self, to: Address, message: object) -> None:
        """Put into the outbox, which leaves with `flush`. It may be lost, but does not arrive twice."""
        messages = self._outbox.get(to)
        if messages is None:
            self._outbox[to] = [message]
        else:
            messages.append(message)

    def send_local(self, actor: str, message: object) -> None:
        """`send` to an actor of the own node."""
        self.send(Address(self._context.node, actor), message)

    def send_frame(self, port: str, connection: bytes, payload: bytes) -> None:
        """Send to a connection of a client port, at once."""
        self._context.send_frame(port, connection, payload)

    def publish(self, port: str, parts: list[bytes]) -> None:
        """Send to all subscribers whose topic is a prefix of the first part, at once."""
        self._context.publish(port, parts)

    def connect_peer(self, node: str, endpoint: str, storage_id: int = 0) -> None:
        """Another node is a peer from now on, at `endpoint`, with that storage id if one is given. Raises
        EndpointUnusable."""
        self._context.connect_peer(node, endpoint, storage_id)

    def disconnect_peer(self, node: str) -> None:
        """It is no peer any more: what is queued for it is lost."""
        self._context.disconnect_peer(node)

    def storage_of(self, node: str) -> int:
        """The storage id of a peer, 0 if it is not known."""
        return self._context.storage_of(node)

    def flush(self) -> None:
        """The outbox leaves now, one frame for each destination; the loop does this after each run of the
        actor."""
        self._context.flush(self)

    def now(self) -> float:
        """Monotonic seconds."""
        return self._context.now()

    def set_deadline(self, at: float | None) -> None:
        """Be called by `on_deadline` at that time of `now`; an actor has one deadline, None clears it."""
        self._deadline = at
