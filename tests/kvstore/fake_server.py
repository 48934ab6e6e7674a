"""A cluster in one thread: real sockets and a real store, but leadership, loss and death by command.

Each node is a ROUTER and an XPUB on loopback with a replica of its own; what a leader commits is applied by
all replicas that do not lag. Tests say what happens to the next write frames of a node (`plan`), and see each
frame that came (`seen`). There is no consensus here: the test decides who leads, and what is lost.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Self

import msgpack
import zmq

from kvstore import protocol, watch_frames
from kvstore.state_machine import StoreMachine
from kvstore.watch_plane import WatchPlane

POLL_MILLISECONDS = 5
BIND_SECONDS = 2.0


class Plan(Enum):
    """What becomes of a write frame that would otherwise be committed and answered."""

    LOSE = "lose"  # neither committed nor answered
    COMMIT_ONLY = "commit only"  # committed, the answer is lost
    DIE_BEFORE = "die before"
    DIE_AFTER = "die after"  # committed, then killed without an answer
    GARBAGE = "garbage"  # committed, and garbage comes before the answer


class FakeNode:
    """Owned by a FakeCluster, whose thread touches its sockets."""

    def __init__(self, cluster: FakeCluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.cluster_id = cluster.cluster_id
        self.machine = StoreMachine(WatchPlane(cluster.take_incarnation()))
        self.plan: deque[Plan | int] = deque()  # for the next write frames; an int is a code of a refusal
        self.seen: list[protocol.Request] = []  # all but STATUS
        self.statuses = 0  # STATUS requests that came
        self.is_mute = False  # reads nothing and says nothing, its connections stay
        self.lags = False  # applies nothing more
        self.stream_messages_to_lose = 0
        self.client_endpoint = "tcp://127.0.0.1:*"
        self.watch_endpoint = "tcp://127.0.0.1:*"
        self._router: zmq.Socket[bytes] | None = None
        self._publisher: zmq.Socket[bytes] | None = None
        self._topics: set[bytes] = set()

    @property
    def is_alive(self) -> bool:
        return self._router is not None

    def writes(self) -> list[tuple[int, int, int, int]]:
        """(session_id, sequence, acknowledged_below, operation) of every write that came."""
        bodies = [body for request in self.seen if request.kind == protocol.WRITE for body in request.bodies]
        return [tuple(msgpack.unpackb(body)[:4]) for body in bodies]

    def bind(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._router = self._bind(context.socket(zmq.ROUTER), self.client_endpoint)
        self._publisher = self._bind(context.socket(zmq.XPUB), self.watch_endpoint)
        self.client_endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self.watch_endpoint = self._publisher.getsockopt_string(zmq.LAST_ENDPOINT)

    def _bind(self, unbound: zmq.Socket[bytes], endpoint: str) -> zmq.Socket[bytes]:
        unbound.setsockopt(zmq.LINGER, 0)
        if unbound.type == zmq.XPUB:
            unbound.setsockopt(zmq.XPUB_VERBOSE, 1)
        deadline = time.monotonic() + BIND_SECONDS
        while True:
            try:
                unbound.bind(endpoint)
                return unbound
            except zmq.ZMQError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)  # a socket that was closed is gone a moment later

    def die(self) -> None:
        for socket in (self._router, self._publisher):
            if socket is not None:
                socket.close(0)
        self._router = self._publisher = None

    def renew_streams(self) -> None:
        """As if the process were another one, without a lost connection: every stream has a new epoch."""
        plane = WatchPlane(self.cluster.take_incarnation())
        plane.revision = self.machine.revision
        self.machine.watch_plane = plane
        self.publish(plane.subscribed([b"\x01" + topic for topic in self._topics]))

    def forget(self) -> None:
        """The replica is lost."""
        self.machine = StoreMachine(WatchPlane(self.cluster.take_incarnation()))

    def apply(self) -> list[bytes | None]:
        log, applied = self.cluster.log, self.machine.applied_index
        if self.lags or applied >= len(log):
            return []
        results = self.machine.apply(applied + 1, log[applied:])
        self.publish(self.machine.watch_plane.announcements())
        return results

    def publish(self, frames: list[list[bytes]]) -> None:
        for frame in frames:
            has_events = len(frame) == 3 and frame[2] != watch_frames.encode_events([])
            if has_events and self.stream_messages_to_lose > 0:
                self.stream_messages_to_lose -= 1
            elif self._publisher is not None and not self.is_mute:
                self._publisher.send_multipart(frame)

    def turn(self, now: float) -> None:
        if self._router is None or self._publisher is None or self.is_mute:
            return
        subscriptions = []
        while has_input(self._publisher):
            subscriptions.append(self._publisher.recv())
        for frame in subscriptions:
            (self._topics.add if frame[:1] == b"\x01" else self._topics.discard)(frame[1:])
        self.publish(self.machine.watch_plane.subscribed(subscriptions))
        self.publish(self.machine.watch_plane.heartbeats(now))
        while self._router is not None and has_input(self._router):
            connection, payload = self._router.recv_multipart()
            self._receive(connection, payload)

    def _receive(self, connection: bytes, payload: bytes) -> None:
        request = protocol.decode_request(payload)
        if request.kind == protocol.STATUS:
            self.statuses += 1
            self._answer(connection, request, [msgpack.packb((protocol.OK, self._status()))])
            return
        self.seen.append(request)
        if request.kind == protocol.WRITE:
            self._write(connection, request)
        elif request.kind == protocol.READ and self.cluster.leader is None:
            self._refuse(connection, request, protocol.NO_LEADER)
        else:
            self._answer(connection, request, self.machine.query(request.bodies))

    def _write(self, connection: bytes, request: protocol.Request) -> None:
        if self.cluster.leader != self.name:
            code = protocol.NO_LEADER if self.cluster.leader is None else protocol.NOT_LEADER
            self._refuse(connection, request, code)
            return
        plan = self.plan.popleft() if self.plan else None
        if isinstance(plan, int):
            self._refuse(connection, request, plan)
        elif plan is Plan.DIE_BEFORE:
            self.die()
        elif plan is not Plan.LOSE:
            results = self.cluster.commit(self, request.bodies)
            if plan is Plan.DIE_AFTER:
                self.die()
            elif plan is Plan.GARBAGE:
                for garbage in (b"", b"\xff" * 100, b"\x01\x94\x81", payload_of_nothing(request)):
                    self._send(connection, garbage)
            if plan in (None, Plan.GARBAGE):
                self._answer(connection, request, results)

    def _answer(self, connection: bytes, request: protocol.Request, results: list[Any]) -> None:
        frame = protocol.encode_results(request.first_request_id, len(results), b"".join(results))
        self._send(connection, frame)

    def _refuse(self, connection: bytes, request: protocol.Request, code: int) -> None:
        leader = self.cluster.nodes.get(self.cluster.leader or "")
        name, endpoint = (leader.name, leader.client_endpoint) if leader is not None else (None, None)
        count = len(request.bodies)
        frame = protocol.encode_refused(request.first_request_id, count, code, "as planned", name, endpoint)
        self._send(connection, frame)

    def _send(self, connection: bytes, frame: bytes) -> None:
        if self._router is not None:
            self._router.send_multipart([connection, frame])

    def _status(self) -> dict[str, object]:
        cluster = self.cluster
        leader = cluster.nodes.get(cluster.leader or "")
        return {
            "cluster_id": self.cluster_id,
            "node": self.name,
            "role": "leader" if cluster.leader == self.name else "follower",
            "term": cluster.term,
            "leader": cluster.leader,
            "leader_client": leader.client_endpoint if leader is not None else None,
            "commit_index": len(cluster.log),
            "applied_index": self.machine.applied_index,
            "last_index": len(cluster.log),
            "revision": self.machine.revision,
            "client_endpoint": self.client_endpoint,
            "watch_endpoint": self.watch_endpoint,
            "peers": {},
            "version": "0",
            "libzmq": zmq.zmq_version(),
        }


def has_input(socket: zmq.Socket[bytes]) -> bool:
    return bool(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)


def payload_of_nothing(request: protocol.Request) -> bytes:
    """A well-formed answer whose results are not: it must not pass for the answer."""
    count = len(request.bodies)
    return protocol.encode_results(request.first_request_id, count, msgpack.packb([0, "x"]) * count)


class FakeCluster:
    """`with FakeCluster(3) as cluster:`; n1 leads at first. Its thread does all, also what tests ask for."""

    def __init__(self, size: int = 3) -> None:
        self.cluster_id = "fake"
        self.leader: str | None = "n1"
        self.term = 1
        self.log: list[bytes | None] = []
        self._incarnations = 0
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="fake-cluster", daemon=True)
        self._stops = threading.Event()
        self._failure: BaseException | None = None
        self.nodes: dict[str, FakeNode] = {}
        for number in range(1, size + 1):
            name = f"n{number}"
            self.nodes[name] = FakeNode(self, name)
            self.nodes[name].bind()

    def take_incarnation(self) -> int:
        self._incarnations += 1
        return self._incarnations

    @property
    def endpoints(self) -> list[str]:
        return [node.client_endpoint for node in self.nodes.values()]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stops.set()
        self._thread.join(5.0)
        for node in self.nodes.values():
            node.die()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._stops.is_set():
                self._turn()
        except BaseException as error:
            self._failure = error

    def _turn(self) -> None:
        poller = zmq.Poller()
        for node in self.nodes.values():
            if node._router is not None and node._publisher is not None and not node.is_mute:
                poller.register(node._router, zmq.POLLIN)
                poller.register(node._publisher, zmq.POLLIN)
        poller.poll(POLL_MILLISECONDS)
        while not self._commands.empty():
            self._commands.get()()
        for node in self.nodes.values():
            node.turn(time.monotonic())

    def do(self, action: Callable[[], None]) -> None:
        """Runs `action` in the cluster's thread, between two turns."""
        done = threading.Event()

        def act() -> None:
            action()
            done.set()

        self._commands.put(act)
        assert done.wait(5.0), f"the cluster's thread is stuck: {self._failure!r}"

    def commit(self, leader: FakeNode, bodies: list[bytes]) -> list[bytes | None]:
        leader.apply()
        self.log.extend(bodies)
        results = leader.apply()
        for node in self.nodes.values():
            node.apply()
        return results

    # -- what tests do -----------------------------------------------------------------------------------

    def lead(self, name: str | None) -> None:
        """Another leader, or none, in a new term."""

        def change() -> None:
            self.leader = name
            self.term += 1

        self.do(change)

    def kill(self, name: str) -> None:
        self.do(self.nodes[name].die)

    def revive(self, name: str) -> None:
        self.do(self.nodes[name].bind)

    def mute(self, name: str) -> None:
        """As if stopped: from now on it neither reads nor says anything."""
        self.do(lambda: setattr(self.nodes[name], "is_mute", True))

    def unmute(self, name: str) -> None:
        self.do(lambda: setattr(self.nodes[name], "is_mute", False))

    def expire_session(self, session_id: int) -> None:
        node = self.nodes[self.leader or ""]
        body = protocol.close_session_body(session_id, 1, 1)

        def close() -> None:
            self.commit(node, [body])

        self.do(close)

    def applied(self, key: bytes) -> int:
        """How often a put of this key had an effect: the version of the key."""
        machine = self.nodes[self.leader or ""].machine
        found = msgpack.unpackb(machine.query([protocol.range_body(key)])[0])
        return int(found[4][0][4]) if found[4] else 0


def wait_for(condition: Callable[[], bool], seconds: float = 3.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.002)
