"""Time as the runtime sees it: the only module of this package that may read the machine's clock.

Only monotonic seconds exist here. Wall-clock time is not offered, so that no decision can rest on it.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Gives the time to a system; the simulator has one of its own."""

    def now(self) -> float:
        """Monotonic seconds since some fixed moment."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    __slots__ = ()

    def now(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told to; owned by a test or a simulator."""

    __slots__ = ("_now_seconds",)

    def __init__(self, start_seconds: float = 0.0) -> None:
        self._now_seconds = start_seconds

    def now(self) -> float:
        return self._now_seconds

    def advance(self, seconds: float) -> None:
        assert seconds >= 0.0, f"a monotonic clock cannot go back by {-seconds} s"
        self._now_seconds += seconds
