"""A snapshot in a file of its own: written so that FILE is whole or not there, read with every byte checked.

May know: the file system, and the layout of snapshot files by way of `raft.snapshot`. While it is written it
is FILE.partial, held against other processes; it gets its name once it is synced and read back from the disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvstore.errors import AssentError
from raft.files import Descriptor, FailStop, Files, OsFiles
from raft.snapshot import SnapshotReader
from raft.storage import CorruptSnapshot

PARTIAL_SUFFIX = ".partial"
USE_ANOTHER = "Use another backup; nothing was changed."
SAVE_ELSEWHERE = "Save it elsewhere: this disk does not keep what is written to it."


class BackupRefused(AssentError):
    """The file cannot be written under this name: `path` is there already, or another process writes it."""

    __slots__ = ("path",)

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path = path


class DamagedBackup(CorruptSnapshot):
    """A file that is no whole snapshot. What to do about it is another thing than with a node's own."""

    __slots__ = ()

    def __init__(self, error: CorruptSnapshot, remedy: str) -> None:
        super().__init__(error.file, error.reason, offset=error.offset, index=error.index, remedy=remedy)


class BackupFile:
    """One file in the making. Owned by whoever saves; ends with commit() or abandon()."""

    def __init__(self, path: Path, *, overwrite: bool = False, files: Files | None = None) -> None:
        """Raises BackupRefused, and StorageFailed if the directory cannot be written to."""
        self.path = path
        self._partial = path.with_name(path.name + PARTIAL_SUFFIX)
        self._overwrite = overwrite
        self._disk = FailStop(files or OsFiles())
        self._end = 0
        self._check_name()
        self._descriptor: Descriptor | None = self._claim()

    def write(self, data: bytes) -> None:
        """The next bytes."""
        assert self._descriptor is not None, f"{self._partial} is closed"
        self._disk.write(self._partial, self._descriptor, data, self._end)
        self._end += len(data)

    def commit(self) -> None:
        """Durable, read back, and under its name. Raises DamagedBackup if something else was read back."""
        disk, partial, descriptor = self._disk, self._partial, self._descriptor
        assert descriptor is not None, f"{partial} is closed"
        disk.call(partial, disk.files.fdatasync, descriptor)
        disk.call(partial, disk.files.forget_cached, descriptor)
        with reading(partial, SAVE_ELSEWHERE):
            self._check_name()
        disk.call(partial, disk.files.rename, partial, self.path)
        disk.call(self.path.parent, disk.files.fsync_directory, self.path.parent)
        self._close()

    def abandon(self) -> None:
        """Nothing is left of it. May be called after commit(), and again."""
        if self._descriptor is not None:
            self._partial.unlink(missing_ok=True)
            self._close()

    def _check_name(self) -> None:
        if self.path.is_dir():
            raise BackupRefused(self.path, "is a directory")
        if not self._overwrite and self.path.exists():
            raise BackupRefused(self.path, "is there already: give another name, or --force to replace it")

    def _claim(self) -> Descriptor:
        """An empty FILE.partial that is this process's alone; what another one left behind goes."""
        disk, partial = self._disk, self._partial

        def lock() -> Descriptor | None:
            try:
                return disk.files.lock(partial)
            except BlockingIOError:
                return None

        while True:
            descriptor = disk.call(partial, lock)
            if descriptor is None:
                raise BackupRefused(self.path, "is being written by another process at this moment")
            # Whoever held it before may have given the file its name meanwhile, or removed it.
            if _is_same(partial, descriptor):
                disk.call(partial, disk.files.truncate, descriptor, 0)
                return descriptor
            disk.close(descriptor)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._disk.close(descriptor)


def _is_same(path: Path, descriptor: Descriptor) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


class _ReadOnly(OsFiles):
    """A backup may lie where nobody may write."""

    def open(self, path: Path) -> Descriptor:
        return os.open(path, os.O_RDONLY)


@contextmanager
def reading(path: Path, remedy: str = USE_ANOTHER) -> Iterator[SnapshotReader]:
    """The snapshot in the file at `path`, once every byte of it was checked. Raises DamagedBackup."""
    try:
        reader = SnapshotReader(path, FailStop(_ReadOnly()), None)
    except CorruptSnapshot as error:
        raise DamagedBackup(error, remedy) from None
    try:
        try:
            reader.verify()
        except CorruptSnapshot as error:
            raise DamagedBackup(error, remedy) from None
        yield reader
    finally:
        reader.close()
