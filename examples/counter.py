"""A counter that three replicas agree on, all in this process: python examples/counter.py"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from actors import MemoryNetwork
from raft import MemoryStorage, NotLeader, Restorer, WholeRestorer
from raft.replica import Replica


class Counter:
    """A command is a number to add, and is answered with the sum; a query is answered with the sum too."""

    def __init__(self) -> None:
        self.total = 0

    def apply(self, first_index: int, bodies: Sequence[bytes | None]) -> list[bytes | None]:
        return [None if body is None else self.add(int(body)) for body in bodies]

    def add(self, number: int) -> bytes:
        self.total += number
        return str(self.total).encode()

    def query(self, bodies: Sequence[bytes]) -> list[bytes]:
        return [str(self.total).encode() for _ in bodies]

    def status(self) -> dict[str, object]:
        return {"total": self.total}

    def snapshot(self) -> Iterator[bytes]:
        return iter([str(self.total).encode()])

    def restorer(self) -> Restorer:
        return WholeRestorer(self.restore)

    def restore(self, content: bytes) -> None:
        self.total = int(content)


def main() -> None:
    network = MemoryNetwork()
    members = {name: f"memory://{name}" for name in ("n1", "n2", "n3")}
    replicas = {
        name: Replica(
            name, Counter(), members=members, storage=MemoryStorage(), transport=network.transport()
        ).start()
        for name in members
    }
    leader = replicas[replicas["n1"].wait_for_leader(timeout_seconds=5)]
    print("sum:", leader.apply(b"5").decode())
    print("sum:", leader.apply(b"7").decode())
    for name, replica in replicas.items():
        print(f"{name} says", replica.read(b"").decode())
    follower = next(replica for replica in replicas.values() if replica is not leader)
    try:
        follower.apply(b"1")
    except NotLeader as error:
        print("a follower does not take commands, and names the leader:", error.leader_id == leader.node_id)
    for replica in replicas.values():
        replica.stop()


if __name__ == "__main__":
    main()
