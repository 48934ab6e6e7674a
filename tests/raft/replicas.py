"""A small machine to be replicated, and replicas of it by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raft.entries import NodeId
from raft.rehearsal import Rehearsal
from raft.replica import Hooks, ReplicaSettings
from raft.state_machine import Restorer, WholeRestorer


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

    def restorer(self) -> Restorer:
        return WholeRestorer(self.restore)

    def restore(self, content: bytes) -> None:
        self.total = int(content)


class HandCluster(Rehearsal[Adder]):
    """A rehearsal that writes down what the hooks are told."""

    def __init__(self, seed: int = 1, *, size: int = 3, settings: ReplicaSettings | None = None) -> None:
        self.heard: list[tuple[object, ...]] = []
        super().__init__(Adder, seed=seed, size=size, settings=settings, hooks=self._hooks_of)

    def _hooks_of(self, name: NodeId) -> Hooks:
        return Hooks(
            on_role=lambda change: self.heard.append((name, change.role.value, change.leader_id)),
            on_stop=lambda failure: self.heard.append((name, "stop", failure)),
        )
