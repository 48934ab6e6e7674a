"""The data directory of one node: whose it is, and that only one process has it.

May know `Files` and the log's place in the directory. Writes the identity last, after an empty log is
durable: so a directory with an identity and without a log has lost its log, and is refused. The identity
says, too, with which members the node was started first, so that it is asked for once in its life.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from raft.fence import FileFence
from raft.files import Descriptor, FailStop, Files, OsFiles
from raft.segment import MAX_ID_BYTES, Identity
from raft.storage import (
    A_LATER_VERSION,
    REPLACE_THE_MEMBER,
    TAKE_ITS_OWN,
    DirectoryInUse,
    DiskFull,
    WrongDirectory,
)
from raft.wal import DEFAULT_SEGMENT_BYTES, WriteAheadLog

FORMAT_VERSION = 1
LOCK_NAME = "lock"
IDENTITY_NAME = "identity"
DRAFT_NAME = "identity.tmp"
LOG_NAME = "wal"
# What a start that broke off may leave behind, and what a file system brings along.
OWN_NAMES = frozenset({LOCK_NAME, DRAFT_NAME, LOG_NAME, "lost+found"})


class Founding(NamedTuple):
    """What an identity file says beside whose directory it is; written once, when the directory is made."""

    cluster_id: str
    # Chosen at random when the directory was made, so that it is known again; empty in an old one.
    storage_id: str
    # The members, with their addresses, that the node is to begin with until its log has a configuration;
    # empty for a node that waits to be added, None in a directory of before this was written down.
    members: Mapping[str, str] | None


def read_founding(path: Path, files: Files | None = None) -> Founding | None:
    """What the directory was made with; None if it is none yet. Neither locks nor changes anything."""
    used: Files = OsFiles() if files is None else files
    disk = FailStop(used)
    try:
        names = used.list_directory(path)
    except FileNotFoundError:
        return None
    if IDENTITY_NAME not in names:
        return None
    return _founding(_parse(disk.call(path / IDENTITY_NAME, used.read, path / IDENTITY_NAME)))


class DataDirectory:
    """Opened and locked when it is made, until close(). Owned by the node's process, not by its parts."""

    def __init__(
        self,
        path: Path,
        cluster_id: str,
        node_id: str,
        files: Files | None = None,
        *,
        storage_id: str = "",
        members: Mapping[str, str] | None = None,
    ) -> None:
        """`storage_id` and `members` are for a directory that is made now; one that is there has its own."""
        longest = max(len(cluster_id.encode()), len(node_id.encode()))
        assert longest <= MAX_ID_BYTES, f"an id of {longest} bytes is longer than {MAX_ID_BYTES}"
        self.path = path
        self.identity = Identity(cluster_id, node_id)
        self.founding = Founding(cluster_id, storage_id, members)
        self._files: Files = OsFiles() if files is None else files
        self._disk = FailStop(self._files)
        self._disk.call(path, self._files.make_directory, path)
        self._disk.call(path.parent, self._files.fsync_directory, path.parent)
        self._lock: Descriptor | None = None
        try:
            self._take_lock()
            self._claim()
        except BaseException:
            self.close()
            raise

    def open_log(self, *, segment_bytes: int = DEFAULT_SEGMENT_BYTES) -> WriteAheadLog:
        """The node's log. Its owner calls load() first, and close() before this directory is closed."""
        return WriteAheadLog(self.path / LOG_NAME, self._files, self.identity, segment_bytes=segment_bytes)

    def fence(self) -> FileFence:
        """Whether the node may use its state, and how that is ended for good. To be owned by its applier."""
        return FileFence(self.path, self._files)

    def close(self) -> None:
        """Let another process have it. May be called again."""
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            self._disk.close(descriptor)

    def _take_lock(self) -> None:
        path, disk, files = self.path / LOCK_NAME, self._disk, self._files

        def lock() -> Descriptor | None:
            try:
                return files.lock(path)
            except BlockingIOError:
                return None

        self._lock = disk.call(path, lock)
        if self._lock is None:
            raise DirectoryInUse(self.path, _number(disk.call(path, files.read, path)))
        disk.call(path, files.truncate, self._lock, 0)
        with suppress(DiskFull):  # a message to others is no reason not to start
            disk.attempt_write(path, self._lock, f"{os.getpid()}\n".encode(), 0)

    def _claim(self) -> None:
        """Check that the directory is this node's; make it so if it is nobody's."""
        names = self._disk.call(self.path, self._files.list_directory, self.path)
        if IDENTITY_NAME in names:
            self._compare()
            return
        strangers = sorted(name for name in names if name not in OWN_NAMES and not name.startswith("."))
        if strangers:
            raise WrongDirectory(self.path, "content", expected="an empty directory", found=strangers[0])
        WriteAheadLog.create(self.path / LOG_NAME, self._files, self.identity)
        self._write_identity(draft_is_there=DRAFT_NAME in names)

    def _compare(self) -> None:
        path = self.path / IDENTITY_NAME
        found = _parse(self._disk.call(path, self._files.read, path))
        _expect(self.path, found, _content(self.identity))
        # A start that broke off may have given the file its name and not made the name durable: a loss of
        # power would take it, and leave a log without an owner.
        self._disk.call(self.path, self._files.fsync_directory, self.path)
        self.founding = _founding(found)

    def _write_identity(self, *, draft_is_there: bool) -> None:
        disk, files, draft = self._disk, self._files, self.path / DRAFT_NAME
        if draft_is_there:
            disk.call(draft, files.unlink, draft)
        descriptor = disk.call(draft, files.create, draft)
        content = _content(self.identity)
        if self.founding.storage_id:
            content["storage_id"] = self.founding.storage_id
        if self.founding.members is not None:
            content["members"] = dict(self.founding.members)
        disk.write(draft, descriptor, (json.dumps(content) + "\n").encode(), 0)
        disk.call(draft, files.fdatasync, descriptor)
        disk.close(descriptor)
        disk.call(draft, files.rename, draft, self.path / IDENTITY_NAME)
        disk.call(self.path, files.fsync_directory, self.path)


def read_identity(path: Path, files: Files) -> Identity:
    """Whose directory it is, for somebody who only looks. Raises WrongDirectory if that cannot be told."""
    disk = FailStop(files)
    if IDENTITY_NAME not in disk.call(path, files.list_directory, path):
        raise WrongDirectory(path, "identity", expected="a file of that name", found=None)
    found = _parse(disk.call(path / IDENTITY_NAME, files.read, path / IDENTITY_NAME))
    cluster_id, node_id = (str(found.get(field) or "") for field in ("cluster_id", "node_id"))
    identity = Identity(cluster_id, node_id)
    _expect(path, found, _content(identity))
    return identity


def _expect(path: Path, found: Mapping[str, object], content: Mapping[str, object]) -> None:
    """What the identity file of a directory must say."""
    for field, expected in content.items():
        value = found.get(field)
        if value == expected:
            continue
        remedy = TAKE_ITS_OWN if value is not None else REPLACE_THE_MEMBER
        if field == "format" and isinstance(value, int) and value > FORMAT_VERSION:
            remedy = A_LATER_VERSION
        raise WrongDirectory(path, field.replace("_", " "), expected=expected, found=value, remedy=remedy)


def _content(identity: Identity) -> dict[str, object]:
    """What the identity file says, in the order in which it is checked."""
    return {"format": FORMAT_VERSION, "cluster_id": identity.cluster_id, "node_id": identity.node_id}


def _founding(content: Mapping[str, object]) -> Founding:
    """Of fields that may be missing or damaged: then they say nothing."""
    cluster_id, storage_id = content.get("cluster_id"), content.get("storage_id")
    members = content.get("members")
    if not isinstance(members, dict) or not all(isinstance(address, str) for address in members.values()):
        members = None
    return Founding(
        cluster_id if isinstance(cluster_id, str) else "",
        storage_id if isinstance(storage_id, str) else "",
        members,
    )


def _parse(data: bytes) -> dict[str, object]:
    """The fields of an identity file; none of them if it cannot be read."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def read_owner(path: Path, files: Files) -> int | None:
    """The process that has left its number in the lock file."""
    return _number(FailStop(files).call(path, files.read, path))


def _number(data: bytes) -> int | None:
    text = data.strip()
    return int(text) if text.isdigit() else None
