"""Raft without disk and network: three cores, one of which proposes; all that follows until all know it."""

from __future__ import annotations

from pathlib import Path

from bench.layers.material import bodies
from bench.layers.timing import Laps, Layer
from raft.core import Core
from raft.membership import Configuration
from raft.storage import MemoryStorage

NODES = ("a", "b", "c")


class Trio:
    """Three cores whose messages arrive at once; owned by one lap."""

    def __init__(self) -> None:
        members = Configuration(NODES)
        self._cores = {name: Core(name, members, MemoryStorage().load()) for name in NODES}
        self._leader = self._cores[NODES[0]]
        self._leader.campaign()
        self._settle()

    def commit(self, proposed: list[bytes]) -> None:
        self._leader.propose(proposed)
        self._settle()

    @property
    def commit_index(self) -> int:
        return self._leader.commit_index

    def _settle(self) -> None:
        """As the owner of a core acts on what comes out of it, but that its disk costs nothing."""
        cores, is_busy = self._cores, True
        while is_busy:
            is_busy = False
            for name, core in cores.items():
                while core.has_ready():
                    is_busy = True
                    ready = core.ready()
                    for to, message in ready.messages:
                        cores[to].step(name, message)
                    for to, message in ready.messages_after_sync:
                        cores[to].step(name, message)
                    core.advance()


def steps(count: int) -> Layer:
    def laps(_: Path, calls: int) -> Laps:
        proposed = bodies(1, count)
        while True:
            trio = Trio()  # with a log that is empty, so that no lap is longer than those before

            def lap(trio: Trio = trio) -> None:
                for _ in range(calls):
                    trio.commit(proposed)

            yield lap
            assert trio.commit_index >= calls * count, f"{trio.commit_index} of {calls * count} committed"

    return Layer(f"core step, batches of {count}", 1_500 if count == 1 else 25_600, laps, count)


LAYERS = [steps(1), steps(256)]
