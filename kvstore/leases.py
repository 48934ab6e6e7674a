"""Leases: which there are, and when each may be given up, in the time of the cluster.

May know: lease ids, positions of the log and milliseconds that a command brings; nothing of clocks, keys or
sessions. The time of the cluster is a number of the replicated state, which the leader's ticks move on.

A lease that was granted or renewed has no end until a tick comes that names a moment at which whoever made
the tick had the renewal already; its end is the first such moment and its TTL. A tick that was on its way at
the same time names earlier moments only, and does not count for it.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import msgpack

LEAST_TTL_SECONDS: Final = 2  # who asks for less is granted this
MILLISECONDS: Final = 1000  # of a second
NEVER_MS: Final = 1 << 62

LeaseState: TypeAlias = tuple[int, int, int, int]
"""(id, ttl_seconds, expires_at_ms, renewed_index): one of the last two is 0."""

_MASK_64: Final = (1 << 64) - 1
_FACTOR: Final = 0x9E3779B97F4A7C15
_pack: Callable[[Any], bytes] = msgpack.Packer().pack


class ImpossibleLease(Exception):
    """No machine could have left such a lease."""


class Leases:
    """Owned by one state machine. Which keys a lease has is the store's to know."""

    def __init__(self) -> None:
        self.time_ms = 0  # of the cluster; never falls
        self._ttls: dict[int, int] = {}  # seconds, of every lease
        self._ends: dict[int, int] = {}  # of the same ones, in time_ms; 0: it is in _renewed
        self._renewed: dict[int, int] = {}  # id to the position of the log at which it was renewed last
        self._checksum = 0  # sum of _lease_sum over all of them
        # No part of the state:
        self._earliest_ms = NEVER_MS  # none ends before
        self.next_end_ms = NEVER_MS  # nor between the last look for those that have ended, and this
        self.tick_index = 0  # of the last tick since this was made or loaded
        self.seen_index = 0  # what that had seen
        self.renewed_index = 0  # of the last grant or renewal

    def __len__(self) -> int:
        return len(self._ttls)

    def __contains__(self, lease: int) -> bool:
        return lease in self._ttls

    def is_alive(self, lease: int) -> bool:
        """It is there, and the time of the cluster has not passed its end. A millisecond is in doubt: that of
        the tick which set the end may have lacked almost as much."""
        return lease in self._ttls and not self.has_ended(lease, self.time_ms - 1)

    def ids(self) -> list[int]:
        return sorted(self._ttls)

    # -- what commands do ------------------------------------------------------------------------------

    def free_id(self, index: int) -> int:
        """For a lease that is granted at this position of the log, and wishes no id of its own."""
        while index in self._ttls:
            index += 1
        return index

    def grant(self, lease: int, ttl_seconds: int, index: int) -> None:
        assert lease not in self._ttls, f"lease {lease} is there already"
        self._ttls[lease] = ttl_seconds
        self._ends[lease] = 0
        self._renewed[lease] = self.renewed_index = index
        self._checksum += _lease_sum(lease, ttl_seconds, 0, index)

    def renew(self, lease: int, index: int) -> int:
        """Its TTL in seconds, which begins anew; 0 if there is no such lease, or its end has passed."""
        if not self.is_alive(lease):
            return 0
        ttl_seconds = self._ttls[lease]
        self._set_end(lease, ttl_seconds, 0, index)
        return ttl_seconds

    def drop(self, lease: int) -> None:
        """It ends now, whatever was left."""
        ttl_seconds, ends_at_ms = self._ttls.pop(lease), self._ends.pop(lease)
        self._checksum -= _lease_sum(lease, ttl_seconds, ends_at_ms, self._renewed.pop(lease, 0))

    def tick(self, times_ms: Sequence[int], seen_indexes: Sequence[int], index: int) -> None:
        """Time goes on, to the last of these. Who made the tick had all up to `seen_indexes[i]` in its log at
        `times_ms[i]`; both grow. If the time is not what it was any more, it does not count when that was."""
        self.tick_index = index
        self.seen_index = seen_index = seen_indexes[-1]
        if times_ms[-1] < self.time_ms:
            times_ms = [self.time_ms] * len(times_ms)
        self.time_ms = times_ms[-1]
        ttls, ends, renewed, first_end_ms = self._ttls, self._ends, self._renewed, NEVER_MS
        checksum = 0
        for lease, at in [each for each in renewed.items() if each[1] <= seen_index]:
            # As _set_end: it may be all leases of the cluster, and a call for each is too dear then.
            del renewed[lease]
            ends_at_ms = times_ms[bisect_left(seen_indexes, at)] + ttls[lease] * MILLISECONDS
            ends[lease] = ends_at_ms
            checksum += (lease * _FACTOR + 1) * (ends_at_ms * 3 - at * 5)
            if ends_at_ms < first_end_ms:
                first_end_ms = ends_at_ms
        self._checksum += checksum
        self._earliest_ms = min(self._earliest_ms, first_end_ms)
        self.next_end_ms = min(self.next_end_ms, first_end_ms)

    def has_ended(self, lease: int, time_ms: int) -> bool:
        """At that time; not if it was renewed meanwhile, or is not there."""
        ends_at_ms = self._ends.get(lease, 0)
        return 0 < ends_at_ms <= time_ms

    def _set_end(self, lease: int, ttl_seconds: int, ends_at_ms: int, renewed_index: int) -> None:
        before_ms, before_index = self._ends[lease], self._renewed.pop(lease, 0)
        self._ends[lease] = ends_at_ms
        if renewed_index:
            self._renewed[lease] = self.renewed_index = renewed_index
        self._checksum += _lease_sum(lease, ttl_seconds, ends_at_ms, renewed_index) - _lease_sum(
            lease, ttl_seconds, before_ms, before_index
        )

    # -- questions -------------------------------------------------------------------------------------

    def ttl_seconds(self, lease: int) -> int:
        """As it was granted; 0 if there is none."""
        return self._ttls.get(lease, 0)

    def remaining_seconds(self, lease: int) -> int:
        """Whole seconds, as of the last tick, whenever that was; as granted, of one that was renewed since;
        -1 if there is none."""
        ttl_seconds = self._ttls.get(lease)
        if ttl_seconds is None:
            return -1
        ends_at_ms = self._ends[lease]
        return max(0, (ends_at_ms - self.time_ms) // MILLISECONDS) if ends_at_ms else ttl_seconds

    def ended(self, time_ms: int) -> list[int]:
        """Those that have ended by then. Looks at them only if there may be any."""
        if time_ms < self._earliest_ms:
            return []
        found: list[int] = []
        earliest_ms = next_ms = NEVER_MS
        for lease, ends_at_ms in self._ends.items():
            if not ends_at_ms:
                continue
            if ends_at_ms <= time_ms:
                found.append(lease)
                earliest_ms = min(earliest_ms, ends_at_ms)
            elif ends_at_ms < next_ms:
                next_ms = ends_at_ms
        self._earliest_ms, self.next_end_ms = min(earliest_ms, next_ms), next_ms
        return found

    # -- as a whole ------------------------------------------------------------------------------------

    def frozen(self) -> Iterator[LeaseState]:
        """All of them as of this call, by id."""
        return _states(dict(self._ttls), dict(self._ends), dict(self._renewed))

    def load(self, states: Iterable[LeaseState]) -> None:
        """More of them, from a snapshot. Raises ImpossibleLease."""
        for lease, ttl_seconds, ends_at_ms, renewed_index in states:
            if lease in self._ttls or not lease or not ttl_seconds or bool(ends_at_ms) == bool(renewed_index):
                raise ImpossibleLease(f"lease {lease}: {ttl_seconds} s, {ends_at_ms} ms, {renewed_index}")
            self._ttls[lease] = ttl_seconds
            self._ends[lease] = ends_at_ms
            if renewed_index:
                self._renewed[lease] = renewed_index
                self.renewed_index = max(self.renewed_index, renewed_index)
            else:
                self._earliest_ms = self.next_end_ms = min(self._earliest_ms, ends_at_ms)
            self._checksum += _lease_sum(lease, ttl_seconds, ends_at_ms, renewed_index)

    @property
    def were_used(self) -> bool:
        """There are some, or there were."""
        return bool(self._ttls or self.time_ms)

    @property
    def fingerprint(self) -> int:
        """64 bits of the time and all leases, whatever way they came about."""
        state = _pack((self.time_ms, len(self._ttls), self._checksum & _MASK_64))
        return int.from_bytes(hashlib.blake2b(state, digest_size=8).digest(), "big")

    def digest(self) -> bytes:
        """A hash of all that replicas must agree on."""
        return hashlib.sha256(_pack((self.time_ms, list(self.frozen())))).digest()


def _states(ttls: dict[int, int], ends: dict[int, int], renewed: dict[int, int]) -> Iterator[LeaseState]:
    for lease in sorted(ttls):
        yield lease, ttls[lease], ends[lease], renewed.get(lease, 0)


def _lease_sum(lease: int, ttl_seconds: int, ends_at_ms: int, renewed_index: int) -> int:
    """A product, so that what two leases exchange does not cancel out."""
    return (lease * _FACTOR + 1) * (ends_at_ms * 3 + renewed_index * 5 + ttl_seconds * 7 + 11)
