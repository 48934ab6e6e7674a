"""What the core's owner may ask of a disk, whatever it is made of, and how a disk refuses.

May know entries and nothing of files. All errors of the disk side are here, with the data that an operator
needs. After a StorageFailed nothing that was not synced before it may be believed: the process must end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from raft.entries import Entry, EntryBatch, HardState, Index

REPLACE_THE_MEMBER = (
    "Delete nothing by hand, and do not start this node on an emptied directory under the same node id: it "
    "would forget what it has acknowledged. While a majority of the other members serves, remove this member "
    "from the cluster, move its data directory away, and add a new member under a new node id. "
    "The only member of a cluster: restore the directory from a backup."
)


class StorageError(Exception):
    """Any refusal of the disk side."""

    __slots__ = ()


class StorageFailed(StorageError):
    """A call to the disk failed or wrote too little. What was not synced before it may be lost."""

    __slots__ = ("action", "cause", "path")

    def __init__(self, action: str, path: Path | str, cause: str) -> None:
        super().__init__(action, path, cause)
        self.action = action
        self.path = path
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.action} of {self.path} failed: {self.cause}"


class CorruptLog(StorageError):
    """Data that was once on disk is damaged. `index` is the first log index that cannot be vouched for."""

    __slots__ = ("file", "index", "offset", "reason", "remedy")

    def __init__(self, file: Path, offset: int, index: Index, reason: str) -> None:
        super().__init__(file, offset, index, reason)
        self.file = file
        self.offset = offset
        self.index = index
        self.reason = reason
        self.remedy = REPLACE_THE_MEMBER

    def __str__(self) -> str:
        where = f"{self.file} at byte {self.offset}, log index {self.index}"
        return f"the write-ahead log is damaged: {where}: {self.reason}. {self.remedy}"


class DirectoryInUse(StorageError):
    """Another process has the data directory; `pid` is None if it did not leave its number."""

    __slots__ = ("path", "pid")

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(path, pid)
        self.path = path
        self.pid = pid

    def __str__(self) -> str:
        owner = "another process" if self.pid is None else f"process {self.pid}"
        return f"data directory {self.path} is in use by {owner}"


class WrongDirectory(StorageError):
    """The directory belongs to somebody else: its `field` is `found` where `expected` was wanted."""

    __slots__ = ("expected", "field", "found", "path")

    def __init__(self, path: Path, field: str, *, expected: object, found: object) -> None:
        super().__init__(path, field, expected, found)
        self.path = path
        self.field = field
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return f"data directory {self.path}: {self.field} is {self.found!r}, expected {self.expected!r}"


@dataclass(slots=True)
class Recovered:
    """What a node still knows when it starts. All of it is on disk; the receiver owns the list."""

    hard_state: HardState = field(default_factory=HardState)
    first_index: Index = 1  # index of entries[0]; 1 for as long as nothing is compacted
    entries: list[Entry] = field(default_factory=list)

    @property
    def last_index(self) -> Index:
        return self.first_index + len(self.entries) - 1


class Storage(Protocol):
    """Where the replicated state outlives the process. Owned by the owner of the core, called by no other."""

    def load(self) -> Recovered:
        """Everything durable. Called once, first."""

    def append(self, hard_state: HardState | None, batch: EntryBatch | None) -> None:
        """Take these over, in this order; nothing is promised before sync().

        A batch that begins at or below the last index replaces everything from there on.
        """

    def sync(self) -> None:
        """Return when all that was appended is durable. Raises StorageFailed: then the process must end."""

    def close(self) -> None:
        """Give back what is held. Anything appended and not synced may be lost."""


class MemoryStorage:
    """Storage for tests and simulations: it survives its node and loses what was not synced."""

    __slots__ = ("_durable", "_unsynced")

    def __init__(self, recovered: Recovered | None = None) -> None:
        self._durable = recovered if recovered is not None else Recovered()
        self._unsynced: list[tuple[HardState | None, EntryBatch | None]] = []

    def load(self) -> Recovered:
        self._unsynced.clear()
        durable = self._durable
        return Recovered(durable.hard_state, durable.first_index, durable.entries.copy())

    def append(self, hard_state: HardState | None, batch: EntryBatch | None) -> None:
        self._unsynced.append((hard_state, batch))

    def sync(self) -> None:
        durable = self._durable
        for hard_state, batch in self._unsynced:
            if hard_state is not None:
                durable.hard_state = hard_state
            if batch is not None:
                put_entries(durable.entries, durable.first_index, batch.first_index, batch.entries)
        self._unsynced.clear()

    def close(self) -> None:
        self._unsynced.clear()


def put_entries(log: list[Entry], log_first_index: Index, first_index: Index, entries: list[Entry]) -> None:
    """Append `entries` to `log`; first drop what they overwrite (Raft §5.3: a conflicting suffix goes)."""
    keep = first_index - log_first_index
    last_index = log_first_index + len(log) - 1
    assert 0 <= keep <= len(log), f"entries from {first_index} leave a gap after {last_index}"
    if keep < len(log):
        del log[keep:]
    log.extend(entries)
