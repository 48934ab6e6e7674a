"""Snapshots that are whole, and yet hold nothing that the store can restore: told with file and remedy.

May know snapshot files and the state machine. Whoever restores one does it through here: a start, a follower
that was sent one, and what only looks, in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kvstore.snapshots import FORMAT_VERSION, CorruptState, UnknownState
from kvstore.state_machine import StoreMachine
from kvstore.watch_plane import WatchPlane
from raft.entries import Index
from raft.files import FailStop, Files
from raft.snapshot import SnapshotReader
from raft.state_machine import Restorer, restore_all
from raft.storage import (
    A_LATER_VERSION,
    READ_WITH_A_LATER_VERSION,
    REPLACE_THE_MEMBER,
    CorruptSnapshot,
    StorageError,
    UnknownFormat,
)

_SLICE_BYTES = 256 << 10


class UnusableSnapshot(CorruptSnapshot):
    """Every byte of it is as it was written, and something else was written than the store does."""

    __slots__ = ()

    def __str__(self) -> str:
        what = f"the snapshot {self.file} is whole, and the store cannot restore it"
        return f"{what}: log index {self.index}: {self.reason}. {self.remedy}"


class UnknownContent(UnknownFormat):
    """A later version of the store wrote what is in a snapshot: nothing is wrong with it."""

    __slots__ = ("index",)

    def __init__(self, file: Path, index: Index, found: int, remedy: str) -> None:
        super().__init__(file, found, FORMAT_VERSION, remedy)
        self.index = index

    @property
    def what(self) -> str:
        return f"the content of {self.path} (log index {self.index})"


@dataclass(frozen=True, slots=True)
class Judged:
    """Restorable, as the machine is: what the store refuses is told with the file and what to do about it."""

    machine: StoreMachine
    file: Path
    index: Index  # where the snapshot is said to end
    remedy: str = REPLACE_THE_MEMBER
    later_remedy: str = A_LATER_VERSION

    def restorer(self) -> Restorer:
        """Raises UnusableSnapshot and UnknownContent, where the machine's own raises CorruptState."""
        return self.judging(self.machine.restorer())

    def judging(self, restorer: Restorer) -> Restorer:
        """The same, of a restorer that the machine has made."""
        return _JudgedRestorer(self, restorer)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Whatever the store says in here is said of this snapshot."""
        try:
            yield
        except UnknownState as error:
            raise UnknownContent(self.file, self.index, error.version, self.later_remedy) from error
        except CorruptState as error:
            raise self.unusable(str(error)) from error

    def unusable(self, reason: str) -> UnusableSnapshot:
        return UnusableSnapshot(self.file, reason, index=self.index, remedy=self.remedy)


class _JudgedRestorer:
    """Implements raft's Restorer. Owned by who asked for it."""

    __slots__ = ("_judged", "_restorer")

    def __init__(self, judged: Judged, restorer: Restorer) -> None:
        self._judged = judged
        self._restorer = restorer

    def feed(self, data: bytes) -> None:
        with self._judged.named():
            self._restorer.feed(data)

    def finish(self) -> None:
        """It must end where the snapshot is said to end: else commands are missed, or come twice."""
        judged = self._judged
        with judged.named():
            self._restorer.finish()
        if judged.machine.applied_index != judged.index:
            raise judged.unusable(f"it ends at index {judged.machine.applied_index}")


def restored_in_memory(
    reader: SnapshotReader,
    file: Path,
    *,
    remedy: str = REPLACE_THE_MEMBER,
    later_remedy: str = READ_WITH_A_LATER_VERSION,
) -> StoreMachine:
    """A store with what is in the snapshot. Raises UnusableSnapshot and UnknownContent."""
    machine, meta = StoreMachine(WatchPlane(1)), reader.meta
    starts = range(0, meta.size_bytes, _SLICE_BYTES)
    judged = Judged(machine, file, meta.index, remedy, later_remedy)
    restore_all(judged, (reader.read(start, _SLICE_BYTES) for start in starts))
    return machine


def why_unusable(file: Path, files: Files, cluster_id: str) -> StorageError | None:
    """Restores an intact snapshot of a node into memory, and forgets it again; None if the store takes it."""
    with closing(SnapshotReader(file, FailStop(files), cluster_id)) as reader:
        try:
            restored_in_memory(reader, file, later_remedy=A_LATER_VERSION)
        except (UnusableSnapshot, UnknownContent) as error:
            return error
    return None
