"""The segment that comes next, in the making: zeros in a file that has no place in the log yet.

Knows Files and how a segment is named; nothing of what is written into one. A named segment without its head
is damaged, so the head is there and synced before the name is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from raft.files import Descriptor, FailStop
from raft.segment import Begin, SegmentWriter, segment_name
from raft.storage import DiskFull

FILL_SLICE_BYTES = 256 << 10  # about 0.1 ms of a turn
SPARE_NAME = "next.tmp"

_ZEROS = bytes(FILL_SLICE_BYTES)


class Spare:
    """The segment that comes next, in the making. Owned by one log.

    It is filled with zeros bit by bit while the current one is written to, so that no turn waits for it.
    """

    __slots__ = ("_descriptor", "_directory", "_disk", "_slice_bytes", "filled")

    def __init__(self, directory: Path, disk: FailStop, slice_bytes: int) -> None:
        self._directory = directory
        self._disk = disk
        self._slice_bytes = slice_bytes
        self._descriptor: Descriptor | None = None
        self.filled = 0  # bytes of zeros

    def fill(self, goal_bytes: int) -> bool:
        """Have at least so many zeros in it, not yet synced; True if some were missing. Raises DiskFull: what
        there is of it stays, since it is the log's room."""
        start = self.filled
        if start >= goal_bytes:
            return False
        disk, path = self._disk, self._directory / SPARE_NAME
        if self._descriptor is None:
            self._descriptor = disk.attempt(path, disk.files.create, path)
        for offset, zeros in zeros_between(start, goal_bytes, self._slice_bytes):
            disk.attempt_write(path, self._descriptor, zeros, offset)
            self.filled = offset + len(zeros)
        disk.attempt(path, disk.files.start_writeback, self._descriptor, start, self.filled - start)
        return True

    def name(
        self, sequence: int, begin: Begin, goal_bytes: int, least_bytes: int = 1
    ) -> tuple[SegmentWriter, Descriptor, int]:
        """Make it a segment of the log, durably; its writer and descriptor, and how many bytes are filled.

        Head and zeros are synced before the name is given: a named segment without its head, or shorter than
        its head says, is damaged. Raises DiskFull, and it has not got its name then.
        """
        try:
            self.fill(goal_bytes)
        except DiskFull:
            if self.filled < least_bytes:
                raise  # else a short one has to do
        disk, path = self._disk, self._directory / SPARE_NAME
        descriptor, filled = self._descriptor, self.filled
        assert descriptor is not None, f"segment {sequence} was to be made of nothing"
        writer, head = begin(filled)
        disk.attempt_write(path, descriptor, head, 0)
        disk.attempt(path, disk.files.fdatasync, descriptor)
        disk.attempt(path, disk.files.rename, path, self._directory / segment_name(sequence))
        disk.call(self._directory, disk.files.fsync_directory, self._directory)
        self._descriptor, self.filled = None, 0
        return writer, descriptor, filled

    def discard(self) -> None:
        """Give it up: a log that is opened begins a new one."""
        if self._descriptor is None:
            return
        disk, path = self._disk, self._directory / SPARE_NAME
        disk.close(self._descriptor)
        self._descriptor, self.filled = None, 0
        if not disk.failed:
            disk.call(path, disk.files.unlink, path)


def zeros_between(start: int, stop: int, slice_bytes: int) -> Iterator[tuple[int, bytes]]:
    """What is to be written, and where, for zeros from `start` on, in whole slices, up to `stop` at least."""
    zeros = _ZEROS[:slice_bytes]
    for offset in range(start, stop, slice_bytes):
        yield offset, zeros
