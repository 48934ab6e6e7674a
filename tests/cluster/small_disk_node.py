"""The command line of a node on a disk as small as a file says: real files beneath, and a quota on them.

    python -m tests.cluster.small_disk_node node --name n1 --data-dir DIR …

`DIR.quota` holds the number of bytes that all files below DIR may take; it is read again at each call that
needs room, so that a test may take room away, or make some. Without it the disk is as large as it is.
SMALL_DISK_SEGMENT_BYTES in the environment makes segments of the log as small as such a disk wants them.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import raft.directory
from kvstore.cli import main
from raft.files import OsFiles

SUFFIX = ".quota"
SEGMENT_BYTES = "SMALL_DISK_SEGMENT_BYTES"


class SmallDisk(OsFiles):
    """Counts by the length of files, and knows a descriptor's file by asking the system."""

    __slots__ = ()

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        growth = offset + len(data) - os.fstat(descriptor).st_size
        if growth > 0:
            room = self._room(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
            if growth > room:
                data = data[: max(0, len(data) - growth + room)]
                if not data:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().pwrite(descriptor, data, offset)

    def free_bytes(self, path: Path) -> int:
        return min(max(0, self._room(path)), super().free_bytes(path))

    def _room(self, path: Path) -> int:
        for home in (path, *path.parents):
            quota = home.parent / (home.name + SUFFIX)
            if quota.exists():
                return int(quota.read_text()) - used_bytes(home)
        return 1 << 40


def used_bytes(home: Path) -> int:
    """What all files below a directory take."""
    return sum(path.stat().st_size for path in home.rglob("*") if path.is_file())


if __name__ == "__main__":
    vars(raft.directory)["OsFiles"] = SmallDisk
    if SEGMENT_BYTES in os.environ:
        opener = vars(raft.directory.DataDirectory)["open_log"]
        opener.__kwdefaults__["segment_bytes"] = int(os.environ[SEGMENT_BYTES])
    main()
