"""Storage and state machine of a simulated node, each with a witness of all that is done to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from kvstore.state_machine import StoreMachine
from raft.entries import EntryBatch, HardState, Index, SnapshotMeta, Term
from raft.state_machine import Restorer
from raft.storage import Recovered, Storage

if TYPE_CHECKING:
    from tests.simulator.cluster import SimulatedNode


Execute = Callable[[list[Any]], bytes]


def _by_chance(rng: Random, share: float, is_time_up: Callable[[], bool]) -> bool:
    return rng.random() < share or is_time_up()


class Watcher(Protocol):
    """What is told of every step. The oracles, in a run; raises Violation."""

    def recovered(self, node: SimulatedNode, recovered: Recovered) -> None: ...

    def appended(
        self, node: SimulatedNode, hard_state: HardState | None, batch: EntryBatch | None
    ) -> None: ...

    def synced(self, node: SimulatedNode) -> None: ...

    def snapshot_begun(self, node: SimulatedNode, index: Index, *, replaces_log: bool) -> None: ...

    def snapshot_stored(self, node: SimulatedNode, index: Index) -> None: ...

    def restored(self, node: SimulatedNode) -> None: ...

    def installed(self, node: SimulatedNode) -> None: ...

    def sent(self, node: SimulatedNode, to: str, message: object) -> None: ...

    def applied(
        self, node: SimulatedNode, first_index: int, bodies: list[bytes | None], results: list[bytes | None]
    ) -> None: ...

    def turned(self, node: SimulatedNode) -> None: ...

    def fenced(self, node: SimulatedNode) -> None: ...

    def answered(self, node: SimulatedNode, payload: bytes) -> None: ...

    def died(self, node: SimulatedNode) -> None: ...


class WatchedStorage:
    """The production log, and a witness of all that it is asked to keep."""

    def __init__(self, inner: Storage, node: SimulatedNode, watcher: Watcher) -> None:
        self._inner = inner
        self._node = node
        self._watcher = watcher
        self._snapshot_index = 0  # of the one that was begun last

    def load(self) -> Recovered:
        recovered = self._inner.load()
        self._watcher.recovered(self._node, recovered)
        return recovered

    def append(self, hard_state: HardState | None, batch: EntryBatch | None) -> None:
        self._watcher.appended(self._node, hard_state, batch)
        self._inner.append(hard_state, batch)

    def sync(self) -> None:
        self._inner.sync()
        self._watcher.synced(self._node)

    def begin_snapshot(self, index: Index, term: Term, configuration: bytes) -> None:
        self._snapshot_index = index
        self._inner.begin_snapshot(index, term, configuration)

    def commit_snapshot(self, *, replaces_log: bool) -> SnapshotMeta:
        self._watcher.snapshot_begun(self._node, self._snapshot_index, replaces_log=replaces_log)
        meta = self._inner.commit_snapshot(replaces_log=replaces_log)
        self._watcher.snapshot_stored(self._node, meta.index)
        return meta

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class WatchedRestorer:
    """That of the production store, and a witness of its end."""

    def __init__(self, inner: Restorer, on_finish: Callable[[], None]) -> None:
        self._inner = inner
        self._on_finish = on_finish

    def feed(self, data: bytes) -> None:
        self._inner.feed(data)

    def finish(self) -> None:
        self._inner.finish()
        self._on_finish()


class WatchedMachine:
    """The production store, and a witness of all that it applies. Applies in pieces that end at round
    indexes, so that all nodes pass through the same states, and their hashes can be compared."""

    PIECE = 32

    def __init__(
        self, inner: StoreMachine, node: SimulatedNode, watcher: Watcher, busy_seconds: float
    ) -> None:
        self.inner = inner
        self._node = node
        self._watcher = watcher
        if busy_seconds:
            commands = inner._commands
            inner._commands = {name: self._timed(commands[name], busy_seconds) for name in commands}

    def _timed(self, execute: Execute, seconds: float) -> Execute:
        """The same, and it takes that long."""
        node = self._node

        def timed(command: list[Any]) -> bytes:
            node.clock.busy_seconds += seconds
            node.applied_seconds += seconds
            return execute(command)

        return timed

    def apply_some(
        self, first_index: int, bodies: list[bytes | None], *, is_time_up: Callable[[], bool]
    ) -> list[bytes | None]:
        """On a slow node the time is up when chance says so, too."""
        node, results = self._node, list[bytes | None]()
        is_up = partial(_by_chance, node.rng, node.slow_apply, is_time_up) if node.slow_apply else is_time_up
        while len(results) < len(bodies):
            index = first_index + len(results)
            piece = bodies[len(results) : len(results) + self.PIECE - index % self.PIECE]
            given = self.inner.apply_some(index, piece, is_time_up=is_up)
            self._watcher.applied(node, index, piece[: len(given)], given)
            results += given
            if len(given) < len(piece) or is_time_up():
                break
        return results

    def restorer(self) -> Restorer:
        return WatchedRestorer(self.inner.restorer(), lambda: self._watcher.installed(self._node))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
