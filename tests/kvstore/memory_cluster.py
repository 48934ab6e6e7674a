"""Three whole nodes in one thread: production actors on a network of memory, a clock that is told, memory for
disks. What a simulator does to them is its own affair; here they are only driven.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from actors import ManualClock, MemoryClient, MemoryNetwork, System
from kvstore import protocol
from kvstore.founding import Origin
from kvstore.node import LIMITS, build_system
from kvstore.protocol import Refusal, Results
from kvstore.protocol_admin import AdminRequest, Membership, decode_membership, encode_admin
from kvstore.settings import NodeSettings
from raft.fence import MemoryFence
from raft.storage import MemoryStorage

STEP_SECONDS = 0.005


def peer_of(name: str) -> str:
    return f"ipc:///memory/{name}/peer"


def settings_of(name: str, cluster: dict[str, str], **changes: int) -> NodeSettings:
    return NodeSettings(
        name=name,
        data_dir=Path("unused"),
        peer=peer_of(name),
        client=f"ipc:///memory/{name}/client",
        watch=f"ipc:///memory/{name}/watch",
        cluster=cluster,
        cluster_id=7,
        **changes,  # type: ignore[arg-type]  # those that are numbers
    )


class MemoryCluster:
    """Owns its nodes; everything random comes from the seed. `changes` are settings of all nodes, and
    `priorities` those of some."""

    def __init__(
        self, seed: int, size: int = 3, *, priorities: Mapping[str, int] | None = None, **changes: int
    ) -> None:
        self._changes = changes
        self._priorities = priorities or {}
        self.rng = random.Random(seed)
        self.clock = ManualClock()
        self.network = MemoryNetwork()
        self.names = [f"n{number}" for number in range(1, size + 1)]
        self._cluster = {name: peer_of(name) for name in self.names}
        self.disks = {name: MemoryStorage() for name in self.names}
        self.fences = {name: MemoryFence() for name in self.names}  # they survive a crash, as disks do
        self.storage_ids = {name: self.rng.getrandbits(63) for name in self.names}
        self._waiting: set[str] = set()  # those that began without a cluster
        self.systems: dict[str, System] = {}
        for name in self.names:
            self.start(name)

    def start_waiting(self, name: str) -> None:
        """An empty node of the same cluster id, which is no member of anything."""
        self.names.append(name)
        self._waiting.add(name)
        self.lose_disk(name)
        self.start(name)

    def lose_disk(self, name: str) -> None:
        self.disks[name] = MemoryStorage()
        self.fences[name] = MemoryFence()
        self.storage_ids[name] = self.rng.getrandbits(63)

    def start(self, name: str) -> None:
        members = {} if name in self._waiting else self._cluster
        self.systems[name] = build_system(
            settings_of(name, members, priority=self._priorities.get(name, 1), **self._changes),
            self.disks[name],
            transport=self.network.transport(LIMITS),
            clock=self.clock,
            rng=random.Random(self.rng.getrandbits(64)),
            origin=Origin(7, self.storage_ids[name], members),
            fence=self.fences[name],
        )

    def crash(self, name: str) -> None:
        """The process is gone, with all that was not synced."""
        self.systems.pop(name)._transport.close()

    def turn_all(self) -> None:
        for system in self.systems.values():
            system.turn(0.0)

    def run(self, seconds: float) -> None:
        until = self.clock.now() + seconds
        while self.clock.now() < until:
            self.turn_all()
            self.clock.advance(STEP_SECONDS)

    def client(self, name: str) -> Caller:
        return Caller(self, self.network.connect_client(f"ipc:///memory/{name}/client"))

    def admin(self, request: AdminRequest, *, seconds: float = 2.0) -> list[object]:
        """The result of the present leader, as it is."""
        caller = self.client(self.leader())
        caller.ask(protocol.ADMIN, [encode_admin(request)], timeout_ms=int(seconds * 1000))
        until = self.clock.now() + seconds + 1.0
        while self.clock.now() < until:
            self.run(STEP_SECONDS)
            for reply in caller.replies():
                assert isinstance(reply, Results), reply
                [result] = protocol.split_results(reply.blob, reply.request_count)
                return result
        raise AssertionError(f"no answer to {request}")

    def change(self, request: AdminRequest, *, seconds: float = 2.0) -> Membership:
        """The same, which must succeed."""
        return decode_membership(self.admin(request, seconds=seconds))

    def status(self, name: str) -> dict[str, object]:
        _, fields = self.client(name).call(protocol.STATUS, [])[0]
        assert isinstance(fields, dict)
        return fields

    def leader(self) -> str:
        """The leader, once there is one and it has committed something."""
        for _ in range(400):
            self.run(STEP_SECONDS)
            for name in self.systems:
                status = self.status(name)
                if status["role"] == "leader" and status["applied_index"]:
                    return name
        raise AssertionError("no leader in two seconds")


class Caller:
    """A client connection of frames, with nothing of the library."""

    def __init__(self, cluster: MemoryCluster, connection: MemoryClient) -> None:
        self._cluster = cluster
        self._connection = connection
        self._next_id = 1

    def ask(
        self, kind: int, bodies: list[bytes], *, confirming: bool = False, timeout_ms: int = 2000
    ) -> None:
        confirmed_below = self._next_id if confirming else 0
        frame = protocol.encode_request(kind, self._next_id, timeout_ms, bodies, confirmed_below)
        self._connection.send(frame)
        self._next_id += max(1, len(bodies))

    def replies(self) -> list[Results | Refusal]:
        return [protocol.decode_reply(payload) for payload in self._connection.receive()]

    def call(self, kind: int, bodies: list[bytes]) -> list[list[object]]:
        """The results of one frame; a refusal is an error of the test."""
        self.ask(kind, bodies)
        for _ in range(400):
            self._cluster.turn_all()
            for reply in self.replies():
                assert isinstance(reply, Results), reply
                return protocol.split_results(reply.blob, reply.request_count)
            self._cluster.clock.advance(STEP_SECONDS / 10)
        raise AssertionError("no answer")
