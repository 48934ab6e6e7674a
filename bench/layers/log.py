"""The write-ahead log on a real disk: record, checksum, write and, with it, the sync."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from bench.layers.material import TERM, entries
from bench.layers.timing import Laps, Layer
from raft.directory import DataDirectory
from raft.entries import EntryBatch, HardState
from raft.files import Descriptor, OsFiles


class UnsyncedFiles(OsFiles):
    """The disk without its slowest part: what is left is the processor time of a write."""

    def fdatasync(self, descriptor: Descriptor) -> None:
        pass


def appends(count: int, *, synced: bool) -> Layer:
    """Each call is an append and what follows it in a node: a write, and a sync if there is one."""

    def laps(directory: Path, calls: int) -> Laps:
        files = OsFiles() if synced else UnsyncedFiles()
        with (
            closing(DataDirectory(directory / "n1", "bench", "n1", files)) as owner,
            closing(owner.open_log()) as log,
        ):
            log.load()
            log.append(HardState(TERM, "n1"), None)
            log.sync()
            index = 1
            while True:
                batches = []
                for _ in range(calls):
                    batches.append(EntryBatch(index, entries(index, count)))
                    index += count

                def lap(batches: list[EntryBatch] = batches) -> None:
                    for batch in batches:
                        log.append(None, batch)
                        log.sync()

                yield lap

    way = "append and fdatasync" if synced else "append alone"
    calls = (300, 40) if synced else (3_000, 40)
    return Layer(f"log {way}, batches of {count}", calls[count > 1] * count, laps, count)


LAYERS = [appends(count, synced=synced) for synced in (False, True) for count in (1, 256)]
