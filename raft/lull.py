"""Is hardly anything being written? Then what makes the next restart shorter costs nobody anything.

Pure: knows how far the log has got and the time as it is passed in.
"""

from __future__ import annotations

from typing import Final

from raft.entries import Index

LULL_SECONDS: Final = 5.0
# Of a lull. A cluster at rest writes a little: a tick for its leases, a compaction.
FEW_ENTRIES_PER_SECOND: Final = 100


class Lull:
    """Owned by one snapshot keeper, and asked once a second or so."""

    __slots__ = ("_asked_at", "_index", "_since")

    def __init__(self) -> None:
        self._index: Index = 0  # when it was asked last
        self._asked_at = 0.0
        self._since = 0.0

    def lasts(self, index: Index, now: float) -> bool:
        """Has the log grown by only a few entries a second, for a while, up to `index`?"""
        few = FEW_ENTRIES_PER_SECOND * max(1.0, now - self._asked_at)
        if index - self._index > few:
            self._since = now
        self._index, self._asked_at = index, now
        return now - self._since >= LULL_SECONDS
