"""The recent past: what each of the last revisions changed, for watchers that come late or come back.

May know: changes and revisions; nothing of streams, sockets or time. In memory, bounded in revisions and
in bytes. It is no part of what replicas agree on: a node that has kept less says Compacted, and the
watcher asks another.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Final, NamedTuple

from kvstore.protocol import EVENT_PUT, Event
from kvstore.store import ALL_FROM_KEY, FIRST_REVISION, Change, change_revision

MAX_REVISIONS: Final = 100_000
MAX_BYTES: Final = 64 << 20
MAX_SCANNED_REVISIONS: Final = 16_384  # by one read; a few milliseconds
EVENT_OVERHEAD_BYTES: Final = 160  # of one event, beside its key and value
_CHUNK_REVISIONS: Final = 256


class HistoryPage(NamedTuple):
    """Revisions in ascending order with their events.

    If `more`, the next page begins after the last of `revisions`. That one has no events when the read
    ended there without having found any.
    """

    more: bool
    revisions: list[tuple[int, list[Event]]]


class Chunk:
    """A run of consecutive revisions, dropped as a whole; owned by EventHistory."""

    __slots__ = ("changes", "first_revision", "size_bytes")

    def __init__(self, first_revision: int) -> None:
        self.first_revision = first_revision
        self.changes: list[Change] = []  # never empty but while it is made
        self.size_bytes = 0  # of `changes`, overhead included


class EventHistory:
    """Owned by one state machine. Old revisions go in runs, so both bounds are kept, and nearly used up."""

    def __init__(
        self,
        *,
        max_revisions: int = MAX_REVISIONS,
        max_bytes: int = MAX_BYTES,
        max_scanned_revisions: int = MAX_SCANNED_REVISIONS,
    ) -> None:
        assert min(max_revisions, max_bytes, max_scanned_revisions) >= 1, "a history needs room"
        self._max_revisions = max_revisions
        self._max_bytes = max_bytes
        self._max_scanned_revisions = max_scanned_revisions
        self._chunk_revisions = min(_CHUNK_REVISIONS, 1 + max_revisions // 8)
        self._chunk_bytes = 1 + max_bytes // 8
        self._chunks: list[Chunk] = []  # in order of revision, without a gap
        self.newest_revision = FIRST_REVISION  # of those that were ever appended
        self.compact_revision = FIRST_REVISION  # the oldest that can be read; the first one has no events
        self.size_bytes = 0  # sum over _chunks

    def extend(self, changes: list[Change]) -> None:
        """Appends the changes of the revisions that follow, no gap; drops the oldest beyond the bounds.

        The newest run always stays, whatever its size.
        """
        for start in range(0, len(changes), self._chunk_revisions):
            self._append(changes[start : start + self._chunk_revisions])

    def _append(self, changes: list[Change]) -> None:
        first = change_revision(changes[0])
        assert first == self.newest_revision + 1, f"revision {first} after {self.newest_revision}"
        chunk = self._chunks[-1] if self._chunks else None
        if (
            chunk is None
            or len(chunk.changes) + len(changes) > self._chunk_revisions
            or chunk.size_bytes > self._chunk_bytes
        ):
            chunk = Chunk(first)
            self._chunks.append(chunk)
        size_bytes = changes_size_bytes(changes)
        chunk.changes.extend(changes)
        chunk.size_bytes += size_bytes
        self.size_bytes += size_bytes
        self.newest_revision += len(changes)
        self._drop()

    def _drop(self) -> None:
        chunks = self._chunks
        while len(chunks) > 1 and (
            self.newest_revision - chunks[0].first_revision >= self._max_revisions
            or self.size_bytes > self._max_bytes
        ):
            self.size_bytes -= chunks.pop(0).size_bytes
            self.compact_revision = chunks[0].first_revision

    def restart(self, revision: int) -> None:
        """A snapshot at `revision` took the place of the store: of how it came about nothing is known."""
        self._chunks.clear()
        self.size_bytes = 0
        self.newest_revision = revision
        self.compact_revision = revision + 1

    def read(self, key: bytes, range_end: bytes, start_revision: int, limit_bytes: int) -> HistoryPage | None:
        """Events of the range from start_revision on, inclusive; None if that revision is no longer kept.

        Whole revisions only, at least one if there is any, then as many as fit into limit_bytes. A start in
        the future is no error: nothing is there yet.
        """
        if start_revision < self.compact_revision:
            return None
        if start_revision > self.newest_revision:
            return HistoryPage(False, [])
        concerns = range_filter(key, range_end)
        revisions: list[tuple[int, list[Event]]] = []
        size_bytes = 0
        for change in self._from(start_revision):
            events = _events_in(change, concerns)
            if events:
                revision = change_revision(change)
                revisions.append((revision, events))
                size_bytes += events_size_bytes(events)
                if size_bytes >= limit_bytes:
                    return HistoryPage(revision < self.newest_revision, revisions)
        scanned = max(start_revision, FIRST_REVISION + 1) + self._max_scanned_revisions - 1
        if scanned >= self.newest_revision:
            return HistoryPage(False, revisions)
        if not revisions or revisions[-1][0] != scanned:
            revisions.append((scanned, []))
        return HistoryPage(True, revisions)

    def _from(self, start_revision: int) -> Iterator[Change]:
        """The changes of as many revisions as one read may look at."""
        chunks = self._chunks
        position = max(0, bisect_right(chunks, start_revision, key=lambda chunk: chunk.first_revision) - 1)
        skipped = max(0, start_revision - chunks[position].first_revision) if chunks else 0
        following = chain.from_iterable(chunk.changes for chunk in chunks[position:])
        return islice(following, skipped, skipped + self._max_scanned_revisions)


def changes_size_bytes(changes: list[Change]) -> int:
    size_bytes = 0
    for change in changes:
        if len(change) == 6:
            size_bytes += len(change[0]) + len(change[1]) + EVENT_OVERHEAD_BYTES
        else:
            size_bytes += events_size_bytes(change[1])
    return size_bytes


def events_size_bytes(events: list[Event]) -> int:
    return sum(len(event[1]) + len(event[2]) + EVENT_OVERHEAD_BYTES for event in events)


def range_filter(key: bytes, range_end: bytes) -> Callable[[bytes], bool]:
    """Whether a key is in the range."""
    if not range_end:
        return key.__eq__
    if range_end == ALL_FROM_KEY:
        return key.__le__
    return lambda candidate: key <= candidate < range_end


def _events_in(change: Change, concerns: Callable[[bytes], bool]) -> list[Event]:
    if len(change) == 6:
        return [(EVENT_PUT, *change)] if concerns(change[0]) else []
    return [event for event in change[1] if concerns(event[1])]
