"""Replicas of a small machine, by hand: one thread, a clock that is told, a network that a test can bend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random

from actors import ManualClock, MemoryFrame, MemoryNetwork
from raft.life import Command, Query
from raft.replica import Hooks, Replica, ReplicaSettings
from raft.storage import MemoryStorage

STEP_SECONDS = 0.005


class Adder:
    """Adds numbers up; the answer to a command is the sum, and to a query too. b"boom" breaks it."""

    def __init__(self) -> None:
        self.total = 0

    def apply(self, first_index: int, bodies: Sequence[bytes | None]) -> list[bytes | None]:
        return [None if body is None else self._add(body) for body in bodies]

    def _add(self, body: bytes) -> bytes:
        if body == b"boom":
            raise RuntimeError("the machine broke")
        self.total += int(body)
        return b"%d" % self.total

    def query(self, bodies: Sequence[bytes]) -> list[bytes]:
        return [b"%d" % self.total for _ in bodies]

    def status(self) -> dict[str, object]:
        return {"total": self.total}

    def snapshot(self) -> Iterator[bytes]:
        yield b"%d" % self.total

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.total = int(b"".join(chunks))


class HandCluster:
    """Owns its replicas; everything random comes from the seed."""

    def __init__(self, seed: int = 1, size: int = 3, *, settings: ReplicaSettings | None = None) -> None:
        self.rng = Random(seed)
        self.clock = ManualClock()
        self.network = MemoryNetwork()
        self.network.route = self._route
        self.cut_off: set[str] = set()
        self.mute: set[str] = set()  # they hear, and are not heard
        self.settings = settings
        self.members = {f"n{number}": f"ipc:///memory/n{number}" for number in range(1, size + 1)}
        self.disks = {name: MemoryStorage() for name in self.members}
        self.machines: dict[str, Adder] = {}
        self.replicas: dict[str, Replica] = {}
        self.heard: list[tuple[object, ...]] = []  # what the hooks were told
        for name in self.members:
            self.start(name)

    def start(self, name: str) -> Replica:
        self.machines[name] = Adder()
        self.replicas[name] = Replica(
            name,
            self.machines[name],
            members=self.members,
            storage=self.disks[name],
            transport=self.network.transport(),
            settings=self.settings,
            hooks=Hooks(
                on_role=lambda change: self.heard.append((name, change.role.value, change.leader_id)),
                on_stop=lambda failure: self.heard.append((name, "stop", failure)),
            ),
            clock=self.clock,
            rng=Random(self.rng.getrandbits(64)),
        )
        return self.replicas[name]

    def run(self, seconds: float) -> None:
        self.run_until(lambda: False, seconds)

    def run_until(self, is_reached: Callable[[], object], seconds: float = 5.0) -> bool:
        until = self.clock.now() + seconds
        while self.clock.now() < until:
            for replica in list(self.replicas.values()):
                replica.turn()
            if is_reached():
                return True
            self.clock.advance(STEP_SECONDS)
        return False

    def leader(self) -> Replica:
        """The one who leads with a majority within reach, once there is one that has committed something."""
        found: list[Replica] = []

        def look() -> bool:
            within_reach = [r for name, r in self.replicas.items() if name not in self.cut_off]
            found[:] = [r for r in within_reach if r.is_leader]
            return bool(found) and all(r.leader_id == found[0].node_id for r in within_reach)

        assert self.run_until(look), "no leader in five seconds"
        return found[0]

    def finish(self, request: Command | Query) -> bytes:
        """The outcome; raises what the request was abandoned for."""
        assert self.run_until(lambda: request.is_over), request
        return request.outcome()

    def _route(self, frame: MemoryFrame) -> None:
        if frame.source not in self.cut_off | self.mute and frame.destination not in self.cut_off:
            self.network.deliver(frame)
