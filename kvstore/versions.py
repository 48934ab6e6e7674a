"""Versions of keys: what one is, what a revision did, and where those are kept that are not current any more.

May know: keys, values and revisions. A version is a record, or a tombstone: the record of a key that was
deleted at that revision, which has version 0, no value and no creation. A key that was never overwritten or
deleted costs nothing here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias

from sortedcontainers import SortedList

from kvstore.protocol import EVENT_DELETE, EVENT_PUT, MAX_PREVIOUS_BYTES, Event, FullEvent, KeyValue

Change: TypeAlias = KeyValue | tuple[int, list[KeyValue]]
"""What one revision did: the one version that it made, or else (revision, its versions in key order).

It shares the versions with the store, so remembering it costs one reference. Told apart by length.
"""

FIRST_REVISION: Final = 1  # of a store that nobody has written to
ALL_FROM_KEY: Final = b"\x00"
VERSION_OVERHEAD_BYTES: Final = 200  # of a version that is not current, beside its value
PRUNED_BYTES: Final = 32 << 10  # of values; to free so many costs as much as a version

mod_revision: Final = itemgetter(3)


def event_of(version: KeyValue) -> Event:
    """A delete event has key and mod_revision only."""
    return (EVENT_PUT if version[4] else EVENT_DELETE, *version)


def change_revision(change: Change) -> int:
    return change[3] if len(change) == 6 else change[0]


def change_versions(change: Change) -> list[KeyValue]:
    return [change] if len(change) == 6 else change[1]


def change_events(change: Change) -> list[Event]:
    return [event_of(change)] if len(change) == 6 else [event_of(version) for version in change[1]]


RecordBefore: TypeAlias = Callable[[bytes, int], KeyValue | None]
"""What a key was before a revision; None if it was not there, or nobody knows any more."""


def full_events(events: Sequence[Event], record_before: RecordBefore) -> list[FullEvent]:
    """The events of one revision with the records that they replaced, as many of them as are allowed.

    A delete of a hundred thousand keys, each with a large value, must not become one message.
    """
    left_bytes = MAX_PREVIOUS_BYTES
    found: list[FullEvent] = []
    for event in events:
        previous = record_before(event[1], event[4])
        if previous is not None:
            left_bytes -= len(previous[0]) + len(previous[1])
            if left_bytes < 0:
                previous = None
        found.append((*event, previous))
    return found


class OlderVersions:
    """Owned by one store, whose current records it is given to look at.

    `older` has, for each key that has any, the versions before the current record in order of revision, and
    never an empty list. Of a key that has no current record the last of them is a tombstone; just those keys
    are in `gone`, in order.
    """

    def __init__(self, current: Mapping[bytes, KeyValue]) -> None:
        self.current = current
        self.older: dict[bytes, list[KeyValue]] = {}
        self.gone: Any = SortedList()
        self.size_bytes = 0  # of all in `older`, overhead included

    def at(self, key: bytes, revision: int) -> KeyValue | None:
        """The record of the key as of a revision that is still kept."""
        record = self.current.get(key)
        if record is not None and record[3] <= revision:
            return record
        older = self.older.get(key)
        if older is None:
            return None
        position = bisect_right(older, revision, key=mod_revision)
        version = older[position - 1] if position else None
        return version if version is not None and version[4] else None

    def kept(self, key: bytes, compact_revision: int, revision: int) -> list[KeyValue]:
        """The versions up to `revision` that a compaction at `compact_revision` leaves, in order.

        Those are all after it, and the newest up to it. If that one is a tombstone, it is only left if it is
        of that very revision, for the sake of the event.
        """
        older, record = self.older.get(key), self.current.get(key)
        if record is not None and record[3] <= compact_revision:
            return [record]
        if older is None:  # as of most keys, when all of them are read
            return [record] if record is not None and record[3] <= revision else []
        first = _first_kept(older, compact_revision)
        found = list(older[first : bisect_right(older, revision, key=mod_revision)])
        if record is not None and record[3] <= revision:
            found.append(record)
        return found

    def prune(self, key: bytes, compact_revision: int, limit: int) -> int:
        """Give up what a compaction does not leave of this key, the oldest first; returns what that cost.

        A version costs 1, and more if its value is large. At most `limit`, about: if it is as much, there may
        be more.
        """
        older = self.older.get(key)
        if older is None:
            return 0
        record = self.current.get(key)
        if record is not None and record[3] <= compact_revision:
            count = len(older)
        else:
            count = _first_kept(older, compact_revision)
        count = min(count, limit)
        if not count:
            return 0
        freed_bytes = versions_bytes(older[:count])
        cost = max(count, freed_bytes // PRUNED_BYTES)
        if cost > limit:
            count = max(1, count * limit // cost)
            freed_bytes = versions_bytes(older[:count])
        self.size_bytes -= freed_bytes
        if count < len(older):
            del older[:count]
            return cost
        del self.older[key]
        if record is None:
            self.gone.remove(key)
        if not self.older:
            self.older.clear()  # an empty table, too, keeps the room that it once needed
        return cost


def versions_bytes(versions: list[KeyValue]) -> int:
    return sum(len(version[1]) for version in versions) + VERSION_OVERHEAD_BYTES * len(versions)


def _first_kept(older: list[KeyValue] | tuple[()], compact_revision: int) -> int:
    """The position of the first that a compaction leaves, if the current record is of a later revision."""
    position = bisect_right(older, compact_revision, key=mod_revision)
    if not position:
        return 0
    newest = older[position - 1]
    return position if newest[4] == 0 and newest[3] < compact_revision else position - 1
