"""A hostile disk under the production log: slow, failing, and without power at the worst moment.

Adds to tests/raft/disk.py what a run needs: faults that lie in wait for a call, time that a sync takes, and a
question that the oracles ask: is everything that a sync promised really there?
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.raft.disk import Inode, PowerLoss, SimulatedDisk

LOG_SUFFIX = ".wal"  # of the files whose content is promised by Storage.sync()
SNAPSHOT_PREFIX = "snapshot-"  # of those that have that name only when they are durable


Image = tuple[dict[Path, bytes], set[Path]]
"""Content of each file, and which of the names are directories: all there is at one moment."""


class HostileDisk(SimulatedDisk):
    """One for each node; survives the node's lives. Owned by the cluster."""

    def __init__(self, rng: Random) -> None:
        super().__init__()
        self._rng = rng
        self.injected = False  # an error was given to this life of the process, so that it may end
        self.on_sync: Callable[[], None] = _nothing  # called for each sync: it may take time
        self._calls_left = -1  # until the ambush; negative: none is laid
        self._ambush: OSError | PowerLoss | None = None
        self._ambushed = ""  # the name of the calls that are counted; "": all

    def lay_ambush(self, calls: int, failure: OSError | PowerLoss, only: str = "") -> None:
        """After so many further calls that may fail, or of this name `only`, one does."""
        self._calls_left, self._ambush, self._ambushed = calls, failure, only

    def clear_ambush(self) -> None:
        self._ambush = None
        self._calls_left = -1

    def kill_process(self) -> None:
        super().kill_process()
        self.clear_ambush()
        self.injected = False

    def image(self) -> Image:
        contents = {path: bytes(inode.cached) for path, inode in self.names.items()}
        return contents, set(self.directories)

    def put_back(self, image: Image) -> None:
        """All that was done since then is undone, and durably so."""
        contents, directories = image
        self.names = {path: Inode(content) for path, content in contents.items()}
        self.durable_names, self.directories = dict(self.names), set(directories)
        self.unsynced_names.clear()

    def unsynced_log(self) -> str:
        """A file of the log with bytes or a name that a loss of power would take; "" if there is none."""
        for path, inode in self.names.items():
            is_promised = path.suffix == LOG_SUFFIX or path.name.startswith(SNAPSHOT_PREFIX)
            if is_promised and (inode.unsynced or self.durable_names.get(path) is not inode):
                return str(path)
        return ""

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        short = self._step("pwrite")
        written = len(data) if short is None else short
        self._open[descriptor][1].do((offset, data[:written]))
        return written

    def fdatasync(self, descriptor: int) -> None:
        super().fdatasync(descriptor)
        self.on_sync()

    def _step(self, name: str) -> int | None:
        failure = self._ambush
        if failure is None or (isinstance(failure, OSError) and name not in _MAY_FAIL):
            return None
        if self._ambushed not in ("", name):
            return None
        self._calls_left -= 1
        if self._calls_left >= 0:
            return None
        self.clear_ambush()
        self.injected = True
        if isinstance(failure, OSError) and failure.errno == errno.ENOSPC and name == "pwrite":
            return 0  # a short write; FailStop makes a failure of it
        raise failure


# Calls whose neighbourhood is worth a crash of its own: rare ones would hardly ever be met by counting all.
LANDMARKS = ("", "", "pwrite", "fdatasync", "rename", "fsync_directory")
# Calls at which an error stands for a broken or full device.
_MAY_FAIL = frozenset({"pwrite", "fdatasync", "create", "rename", "fsync_directory", "truncate"})


def disk_error(rng: Random) -> OSError:
    number = rng.choice([errno.EIO, errno.ENOSPC])
    return OSError(number, os.strerror(number))


def directory_of(node: str) -> Path:
    return Path("/") / node


def _nothing() -> None:
    pass
