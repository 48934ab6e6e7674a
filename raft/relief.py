"""How a node whose disk has too little room makes some by itself: by a snapshot, though none is due.

Deletes and compaction free nothing on the disk before a snapshot shows their effect: then the segments before
it go, and the snapshot before it. Pure: knows the core and the time as it is passed in.
"""

from __future__ import annotations

from typing import Final

from raft.core import Core
from raft.entries import Index

# From one attempt to the next, twice as long each time: an attempt writes the whole state, and may free
# nothing, or find no room for itself. Longer still while less is free than the newest snapshot takes: then
# there is room for one only if the state has become smaller, which nobody here can tell.
FIRST_PAUSE_SECONDS: Final = 2.0
LONGEST_PAUSE_SECONDS: Final = 64.0
LONGEST_DOUBTFUL_PAUSE_SECONDS: Final = 512.0


class Relief:
    """Owned by one snapshot keeper, and asked at each check of the space."""

    __slots__ = (
        "_core",
        "_free_bytes",
        "_given_up_at",
        "_not_before",
        "_pause_seconds",
        "_too_little_bytes",
        "is_wanted",
    )

    def __init__(self, core: Core) -> None:
        self._core = core
        self.is_wanted = False  # there is too little room
        self._free_bytes = 0  # at the last check
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._not_before = 0.0
        # The last attempt that found no room for itself: of the state at this index, with so much free.
        self._given_up_at: Index = 0
        self._too_little_bytes = 0

    def note(self, *, is_low: bool, free_bytes: int, now: float, is_taking: bool) -> bool:
        """How it is now; True if it is low since this very moment. A pause begins when a snapshot ends."""
        is_new = is_low and not self.is_wanted
        self.is_wanted = is_low
        if not is_taking:
            self._free_bytes = free_bytes  # else without what the draft takes
        if not is_low:
            self._pause_seconds, self._not_before = FIRST_PAUSE_SECONDS, 0.0
            self._given_up_at = 0
        elif is_taking:
            self._not_before = max(self._not_before, now + self._pause_seconds)
        return is_new

    def is_due(self, spent_segments: int, now: float) -> bool:
        """Something was handed out since the newest snapshot, and there are segments that would go, or a
        snapshot that may be larger than need be."""
        snapshots = self._core.snapshots
        frees_room = spent_segments > 0 or snapshots.newest is not None
        is_new = self._core.delivered_index > snapshots.index
        is_time = self.is_wanted and now >= self._not_before
        return is_time and frees_room and is_new and snapshots.may_take() and not self.is_hopeless()

    def is_hopeless(self) -> bool:
        """The very state that found no room before, and hardly more is free than then."""
        is_same = self._core.delivered_index <= self._given_up_at
        return is_same and self._free_bytes < self._too_little_bytes + self._too_little_bytes // 4

    def note_begun(self, now: float) -> None:
        newest = self._core.snapshots.newest
        is_doubtful = newest is not None and newest.size_bytes > self._free_bytes
        longest_seconds = LONGEST_DOUBTFUL_PAUSE_SECONDS if is_doubtful else LONGEST_PAUSE_SECONDS
        self._not_before = now + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, longest_seconds)

    def note_given_up(self, index: Index) -> None:
        """There was no room for one of the state at `index`."""
        self._given_up_at, self._too_little_bytes = index, self._free_bytes
