"""The gateway: from a client's frame to the Propose that replication gets, and from Applied to the reply."""

from __future__ import annotations

import time
from pathlib import Path

from actors import Actor, Address
from bench.layers.codec import TIMEOUT_MILLISECONDS, results_of
from bench.layers.material import bodies
from bench.layers.timing import Laps, Layer
from kvstore.gateway_actor import CLIENT_PORT, GatewayActor
from kvstore.neighbours import Announce
from kvstore.protocol import WRITE, encode_request
from raft.actor_messages import Applied, Propose, RoleChanged

CONNECTION = b"\x00conn"


class Surroundings:
    """What a System is to the gateway, without sockets: holds back what it sends. Owned by one `laps`."""

    node = "n1"

    def __init__(self) -> None:
        self.proposed: list[Propose] = []
        self.replies = 0

    def now(self) -> float:
        return time.monotonic()

    def flush(self, actor: Actor) -> None:
        outbox, actor._outbox = actor._outbox, {}
        for messages in outbox.values():
            self.proposed += [message for message in messages if isinstance(message, Propose)]

    def send_frame(self, port: str, connection: bytes, payload: bytes) -> None:
        self.replies += 1

    def publish(self, port: str, parts: list[bytes]) -> None: ...

    def connect_peer(self, node: str, endpoint: str, storage_id: int = 0) -> None: ...

    def disconnect_peer(self, node: str) -> None: ...

    def storage_of(self, node: str) -> int:
        return 0


class Edge:
    """A leader's gateway that is run by hand; owned by one `laps`."""

    def __init__(self) -> None:
        self.around = Surroundings()
        where = Announce("tcp://127.0.0.1:1", "tcp://127.0.0.1:2", "tcp://127.0.0.1:3", 1)
        self._gateway = GatewayActor(announce=where, storage_id=1, about={}, vitals=dict)
        self._gateway._context = self.around
        self._gateway._outbox = {}
        self._replication = Address(self.around.node, "replication")
        self._gateway.on_start()
        self.hear(RoleChanged("leader", 1, self.around.node))

    def take_in(self, frame: bytes) -> None:
        """One turn with one frame."""
        self._gateway.receive_frames(CLIENT_PORT, [(CONNECTION, frame)])
        self.around.flush(self._gateway)

    def hear(self, message: object) -> None:
        """One turn with one message."""
        self._gateway.receive([(self._replication, message)])
        self.around.flush(self._gateway)

    def answers(self, results: bytes) -> list[Applied]:
        """To all that was proposed since the last call."""
        proposed, self.around.proposed = self.around.proposed, []
        found = []
        for message in proposed:
            slices = [
                (ticket, 0, count, results)
                for ticket, count in zip(message.tickets, message.counts, strict=True)
            ]
            found.append(Applied(slices))
        return found


def frames_of(count: int, calls: int) -> list[bytes]:
    packed = bodies(1, count)
    return [
        encode_request(WRITE, 1 + call * count, TIMEOUT_MILLISECONDS, packed, 1 + (call - 1) * count)
        for call in range(1, calls + 1)
    ]


def requests(count: int) -> Layer:
    def laps(_: Path, calls: int) -> Laps:
        edge, results, frames = Edge(), results_of(count), frames_of(count, calls)

        def lap() -> None:
            for frame in frames:
                edge.take_in(frame)

        while True:
            yield lap
            assert len(edge.around.proposed) == calls, f"{len(edge.around.proposed)} of {calls} proposed"
            for message in edge.answers(results):
                edge.hear(message)

    return Layer(f"edge request of {count}", 10_000, laps, count)


def replies(count: int) -> Layer:
    def laps(_: Path, calls: int) -> Laps:
        edge, results, frames = Edge(), results_of(count), frames_of(count, calls)
        while True:
            for frame in frames:
                edge.take_in(frame)
            answers, before = edge.answers(results), edge.around.replies

            def lap(answers: list[Applied] = answers) -> None:
                for message in answers:
                    edge.hear(message)

            yield lap
            assert edge.around.replies - before == calls, f"{edge.around.replies - before} replies"

    return Layer(f"edge reply of {count}", 10_000, laps, count)


LAYERS = [*(requests(count) for count in (1, 32)), *(replies(count) for count in (1, 32))]
