"""A store in the making: from the versions that a snapshot has, with the history that follows from them.

May know: versions and revisions. What comes is put into its place at once, so that the work of a batch is in
proportion to the batch; and nothing is believed that no store could have left.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count as counting
from typing import Any, Final

from sortedcontainers import SortedList

from kvstore.key_order import extend_in_order
from kvstore.protocol import KeyValue
from kvstore.record_sums import LargeSums, name_sum
from kvstore.store import Store
from kvstore.versions import FIRST_REVISION, Change, versions_bytes

_BLOCK_CHANGES: Final = 512


class ImpossibleStore(Exception):
    """These versions are not those of any store at that revision."""


class StoreBuilder:
    """Owned by one restore. What is added comes in order of key and then of revision, as frozen() has it."""

    def __init__(self, revision: int, compact_revision: int, known_from: int) -> None:
        """`known_from` as the store has it: of earlier revisions only the last version of a key is there."""
        if not (
            0 <= compact_revision <= revision and 0 <= known_from <= revision and revision >= FIRST_REVISION
        ):
            raise ImpossibleStore(
                f"revision {revision}, compacted at {compact_revision}, known from {known_from}"
            )
        self._revision = revision
        self._compact_revision = compact_revision
        self._known_from = known_from
        # From here on each revision has its change in the history, and all its versions are here.
        self._first_change = max(compact_revision, known_from + 1 if known_from else 0, FIRST_REVISION + 1)
        self._records: dict[bytes, KeyValue] = {}
        self._keys: Any = SortedList()
        self._leased: dict[int, set[bytes]] = {}  # keys of _records by lease
        self._older: dict[bytes, list[KeyValue]] = {}
        self._gone: Any = SortedList()
        self._older_bytes = 0
        # By revision, in blocks: the block and the place in it. In parts, so that the end is to join them.
        self._blocks: dict[int, list[Change | None]] = {}
        self._change_count = 0  # in all of them
        self._checksum = 0
        self._large_sums = LargeSums()
        self._data_bytes = 0  # keys and values of _records
        self._newest: KeyValue | None = None  # the last one that came; of its key there may be a newer one

    def add(self, versions: Sequence[KeyValue]) -> None:
        first_change = self._first_change
        keys: list[bytes] = []
        newest = self._newest
        for version in versions:
            if newest is not None:
                key = newest[0]
                if version[0] == key:
                    if version[3] <= newest[3]:
                        raise ImpossibleStore(f"key {key!r}: revision {version[3]} after {newest[3]}")
                    self._add_older(newest)
                    version = (key, *version[1:])  # one key object serves them all
                elif version[0] < key:
                    raise ImpossibleStore(f"key {version[0]!r} after {key!r}")
                elif newest[4]:
                    self._add_current(newest)
                    keys.append(key)
                else:
                    self._add_gone(newest)
            if version[3] >= first_change:
                self._note_change(version)
            newest = version
        self._newest = newest
        extend_in_order(self._keys, keys)

    def finish(self) -> Store:
        newest = self._newest
        if newest is not None and newest[4]:
            self._add_current(newest)
            extend_in_order(self._keys, [newest[0]])
        elif newest is not None:
            self._add_gone(newest)
        changes = self._all_changes()
        return Store.assembled(
            (self._revision, self._compact_revision, self._known_from),
            self._records,
            self._keys,
            self._leased,
            (self._older, self._gone, self._older_bytes),
            changes,
            (self._checksum, self._data_bytes, self._large_sums),
        )

    def _add_current(self, record: KeyValue) -> None:
        key = record[0]
        self._records[key] = record
        self._checksum += name_sum(record) + self._large_sums.add(record)
        self._data_bytes += len(key) + len(record[1])
        if record[5]:
            self._leased.setdefault(record[5], set()).add(key)

    def _add_older(self, version: KeyValue) -> None:
        self._older.setdefault(version[0], []).append(version)
        self._older_bytes += versions_bytes([version])

    def _add_gone(self, version: KeyValue) -> None:
        self._add_older(version)
        extend_in_order(self._gone, [version[0]])

    def _note_change(self, version: KeyValue) -> None:
        revision = version[3]
        if revision > self._revision:
            raise ImpossibleStore(f"a version is of revision {revision}, after {self._revision}")
        number, place = divmod(revision - self._first_change, _BLOCK_CHANGES)
        block = self._blocks.get(number)
        if block is None:
            block = self._blocks[number] = [None] * _BLOCK_CHANGES
        known = block[place]
        if known is None:
            block[place] = version
            self._change_count += 1
        elif len(known) == 6:
            block[place] = (revision, [known, version])
        else:
            known[1].append(version)

    def _all_changes(self) -> list[Change]:
        """In order of revision, and each is there. Of millions no one is looked at."""
        first, blocks = self._first_change, self._blocks
        count = self._revision + 1 - first
        if self._change_count != count:
            nothing: list[Change | None] = [None] * _BLOCK_CHANGES
            missing = next(
                first + number * _BLOCK_CHANGES + blocks.get(number, nothing).index(None)
                for number in counting()
                if None in blocks.get(number, nothing)
            )
            raise ImpossibleStore(f"what revision {missing} changed is missing")
        changes: list[Any] = []
        for number in range(-(-count // _BLOCK_CHANGES)):
            changes += blocks[number]
        del changes[count:]
        return changes
