"""The data directory of one node: whose it is, and that only one process has it.

May know `Files` and the log's place in the directory. Writes the identity last, after an empty log is
durable: so a directory with an identity and without a log has lost its log, and is refused. The identity
says, too, with which members the node was started first, so that it is asked for once in its life. It is
believed as it was written, with every bit, or not at all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from raft.fence import FENCE_DRAFT_NAME, FENCE_NAME, FileFence
from raft.fields import decode_fields, decode_plain_fields, write_fields
from raft.files import Descriptor, FailStop, Files, OsFiles
from raft.membership import has_bytes
from raft.segment import MAX_ID_BYTES, Identity
from raft.storage import (
    A_LATER_VERSION,
    REPLACE_THE_MEMBER,
    RESTORE_AGAIN,
    DamagedIdentity,
    DirectoryInUse,
    DiskFull,
    WrongDirectory,
)
from raft.wal import DEFAULT_SEGMENT_BYTES, WriteAheadLog

FORMAT_VERSION = 2  # since there is a checksum; version 1 is read for ever
LOCK_NAME = "lock"
IDENTITY_NAME = "identity"
DRAFT_NAME = "identity.tmp"
LOG_NAME = "wal"
RESTORING_NAME = "restoring"  # until there is an identity: the directory is being made of a snapshot
# What a start that broke off may leave behind, and what a file system brings along.
OWN_NAMES = frozenset({LOCK_NAME, DRAFT_NAME, LOG_NAME, "lost+found"})
LONGEST_PID_DIGITS = 10
_FIELDS = ("format", "cluster_id", "node_id", "storage_id", "members")  # in this order; the last two may lack
_STORAGE_ID = re.compile("[0-9a-f]{1,32}")


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
    return _read(path, disk).founding


class _Identity(NamedTuple):
    """All that an identity file says."""

    identity: Identity
    founding: Founding


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
            names = self._names()
            if LOCK_NAME not in names:
                self._check(names)  # or somebody else's directory would be given one
            self._take_lock()
            names = self._names()
            self._check(names)  # and what is called so may still be somebody else's file
            self._sign_lock()
            self._claim(names)
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

    def _sign_lock(self) -> None:
        path, disk, descriptor = self.path / LOCK_NAME, self._disk, self._lock
        assert descriptor is not None, f"{path} is not held"
        disk.call(path, self._files.truncate, descriptor, 0)
        with suppress(DiskFull):  # a message to others is no reason not to start
            disk.attempt_write(path, descriptor, f"{os.getpid()}\n".encode(), 0)

    def _names(self) -> list[str]:
        return self._disk.call(self.path, self._files.list_directory, self.path)

    def _check(self, names: Collection[str]) -> None:
        """Refuse a directory that is another one's, and leave it as it is."""
        if IDENTITY_NAME in names:
            self._compare()
            return
        strangers = sorted(name for name in names if name not in OWN_NAMES and not name.startswith("."))
        if not {RESTORING_NAME, FENCE_NAME, FENCE_DRAFT_NAME}.isdisjoint(strangers):
            raise _why_without_identity(self.path, names)
        if strangers:
            raise WrongDirectory(self.path, "content", expected="an empty directory", found=strangers[0])

    def _claim(self, names: Collection[str]) -> None:
        """Make the directory this node's if it is nobody's yet."""
        if IDENTITY_NAME not in names:
            WriteAheadLog.create(self.path / LOG_NAME, self._files, self.identity)
            self._write_identity(draft_is_there=DRAFT_NAME in names)
            return
        # A start that broke off may have given the file its name and not made the name durable: a loss of
        # power would take it, and leave a log without an owner.
        self._disk.call(self.path, self._files.fsync_directory, self.path)

    def _compare(self) -> None:
        found = _read(self.path, self._disk)
        for field in ("cluster_id", "node_id"):
            is_there, expected = getattr(found.identity, field), getattr(self.identity, field)
            if is_there != expected:
                name = field.replace("_", " ")
                raise WrongDirectory(self.path, name, expected=expected, found=is_there)
        self.founding = found.founding

    def _write_identity(self, *, draft_is_there: bool) -> None:
        disk, draft = self._disk, self.path / DRAFT_NAME
        if draft_is_there:
            disk.call(draft, disk.files.unlink, draft)
        content: dict[str, object] = {"format": FORMAT_VERSION, **self.identity._asdict()}
        if self.founding.storage_id:
            content["storage_id"] = self.founding.storage_id
        if self.founding.members is not None:
            content["members"] = dict(self.founding.members)
        write_fields(disk, self.path, IDENTITY_NAME, content)


def _why_without_identity(path: Path, names: Collection[str]) -> WrongDirectory:
    """Of a directory that was a node's, or was to become one's."""
    if RESTORING_NAME in names:
        return WrongDirectory(
            path, "content", expected="a finished restore", found=RESTORING_NAME, remedy=RESTORE_AGAIN
        )
    return WrongDirectory(
        path, "identity", expected="a file of that name", found=None, remedy=REPLACE_THE_MEMBER
    )


def read_identity(path: Path, files: Files) -> Identity:
    """Whose directory it is, for somebody who only looks. Raises WrongDirectory if that cannot be told."""
    disk = FailStop(files)
    names = disk.call(path, files.list_directory, path)
    if IDENTITY_NAME not in names:
        raise _why_without_identity(path, names)
    return _read(path, disk).identity


def _read(directory: Path, disk: FailStop) -> _Identity:
    """Raises WrongDirectory if the identity file of a directory is of a later version, or damaged."""
    path = directory / IDENTITY_NAME
    data = disk.call(path, disk.files.read, path)
    content, version = decode_fields(data), FORMAT_VERSION
    if content is None:
        content, version = decode_plain_fields(data), 1
        if content is None or repr(content.get("format")) != str(version):  # nor true, nor 1.0
            raise DamagedIdentity(path, "it is not what was written, as its checksum tells")
    found = content.get("format")
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise WrongDirectory(
            directory, "format", expected=FORMAT_VERSION, found=found, remedy=A_LATER_VERSION
        )
    if found != version or list(content) != [name for name in _FIELDS if name in content]:
        raise DamagedIdentity(path, f"its fields are {', '.join(content)}")
    return _identity(path, content)


def _identity(path: Path, content: Mapping[str, object]) -> _Identity:
    """Of fields that are all there may be. Each must be what a node writes; nothing else is believed."""

    def text(field: str, value: object) -> str:
        if isinstance(value, str) and has_bytes(value):
            return value
        raise DamagedIdentity(path, f"{field} has {value!r}")

    cluster_id, node_id = (text(name, content.get(name)) for name in ("cluster_id", "node_id"))
    if max(len(cluster_id.encode()), len(node_id.encode())) > MAX_ID_BYTES:
        raise DamagedIdentity(path, f"an id is longer than {MAX_ID_BYTES} bytes")
    storage_id = text("storage_id", content.get("storage_id", ""))
    if "storage_id" in content and not _STORAGE_ID.fullmatch(storage_id):
        raise DamagedIdentity(path, f"storage_id is {storage_id!r}")
    written, members = content.get("members"), None
    if isinstance(written, dict):
        members = {text("members", name): text("members", where) for name, where in written.items()}
    elif "members" in content:
        raise DamagedIdentity(path, f"members is {written!r}")
    return _Identity(Identity(cluster_id, node_id), Founding(cluster_id, storage_id, members))


def read_owner(path: Path, files: Files) -> int | None:
    """The process that has left its number in the lock file."""
    return _number(FailStop(files).call(path, files.read, path))


def _number(data: bytes) -> int | None:
    """Whatever is in the file: only a message depends on it."""
    text = data.strip()
    return int(text) if text.isdigit() and len(text) <= LONGEST_PID_DIGITS else None
