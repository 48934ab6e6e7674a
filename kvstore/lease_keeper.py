"""A node's part in leases: it counts the time of the cluster, and as the leader says which have ended.

Pure: it is shown the state and told its node's monotonic clock. What the leader's wants goes into the log,
and only what the log says then counts. So a keeper may be late, or lead no more: the state decides whether
its word still fits.

Never early: whoever counts begins with the last tick, at a moment of its own clock when that tick was in its
log. Whatever clocks show, its maker had read the time before. And it is the last one: a leader is asked for
nothing before it has applied all that earlier leaders left. Hardly late: that moment is when the tick came,
so a new leader has counted while nobody led. What passed before its process started, or before a snapshot
with that tick was restored, it cannot know: leases live longer by that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import floor, inf
from typing import Final, NamedTuple

from kvstore.leases import NEVER_MS, Leases
from kvstore.protocol_lease import expire_body, tick_body
from raft.arrivals import Moment
from raft.entries import Index
from raft.state_machine import Housekeeper, Timekeeper

TICK_SECONDS: Final = 0.5  # between two ticks
# The applier asks each 0.25 s, or a little later or earlier: each second time is a tick.
_ALMOST_A_TICK_SECONDS: Final = TICK_SECONDS - 0.1
LOOK_SECONDS: Final = 0.05  # between two looks at the least, however many leases end
# Renewals that came within so long of one another count as having come with the last: so much may a lease end
# later by.
GRAIN_SECONDS: Final = 0.02
MOST_ARRIVALS: Final = 64  # kept between two ticks; of more the oldest count as having come with the next
PATIENCE_SECONDS: Final = 1.0  # for an expiry to be applied, before it is wanted again
MAX_LEASES: Final = 500  # that one command ends
MAX_KEYS: Final = 10_000  # that one command deletes, about: a lease with more has one for itself
MAX_COMMANDS: Final = 8  # expiries of one look


class LeasesSeen(NamedTuple):
    """What the keeper is shown of a state machine."""

    leases: Leases
    applied_index: int
    key_count: Callable[[int], int]  # of a lease


class Arrival(NamedTuple):
    """Renewals came, the first of them at `began`; all up to this index were in the log here at `since`."""

    began: float
    since: float
    last_index: Index


class Count(NamedTuple):
    """The time of the cluster at a moment of this node's clock; it may have been that some time before."""

    time_ms: int
    at: float

    def time_at(self, at: float) -> int:
        return max(0, self.time_ms + floor((at - self.at) * 1000))


class LeaseKeeper:
    """Implements raft's Housekeeper and Timekeeper; owned by one applier."""

    def __init__(self, look: Callable[[], LeasesSeen]) -> None:
        self._look = look
        self._leases: Leases | None = None  # others come with a snapshot
        self._tick_index = 0  # of the last tick that these had
        self._last_tick = Count(0, 0.0)  # what the state tells, and when that was in the log here
        self._arrivals: deque[Arrival] = deque(maxlen=MOST_ARRIVALS)  # of renewals that no tick has seen
        self._count: Count | None = None  # while this node leads, from its first look on
        self._looked_at = self._ticked_at = -inf
        self._asked: dict[int, float] = {}  # leases that are to end, until when that is waited for

    # -- on every node ---------------------------------------------------------------------------------

    def was_applied(self, arrivals: Sequence[Moment]) -> None:
        """Ticks are noted, and renewals that have no end yet."""
        leases, applied_index, _ = self._look()
        self._note_tick(leases, arrivals)
        known = self._arrivals[-1].last_index if self._arrivals else leases.seen_index
        if leases.renewed_index > known:
            for last_index, since in arrivals:
                if last_index > known:
                    self._note_arrival(min(last_index, applied_index), since)
                if last_index >= applied_index:
                    break

    def _note_arrival(self, last_index: Index, since: float) -> None:
        began = since
        if self._arrivals and since - self._arrivals[-1].began < GRAIN_SECONDS:
            began = self._arrivals.pop().began
        self._arrivals.append(Arrival(began, since, last_index))

    def _note_tick(self, leases: Leases, arrivals: Sequence[Moment]) -> None:
        """Though it may tell no later time than the one before: it may be about later renewals."""
        if leases is not self._leases or leases.tick_index != self._tick_index:
            self._leases, self._tick_index = leases, leases.tick_index
            since = next(at for last_index, at in arrivals if last_index >= leases.tick_index)
            self._last_tick = Count(leases.time_ms, since)
            while self._arrivals and self._arrivals[0].last_index <= leases.seen_index:
                self._arrivals.popleft()

    # -- on the leader ---------------------------------------------------------------------------------

    def begin_leading(self) -> None:
        """Another led meanwhile, with its own count."""
        self._count = None
        self._looked_at = self._ticked_at = -inf
        self._asked.clear()

    def due_at(self) -> float | None:
        """At once, for who has not looked yet, and then when the next lease ends."""
        leases = self._look().leases
        if not leases:
            return None
        if self._count is None:
            return -inf
        if leases.next_end_ms == NEVER_MS:
            return None
        # Two milliseconds: one as below, and one for what is rounded.
        end_at = self._count.at + (leases.next_end_ms + 2 - self._count.time_ms) / 1000
        return max(end_at, self._looked_at + LOOK_SECONDS)

    def due_commands(self, now_seconds: float) -> list[bytes]:
        """A tick, or expiries, or both, or nothing; nothing at all while there are no leases."""
        leases, applied_index, key_count = self._look()
        self._note_tick(leases, [(applied_index, now_seconds)])  # if nobody told of it yet
        count = self._counting(leases, now_seconds)
        time_ms = count.time_at(now_seconds)
        self._looked_at = now_seconds
        if not leases:
            return []
        # A millisecond less: that of the tick which set the end may have lacked almost as much.
        commands = self._expiries(leases, key_count, time_ms - 1, now_seconds)
        if now_seconds - self._ticked_at >= _ALMOST_A_TICK_SECONDS:
            self._ticked_at = now_seconds
            earlier = [(count.time_at(each.since), each.last_index) for each in self._arrivals]
            commands.append(tick_body(time_ms, applied_index, earlier))
        return commands

    def _counting(self, leases: Leases, now_seconds: float) -> Count:
        """From the last tick of the leader before, and no other: another leader may have counted less.

        From now, should the state be ahead of that: it never is while leaders do as is said above.
        """
        if self._count is None:
            self._count = self._last_tick
        if self._count.time_at(now_seconds) < leases.time_ms:
            self._count = Count(leases.time_ms, now_seconds)
        return self._count

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
        self._timekeepers = [member for member in members if isinstance(member, Timekeeper)]

    def begin_leading(self) -> None:
        """For those to whom it matters."""
        for member in self._timekeepers:
            member.begin_leading()

    def was_applied(self, arrivals: Sequence[Moment]) -> None:
        """The same."""
        for member in self._timekeepers:
            member.was_applied(arrivals)

    def due_at(self) -> float | None:
        """Of the first one."""
        times = [member.due_at() for member in self._timekeepers]
        return min((at for at in times if at is not None), default=None)

    def due_commands(self, now_seconds: float) -> list[bytes]:
        """Of all, the first one's first."""
        return [body for member in self._members for body in member.due_commands(now_seconds)]
