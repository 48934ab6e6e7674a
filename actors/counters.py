"""What was dropped, refused or slow, counted by reason: may know the clock and logging, nothing of messages.

A lost message is an ordinary event here, so a loss is a number and at most one log line per reason and
interval, however many losses a hostile or broken peer causes.
"""

from __future__ import annotations

import collections
import logging

from actors.clock import Clock

logger = logging.getLogger("actors")

# Long enough that a flood of garbage cannot fill a disk with log lines, short enough to be seen live.
LOG_INTERVAL_SECONDS = 10.0


class Counters(collections.Counter[str]):
    """Counts by reason; one per System, written by its loop thread only, readable from anywhere."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._logged: dict[str, tuple[float, int]] = {}  # reason -> when it was last logged, its count then

    def report(self, reason: str, detail: str) -> None:
        """Count one loss or delay, and say so in the log unless that was said a moment ago."""
        self[reason] += 1
        self._log(reason, detail)

    def _log(self, reason: str, detail: str) -> None:
        now = self._clock.now()
        logged_at, logged_count = self._logged.get(reason, (float("-inf"), 0))
        if now - logged_at < LOG_INTERVAL_SECONDS:
            return
        count = self[reason]
        self._logged[reason] = (now, count)
        logger.warning("event=%s count=%d since_last=%d %s", reason, count, count - logged_count, detail)
