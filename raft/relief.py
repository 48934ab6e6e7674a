"""How a node whose disk has too little room makes some by itself: by a snapshot, though none is due.

Deletes and compaction free nothing on the disk before a snapshot shows their effect: then the segments before
it go, and the snapshot before it. Pure: knows the core and the time as it is passed in.
"""

from __future__ import annotations

from typing import Final

from raft.core import Core

# From one attempt to the next, twice as long each time: an attempt writes the whole state, and may free
# nothing, or find no room for itself.
FIRST_PAUSE_SECONDS: Final = 2.0
LONGEST_PAUSE_SECONDS: Final = 64.0


class Relief:
    """Owned by one snapshot keeper, and asked at each check of the space."""

    __slots__ = ("_core", "_not_before", "_pause_seconds", "is_wanted")

    def __init__(self, core: Core) -> None:
        self._core = core
        self.is_wanted = False  # there is too little room
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._not_before = 0.0

    def note(self, *, is_low: bool, now: float, is_taking: bool) -> bool:
        """How it is now; True if it is low since this very moment. A pause begins when a snapshot ends."""
        is_new = is_low and not self.is_wanted
        self.is_wanted = is_low
        if not is_low:
            self._pause_seconds, self._not_before = FIRST_PAUSE_SECONDS, 0.0
        elif is_taking:
            self._not_before = max(self._not_before, now + self._pause_seconds)
        return is_new

    def is_due(self, spent_segments: int, now: float) -> bool:
        """Something was handed out since the newest snapshot, and there are segments that would go, or a
        snapshot that may be larger than need be."""
        snapshots = self._core.snapshots
        frees_room = spent_segments > 0 or snapshots.newest is not None
        is_new = self._core.delivered_index > snapshots.index
        return self.is_wanted and frees_room and is_new and snapshots.may_take() and now >= self._not_before

    def note_begun(self, now: float) -> None:
        self._not_before = now + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
