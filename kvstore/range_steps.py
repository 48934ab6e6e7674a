"""A range that takes long to read, step by step, so that the node does everything else in between.

May know: the store, and how a result of RANGE is encoded. Each step looks at a bounded number of keys. The
answer is of one revision all the same: what a key was then does not change while others write. Only a
compaction ends that; a read that named no revision then begins again, and another one is told. Many may wait
behind their first step: so that is either all, or leaves nothing in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

import msgpack

from kvstore.operations import error_result
from kvstore.protocol import COMPACTED, COUNT_ONLY, KEYS_ONLY, MAX_RANGE_REPLY_BYTES, OK, KeyValue
from kvstore.store import SLICE_KEYS, Store

MAX_COUNTS: Final = 256

_packer: Final = msgpack.Packer()
_pack: Final[Callable[[Any], bytes]] = _packer.pack


def compacted(oldest_revision: int) -> bytes:
    """The result of who asks for what was before `oldest_revision`."""
    return error_result(COMPACTED, "required revision has been compacted", oldest_revision)


class PastCounts:
    """How many keys ranges had at past revisions, of those counted last: such a number never changes.

    Owned by one state machine. Whoever reads a range page by page has it counted once.
    """

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[tuple[bytes, bytes, int], int] = {}  # the oldest first; at most MAX_COUNTS

    def get(self, key: bytes, range_end: bytes, revision: int) -> int | None:
        return self._counts.get((key, range_end, revision))

    def keep(self, key: bytes, range_end: bytes, revision: int, count: int) -> None:
        self._counts[key, range_end, revision] = count
        if len(self._counts) > MAX_COUNTS:
            del self._counts[next(iter(self._counts))]


class Page:
    """The records of one answer, encoded as they come: no more than `limit`, or than fit.

    What counts is what it takes in memory: of small records most is not key or value.
    """

    def __init__(self, limit: int, flags: int) -> None:
        self.is_full = bool(flags & COUNT_ONLY)
        self.is_cut = False  # there was a record for which there was no room
        self._limit = limit
        self._keys_only = bool(flags & KEYS_ONLY)
        self.count = 0
        self._size_bytes = 0
        self._parts: list[bytes] = []  # of each step

    def take(self, records: list[KeyValue]) -> None:
        if self.is_full:
            self.is_cut = self.is_cut or bool(records)
            return
        if self._limit:
            room = self._limit - self.count
            self.is_cut = len(records) > room
            records = records[:room]
        parts: list[bytes] = []
        keys_only, size_bytes = self._keys_only, self._size_bytes
        for record in records:
            part = _pack((record[0], b"", *record[2:]) if keys_only else record)
            size_bytes += len(part)
            if size_bytes > MAX_RANGE_REPLY_BYTES and (parts or self.count):
                self.is_full = self.is_cut = True
                break
            parts.append(part)
        self._size_bytes = size_bytes
        self._parts.append(b"".join(parts))
        self.count += len(parts)
        self.is_full = self.is_full or (self._limit > 0 and self.count == self._limit)

    def has_all_of(self, total: int | None) -> bool:
        """Nothing is left to be read; None: what is left has to be counted."""
        return total is not None and (self.is_full or self.count == total)

    def encode(self, revision: int, total: int) -> bytes:
        return self._encode(revision, total, 0 < self.count < total)  # who only counts is told of no more

    def encode_selected(self, revision: int, total: int) -> bytes:
        """Of records that were chosen: what was not chosen is counted, and is not more of them."""
        return self._encode(revision, total, self.is_cut)

    def _encode(self, revision: int, total: int, more: bool) -> bytes:
        head = (OK, revision, total, more)
        array = _packer.pack_array_header
        return b"".join((array(5), *map(_pack, head), array(self.count), *self._parts))


Reader = Callable[[Callable[[], Store], PastCounts, list[Any], int], Generator[None, None, bytes | None]]
"""Reads as of a revision: None after each step, and returns the result, or None if it was compacted."""


def range_in_steps(
    store_of: Callable[[], Store], counts: PastCounts, read: list[Any], reader: Reader | None = None
) -> Iterator[bytes | None]:
    """None after each step but the last, and then the result of `read`, a RANGE that was checked."""
    revision, read_of = read[4], reader if reader is not None else read_as_of
    if reader is None:
        answer = _at_a_glance(store_of(), counts, read)
    else:
        answer = in_one_step(reader(store_of, counts, read, revision or store_of().revision))
    while answer is None:
        yield None
        answer = yield from read_of(store_of, counts, read, revision or store_of().revision)
        if answer is None and revision:
            answer = compacted(store_of().oldest_revision)
    yield answer


def in_one_step(steps: Generator[None, None, bytes | None]) -> bytes | None:
    """What is returned, if the first step is the only one. Else all that it has done is given up."""
    try:
        next(steps)
    except StopIteration as end:
        result: bytes | None = end.value
        return result
    steps.close()
    return None


def _at_a_glance(store: Store, counts: PastCounts, read: list[Any]) -> bytes | None:
    """The result, if one step is enough for it, which is not tried where that cannot be."""
    _, key, range_end, limit, revision, flags = read
    if 0 < revision < store.oldest_revision:
        return compacted(store.oldest_revision)
    revision = revision or store.revision
    page = Page(limit, flags)
    is_narrow = store.width(key, range_end) <= SLICE_KEYS
    total = None if is_narrow else _total(store, counts, key, range_end, revision)
    start: bytes | None = key
    if is_narrow or (total is not None and 0 < limit <= SLICE_KEYS and not page.is_full):
        records, start = store.slice_as_of(key, range_end, revision)
        page.take(records)
        if start is None:
            total = len(records)
    if total is not None and (start is None or page.has_all_of(total)):
        return page.encode(store.revision, total)
    return None


def _total(store: Store, counts: PastCounts, key: bytes, range_end: bytes, revision: int) -> int | None:
    total = counts.get(key, range_end, revision)
    return store.quick_count(key, range_end, revision) if total is None else total


def read_as_of(
    store_of: Callable[[], Store], counts: PastCounts, read: list[Any], revision: int, told: int = 0
) -> Generator[None, None, bytes | None]:
    """Returns the result; None if the revision was compacted meanwhile.

    `told` is the revision that the result names, if it is not the current one: a part of an answer names that
    of the whole.
    """
    _, key, range_end, limit, _, flags = read
    store = store_of()
    current = told or store.revision
    page = Page(limit, flags)
    counted, start = 0, key
    total = counts.get(key, range_end, revision)
    while True:
        if revision < store.oldest_revision:
            return None
        if total is None and start is key:
            total = store.quick_count(key, range_end, revision)
        if page.has_all_of(total):
            break
        records, start = store.slice_as_of(start, range_end, revision)
        counted += len(records)
        page.take(records)
        if start is None or page.has_all_of(total):
            break
        yield None
        store = store_of()  # it may be another one: a snapshot was restored
    if total is None:
        total = counted
        counts.keep(key, range_end, revision, total)
    return page.encode(current, total)
