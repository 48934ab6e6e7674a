"""Room that is kept for the log: zeros in a file, durable, for the day when the disk has no other.

Knows Files and how a segment is named. The file has its name only when it is whole, and nothing but zeros is
in it until it is taken: it becomes the next segment where no other can be made, by a rename.
"""

from __future__ import annotations

from pathlib import Path

from raft.files import Descriptor, FailStop
from raft.segment import Begin, SegmentWriter, segment_name
from raft.spare import zeros_between
from raft.storage import DiskFull

RESERVE_BYTES = 4 << 20
RESERVE_NAME = "reserve"
RESERVE_DRAFT_NAME = "reserve.tmp"


class Reserve:
    """Owned by one log. Taken once, it is filled again bit by bit as soon as there is room."""

    __slots__ = ("_descriptor", "_directory", "_disk", "_filled", "_size_bytes", "_slice_bytes", "is_whole")

    def __init__(self, directory: Path, disk: FailStop, size_bytes: int, slice_bytes: int) -> None:
        self._directory = directory
        self._disk = disk
        self._size_bytes = size_bytes
        self._slice_bytes = slice_bytes
        self._descriptor: Descriptor | None = None  # of the draft
        self._filled = 0  # of the draft
        self.is_whole = False  # the file is there under its name, and durable

    def load(self) -> None:
        """Find it again. One that was taken, and has not become a segment, is thrown away."""
        disk, path = self._disk, self._directory / RESERVE_NAME
        if RESERVE_NAME not in disk.call(self._directory, disk.files.list_directory, self._directory):
            return
        content = disk.call(path, disk.files.read, path)
        if len(content) >= self._slice_bytes and content.count(0) == len(content):
            self.is_whole, self._filled = True, len(content)
        else:
            disk.call(path, disk.files.unlink, path)

    def fill(self) -> None:
        """One slice more; after the last one it is durable. Raises DiskFull: then the draft is given up."""
        if self.is_whole:
            return
        try:
            self._fill()
        except DiskFull:
            self.discard()
            raise

    def _fill(self) -> None:
        disk, path = self._disk, self._directory / RESERVE_DRAFT_NAME
        if self._descriptor is None:
            self._descriptor = disk.attempt(path, disk.files.create, path)
        descriptor, start = self._descriptor, self._filled
        if start < self._size_bytes:
            for offset, zeros in zeros_between(start, start + 1, self._slice_bytes):
                disk.attempt_write(path, descriptor, zeros, offset)
                self._filled = offset + len(zeros)
            disk.attempt(path, disk.files.start_writeback, descriptor, start, self._slice_bytes)
            return
        disk.attempt(path, disk.files.fdatasync, descriptor)
        disk.attempt(path, disk.files.rename, path, self._directory / RESERVE_NAME)
        self._descriptor = None
        disk.close(descriptor)
        disk.call(self._directory, disk.files.fsync_directory, self._directory)
        self.is_whole = True

    def name(self, sequence: int, begin: Begin) -> tuple[SegmentWriter, Descriptor, int]:
        """Make it a segment of the log, as Spare.name does. It is allocated: nothing here needs room."""
        assert self.is_whole, f"segment {sequence} was to be made of nothing"
        disk, path = self._disk, self._directory / RESERVE_NAME
        descriptor, filled = disk.call(path, disk.files.open, path), self._filled
        self.is_whole, self._filled = False, 0
        writer, head = begin(filled)
        disk.write(path, descriptor, head, 0)
        disk.call(path, disk.files.fdatasync, descriptor)
        disk.call(path, disk.files.rename, path, self._directory / segment_name(sequence))
        disk.call(self._directory, disk.files.fsync_directory, self._directory)
        return writer, descriptor, filled

    def discard(self) -> None:
        """Give up what is not whole."""
        if self._descriptor is None:
            return
        disk, path = self._disk, self._directory / RESERVE_DRAFT_NAME
        disk.close(self._descriptor)
        self._descriptor, self._filled = None, 0
        if not disk.failed:
            disk.call(path, disk.files.unlink, path)
