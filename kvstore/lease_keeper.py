"""The leader's part in leases: it tells the cluster the time, and says which leases have ended.

Pure: it is shown the state and told its node's monotonic clock. Only the leader's applier asks; what it wants
goes into the log, and only what the log says then counts. So a keeper may be late, or lead no more: the state
decides whether its word still fits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from kvstore.leases import Leases
from kvstore.protocol_lease import expire_body, tick_body
from raft.state_machine import Housekeeper, Leading

TICK_SECONDS: Final = 0.5  # between two ticks; a lease may end later by so much
# The applier asks each 0.25 s, or a little later or earlier: each second time is a tick.
_ALMOST_A_TICK_SECONDS: Final = TICK_SECONDS - 0.1
PATIENCE_SECONDS: Final = 1.0  # for an expiry to be applied, before it is wanted again
MAX_LEASES: Final = 500  # that one command ends
MAX_KEYS: Final = 10_000  # that one command deletes, about: a lease with more has one for itself
MAX_COMMANDS: Final = 8  # expiries of one look


class LeasesSeen(NamedTuple):
    """What the keeper is shown of a state machine."""

    leases: Leases
    applied_index: int
    key_count: Callable[[int], int]  # of a lease


class LeaseKeeper:
    """Implements raft's Housekeeper; owned by one applier."""

    def __init__(self, look: Callable[[], LeasesSeen]) -> None:
        self._look = look
        # The cluster's time at a moment of this node's clock; None: not known since this node leads.
        self._known: tuple[int, float] | None = None
        self._ticked_at = float("-inf")
        self._asked: dict[int, float] = {}  # leases that are to end, until when that is waited for

    def begin_leading(self) -> None:
        """Another led meanwhile: what passed since this node led is not this node's to count."""
        self._known = None
        self._ticked_at = float("-inf")
        self._asked.clear()

    def due_commands(self, now_seconds: float) -> list[bytes]:
        """A tick, or expiries, or both, or nothing; nothing at all while there are no leases."""
        leases, applied_index, key_count = self._look()
        time_ms = self._time(leases.time_ms, now_seconds)
        if not leases:
            return []
        # A millisecond less: that of the tick which set the end may have lacked almost as much.
        commands = self._expiries(leases, key_count, time_ms - 1, now_seconds)
        if now_seconds - self._ticked_at >= _ALMOST_A_TICK_SECONDS:
            self._ticked_at = now_seconds
            commands.append(tick_body(time_ms, applied_index))
        return commands

    def _time(self, seen_ms: int, now_seconds: float) -> int:
        """The cluster's: what the state knew when this node began to lead, and what has passed since.

        What was in the log of earlier leaders may be applied later, and tell of a later time: that is passed
        already, too.
        """
        if self._known is not None:
            known_ms, known_at = self._known
            time_ms = known_ms + int((now_seconds - known_at) * 1000)
            if time_ms >= seen_ms:
                return time_ms
        self._known = seen_ms, now_seconds
        return seen_ms

    def _expiries(
        self, leases: Leases, key_count: Callable[[int], int], time_ms: int, now_seconds: float
    ) -> list[bytes]:
        ended = leases.ended(time_ms)
        if not ended:
            self._asked.clear()
            return []
        asked = self._asked = {lease: self._asked[lease] for lease in ended if lease in self._asked}
        commands: list[bytes] = []
        batch: list[int] = []
        keys = 0
        for lease in ended:
            if asked.get(lease, now_seconds) > now_seconds:
                continue
            count = key_count(lease)
            if batch and (len(batch) == MAX_LEASES or keys + count > MAX_KEYS):
                commands.append(expire_body(time_ms, batch))
                batch, keys = [], 0
                if len(commands) == MAX_COMMANDS:
                    break
            batch.append(lease)
            keys += count
            asked[lease] = now_seconds + PATIENCE_SECONDS
        if batch:
            commands.append(expire_body(time_ms, batch))
        return commands


class Household:
    """Several housekeepers as one. Owned by one applier."""

    def __init__(self, *members: Housekeeper) -> None:
        self._members = members

    def begin_leading(self) -> None:
        """For those to whom it matters."""
        for member in self._members:
            if isinstance(member, Leading):
                member.begin_leading()

    def due_commands(self, now_seconds: float) -> list[bytes]:
        """Of all, the first one's first."""
        return [body for member in self._members for body in member.due_commands(now_seconds)]
