"""The quota: how much a store may hold, and whether it holds more.

Pure. The gateway refuses what would grow while a store is above its quota, and the compactor gives up the
past as soon as that is enough to be below it again; both look at the same size, and neither asks the other.
"""

from __future__ import annotations

from typing import Final

LEAST_MIB: Final = (
    32  # so that what a single delete leaves to be told of is far less than what clears the alarm
)
CLEAR_PERCENT: Final = 95  # of the quota: below that, all is allowed again


class Quota:
    """Owned by whoever acts on it. A limit of 0 is none."""

    __slots__ = ("is_exceeded", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.is_exceeded = False

    def judge(self, size_bytes: int) -> bool:
        """Whether the quota is exceeded, now that the store has this size: it ends lower than it begins."""
        if not self.limit_bytes or self.is_clear(size_bytes):
            self.is_exceeded = False
        elif size_bytes > self.limit_bytes:
            self.is_exceeded = True
        return self.is_exceeded

    def is_clear(self, size_bytes: int) -> bool:
        """Little enough to end the alarm."""
        return size_bytes * 100 < self.limit_bytes * CLEAR_PERCENT
