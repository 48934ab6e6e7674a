"""What the core's owner may ask of a disk, whatever it is made of, and how a disk refuses.

May know entries and nothing of files. All errors of the disk side are here, with the data that an operator
needs. After a StorageFailed nothing that was not synced before it may be believed: the process must end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol
from zlib import crc32

from raft.entries import Entry, EntryBatch, HardState, Index, Term
from raft.entries import SnapshotMeta as SnapshotMeta  # for whoever makes a storage
from raft.state_machine import Restorable, restore_all

REPLACE_THE_MEMBER = (
    "Delete nothing by hand, and do not start this node on an emptied directory under the same node id: it "
    "would forget what it has acknowledged. While a majority of the other members serves, remove this member "
    "from the cluster, move its data directory away, and add a new member under a new node id. "
    "The only member of a cluster: restore a backup, or what `assent snapshot salvage` still finds here."
)


TAKE_ITS_OWN = (
    "Give this node the directory that it was started with before; a new node needs an empty one, and a name "
    "that the cluster has not known yet."
)
RESTORE_AGAIN = (
    "A restore into it was interrupted: run the same `assent snapshot restore` again, and it begins anew."
)
NOTHING_LEFT = (
    "Nothing is left here that could be believed: restore a backup, or salvage another member's directory."
)
TAKE_ANOTHER_COPY = "Nothing in this file can be relied on: use another copy of it."
A_LATER_VERSION = "Start this node with the version of Assent that wrote it, or with a later one."
READ_WITH_A_LATER_VERSION = "Use the version of Assent that wrote it, or a later one."
LOOK_AT_THE_DISK = (
    "See whether there is room, and what the kernel's log says of this disk. If it is well, do the same "
    "again; if not, use another disk, and replace the member whose data was on it."
)


class StorageError(Exception):
    """Any refusal of the disk side."""

    __slots__ = ()


class StorageFailed(StorageError):
    """A call to the disk failed or wrote too little. What was not synced before it may be lost."""

    __slots__ = ("action", "cause", "path", "remedy")

    def __init__(self, action: str, path: Path | str, cause: str) -> None:
        super().__init__(action, path, cause)
        self.action = action
        self.path = path
        self.cause = cause
        self.remedy = LOOK_AT_THE_DISK

    def __str__(self) -> str:
        return f"{self.action} of {self.path} failed: {self.cause}. {self.remedy}"


class DiskFull(StorageError):
    """There is no room for something that can wait. It was given up, and the log goes on without it."""

    __slots__ = ("cause", "path")

    def __init__(self, path: Path | str, cause: str) -> None:
        super().__init__(path, cause)
        self.path = path
        self.cause = cause

    def __str__(self) -> str:
        return f"there is no room for {self.path}: {self.cause}"


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


class CorruptSnapshot(StorageError):
    """A snapshot file that was once durable is damaged, or is not this log's."""

    __slots__ = ("file", "index", "offset", "reason", "remedy")

    def __init__(
        self, file: Path, reason: str, *, offset: int = 0, index: Index = 0, remedy: str = REPLACE_THE_MEMBER
    ) -> None:
        super().__init__(file, reason)
        self.file = file
        self.reason = reason
        self.offset = offset
        self.index = index  # of the last entry that it stands for, 0 if that cannot be told
        self.remedy = remedy

    def __str__(self) -> str:
        where = f"the snapshot {self.file} is damaged at byte {self.offset}"
        index = f", log index {self.index}" if self.index else ""
        return f"{where}{index}: {self.reason}. {self.remedy}"


class DirectoryInUse(StorageError):
    """Another process has the data directory; `pid` is None if it did not leave its number."""

    __slots__ = ("path", "pid")

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(path, pid)
        self.path = path
        self.pid = pid

    def __str__(self) -> str:
        owner = "another process" if self.pid is None else f"process {self.pid}"
        return f"data directory {self.path} is in use by {owner}. Stop that one first."


class WrongDirectory(StorageError):
    """The directory belongs to somebody else: its `field` is `found` where `expected` was wanted."""

    __slots__ = ("expected", "field", "found", "path", "remedy")

    def __init__(
        self, path: Path, field: str, *, expected: object, found: object, remedy: str = TAKE_ITS_OWN
    ) -> None:
        super().__init__(path, field, expected, found)
        self.path = path
        self.field = field
        self.expected = expected
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        what = f"{self.field} is {self.found!r}, expected {self.expected!r}"
        return f"data directory {self.path}: {what}. {self.remedy}"


class DamagedIdentity(WrongDirectory):
    """The file that says whose directory it is: nothing in it is believed, for it is damaged."""

    __slots__ = ("file",)

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(
            file.parent, "identity", expected="what was written", found=reason, remedy=REPLACE_THE_MEMBER
        )
        self.file = file

    def __str__(self) -> str:
        return f"{self.file} is damaged: {self.found}. {self.remedy}"


class UnknownFormat(WrongDirectory):
    """A file is in a format that this program does not know: a later one wrote it."""

    __slots__ = ()

    def __init__(self, file: Path, found: int, newest: int, remedy: str = A_LATER_VERSION) -> None:
        super().__init__(file, "format version", expected=newest, found=found, remedy=remedy)

    @property
    def what(self) -> str:
        """That has this version."""
        return str(self.path)

    def __str__(self) -> str:
        known = f"this program reads versions up to {self.expected}"
        return f"{self.what} has format version {self.found}, {known}. {self.remedy}"


@dataclass(slots=True)
class Recovered:
    """What a node still knows when it starts. All of it is on disk; the receiver owns the list.

    With a snapshot, the entries follow it or overlap with it: there is no gap between the two.
    """

    hard_state: HardState = field(default_factory=HardState)
    first_index: Index = 1  # index of entries[0]; 1 for as long as nothing is compacted
    entries: list[Entry] = field(default_factory=list)
    previous_term: Term = 0  # of the entry before the first; 0 exactly if first_index is 1
    snapshot: SnapshotMeta | None = None  # first_index - 1 <= snapshot.index <= last_index

    @property
    def last_index(self) -> Index:
        """Of the last entry; without any, of the one before the first."""
        return self.first_index + len(self.entries) - 1


class Space(NamedTuple):
    """How much room a storage has."""

    free_bytes: int  # that it may still write, as far as that can be told
    wanted_bytes: int  # what it may need next: one more segment, and one more snapshot
    gave_up: bool  # something was given up for want of room, and not made good yet
    spent_segments: int = 0  # of the log: they would go if a snapshot stood for all that is in them


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

    def begin_snapshot(self, index: Index, term: Term, configuration: bytes) -> None:
        """A snapshot is to be written; one that was begun before, and not committed, is given up.

        Nothing of it is durable before commit_snapshot(), and a restart forgets it. Until then each call
        may raise DiskFull: then it is given up, and the rest goes on.
        """

    def append_snapshot(self, data: bytes) -> None:
        """The next bytes of its content."""

    def commit_snapshot(self, *, replaces_log: bool) -> SnapshotMeta:
        """Return when it is durable, and everything that was appended too.

        If it replaces the log, all entries are forgotten, and the next one follows the snapshot
        (Raft figure 13, rule 7). If not, the log must have the entry that it ends with.
        """

    def abandon_snapshot(self) -> None:
        """Give up what was begun, if anything was."""

    def read_snapshot(self, index: Index, offset: int, size_bytes: int) -> bytes:
        """Part of the content of the snapshot at `index`; shorter only where it ends."""

    def compact(self, index: Index, keep_snapshots: frozenset[Index] = frozenset()) -> bool | None:
        """Entries up to `index`, which a snapshot covers, may go, and older snapshots but for those.

        True if not all that may go is gone: then the same call soon does some more of it.
        """

    def close(self) -> None:
        """Give back what is held. Anything appended and not synced may be lost."""


def snapshot_content(storage: Storage, meta: SnapshotMeta, slice_bytes: int = 256 << 10) -> Iterator[bytes]:
    """All of a snapshot's content, in slices."""
    for offset in range(0, meta.size_bytes, slice_bytes):
        yield storage.read_snapshot(meta.index, offset, slice_bytes)


def restored_index(machine: Restorable, storage: Storage, recovered: Recovered) -> Index:
    """Give a new state machine the state of the recovered snapshot; the index up to which it has applied."""
    snapshot = recovered.snapshot
    if snapshot is None:
        return 0
    restore_all(machine, snapshot_content(storage, snapshot))
    return snapshot.index


class Measured(Protocol):
    """What a Storage does besides, if its room is limited. A Storage may be without any of it."""

    def check_space(self) -> Space:
        """Called once a second or so. What was given up for want of room is tried again from now on."""

    def check_draft_room(self) -> None:
        """Called before a part of a snapshot is appended. Raises DiskFull, and has given that snapshot up,
        where it would take the last bytes of a disk."""

    def yield_room(self, is_wanted: bool) -> None:
        """Called when a snapshot is begun that is to free room, and when it has ended: meanwhile all room but
        what the log cannot do without is for the snapshot, to the last byte."""


class MemoryStorage:
    """Storage for tests and simulations: it survives its node and loses what was not synced."""

    __slots__ = ("_draft", "_durable", "_snapshots", "_unsynced")

    def __init__(self, recovered: Recovered | None = None) -> None:
        self._durable = recovered if recovered is not None else Recovered()
        self._unsynced: list[tuple[HardState | None, EntryBatch | None]] = []
        self._snapshots: dict[Index, bytes] = {}  # contents, by index; that of _durable.snapshot among them
        self._draft: tuple[Index, Term, bytes, list[bytes]] | None = None

    def load(self) -> Recovered:
        self._unsynced.clear()
        self._draft = None
        durable = self._durable
        return Recovered(
            durable.hard_state,
            durable.first_index,
            durable.entries.copy(),
            durable.previous_term,
            durable.snapshot,
        )

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

    def begin_snapshot(self, index: Index, term: Term, configuration: bytes) -> None:
        self._draft = (index, term, configuration, [])

    def append_snapshot(self, data: bytes) -> None:
        assert self._draft is not None, "no snapshot was begun"
        self._draft[3].append(bytes(data))

    def commit_snapshot(self, *, replaces_log: bool) -> SnapshotMeta:
        self.sync()
        draft, self._draft = self._draft, None
        assert draft is not None, "no snapshot was begun"
        index, term, configuration, parts = draft
        content = b"".join(parts)
        durable = self._durable
        if replaces_log:
            durable.first_index, durable.previous_term, durable.entries = index + 1, term, []
        assert index <= durable.last_index, f"a snapshot at {index} of a log up to {durable.last_index}"
        durable.snapshot = SnapshotMeta(index, term, configuration, len(content), crc32(content))
        self._snapshots[index] = content
        return durable.snapshot

    def abandon_snapshot(self) -> None:
        self._draft = None

    def read_snapshot(self, index: Index, offset: int, size_bytes: int) -> bytes:
        return self._snapshots[index][offset : offset + size_bytes]

    def compact(self, index: Index, keep_snapshots: frozenset[Index] = frozenset()) -> bool:
        durable = self._durable
        assert durable.snapshot is not None and index <= durable.snapshot.index, f"no snapshot covers {index}"
        count = index - durable.first_index + 1
        if count > 0:
            durable.previous_term = durable.entries[count - 1][0]
            durable.first_index = index + 1
            del durable.entries[:count]
        for old in [old for old in self._snapshots if old < durable.snapshot.index]:
            if old not in keep_snapshots:
                del self._snapshots[old]
        return False

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
