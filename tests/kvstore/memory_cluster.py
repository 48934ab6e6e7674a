"""Three whole nodes in one thread: production actors on a network of memory, a clock that is told, memory for
disks. What a simulator does to them is its own affair; here they are only driven.
"""

from __future__ import annotations

import random
from pathlib import Path

from actors import ManualClock, MemoryClient, MemoryNetwork, System
from kvstore import protocol
from kvstore.node import LIMITS, build_system
from kvstore.protocol import Refusal, Results
from kvstore.settings import NodeSettings
from raft.storage import MemoryStorage

STEP_SECONDS = 0.005


def settings_of(name: str, cluster: dict[str, str]) -> NodeSettings:
    return NodeSettings(
        name=name,
        data_dir=Path("unused"),
        peer=cluster[name],
        client=f"ipc:///memory/{name}/client",
        watch=f"ipc:///memory/{name}/watch",
        cluster=cluster,
        cluster_id=7,
    )


class MemoryCluster:
    """Owns its nodes; everything random comes from the seed."""

    def __init__(self, seed: int, size: int = 3) -> None:
        self.rng = random.Random(seed)
        self.clock = ManualClock()
        self.network = MemoryNetwork()
        self.names = [f"n{number}" for number in range(1, size + 1)]
        self._cluster = {name: f"ipc:///memory/{name}/peer" for name in self.names}
        self.disks = {name: MemoryStorage() for name in self.names}
        self.systems: dict[str, System] = {}
        for name in self.names:
            self.start(name)

    def start(self, name: str) -> None:
        self.systems[name] = build_system(
            settings_of(name, self._cluster),
            self.disks[name],
            transport=self.network.transport(LIMITS),
            clock=self.clock,
            rng=random.Random(self.rng.getrandbits(64)),
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

    def ask(self, kind: int, bodies: list[bytes], *, confirming: bool = False) -> None:
        confirmed_below = self._next_id if confirming else 0
        self._connection.send(protocol.encode_request(kind, self._next_id, 2000, bodies, confirmed_below))
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
