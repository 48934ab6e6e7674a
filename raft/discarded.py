"""Files that are of no use any more: how their space is given back without a long turn.

Knows Files and nothing of what was in them. To give back the blocks of a large file takes a file system tens
of milliseconds, all in one call. So the name goes at once, and the space in steps, while a descriptor holds
what is left; whatever ends the process, the system gives back the rest by itself.

A file system may keep any of the changes to names that were not synced, and lose the others. So a name goes
only when the one before it is gone durably: of a log that is released from its beginning on, what is left
after a loss of power is always an unbroken run of segments. Such a sync takes as long as any other, so it is
a step of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from raft.files import Descriptor, FailStop

STEP_BYTES: Final = 2 << 20  # about a millisecond


class Discarded:
    """Owned by one log; all files are in its directory."""

    __slots__ = ("_directory", "_disk", "_files", "_name_is_gone")

    def __init__(self, directory: Path, disk: FailStop) -> None:
        self._directory = directory
        self._disk = disk
        self._files: list[tuple[Path, Descriptor, int]] = []  # with so many bytes left
        self._name_is_gone = True  # durably, of the file that was added last; if not, it may come back

    def add(self, path: Path, most_bytes: int) -> None:
        """Take its name away. The file has no more than `most_bytes`, or this takes longer."""
        self.sync_name()
        disk, files = self._disk, self._disk.files
        self._name_is_gone = False
        if most_bytes <= STEP_BYTES:
            disk.call(path, files.unlink, path)
            return
        descriptor = disk.call(path, files.open, path)
        self._files.append((path, descriptor, most_bytes))
        # Not by a read: a bad sector in what nobody needs any more must not end the node.
        left_bytes = disk.call(path, files.size_bytes, descriptor)
        disk.call(path, files.unlink, path)
        if left_bytes > STEP_BYTES:
            self._files[-1] = path, descriptor, left_bytes
        else:
            self._files.pop()
            disk.close(descriptor)

    def sync_name(self) -> bool:
        """Make it durable that a name went; False if it is. If the power fails, no file may come back under
        its name with a part missing."""
        if self._name_is_gone:
            return False
        self._disk.call(self._directory, self._disk.files.fsync_directory, self._directory)
        self._name_is_gone = True
        return True

    def step(self) -> bool:
        """Sync a name that went, or give a little back; whether there was anything to be done."""
        if self.sync_name():
            return True
        if not self._files:
            return False
        disk, files = self._disk, self._disk.files
        path, descriptor, left_bytes = self._files.pop()
        left_bytes = (left_bytes - 1) // STEP_BYTES * STEP_BYTES  # a cut within a block would read that block
        self._files.append((path, descriptor, left_bytes))
        disk.call(path, files.truncate, descriptor, left_bytes)
        if not left_bytes:
            self._files.pop()
            disk.close(descriptor)
        return True

    def close(self) -> None:
        """What is left is given back by the system."""
        while self._files:
            self._disk.close(self._files.pop()[1])
