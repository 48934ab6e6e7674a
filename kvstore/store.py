"""The store: keys with their revisions, as of now. Facts and names are those of the etcd v3 data model.

May know: keys, values and revisions; nothing of sessions, encodings, watchers or time. Deterministic: the
same calls in the same order leave the same state on every node, and iteration is always in key order.
Arguments are valid when they come here; `operations` sees to that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, TypeAlias

import msgpack
from sortedcontainers import SortedList

from kvstore.key_order import extend_in_order
from kvstore.protocol import EVENT_DELETE, EVENT_PUT, Event, KeyValue

Change: TypeAlias = KeyValue | tuple[int, list[Event]]
"""What one revision did: the record that a put left, or else (revision, its events in order).

A put shares its record with the store, so remembering it costs one reference. Told apart by length.
"""

FIRST_REVISION: Final = 1  # of a store that nobody has written to
ALL_FROM_KEY: Final = b"\x00"


def change_revision(change: Change) -> int:
    return change[3] if len(change) == 6 else change[0]


def change_events(change: Change) -> list[Event]:
    if len(change) == 6:
        return [(EVENT_PUT, *change)]
    return change[1]


class RangeAnswer(NamedTuple):
    total: int  # of all keys in the range, whatever the limit
    more: bool  # `records` was cut
    records: list[KeyValue]  # in key order


class Store:
    """Owned by one state machine."""

    def __init__(self) -> None:
        self.revision = FIRST_REVISION  # grows by one with each command that changes anything
        self._records: dict[bytes, KeyValue] = {}
        self._keys: Any = SortedList()  # exactly the keys of _records; touched on create and delete only
        self._changes: list[Change] = []  # since the last take_changes(), one for each revision

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: bytes) -> KeyValue | None:
        return self._records.get(key)

    def put(self, key: bytes, value: bytes, lease: int) -> KeyValue | None:
        """Returns the record that was there before."""
        self.revision = revision = self.revision + 1
        previous = self._records.get(key)
        if previous is None:
            self._keys.add(key)
            record = (key, value, revision, revision, 1, lease)
        else:
            # The key object of the first put stays: index, table and history share it.
            record = (previous[0], value, previous[2], revision, previous[4] + 1, lease)
        self._records[key] = record
        self._changes.append(record)
        return previous

    def delete(self, key: bytes, range_end: bytes) -> list[KeyValue]:
        """Removes the range in one revision, none if nothing is there. Returns the removed records."""
        removed = self.range(key, range_end).records
        if not removed:
            return removed
        self.revision = revision = self.revision + 1
        records = self._records
        if len(removed) == 1:
            self._keys.remove(removed[0][0])
        else:
            low, high = self._bounds(key, range_end)
            del self._keys[low:high]
        events: list[Event] = []
        for record in removed:
            del records[record[0]]
            events.append((EVENT_DELETE, record[0], b"", 0, revision, 0, 0))
        self._changes.append((revision, events))
        return removed

    def range(self, key: bytes, range_end: bytes, *, limit: int = 0, max_bytes: int = 0) -> RangeAnswer:
        """Records of [key, range_end) in key order; 0 for no limit. At least one record, if there is any.

        An empty `range_end` means the one key, a zero byte all keys from `key` on.
        """
        records = self._records
        if not range_end:
            record = records.get(key)
            return RangeAnswer(0, False, []) if record is None else RangeAnswer(1, False, [record])
        low, high = self._bounds(key, range_end)
        count = max(0, high - low)
        wanted = min(count, limit) if limit else count
        found = [records[name] for name in islice(self._keys.islice(low), wanted)]
        if max_bytes:
            _cut(found, max_bytes)
        return RangeAnswer(count, len(found) < count, found)

    def count(self, key: bytes, range_end: bytes) -> int:
        if not range_end:
            return 1 if key in self._records else 0
        low, high = self._bounds(key, range_end)
        return max(0, high - low)

    def _bounds(self, key: bytes, range_end: bytes) -> tuple[int, int]:
        keys = self._keys
        low: int = keys.bisect_left(key)
        high: int = len(keys) if range_end == ALL_FROM_KEY else keys.bisect_left(range_end)
        return low, high

    def take_changes(self) -> list[Change]:
        """What happened since the last call, in order of revision, with no revision missing."""
        changes = self._changes
        self._changes = []
        return changes

    def frozen(self) -> Iterator[KeyValue]:
        """The records as of this call, in key order, though they are read later.

        Records are never changed, only replaced: so two tables of references are copied, and no record. That
        takes about 0.05 s for a million keys.
        """
        records, keys = self._records.copy(), list(self._keys)
        return map(records.__getitem__, keys)

    def load(self, records: Sequence[KeyValue]) -> None:
        """Records of a snapshot, in key order, all after those that are there: a new store takes it in parts.

        No revision comes of it: whoever loads sets it at the end.
        """
        keys = [record[0] for record in records]
        self._records.update(zip(keys, records))
        extend_in_order(self._keys, keys)

    def digest(self) -> bytes:
        """A hash of all that replicas must agree on. Reads the whole store: for tests and diagnosis."""
        pack: Callable[[Any], bytes] = msgpack.Packer().pack
        state = hashlib.sha256(pack(self.revision))
        for key in self._keys:
            state.update(pack(self._records[key]))
        return state.digest()


def _cut(records: list[KeyValue], max_bytes: int) -> None:
    """Keeps as many as fit into `max_bytes` of keys and values, and always the first."""
    size_bytes = 0
    for position, record in enumerate(records):
        size_bytes += len(record[0]) + len(record[1])
        if size_bytes > max_bytes and position:
            del records[position:]
            return
