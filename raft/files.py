"""Every call that the disk side makes to an operating system, as one small protocol, and the real thing.

`Files` is what a simulated disk stands in for. `FailStop` lies between it and the code that writes: the first
call that fails is the last one that is made. May know `os`, and nothing of what is in the files.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from raft.storage import DiskFull, StorageFailed

# What a disk says that has no room left, and a user's or a project's share of it that is used up.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Descriptor = int


class Files(Protocol):
    """A POSIX disk. Calls raise OSError; nothing is durable before the sync that belongs to it."""

    def make_directory(self, path: Path) -> None:
        """Make it if it is missing, for this user alone. Missing parents too, and those durably."""

    def list_directory(self, path: Path) -> list[str]: ...

    def fsync_directory(self, path: Path) -> None:
        """Make durable which names the directory holds."""

    def rename(self, source: Path, target: Path) -> None:
        """Atomic; replaces the target."""

    def unlink(self, path: Path) -> None: ...

    def create(self, path: Path) -> Descriptor:
        """A new, empty file; FileExistsError if there is one."""

    def open(self, path: Path) -> Descriptor:
        """An existing file, to read and write."""

    def close(self, descriptor: Descriptor) -> None: ...

    def read(self, path: Path) -> bytes:
        """All of it."""

    def pread(self, descriptor: Descriptor, length_bytes: int, offset: int) -> bytes:
        """Part of it; fewer bytes than asked for only where the file ends."""

    def size_bytes(self, descriptor: Descriptor) -> int:
        """Where it ends. Nothing that is in it is read."""

    def pwrite(self, descriptor: Descriptor, data: bytes, offset: int) -> int:
        """Returns how many bytes were written: fewer than given if the disk is full."""

    def truncate(self, descriptor: Descriptor, length_bytes: int) -> None: ...

    def fdatasync(self, descriptor: Descriptor) -> None:
        """Make content and length durable."""

    def start_writeback(self, descriptor: Descriptor, offset: int, length_bytes: int) -> None:
        """A hint: these bytes may go to the disk now, so that a later sync need not wait for them."""

    def forget_cached(self, descriptor: Descriptor) -> None:
        """Read from the disk itself from now on: after a failed sync the cache may differ from it."""

    def lock(self, path: Path) -> Descriptor:
        """Hold this file against all other processes until close(); BlockingIOError if another one does."""

    def free_bytes(self, path: Path) -> int:
        """How much more this process may write to the file system of `path`, as far as that can be told."""


class OsFiles:
    """The disk of the operating system. Holds nothing; may be shared."""

    __slots__ = ()

    def make_directory(self, path: Path) -> None:
        for parent in reversed(path.parents):
            if not parent.exists():
                parent.mkdir()
                self.fsync_directory(parent.parent)
        path.mkdir(mode=0o700, exist_ok=True)

    def list_directory(self, path: Path) -> list[str]:
        return os.listdir(path)

    def fsync_directory(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def create(self, path: Path) -> Descriptor:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def open(self, path: Path) -> Descriptor:
        return os.open(path, os.O_RDWR)

    def close(self, descriptor: Descriptor) -> None:
        os.close(descriptor)

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def pread(self, descriptor: Descriptor, length_bytes: int, offset: int) -> bytes:
        return os.pread(descriptor, length_bytes, offset)

    def size_bytes(self, descriptor: Descriptor) -> int:
        return os.fstat(descriptor).st_size

    def pwrite(self, descriptor: Descriptor, data: bytes, offset: int) -> int:
        return os.pwrite(descriptor, data, offset)

    def truncate(self, descriptor: Descriptor, length_bytes: int) -> None:
        os.ftruncate(descriptor, length_bytes)

    def fdatasync(self, descriptor: Descriptor) -> None:
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync alone leaves the data in the drive's cache
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(descriptor)

    def start_writeback(self, descriptor: Descriptor, offset: int, length_bytes: int) -> None:
        # Dropping pages that are still dirty begins to write them, and returns; they stay cached meanwhile.
        _advise_not_needed(descriptor, offset, length_bytes)

    def forget_cached(self, descriptor: Descriptor) -> None:
        _advise_not_needed(descriptor, 0, 0)

    def lock(self, path: Path) -> Descriptor:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def free_bytes(self, path: Path) -> int:
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize


def _advise_not_needed(descriptor: Descriptor, offset: int, length_bytes: int) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, offset, length_bytes, os.POSIX_FADV_DONTNEED)


class FailStop:
    """Lets no call follow one that failed. Each part of the disk side owns its own.

    After a failed sync the kernel may hold pages for clean that never reached the disk, so a second sync that
    succeeds proves nothing: it is never asked for.
    """

    __slots__ = ("_failure", "files")

    def __init__(self, files: Files) -> None:
        self.files = files
        self._failure: StorageFailed | None = None

    @property
    def failed(self) -> bool:
        return self._failure is not None

    def check(self) -> None:
        """Raise again what was raised when the disk failed."""
        if self._failure is not None:
            failure = self._failure
            raise StorageFailed(failure.action, failure.path, failure.cause)

    def call(
        self, path: Path, call: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Make one call of `files` that concerns `path`."""
        self.check()
        try:
            return call(*args, **kwargs)
        except OSError as error:
            raise self._fail(getattr(call, "__name__", "call"), path, str(error)) from error

    def write(self, path: Path, descriptor: Descriptor, data: bytes, offset: int) -> None:
        """Write all of it, or fail."""
        written = self.call(path, self.files.pwrite, descriptor, data, offset)
        if written != len(data):
            reason = f"{written} of {len(data)} bytes were written: {os.strerror(errno.ENOSPC)}?"
            raise self._fail("pwrite", path, reason)

    def attempt(
        self, path: Path, call: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """As call(), for a file that nothing depends on yet and that can be given up: for want of room it
        raises DiskFull, and other calls may follow. Any other error is as final as ever."""
        self.check()
        try:
            return call(*args, **kwargs)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise DiskFull(path, str(error)) from error
            raise self._fail(getattr(call, "__name__", "call"), path, str(error)) from error

    def attempt_write(self, path: Path, descriptor: Descriptor, data: bytes, offset: int) -> None:
        """As write(), for a file that can be given up."""
        written = self.attempt(path, self.files.pwrite, descriptor, data, offset)
        if written == len(data):
            return
        rest = data[written:]  # of which the next call says why it was not written
        if self.attempt(path, self.files.pwrite, descriptor, rest, offset + written) != len(rest):
            raise DiskFull(path, f"{written} of {len(data)} bytes were written")

    def give_in(self, full: DiskFull) -> StorageFailed:
        """What has no room cannot be done without: now it is final."""
        return self._fail("finding room", full.path, full.cause)

    def close(self, descriptor: Descriptor) -> None:
        """Give a descriptor back; also after a failure, since nothing depends on it any more."""
        try:
            self.files.close(descriptor)
        except OSError as error:
            if self._failure is None:
                raise self._fail("close", f"descriptor {descriptor}", str(error)) from error

    def _fail(self, action: str, path: Path | str, cause: str) -> StorageFailed:
        self._failure = StorageFailed(action, path, cause)
        return self._failure
