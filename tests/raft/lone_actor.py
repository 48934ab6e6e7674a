"""One actor by itself: the test is its clock, its neighbours and its network, and keeps all in one order."""

from __future__ import annotations

from typing import Any, TypeVar

from actors import Actor, Address

M = TypeVar("M")


class Surroundings:
    """Stands in for the system of one actor; owned by the test. `happened` is what left, in order."""

    def __init__(self, actor: Actor, node: str = "a") -> None:
        self.node = node
        self.seconds = 0.0
        # (to, message), (port, …) of what was sent, and whatever the test's own parts add
        self.happened: list[Any] = []
        self.actor = actor
        actor._context = self
        actor._outbox = {}

    # What the actor calls.

    def now(self) -> float:
        return self.seconds

    def flush(self, actor: Actor) -> None:
        outbox, actor._outbox = actor._outbox, {}
        self.happened += [(to, message) for to, messages in outbox.items() for message in messages]

    def send_frame(self, port: str, connection: bytes, payload: bytes) -> None:
        self.happened.append((port, connection, payload))

    def publish(self, port: str, parts: list[bytes]) -> None:
        self.happened.append((port, parts))

    def connect_peer(self, node: str, endpoint: str, storage_id: int = 0) -> None:
        self.happened.append(("connect", (node, endpoint, storage_id)))

    def disconnect_peer(self, node: str) -> None:
        self.happened.append(("disconnect", node))

    def ban_peers(self, nodes: frozenset[str]) -> None:
        self.happened.append(("ban", nodes))

    def storage_of(self, node: str) -> int:
        return 0

    # What the test calls.

    def start(self) -> None:
        self.actor.on_start()
        self.flush(self.actor)

    def tell(self, *messages: object, node: str | None = None, actor: str = "replication") -> None:
        """One turn in which these arrive."""
        sender = Address(node or self.node, actor)
        self.actor.receive([(sender, message) for message in messages])
        self.flush(self.actor)

    def wait(self) -> float:
        """Sleep until the deadline, and let the actor know; how long that was."""
        began, deadline = self.seconds, self.actor._deadline
        assert deadline is not None, "the actor waits for nothing"
        self.seconds = max(deadline, began)
        self.actor._deadline = None
        self.actor.on_deadline()
        self.flush(self.actor)
        return self.seconds - began

    def take(self, kind: type[M]) -> list[M]:
        """Messages of this kind that left since the last call; everything else that left is forgotten."""
        happened = list(self.happened)
        self.happened.clear()
        return [each[1] for each in happened if isinstance(each, tuple) and type(each[1]) is kind]
