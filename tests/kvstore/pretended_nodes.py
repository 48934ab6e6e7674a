"""Nodes for tests of clients: they speak the client protocol over a real ROUTER, and keep its promises.

May know: zmq and the client protocol, nothing of the real node. Each node is a thread; `answer` bends it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgpack
import zmq

from kvstore import protocol

DEADLINE_SECONDS = 15.0


class Store:
    """What all nodes of a test agree on; guarded by its lock, since each node is a thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.revision = 1
        self.values: dict[bytes, bytes] = {}
        self.sessions: dict[bytes, int] = {}  # by nonce
        self.results: dict[tuple[int, int], list[Any]] = {}
        self.puts = 0  # applied; a repeated sequence is not
        self.closed: set[int] = set()

    def write(self, body: bytes) -> list[Any]:
        session_id, sequence, acknowledged_below, op, *arguments = msgpack.unpackb(body)
        with self.lock:
            if op == protocol.OPEN_SESSION:
                session_id = self.sessions.setdefault(arguments[0], len(self.sessions) + 1)
                return [protocol.OK, self.revision, session_id]
            if session_id not in self.sessions.values():
                return [protocol.SESSION_EXPIRED, "no such session"]
            if op == protocol.CLOSE_SESSION:
                self.closed.add(session_id)
                return [protocol.OK, self.revision]
            assert op == protocol.PUT and sequence >= acknowledged_below
            known = [number for session, number in self.results if session == session_id]
            missing = set(range(1, acknowledged_below)) - set(known)
            assert not missing, f"acknowledged below {acknowledged_below}, yet {missing} were never answered"
            if (session_id, sequence) not in self.results:
                key, value, _lease, _flags = arguments
                self.revision += 1
                self.puts += 1
                self.values[key] = value
                self.results[session_id, sequence] = [protocol.OK, self.revision, None]
            return self.results[session_id, sequence]

    def read(self, body: bytes) -> list[Any]:
        _op, key, *_ = msgpack.unpackb(body)
        with self.lock:
            value = self.values.get(key)
            found = [] if value is None else [[key, value, 2, 2, 1, 0]]
            return [protocol.OK, self.revision, len(found), False, found]


Answer = Callable[["Node", protocol.Request], list[bytes] | None]
"""The reply frames to a request; None: as a sound node would."""


class Node:
    """One client endpoint, served by a thread of its own until `stop`."""

    def __init__(self, store: Store, answer: Answer | None = None) -> None:
        self.store = store
        self.answer = answer
        self.leader_endpoint: str | None = None  # as told in its status
        self.requests: list[protocol.Request] = []  # all but those for status
        self.connections: set[bytes] = set()
        self.problems: list[BaseException] = []
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self.endpoint = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(DEADLINE_SECONDS)
        self._context.destroy(linger=0)

    def _serve(self) -> None:
        try:
            while not self._stopping.is_set():
                if not self._socket.poll(10):
                    continue
                connection, payload = self._socket.recv_multipart()
                for frame in self._frames(connection, protocol.decode_request(payload)):
                    self._socket.send_multipart([connection, frame])
        except Exception as problem:  # told to the test by the fixture
            self.problems.append(problem)

    def _frames(self, connection: bytes, request: protocol.Request) -> list[bytes]:
        if request.kind == protocol.STATUS:
            status = [protocol.OK, {"leader_client": self.leader_endpoint, "role": "leader"}]
            return [results_frame(request, [status])]
        self.requests.append(request)
        self.connections.add(connection)
        frames = self.answer(self, request) if self.answer else None
        return self.sound_answer(request) if frames is None else frames

    def sound_answer(self, request: protocol.Request) -> list[bytes]:
        perform = self.store.write if request.kind == protocol.WRITE else self.store.read
        return [results_frame(request, [perform(body) for body in request.bodies])]


def results_frame(request: protocol.Request, results: list[list[Any]]) -> bytes:
    blob = b"".join(map(msgpack.packb, results))
    return protocol.encode_results(request.first_request_id, len(results), blob)


def refusal_frame(request: protocol.Request, code: int, leader_endpoint: str | None = None) -> bytes:
    return protocol.encode_refused(
        request.first_request_id,
        len(request.bodies),
        code,
        "no",
        "n1" if leader_endpoint else None,
        leader_endpoint,
    )


def is_put(request: protocol.Request) -> bool:
    return request.kind == protocol.WRITE and msgpack.unpackb(request.bodies[0])[3] == protocol.PUT
