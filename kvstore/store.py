"""The store: keys with their revisions, now and as of each revision since the last compaction.

Facts and names are those of the etcd v3 data model. May know: keys, values and revisions; nothing of
sessions, encodings, watchers or time. Deterministic: the same calls in the same order leave the same state
on every node, and iteration is always in key order. Arguments are valid when they come here; `operations`
sees to that.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from operator import itemgetter
from typing import Any, Final
from weakref import WeakSet
from zlib import crc32

import msgpack
from sortedcontainers import SortedList

from kvstore.frozen import Frozen
from kvstore.history import History, range_filter
from kvstore.protocol import KeyValue
from kvstore.range_answer import RangeAnswer, cut
from kvstore.record_sums import LARGE_VALUE_BYTES, LargeSums
from kvstore.versions import (
    ALL_FROM_KEY,
    FIRST_REVISION,
    PRUNED_BYTES,
    VERSION_OVERHEAD_BYTES,
    Change,
    OlderVersions,
    change_versions,
)

_MASK_64: Final = (1 << 64) - 1
_PLACE_BYTES: Final = 8  # of a change in the history
SLICE_KEYS: Final = 2048  # looked at by one step of a read of the past: a few milliseconds
_QUICK_CHANGES: Final = 1024  # so many since then, and a count as of then is had by looking at them

_key_of: Final[Callable[[KeyValue], bytes]] = itemgetter(0)
_pack: Callable[[Any], bytes] = msgpack.Packer().pack


class Store:
    """Owned by one state machine."""

    def __init__(self) -> None:
        self.revision = FIRST_REVISION  # grows by one with each command that changes anything
        self.compact_revision = 0  # what was before it is forgotten; 0: nothing was compacted yet
        self.known_from = 0  # if not 0: of revisions before this one nothing was ever known here
        self.history = History()  # a change for each revision from oldest_revision on
        self.is_sweeping = False  # some of what was compacted still takes room
        self._records: dict[bytes, KeyValue] = {}  # the current ones
        self._keys: Any = SortedList()  # exactly the keys of _records; touched on create and delete only
        self._versions = OlderVersions(self._records)
        self._older = self._versions.older
        self._changes = self.history.changes
        self._taken_revision = FIRST_REVISION  # up to here take_changes() has given the changes
        self.data_bytes = 0  # keys and values of the current records
        self._checksum = 0  # sum of record_sum over the current records
        self._large_sums = LargeSums()
        self._leased: dict[int, set[bytes]] = {}  # exactly the keys of _records with a lease, by lease
        self._readers: WeakSet[Frozen] = WeakSet()
        self._swept_revision = 0  # a compaction here has left nothing to be given up, but at this revision
        self._swept_there = 0  # so many versions made by _swept_revision are done too

    def __len__(self) -> int:
        return len(self._records)

    # -- writes ----------------------------------------------------------------------------------------

    def get(self, key: bytes) -> KeyValue | None:
        return self._records.get(key)

    def put(self, key: bytes, value: bytes, lease: int) -> KeyValue | None:
        """Returns the record that was there before."""
        self.revision = revision = self.revision + 1
        previous = self._records.get(key)
        if previous is None:
            record = self._create(key, value, lease)
        else:
            # The key object of the first put stays: index, table and history share it.
            key, old_value, create_revision, old_revision, old_version, old_lease = previous
            version = old_version + 1
            record = (key, value, create_revision, revision, version, lease)
            older = self._older.get(key)
            if older is None:
                self._older[key] = [previous]
            else:
                older.append(previous)
            size_bytes, old_bytes = len(value), len(old_value)
            self._versions.size_bytes += old_bytes + VERSION_OVERHEAD_BYTES
            self.data_bytes += size_bytes - old_bytes
            if old_bytes <= LARGE_VALUE_BYTES >= size_bytes:
                # As below, but here alone a call is too dear.
                self._checksum += (
                    crc32(value, revision + version + lease) * revision
                    - crc32(old_value, old_revision + old_version + old_lease) * old_revision
                )
            else:
                self._checksum += -self._large_sums.remove(previous) + self._large_sums.add(record)
            if lease != old_lease:
                if old_lease:
                    self._detach(key, old_lease)
                if lease:
                    self._leased.setdefault(lease, set()).add(key)
        self._records[key] = record
        self._changes.append(record)
        return previous

    def _create(self, key: bytes, value: bytes, lease: int) -> KeyValue:
        older = self._older.get(key)
        if older is not None:
            key = older[-1][0]
            self._versions.gone.remove(key)
        self._keys.add(key)
        record = (key, value, self.revision, self.revision, 1, lease)
        # As record_sum(record).
        self._checksum += crc32(key, self.revision) * self.revision + self._large_sums.add(record)
        self.data_bytes += len(key) + len(value)
        if lease:
            self._leased.setdefault(lease, set()).add(key)
        return record

    def _detach(self, key: bytes, lease: int) -> None:
        keys = self._leased.get(lease)
        if keys is None:
            return  # memory was damaged: nothing is attached to that one; the fingerprint tells of it
        keys.discard(key)
        if not keys:
            del self._leased[lease]

    def delete(self, key: bytes, range_end: bytes) -> list[KeyValue]:
        """Removes the range in one revision, none if nothing is there. Returns the removed records."""
        removed = self.range(key, range_end).records
        if len(removed) == 1:
            self._keys.remove(removed[0][0])
        elif removed:
            low, high = self._bounds(key, range_end)
            del self._keys[low:high]
        return self._bury(removed)

    def delete_keys(self, keys: list[bytes]) -> list[KeyValue]:
        """Removes these, which are there and in order, in one revision. Returns the removed records."""
        records, index = self._records, self._keys
        low = index.bisect_left(keys[0]) if keys else 0
        if keys and low + len(keys) == index.bisect_right(keys[-1]):
            del index[low : low + len(keys)]  # nothing lies between them
        else:
            for key in keys:
                index.remove(key)
        return self._bury([records[key] for key in keys])

    def _bury(self, removed: list[KeyValue]) -> list[KeyValue]:
        """Their keys are not in the index any more."""
        if not removed:
            return removed
        self.revision = revision = self.revision + 1
        records, older, checksum = self._records, self._older, 0
        size_bytes, keys_bytes = 0, 0
        tombstones: list[KeyValue] = []
        for record in removed:
            name, value, create_revision, old_revision, old_version, old_lease = record
            del records[name]
            if old_lease:
                self._detach(name, old_lease)
            # As record_sum(record): of many thousand keys a call for each is too dear.
            checksum += crc32(name, create_revision) * create_revision
            if len(value) <= LARGE_VALUE_BYTES:
                checksum += crc32(value, old_revision + old_version + old_lease) * old_revision
            else:
                checksum += self._large_sums.remove(record)
            end = (name, b"", 0, revision, 0, 0)
            versions = older.get(name)
            if versions is None:
                older[name] = [record, end]
            else:
                versions += (record, end)
            size_bytes += len(value)
            keys_bytes += len(name)
            tombstones.append(end)
        self._checksum -= checksum
        self.data_bytes -= keys_bytes + size_bytes
        self._versions.size_bytes += size_bytes + 2 * VERSION_OVERHEAD_BYTES * len(removed)
        self._versions.gone.update([record[0] for record in removed])
        self._changes.append(tombstones[0] if len(tombstones) == 1 else (revision, tombstones))
        return removed

    def change_together(self, puts: Iterable[KeyValue], ranges: Iterable[tuple[bytes, bytes]]) -> None:
        """Puts key, value and lease of each record, and deletes the ranges, all in one revision; in none if
        that changes nothing. No key is put twice, and none that is put is in a range."""
        before, place = self.revision, len(self._changes)
        for key, value, _, _, _, lease in puts:
            self.revision = before
            self.put(key, value, lease)
        for key, range_end in ranges:
            self.revision = before
            self.delete(key, range_end)
        made = self._changes[place:]
        self.revision = before + 1 if made else before
        if len(made) > 1:
            versions = [version for change in made for version in change_versions(change)]
            versions.sort(key=_key_of)
            self._changes[place:] = [(self.revision, versions)]

    def take_changes(self) -> list[Change]:
        """What happened since the last call, in order of revision, with no revision missing."""
        changes = self.history.since(self._taken_revision)
        self._taken_revision = self.revision
        return changes

    def record_before(self, key: bytes, revision: int) -> KeyValue | None:
        """What the key was before a change that take_changes() has just given.

        Of an older one too, if its revision comes after the oldest that can be read.
        """
        return self._versions.at(key, revision - 1)

    def leased_keys(self, lease: int) -> Collection[bytes]:
        """Of the current records with this lease; not to be changed, and in no order."""
        return self._leased.get(lease, ())

    def leases(self) -> Collection[int]:
        """Those that current records name."""
        return self._leased.keys()

    # -- reads -----------------------------------------------------------------------------------------

    def range(
        self,
        key: bytes,
        range_end: bytes,
        *,
        limit: int = 0,
        max_bytes: int = 0,
        revision: int = 0,
        keys_only: bool = False,
    ) -> RangeAnswer:
        """Records of [key, range_end) in key order; 0 for no limit. At least one record, if there is any.

        With `keys_only` the records have no values, and max_bytes counts none.

        An empty `range_end` means the one key, a zero byte all keys from `key` on. As of `revision`, if it
        is not 0: one from oldest_revision to the current one.
        """
        if revision and revision != self.revision:
            found = self._all_as_of(key, range_end, revision)
            total = len(found)
            if limit:
                del found[limit:]
            return cut(total, found, max_bytes, keys_only)
        records = self._records
        if not range_end:
            record = records.get(key)
            return cut(int(record is not None), [] if record is None else [record], max_bytes, keys_only)
        low, high = self._bounds(key, range_end)
        count = max(0, high - low)
        wanted = min(count, limit) if limit else count
        found = [records[name] for name in islice(self._keys.islice(low), wanted)]
        return cut(count, found, max_bytes, keys_only)

    def count(self, key: bytes, range_end: bytes, *, revision: int = 0) -> int:
        if revision and revision != self.revision:
            total = self.quick_count(key, range_end, revision)
            return len(self._all_as_of(key, range_end, revision)) if total is None else total
        if not range_end:
            return 1 if key in self._records else 0
        low, high = self._bounds(key, range_end)
        return max(0, high - low)

    @property
    def oldest_revision(self) -> int:
        """The oldest that can be read."""
        return max(self.compact_revision, self.known_from)

    def width(self, key: bytes, range_end: bytes) -> int:
        """No more keys than this are looked at for the range as of any revision: those there are and were."""
        if not range_end:
            return 1
        gone = self._versions.gone
        low: int = gone.bisect_left(key)
        high: int = len(gone) if range_end == ALL_FROM_KEY else gone.bisect_left(range_end)
        return self.count(key, range_end) + max(0, high - low)

    def _bounds(self, key: bytes, range_end: bytes) -> tuple[int, int]:
        keys = self._keys
        low: int = keys.bisect_left(key)
        high: int = len(keys) if range_end == ALL_FROM_KEY else keys.bisect_left(range_end)
        return low, high

    def slice_as_of(
        self, start: bytes, range_end: bytes, revision: int, max_keys: int = SLICE_KEYS
    ) -> tuple[list[KeyValue], bytes | None]:
        """A piece of a read as of `revision`: from `start` on, and where it goes on; None if that was all.

        No more than max_keys keys are looked at, be they there at that revision or not. What is changed
        between two pieces makes no difference, unless it is a compaction after `revision`.
        """
        assert self.oldest_revision <= revision <= self.revision, f"{revision} is not kept"
        names, following = self._names(start, range_end, max_keys)
        current, at = self._records, self._versions.at
        found: list[KeyValue] = []
        for name in names:
            record = current.get(name)
            if record is None or record[3] > revision:
                record = at(name, revision)
                if record is None:
                    continue
            found.append(record)
        return found, following

    def slice_before(
        self, start: bytes, range_end: bytes, revision: int, max_keys: int = SLICE_KEYS
    ) -> tuple[list[KeyValue], bytes | None]:
        """As slice_as_of, from the end of the range backwards: the piece, and the end of what is left."""
        assert self.oldest_revision <= revision <= self.revision, f"{revision} is not kept"
        high = None if range_end == ALL_FROM_KEY else range_end
        names: list[bytes] = []
        if not range_end:
            names.append(start)
        elif high is None or start < high:
            for index in (self._keys, self._versions.gone):
                names += islice(index.irange(start, high, (True, False), reverse=True), max_keys + 1)
            names.sort(reverse=True)
        left = names[max_keys - 1] if len(names) > max_keys else None
        at = self._versions.at
        found = [record for name in names[:max_keys] if (record := at(name, revision)) is not None]
        return found, left

    def quick_count(self, key: bytes, range_end: bytes, revision: int) -> int | None:
        """How many keys there were as of `revision`, if that is had without a look at all of them."""
        at, records = self._versions.at, self._records
        if not range_end:
            return int(at(key, revision) is not None)
        present = self.count(key, range_end)
        if revision == self.revision:
            return present
        if self.revision - revision > _QUICK_CHANGES:
            return None
        changes = self.history.since(revision)
        if sum(len(change_versions(change)) for change in changes) > _QUICK_CHANGES:
            return None
        concerns = range_filter(key, range_end)
        versions = (version for change in changes for version in change_versions(change))
        changed = {version[0] for version in versions if concerns(version[0])}
        return present + sum((at(name, revision) is not None) - (name in records) for name in changed)

    def _all_as_of(self, key: bytes, range_end: bytes, revision: int) -> list[KeyValue]:
        found: list[KeyValue] = []
        start: bytes | None = key
        while start is not None:
            some, start = self.slice_as_of(start, range_end, revision)
            found += some
        return found

    def _names(self, start: bytes, range_end: bytes, max_keys: int) -> tuple[list[bytes], bytes | None]:
        """Keys of the range that are there or were, in order, and the one which follows."""
        if not range_end:
            return [start], None
        high = None if range_end == ALL_FROM_KEY else range_end
        if high is not None and high <= start:
            return [], None
        names: list[bytes] = []
        for index in (self._keys, self._versions.gone):
            names += islice(index.irange(start, high, (True, False)), max_keys + 1)
        names.sort()
        return names[:max_keys], names[max_keys] if len(names) > max_keys else None

    # -- compaction ------------------------------------------------------------------------------------

    def compact(self, revision: int) -> None:
        """Forget what was before: each key's newest version up to `revision` is left, and what came later.

        That is so at once, for all who read from now on; sweep() gives the memory back, bit by bit.
        """
        assert self.compact_revision < revision <= self.revision, f"{revision} after {self.compact_revision}"
        self.compact_revision = revision
        if revision >= self.known_from:
            self.known_from = 0
        self.history.oldest_start = _oldest_start(revision, self.known_from)
        self.is_sweeping = True

    @property
    def history_bytes(self) -> int:
        """What a compaction at the current revision would give back, about."""
        return self._versions.size_bytes + _PLACE_BYTES * len(self.history)

    @property
    def size_bytes(self) -> int:
        """What a quota bounds: keys, values, and the past.

        Where that is compacted up to now there is none: what the last revision deleted is still told of, but
        no further compaction could take it, and an alarm that waited for that would never end.
        """
        has_past = self.revision > self.compact_revision or self.is_sweeping
        return self.data_bytes + self.history_bytes * has_past

    def sweep(self, limit: int) -> None:
        """Give back at most about so many versions of what was compacted, unless a reader may want them.

        Goes over the changes up to the compacted revision, and prunes the keys which they name. The change of
        that revision itself is kept, for watchers that begin there, so it is looked at again the next time.
        """
        goal = min((reader.compact_revision for reader in self._readers), default=self.compact_revision)
        goal = min(goal, self.compact_revision, self._taken_revision)
        if goal > self._swept_revision:
            self._swept_revision, self._swept_there = goal, 0
        goal, history, prune = self._swept_revision, self.history, self._versions.prune
        while limit > 0 and history.oldest_revision < goal:
            versions = change_versions(history.oldest())
            while limit > 0 and versions:
                pruned = prune(versions[-1][0], goal, limit)
                limit -= pruned + 1
                if limit >= 0:
                    limit -= len(versions.pop()[1]) // PRUNED_BYTES
            if not versions:
                history.sweep_oldest()
        if history.oldest_revision != goal:
            self.is_sweeping = history.oldest_revision < self.compact_revision
            return
        versions = change_versions(history.oldest()) if history.newest_revision >= goal else []
        while limit > 0 and self._swept_there < len(versions):
            pruned = prune(versions[self._swept_there][0], goal, limit)
            limit -= pruned + 1
            self._swept_there += limit >= 0
        self.is_sweeping = goal < self.compact_revision or self._swept_there < len(versions)

    # -- as a whole ------------------------------------------------------------------------------------

    def frozen(self) -> Frozen:
        """All kept versions as of this call, in key order, though they are read later, bit by bit."""
        reader = Frozen(self._keys, self._versions, self.revision, self.compact_revision, self._checksum)
        self._readers.add(reader)
        return reader

    @classmethod
    def assembled(
        cls,
        revisions: tuple[int, int, int],
        records: dict[bytes, KeyValue],
        keys: Any,
        leased: dict[int, set[bytes]],
        older: tuple[dict[bytes, list[KeyValue]], Any, int],
        changes: list[Change],
        sums: tuple[int, int, LargeSums],
    ) -> Store:
        """Of parts that fit together: a StoreBuilder made them. `changes` end with the current revision.

        `sums` are over `records`: the checksum, the bytes of keys and values, and what is kept of large ones.
        """
        store = cls()
        store.revision, store.compact_revision, store.known_from = revisions
        store._records, store._keys = records, keys
        store._checksum, store.data_bytes, store._large_sums = sums
        store._leased = leased
        versions = store._versions = OlderVersions(records)
        versions.older, versions.gone, versions.size_bytes = older
        store._older = versions.older
        store.history = History(store.revision - len(changes) + 1)
        store.history.changes = store._changes = changes
        store.history.oldest_start = _oldest_start(store.compact_revision, store.known_from)
        store._taken_revision = store.revision
        store._swept_revision = store.compact_revision
        store._swept_there = sys.maxsize
        return store

    @property
    def fingerprint(self) -> int:
        """64 bits of all current records and of the revisions, whatever way they came about."""
        state = _pack((self.revision, self.compact_revision, len(self._records), self._checksum & _MASK_64))
        return int.from_bytes(hashlib.blake2b(state, digest_size=8).digest(), "big")

    def digest(self) -> bytes:
        """A hash of all that replicas must agree on. Reads the whole store: for tests and diagnosis."""
        state = hashlib.sha256(_pack((self.revision, self.compact_revision, self.known_from)))
        for version in self.frozen():
            state.update(_pack(version))
        return state.digest()


def _oldest_start(compact_revision: int, known_from: int) -> int:
    """Where a watch may begin: the events of known_from itself are not known."""
    return max(compact_revision, known_from + 1 if known_from else 0)
