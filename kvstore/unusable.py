"""Snapshots that are whole, and yet hold nothing that the store can restore: told with file and remedy.

May know snapshot files and the state machine. A start finds that out as it restores one; `assent wal check`
finds it out beforehand, by doing the same in memory.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from kvstore.snapshots import CorruptState
from kvstore.state_machine import StoreMachine
from kvstore.watch_plane import WatchPlane
from raft.entries import Index
from raft.files import FailStop, Files
from raft.snapshot import SnapshotReader
from raft.state_machine import restore_all
from raft.storage import REPLACE_THE_MEMBER

_SLICE_BYTES = 256 << 10


class UnusableSnapshot(CorruptState):
    """Every byte of it is as it was written, and something else was written than the store does."""

    __slots__ = ("file", "index", "reason")

    def __init__(self, file: Path, index: Index, reason: str) -> None:
        super().__init__(file, index, reason)
        self.file = file
        self.index = index
        self.reason = reason

    def __str__(self) -> str:
        what = f"the snapshot {self.file} is whole, and the store cannot restore it"
        return f"{what}: log index {self.index}: {self.reason}. {REPLACE_THE_MEMBER}"


def why_unusable(file: Path, files: Files, cluster_id: str) -> UnusableSnapshot | None:
    """Restores an intact snapshot into memory, and forgets it again; None if the store takes it."""
    machine = StoreMachine(WatchPlane(1))
    with closing(SnapshotReader(file, FailStop(files), cluster_id)) as reader:
        meta = reader.meta
        starts = range(0, meta.size_bytes, _SLICE_BYTES)
        try:
            restore_all(machine, (reader.read(start, _SLICE_BYTES) for start in starts))
        except CorruptState as error:
            return UnusableSnapshot(file, meta.index, str(error))
    return why_of_another_index(file, meta.index, machine)


def why_of_another_index(file: Path, index: Index, machine: StoreMachine) -> UnusableSnapshot | None:
    """It must end where the snapshot is said to end: else commands are missed, or come twice."""
    if machine.applied_index == index:
        return None
    return UnusableSnapshot(file, index, f"it ends at index {machine.applied_index}")
