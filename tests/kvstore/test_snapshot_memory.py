"""A large snapshot is taken, sent and restored piece by piece: no node ever has all of one in memory at once.

Whole nodes with logs on real files; what Python allocates at the most is held against the size of the state.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvstore import protocol
from kvstore.protocol_snapshot import Close
from raft.directory import DataDirectory
from tests.kvstore.memory_cluster import MemoryCluster
from tests.kvstore.test_snapshot_cluster import machine_of
from tests.kvstore.test_snapshot_reading import ask, open_at

VALUE_BYTES = 128 << 10
VALUES = 128
STATE_BYTES = VALUE_BYTES * VALUES  # 16 MiB
# Windows of chunks on their way, slices, what a turn has: all of it together, of three nodes.
WORK_BYTES = 4 << 20


class FileCluster(MemoryCluster):
    """Nodes whose logs are on real files below `root`; one of them is away at first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.directories: dict[str, DataDirectory] = {}
        super().__init__(1, 3, trailing_entries=0)

    def start(self, name: str) -> None:
        if name in self.directories:
            self.directories.pop(name).close()
        self.directories[name] = directory = DataDirectory(self.root / name, "cluster", name)
        self.disks[name] = directory.open_log()  # type: ignore[assignment]  # a storage like another
        super().start(name)


@contextmanager
def at_most(name: str, size_bytes: int) -> Iterator[None]:
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    yield
    _, peak = tracemalloc.get_traced_memory()
    assert peak - before < size_bytes, f"{name}: {(peak - before) >> 20} MiB"


def put(cluster: MemoryCluster, leader: str, number: int) -> None:
    value = number.to_bytes(4, "big") * (VALUE_BYTES // 4)
    [result] = cluster.client(leader).call(
        protocol.WRITE, [protocol.put_body(0, 0, 0, b"%d" % (number % VALUES), value)]
    )
    assert result[0] == protocol.OK


def test_memory_is_bounded_while_a_large_snapshot_is_taken_sent_and_restored(tmp_path: Path) -> None:
    cluster = FileCluster(tmp_path)
    leader = cluster.leader()
    away = next(name for name in cluster.names if name != leader)
    cluster.crash(away)
    for number in range(VALUES):
        put(cluster, leader, number)
    nonces = iter([b"%016d" % number for number in range(9)])

    def take() -> None:
        nonce = next(nonces)
        for name in cluster.systems:
            open_at(cluster, name, nonce)
            ask(cluster, name, Close(nonce))
        cluster.run(2.0)

    tracemalloc.start()
    try:
        take()
        put(cluster, leader, VALUES)
        with at_most("taken", WORK_BYTES):
            take()
        with at_most("sent and restored", STATE_BYTES + WORK_BYTES):
            cluster.start(away)
            cluster.run(5.0)
        assert machine_of(cluster, away).digest() == machine_of(cluster, leader).digest()
    finally:
        tracemalloc.stop()
