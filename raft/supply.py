"""Where a log's next segment comes from: the spare, or if the disk is full, the reserve.

Decides what is filled when, and what is given up for want of room; knows nothing of what segments hold. Room
that runs out is told, and is an end only when a segment is needed and there is neither.
"""

from __future__ import annotations

import logging
from pathlib import Path

from raft.files import Descriptor, FailStop
from raft.reserve import Reserve
from raft.segment import Begin, SegmentWriter
from raft.spare import Spare
from raft.storage import DiskFull

log = logging.getLogger("assent.wal")

# In one turn: what a spare that was given up is behind is made good bit by bit.
MOST_SLICES = 8


class Supply:
    """Owned by one log. Has no clock: check() is called once a second or so, and ends a pause."""

    __slots__ = (
        "_disk",
        "_gave_up",
        "_is_paused",
        "_is_told",
        "_is_yielding",
        "_reserve",
        "_reserve_bytes",
        "_slice_bytes",
        "_spare",
        "given_up",
    )

    def __init__(self, directory: Path, disk: FailStop, *, reserve_bytes: int, slice_bytes: int) -> None:
        self._disk = disk
        self._reserve_bytes = reserve_bytes
        self._slice_bytes = slice_bytes
        self._spare = Spare(directory, disk, slice_bytes)
        self._reserve = Reserve(directory, disk, reserve_bytes, slice_bytes)
        self._is_paused = False  # nothing is filled until the next check
        self._gave_up = False  # something was given up, and nothing of its kind has succeeded since
        self._is_told = False  # that it is so, in the log
        self._is_yielding = False  # a snapshot is on its way that frees room; see yield_room()
        self.given_up = 0  # how often

    def has_room(self, free_bytes: int) -> bool:
        """For a segment that is not indispensable."""
        return not self._is_paused and free_bytes >= 2 * self._reserve_bytes

    def load(self) -> None:
        self._reserve.load()

    @property
    def yields(self) -> bool:
        """All that is free is for a snapshot, since the log's next segment is sure of its reserve."""
        return self._is_yielding and self._reserve.is_whole

    def yield_room(self, is_wanted: bool) -> None:
        """While a snapshot is written that frees room: what the spare has is for that, if there is a reserve.

        Else the spare, which takes what is left of a full disk, could leave none to what ends its being full.
        """
        self._is_yielding = is_wanted
        if self.yields:
            self._spare.discard()
            self._gave_up = True

    def fill(self, goal_bytes: int) -> None:
        """A few slices at most: of the spare if it is behind, else of the reserve until it is whole."""
        if self._is_paused or self.yields:
            return
        goal_bytes = min(goal_bytes, self._spare.filled + MOST_SLICES * self._slice_bytes)
        try:
            if not self._spare.fill(goal_bytes) and not self._reserve.is_whole:
                self._reserve.fill()
        except DiskFull as full:
            self.note(full)

    def name(
        self, sequence: int, begin: Begin, goal_bytes: int, needed_bytes: int = 1
    ) -> tuple[SegmentWriter, Descriptor, int]:
        """The next segment, durable under its name: its writer, and how many bytes of it are filled.

        As many as are needed at once: a spare that a full disk leaves with fewer gives its room back, and the
        reserve serves. Where there is no reserve any spare has to do, and grows if it can.
        """
        least_bytes = needed_bytes if self._reserve.is_whole else 1
        try:
            return self._spare.name(sequence, begin, goal_bytes, least_bytes)
        except DiskFull as full:
            self.note(full)
            self._spare.discard()
            if not self._reserve.is_whole:
                raise self._disk.give_in(full) from full
        log.warning("the reserve becomes segment=%d: there is no room for another", sequence)
        return self._reserve.name(sequence, begin)

    def note(self, full: DiskFull) -> None:
        """Something was given up for want of room: nothing more is filled for a while."""
        if not self._is_told:
            log.warning("disk_full=%s reason=%r given up, to be tried again", full.path, full.cause)
        self._is_told = self._gave_up = self._is_paused = True
        self.given_up += 1

    def check(self, free_bytes: int) -> bool:
        """Try again, if it may help. True while what was given up is not made good."""
        if self._is_paused and free_bytes < 2 * self._reserve_bytes:
            return True
        gave_up, self._gave_up, self._is_paused = self._gave_up or self.yields, False, False
        if not self._reserve.is_whole:
            self.fill(0)
        self._is_told = gave_up or self._gave_up
        return self._is_told

    def close(self) -> None:
        self._spare.discard()
        self._reserve.discard()
