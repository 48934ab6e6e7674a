"""What each revision changed, for watchers that come late or come back, and for the memory of old versions.

May know: versions, changes and revisions; nothing of streams, sockets or time. The changes are made of the
store's own versions, shared with it; how far back they go is decided by compaction, the same on every node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from kvstore.protocol import Event, FullEvent
from kvstore.versions import (
    ALL_FROM_KEY,
    FIRST_REVISION,
    Change,
    RecordBefore,
    change_revision,
    change_versions,
    event_of,
    full_events,
)

# By one read, in whole revisions; the first one may have more. A few milliseconds.
MAX_SCANNED_VERSIONS: Final = 16_384
EVENT_OVERHEAD_BYTES: Final = 160  # of one event, beside its key and value
_SWEPT: Final[Change] = (0, [])  # in the place of a change that was given up
_LEAST_CUT: Final = 4096  # places given up are cut off when they are as many, and a quarter of all


class HistoryPage(NamedTuple):
    """Revisions in ascending order with their events.

    If `more`, the next page begins after the last of `revisions`. That one has no events when the read
    ended there without having found any.
    """

    more: bool
    revisions: list[tuple[int, list[Any]]]  # an Event each, or a FullEvent, as it was asked for


class History:
    """Owned by one store, which appends to `changes` itself: one for each revision, without a gap."""

    def __init__(self, first_revision: int = FIRST_REVISION + 1) -> None:
        self.changes: list[Change] = []
        self._first_revision = first_revision  # of changes[0], be it given up or not
        self._swept = 0  # so many at the beginning are given up
        self.oldest_start = 0  # reads begin here or later; all from here on is kept

    @property
    def newest_revision(self) -> int:
        return self._first_revision + len(self.changes) - 1

    @property
    def oldest_revision(self) -> int:
        """Of those that are not given up; beyond the newest one if there is none."""
        return self._first_revision + self._swept

    def __len__(self) -> int:
        """How many are not given up."""
        return len(self.changes) - self._swept

    def since(self, revision: int) -> list[Change]:
        """All changes after a revision."""
        return self.changes[max(0, revision - self._first_revision + 1) :]

    def size_at(self, revision: int) -> int:
        """How many versions a read that begins there looks at in any case; 0 if nothing is there."""
        place = max(0, revision - self._first_revision)
        return len(change_versions(self.changes[place])) if place < len(self.changes) else 0

    def oldest(self) -> Change:
        return self.changes[self._swept]

    def sweep_oldest(self) -> None:
        """Give up the change of the oldest revision."""
        self.changes[self._swept] = _SWEPT
        self._swept += 1
        if self._swept >= max(_LEAST_CUT, len(self.changes) // 4):
            del self.changes[: self._swept]
            self._first_revision += self._swept
            self._swept = 0

    def read(
        self,
        key: bytes,
        range_end: bytes,
        start_revision: int,
        limit_bytes: int,
        max_scanned_versions: int = MAX_SCANNED_VERSIONS,
        record_before: RecordBefore | None = None,
    ) -> HistoryPage | None:
        """Events of the range from start_revision on, inclusive; None if that revision is no longer kept.

        Whole revisions only, at least one if there is any, then as many as fit into limit_bytes. A start in
        the future is no error: nothing is there yet. With `record_before`, each event has what it gives.
        """
        if start_revision < self.oldest_start:
            return None
        newest = self.newest_revision
        if start_revision > newest:
            return HistoryPage(False, [])
        concerns = range_filter(key, range_end)
        revisions: list[tuple[int, list[Any]]] = []
        size_bytes = 0
        first = max(0, start_revision - self._first_revision)
        start = self._first_revision + first
        scanned, left = start - 1, max_scanned_versions
        for change in self.changes[first : first + max_scanned_versions]:
            left -= 1 if len(change) == 6 else max(1, len(change[1]))
            if left < 0 and scanned >= start:
                break  # a long revision is a page of its own
            scanned += 1
            events: list[Any] = _events_in(change, concerns)
            if events:
                if record_before is not None:
                    events = full_events(events, record_before)
                revision = change_revision(change)
                revisions.append((revision, events))
                size_bytes += events_size_bytes(events)
                if size_bytes >= limit_bytes:
                    return HistoryPage(revision < newest, revisions)
        if scanned >= newest:
            return HistoryPage(False, revisions)
        if not revisions or revisions[-1][0] != scanned:
            revisions.append((scanned, []))
        return HistoryPage(True, revisions)


def events_size_bytes(events: Sequence[Event | FullEvent]) -> int:
    size_bytes = 0
    for event in events:
        size_bytes += len(event[1]) + len(event[2]) + EVENT_OVERHEAD_BYTES
        if len(event) == 8 and event[7] is not None:
            size_bytes += len(event[7][0]) + len(event[7][1])
    return size_bytes


def range_filter(key: bytes, range_end: bytes) -> Callable[[bytes], bool]:
    """Whether a key is in the range."""
    if not range_end:
        return key.__eq__
    if range_end == ALL_FROM_KEY:
        return key.__le__
    return lambda candidate: key <= candidate < range_end


def _events_in(change: Change, concerns: Callable[[bytes], bool]) -> list[Event]:
    if len(change) == 6:
        return [event_of(change)] if concerns(change[0]) else []
    return [event_of(version) for version in change[1] if concerns(version[0])]
