"""A client core on a desk: no sockets, a clock that is set by hand, and nodes that say what the test says.

Knows the core's inputs and the protocol. Time passes only in `pass_time`, which stops at each of the core's
own deadlines, as a loop would.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import msgpack

from kvstore import protocol
from kvstore.client.calls import Call, get_call, put_call
from kvstore.client.core import ClientCore
from kvstore.client.results import State


class Sent(NamedTuple):
    connection: int
    kind: int
    first_request_id: int
    timeout_milliseconds: int
    bodies: list[list[Any]]


class FakeWire:
    """Remembers what it was told. Owned by a Desk."""

    def __init__(self) -> None:
        self.endpoints: dict[int, str] = {}  # of open connections
        self.past: dict[int, str] = {}  # of all connections that ever were
        self.opened: list[str] = []
        self.sent: list[Sent] = []
        self.is_full = False
        self.topics: dict[int, set[bytes]] = {}  # of open subscribers

    def open(self, connection: int, endpoint: str) -> None:
        assert connection not in self.endpoints
        self.endpoints[connection] = self.past[connection] = endpoint
        self.opened.append(endpoint)

    def close(self, connection: int) -> None:
        del self.endpoints[connection]
        self.topics.pop(connection, None)

    def send(self, connection: int, frame: bytes) -> bool:
        assert connection in self.endpoints
        assert len(frame) <= protocol.MAX_FRAME_BYTES
        if self.is_full:
            return False
        kind, first, timeout_milliseconds, bodies, _ = protocol.decode_request(frame)
        unpacked = [msgpack.unpackb(body) for body in bodies]
        self.sent.append(Sent(connection, kind, first, timeout_milliseconds, unpacked))
        return True

    def open_subscriber(self, connection: int, endpoint: str) -> None:
        self.open(connection, endpoint)
        self.topics[connection] = set()

    def subscribe(self, connection: int, topic: bytes) -> None:
        assert topic not in self.topics[connection]
        self.topics[connection].add(topic)

    def unsubscribe(self, connection: int, topic: bytes) -> None:
        self.topics[connection].remove(topic)


class Desk:
    """Nodes a, b, c; each endpoint is tcp://<name>:1, each watch endpoint tcp://<name>:2."""

    def __init__(self, names: str = "abc", *, max_outstanding: int = 4096, seed: int = 1) -> None:
        self.now = 100.0
        self.wire = FakeWire()
        endpoints = [endpoint_of(name) for name in names]
        self.core = ClientCore(endpoints, self.wire, rng=random.Random(seed), max_outstanding=max_outstanding)
        self.finished: list[Call] = []
        self.term = 1
        self.leader: str | None = "a"

    def state(self) -> State:
        return self.core.state

    # -- the caller's side -------------------------------------------------------------------------------

    def put(self, key: str = "k", value: str | bytes = "v", *, seconds: float = 5.0) -> Call:
        return self.submit(put_call(key, value, False), seconds)

    def get(self, key: str = "k", *, seconds: float = 5.0, is_local: bool = False) -> Call:
        return self.submit(get_call(key, "local" if is_local else "linearizable"), seconds)

    def submit(self, call: Call, seconds: float) -> Call:
        call.deadline = self.now + seconds
        call.callback = self.finished.append
        self.core.submit(call, self.now)
        return call

    def flush(self) -> None:
        self.core.flush(self.now)

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(100_000):
            due_at = self.core.next_deadline()
            if due_at is None or due_at > until:
                self.now = until
                return
            self.now = max(self.now, due_at)
            self.core.on_time(self.now)
        raise AssertionError("the core never stops asking for time")

    # -- the nodes' side ---------------------------------------------------------------------------------

    def connection(self, name: str) -> int:
        """The open connection to a node, or 0."""
        wanted = endpoint_of(name)
        return next((number for number, at in self.wire.endpoints.items() if at == wanted), 0)

    def connect(self, name: str) -> None:
        self.core.on_connected(self.connection(name), self.now)

    def lose(self, name: str) -> None:
        self.core.on_lost(self.connection(name), self.now)
        self.pass_time(0.0)

    def take(self, *kinds: int) -> list[Sent]:
        """What was sent of these kinds (all but STATUS, if none are given), and no longer counts."""
        wanted = kinds or (protocol.WRITE, protocol.READ, protocol.STALE_READ)
        taken = [sent for sent in self.wire.sent if sent.kind in wanted]
        self.wire.sent = [sent for sent in self.wire.sent if sent.kind not in wanted]
        return taken

    def take_one(self) -> Sent:
        taken = self.take()
        assert len(taken) == 1, f"{len(taken)} frames"
        return taken[0]

    def name_of(self, sent: Sent) -> str:
        return self.wire.past[sent.connection].removeprefix("tcp://")[0]

    def greet(self, name: str, **changes: object) -> None:
        """Answers the last STATUS that was asked of a node."""
        connection = self.connection(name)
        questions = [sent for sent in self.wire.sent if sent.kind == protocol.STATUS]
        asked = [sent for sent in questions if sent.connection == connection]
        self.reply(asked[-1], [protocol.OK, self.status(name) | changes])

    def status(self, name: str) -> dict[str, object]:
        return {
            "cluster_id": "desk",
            "node": name,
            "role": "leader" if name == self.leader else "follower",
            "term": self.term,
            "leader": self.leader,
            "leader_client": None if self.leader is None else endpoint_of(self.leader),
            "commit_index": 0,
            "applied_index": 0,
            "last_index": 0,
            "revision": 1,
            "client_endpoint": endpoint_of(name),
            "watch_endpoint": f"tcp://{name}:2",
        }

    def join(self, name: str) -> None:
        self.connect(name)
        self.greet(name)
        self.flush()

    def reply(self, sent: Sent, *results: list[Any]) -> None:
        blob = b"".join(map(msgpack.packb, results))
        self.receive(sent.connection, protocol.encode_results(sent.first_request_id, len(results), blob))

    def refuse(self, sent: Sent, code: int, leader: str | None = None) -> None:
        endpoint = None if leader is None else endpoint_of(leader)
        count = max(len(sent.bodies), 1)
        frame = protocol.encode_refused(sent.first_request_id, count, code, "no", leader, endpoint)
        self.receive(sent.connection, frame)

    def receive(self, connection: int, frame: bytes) -> None:
        self.core.on_frame(connection, frame, self.now)
        self.flush()

    def open_session(self, session_id: int = 7) -> None:
        """Joins a as the leader, and answers to the session's opening with the first put, whatever it is."""
        self.flush()
        self.join("a")
        self.reply(self.take_one(), [protocol.OK, 1, session_id])

    def started(self) -> Desk:
        """With a session, sequence 1 used and answered, and nothing outstanding."""
        self.put()
        self.open_session()
        self.reply(self.take_one(), [protocol.OK, 2, None])
        self.finished.clear()
        return self


def endpoint_of(name: str) -> str:
    return f"tcp://{name}:1"
