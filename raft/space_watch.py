"""Is there room on the disk for what is to come? Asked once a second, and told when the answer changes.

`SpaceAlarm` decides, and is pure; `SpaceWatch` asks the storage on behalf of the replication actor. Knows
nothing of who is refused what while there is too little.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from raft.actor_messages import SpaceChanged
from raft.config import MEBIBYTE
from raft.storage import Space, Storage

log = logging.getLogger("assent.space")

DEFAULT_RESERVE_BYTES = 64 * MEBIBYTE
CHECK_SECONDS = 1.0
# Where statvfs knows nothing of a quota, only what was given up tells. It is believed for so many checks.
MISGIVING_CHECKS = 10
UNBOUNDED = Space(free_bytes=1 << 62, wanted_bytes=0, gave_up=False)


class SpaceAlarm:
    """When growth must stop: while the log can still hold all that frees space. Owned by a SpaceWatch.

    It begins where less is free than the reserve and what the storage wants next, and ends only with a
    quarter more: or a disk that is just full would be refused and let in by turns.
    """

    __slots__ = ("_misgivings", "_reserve_bytes", "is_low", "wanted_bytes")

    def __init__(self, reserve_bytes: int) -> None:
        self._reserve_bytes = reserve_bytes
        self._misgivings = 0  # checks that are still to pass since something was given up
        self.is_low = False
        self.wanted_bytes = 0  # so much is to be free

    def judge(self, space: Space) -> bool:
        """True if is_low has changed."""
        self._misgivings = MISGIVING_CHECKS if space.gave_up else max(0, self._misgivings - 1)
        self.wanted_bytes = wanted_bytes = self._reserve_bytes + space.wanted_bytes
        if self.is_low:
            wanted_bytes += wanted_bytes // 4
        was_low, self.is_low = self.is_low, self._misgivings > 0 or space.free_bytes < wanted_bytes
        return self.is_low is not was_low


class SpaceWatch:
    """Owned by one replication actor."""

    def __init__(
        self, storage: Storage, send_local: Callable[[str, object], None], reserve_bytes: int
    ) -> None:
        # What has no bounds that it knows of need not say so.
        self._check_space: Callable[[], Space] = getattr(storage, "check_space", lambda: UNBOUNDED)
        self._send_local = send_local
        self._alarm = SpaceAlarm(reserve_bytes)
        self.free_bytes = 0  # at the last check
        self.spent_segments = 0  # at the last check; see Space
        self.due_at = 0.0

    @property
    def is_low(self) -> bool:
        return self._alarm.is_low

    def check(self, now: float) -> None:
        self.due_at = now + CHECK_SECONDS
        space, alarm = self._check_space(), self._alarm
        self.free_bytes, self.spent_segments = space.free_bytes, space.spent_segments
        if not alarm.judge(space):
            return
        (log.warning if alarm.is_low else log.info)(
            "space=%s free_bytes=%d wanted_bytes=%d",
            "low" if alarm.is_low else "ok",
            space.free_bytes,
            alarm.wanted_bytes,
        )
        self._send_local("gateway", SpaceChanged(alarm.is_low, space.free_bytes))

    def fields(self) -> dict[str, object]:
        """For the status."""
        alarm = self._alarm
        return {
            "space": "low" if alarm.is_low else "ok",
            "space_free_bytes": self.free_bytes,
            "space_wanted_bytes": alarm.wanted_bytes,
        }
