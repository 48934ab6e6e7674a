"""A data directory made of a snapshot: for a node of a new cluster that begins with the state of another one.

May know the data directory, the log in it and snapshots; nothing of what is in one. The directory is in the
making until its identity is written, which comes last: until then a file says so, because of which no node
starts in it, and which lets the making begin again from nothing. docs/operations.md tells when to do this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from raft.directory import (
    DRAFT_NAME,
    IDENTITY_NAME,
    LOCK_NAME,
    LOG_NAME,
    RESTORING_NAME,
    DataDirectory,
)
from raft.entries import HardState, SnapshotMeta
from raft.files import Files
from raft.storage import CorruptSnapshot, StorageError, WrongDirectory
from raft.wal import WriteAheadLog

NAME_ANOTHER = "Nothing was changed: name a directory that is empty, or not there yet."


def restore_directory(
    path: Path,
    cluster_id: str,
    node_id: str,
    storage_id: str,
    meta: SnapshotMeta,
    content: Iterable[bytes],
    files: Files | None = None,
) -> None:
    """Make `path` the directory of a node whose log begins right after the snapshot `meta`, with `content`.

    The configuration in `meta` is the members of the new cluster. All nodes that are made of the same
    snapshot begin alike: nothing is committed that one of them lacks. Raises WrongDirectory if anything of
    another one's is there, DirectoryInUse and StorageFailed; durable when it returns.
    """
    _InTheMaking(path, cluster_id, node_id, storage_id, meta, content, files).close()


class _InTheMaking(DataDirectory):
    """Opened and locked as any other; it is made in another way, and must not be there yet."""

    def __init__(
        self,
        path: Path,
        cluster_id: str,
        node_id: str,
        storage_id: str,
        meta: SnapshotMeta,
        content: Iterable[bytes],
        files: Files | None,
    ) -> None:
        self._meta = meta
        self._content = content
        # The log has the members, so the node is told of none to begin with.
        super().__init__(path, cluster_id, node_id, files, storage_id=storage_id, members={})

    def _check(self, names: Collection[str]) -> None:
        leftovers = {LOG_NAME, DRAFT_NAME, RESTORING_NAME} if _is_in_the_making(names) else set()
        strangers = sorted(set(names) - leftovers - {LOCK_NAME, "lost+found"})
        if strangers:
            raise WrongDirectory(
                self.path, "content", expected="an empty directory", found=strangers[0], remedy=NAME_ANOTHER
            )

    def _claim(self, names: Collection[str]) -> None:
        path, disk, files = self.path, self._disk, self._files
        self._begin(names)
        self._fill()
        self._write_identity(draft_is_there=False)
        disk.call(path, files.unlink, path / RESTORING_NAME)
        disk.call(path, files.fsync_directory, path)

    def _begin(self, names: Collection[str]) -> None:
        """Say durably that the directory is in the making; what an earlier try left behind goes."""
        path, disk, files = self.path, self._disk, self._files
        marker, log, draft = path / RESTORING_NAME, path / LOG_NAME, path / DRAFT_NAME
        if not _is_in_the_making(names):
            disk.close(disk.call(marker, files.create, marker))
        # A try that broke off may have given the file its name and not made the name durable.
        disk.call(path, files.fsync_directory, path)
        if LOG_NAME in names:
            for name in disk.call(log, files.list_directory, log):
                disk.call(log / name, files.unlink, log / name)
            disk.call(log, files.fsync_directory, log)
        if DRAFT_NAME in names:
            disk.call(draft, files.unlink, draft)

    def _fill(self) -> None:
        """As a follower has it that was just sent the snapshot: in its term, having voted for nobody."""
        meta, log_path = self._meta, self.path / LOG_NAME
        WriteAheadLog.create(log_path, self._files, self.identity)
        log = WriteAheadLog(log_path, self._files, self.identity)
        try:
            log.load()
            log.append(HardState(meta.term, None, meta.index), None)
            log.begin_snapshot(meta.index, meta.term, meta.configuration)
            for data in self._content:
                log.append_snapshot(data)
            written = log.commit_snapshot(replaces_log=True)
            if written != meta:
                raise CorruptSnapshot(log_path, f"{written[3:]} was written of {meta[3:]}")
        except StorageError:
            log.close()
            raise
        # Whatever else ends this ends the process: then nothing more is done to the disk.
        log.close()


def _is_in_the_making(names: Collection[str]) -> bool:
    return RESTORING_NAME in names and IDENTITY_NAME not in names
