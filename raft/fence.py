"""The fence around a node whose state machine is wrong, or whose log has lost what was acknowledged: put up
once, durable, never taken down.

May know `Files` and where the data directory is. The mark is a file of its own, written as the identity is:
draft, sync, rename, sync of the directory. The draft is there beforehand, with room for the mark, so that a
full disk is no obstacle. A mark that cannot be read is a mark all the same.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from raft.entries import Index
from raft.fields import decode_fields, decode_plain_fields, encode_fields
from raft.files import Descriptor, FailStop, Files
from raft.ready import Forgotten
from raft.state_machine import Restorable
from raft.storage import DiskFull, Recovered, Storage, restored_index

if TYPE_CHECKING:
    from raft.core import Core

FENCE_NAME: Final = "fenced"
FENCE_DRAFT_NAME: Final = "fenced.tmp"
FORMAT_VERSION: Final = 2  # since there is a checksum
ROOM_BYTES: Final = 4096  # a block; a mark takes a few hundred bytes of it
UNREADABLE: Final = "the mark cannot be read"
_FIELDS: Final = frozenset({"format", "index", "own", "theirs", "reason", "has_forgotten"})


class FenceMark(NamedTuple):
    """Why. Of a node that differs: where, its own fingerprint and that of a majority; else both are 0.

    Of one that has forgotten: up to where it had acknowledged the log.
    """

    index: Index  # type: ignore[assignment]  # hides tuple.index
    own: int
    theirs: int
    reason: str
    # What it had acknowledged or voted may not be on its disk: it must not vote, nor store for a majority.
    has_forgotten: bool = False

    def fields(self) -> dict[str, object]:
        """For people and programs: fingerprints in hexadecimal digits."""
        return {
            "index": self.index,
            "own": f"{self.own:016x}",
            "theirs": f"{self.theirs:016x}",
            "reason": self.reason,
        }

    def warning(self) -> str:
        """For whoever looks at what such a node has on its disk. One that has forgotten may have been wrong
        before: there is only one mark."""
        where = f" at index {self.index}" if self.index else ""
        log = "its log may lack what was acknowledged, and " if self.has_forgotten else ""
        what = f"{log}its state may be wrong, its snapshots too"
        return f"this node had fenced itself{where}: {self.reason}; {what}"


class Fence(Protocol):
    """Owned by a node's applier."""

    mark: FenceMark | None  # None: the node is not fenced

    def keep_room(self) -> None:
        """While there is room on the disk, for the day when there is none. Once, at a start that succeeds."""

    def put_up(self, mark: FenceMark) -> None:
        """Durable when it returns. Raises StorageFailed: then the process must end."""


class MemoryFence:
    """For nodes whose storage is memory too."""

    def __init__(self) -> None:
        self.mark: FenceMark | None = None

    def keep_room(self) -> None:
        pass

    def put_up(self, mark: FenceMark) -> None:
        self.mark = mark


class FileFence:
    """In a data directory, which is locked for as long as this is used."""

    def __init__(self, directory: Path, files: Files) -> None:
        self._directory = directory
        self._files = files
        self._disk = FailStop(files)
        self.mark = self._read()

    def _read(self) -> FenceMark | None:
        names = self._disk.call(self._directory, self._files.list_directory, self._directory)
        if FENCE_NAME not in names:
            return None
        path = self._directory / FENCE_NAME
        return _parse(self._disk.call(path, self._files.read, path))

    def keep_room(self) -> None:
        """A node that starts on a full disk goes without: then a mark needs room as anything else does."""
        disk, draft = self._disk, self._directory / FENCE_DRAFT_NAME
        if self._has_draft() and len(disk.call(draft, disk.files.read, draft)) >= ROOM_BYTES:
            return
        with suppress(DiskFull):
            descriptor = self._open_draft()
            with suppress(DiskFull):
                disk.attempt_write(draft, descriptor, bytes(ROOM_BYTES), 0)
                disk.attempt(draft, disk.files.fdatasync, descriptor)  # or it may have no blocks yet
            disk.close(descriptor)

    def _has_draft(self) -> bool:
        names = self._disk.call(self._directory, self._files.list_directory, self._directory)
        return FENCE_DRAFT_NAME in names

    def _open_draft(self) -> Descriptor:
        disk, draft = self._disk, self._directory / FENCE_DRAFT_NAME
        return disk.attempt(draft, disk.files.open if self._has_draft() else disk.files.create, draft)

    def put_up(self, mark: FenceMark) -> None:
        disk = self._disk
        content = {"format": FORMAT_VERSION, **mark.fields(), "has_forgotten": mark.has_forgotten}
        data = encode_fields(content)
        try:
            self._replace(data)
        except DiskFull as full:
            if self.mark is None:
                raise disk.give_in(full) from full
            self._overwrite(data)
        self.mark = mark

    def _replace(self, data: bytes) -> None:
        disk, files, draft = self._disk, self._files, self._directory / FENCE_DRAFT_NAME
        descriptor = self._open_draft()
        try:
            disk.attempt_write(draft, descriptor, data, 0)
            disk.attempt(draft, files.truncate, descriptor, len(data))
            disk.attempt(draft, files.fdatasync, descriptor)
        finally:
            disk.close(descriptor)
        disk.attempt(draft, files.rename, draft, self._directory / FENCE_NAME)
        disk.call(self._directory, files.fsync_directory, self._directory)

    def _overwrite(self, data: bytes) -> None:
        """The mark that is there has a block already. If the power goes meanwhile it cannot be read, and then
        it counts as the mark of a node that has forgotten: as this one, the only one that follows another."""
        disk, files, path = self._disk, self._files, self._directory / FENCE_NAME
        descriptor = disk.call(path, files.open, path)
        disk.write(path, descriptor, data, 0)
        disk.call(path, files.truncate, descriptor, len(data))
        disk.call(path, files.fdatasync, descriptor)
        disk.close(descriptor)


def restored_unless_fenced(
    fence: Fence, machine: Restorable, storage: Storage, recovered: Recovered
) -> Index:
    """Up to which index a new state machine has applied. Behind a fence it stays as it is: nobody would use
    what is in the snapshot, and it may be what is wrong."""
    if fence.mark is None:
        index = restored_index(machine, storage, recovered)
        fence.keep_room()  # not before: a start that is refused leaves the directory as it was
        return index
    return 0 if recovered.snapshot is None else recovered.snapshot.index


def withdraw_behind(fence: Fence, core: Core) -> None:
    """Before a core hears anybody: what its node found out in an earlier life counts in this one."""
    if fence.mark is not None and fence.mark.has_forgotten:
        core.withdraw()


def mark_of(forgotten: Forgotten) -> FenceMark:
    """What the core found out, in words."""
    leader_id, term, known_index, held_index = forgotten
    reason = (
        f"it has acknowledged its log up to {known_index} to {leader_id} in term {term}, and no more "
        f"of it is here than up to {held_index}: its data directory was cut, or is an old copy"
    )
    return FenceMark(known_index, 0, 0, reason, True)


def _parse(data: bytes) -> FenceMark:
    """Only what was written is repeated; the mark itself needs no more than its name."""
    unreadable = FenceMark(0, 0, 0, UNREADABLE, True)  # for all that anybody knows
    content = decode_fields(data)
    if content is None:
        content = decode_plain_fields(data)
        if content is None or repr(content.get("format")) != "1":  # nor true, nor 1.0
            return unreadable
    index, own, theirs, reason = (content.get(name) for name in ("index", "own", "theirs", "reason"))
    has_forgotten = content.get("has_forgotten", False)
    if not (type(index) is int and 0 <= index < 1 << 63 and _is_hash(own) and _is_hash(theirs)):
        return unreadable
    if content.keys() - _FIELDS or not isinstance(has_forgotten, bool):
        return unreadable
    return FenceMark(index, int(str(own), 16), int(str(theirs), 16), str(reason), has_forgotten)


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) is not None
