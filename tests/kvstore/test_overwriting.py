"""The same keys written over and over, by a whole node on real files: its disk, log and memory come to rest.

`python -m bench.overwrite` does the same with three processes, and a hundred times as many puts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from bench.filling import disk_bytes
from kvstore import protocol
from raft.directory import DataDirectory
from raft.files import OsFiles
from tests.kvstore.memory_cluster import MemoryCluster

PUTS, KEYS, VALUE_BYTES = 50_000, 500, 100
FRAMES = 200
SEGMENT_BYTES = 64 << 10
GROWTH_LIMIT = 1.5  # since one tenth of the puts
WINDOW = 15  # so many looks count for one figure: some snapshots and compactions lie between them
PAUSE_SECONDS = 0.1  # between two frames, for snapshots and what is given back


class UnsyncedFiles(OsFiles):
    """Nobody pulls the plug here."""

    def fdatasync(self, descriptor: int) -> None:
        pass


class Look(NamedTuple):
    disk_bytes: int
    log_entries: int
    history_bytes: int


def looks(path: Path) -> Iterator[Look]:
    """After each frame of puts."""
    cluster = MemoryCluster(
        1,
        1,
        snapshot_interval_entries=500,
        trailing_entries=100,
        max_log_mib=1,
        disk_reserve_mib=1,
        history_revisions=1000,
    )
    cluster.crash("n1")
    with closing(DataDirectory(path, "7", "n1", UnsyncedFiles())) as directory:
        storage = directory.open_log(segment_bytes=SEGMENT_BYTES)
        cluster.disks["n1"] = storage  # type: ignore[assignment]  # where a storage of memory was
        cluster.start("n1")
        client = cluster.client(cluster.leader())
        for frame in range(FRAMES):
            numbers = range(frame * PUTS // FRAMES, (frame + 1) * PUTS // FRAMES)
            value = b"%d" % frame * VALUE_BYTES
            client.call(
                protocol.WRITE,
                [protocol.put_body(0, 0, 0, b"k%d" % (n % KEYS), value[:VALUE_BYTES]) for n in numbers],
            )
            cluster.run(PAUSE_SECONDS)
            status = cluster.status("n1")
            last, first, history = (status[f] for f in ("last_index", "log_first_index", "history_bytes"))
            assert isinstance(last, int) and isinstance(first, int) and isinstance(history, int)
            yield Look(disk_bytes(path), last - first, history)
        storage.close()


def test_disk_log_and_past_stay_bounded_while_few_keys_are_overwritten(tmp_path: Path) -> None:
    seen = list(looks(tmp_path / "n1"))
    tenth = FRAMES // 10
    before = Look(*map(max, zip(*seen[tenth - WINDOW : tenth])))
    after = Look(*map(max, zip(*seen[-WINDOW:])))
    for name, early, late in zip(Look._fields, before, after):
        assert 0 < late <= GROWTH_LIMIT * early, f"{name}: {early} after a tenth, {late} at the end"
