"""Reads of a range that choose by revision and sort, step by step: the long form of RANGE.

May know: the store, and how a page is encoded. Each step looks at, or puts in order, a bounded number of
records. A read that sorts has to hold what may be in its answer until it has seen the whole range: how much
that is, of one read and of all of them together, is bounded, and a read that would need more is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Any, Final, NamedTuple

from kvstore.codes import MAX_INTEGER, SORT_DESCENDING, SORT_KEY, TOO_LARGE, UNCOUNTED
from kvstore.operations import error_result
from kvstore.protocol import KeyValue
from kvstore.range_steps import Page, PastCounts, range_in_steps
from kvstore.store import Store

MAX_SORTED_RECORDS: Final = 262_144  # held by one read that sorts
MAX_SORTED_LIMIT: Final = MAX_SORTED_RECORDS // 2  # with a limit up to here, a range may be of any size
MAX_HELD_RECORDS: Final = 1 << 20  # by all reads of a node that sort
MERGED_RECORDS: Final = 2048  # put in order by one step: a few milliseconds

TOO_MANY_TO_SORT: Final = error_result(
    TOO_LARGE,
    f"too many records to sort: of more than {MAX_SORTED_RECORDS} at most the first {MAX_SORTED_LIMIT} are "
    "given; set a limit, or choose fewer",
)
TOO_MANY_SORT: Final = error_result(
    TOO_LARGE, f"reads that sort hold {MAX_HELD_RECORDS} records at the moment: ask again"
)

# Where a record has what it is sorted by; numbered as the protocol numbers the targets, from 1 on.
_FIELDS: Final = (0, 4, 2, 3, 1)


class Selection(NamedTuple):
    """The six integers of the long form, as the protocol has them. A bound of 0 is none."""

    sort_target: int
    sort_order: int
    min_mod: int
    max_mod: int
    min_create: int
    max_create: int

    def in_order(self, records: list[KeyValue]) -> list[KeyValue]:
        """Records that are in the order of their keys, in the one that is wanted."""
        if not self.sort_target:
            return records
        value_of = itemgetter(_FIELDS[self.sort_target - 1])
        return sorted(records, key=value_of, reverse=self.sort_order == SORT_DESCENDING)

    def matching(self, records: list[KeyValue]) -> list[KeyValue]:
        _, _, min_mod, max_mod, min_create, max_create = self
        if not any(self[2:]):
            return records
        max_mod, max_create = max_mod or MAX_INTEGER, max_create or MAX_INTEGER
        return [
            record
            for record in records
            if min_mod <= record[3] <= max_mod and min_create <= record[2] <= max_create
        ]


class SortRoom:
    """How many records the reads that sort may still hold. Owned by one state machine."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_HELD_RECORDS


class Sorter:
    """What one read holds: runs, each in the order that is wanted. Owned by that read, which release()s it.

    Records that are equal in what is sorted by are in order of their keys, in descending order too.
    """

    __slots__ = ("_held", "_is_descending", "_limit", "_room", "_runs", "_value_of", "refusal")

    def __init__(self, selection: Selection, limit: int, room: SortRoom) -> None:
        self._value_of = itemgetter(_FIELDS[selection.sort_target - 1])
        self._is_descending = selection.sort_order == SORT_DESCENDING
        self._limit = limit + 1 if limit else 0  # one more, so that it is known whether there is more
        self._room = room
        self._runs: list[list[KeyValue]] = []  # what comes earlier by its keys is in an earlier run
        self._held = 0  # sum of their lengths; taken from the room
        self.refusal: bytes | None = None  # the result, once it has become too much

    def take(self, records: list[KeyValue]) -> None:
        """The next records of the range, in order of their keys."""
        run = sorted(records, key=self._value_of, reverse=self._is_descending)
        if self._limit:
            del run[self._limit :]
        if run:
            self._runs.append(run)
            self._hold(len(run))

    def _hold(self, count: int) -> None:
        self._held += count
        self._room.left -= count
        if self._room.left < 0:
            self.refusal = TOO_MANY_SORT
        elif self._held > MAX_SORTED_RECORDS and not 0 < self._limit <= MAX_SORTED_LIMIT + 1:
            self.refusal = TOO_MANY_TO_SORT

    def shrink(self) -> Iterator[None]:
        """Steps, if so much is held, after which no more is held than the limit wants."""
        if self._held <= MAX_SORTED_RECORDS:
            return
        best: list[KeyValue] = []
        for piece in self.pieces(self._limit):
            best += piece
            yield None
        self._hold(len(best) - self._held)
        self._runs = [best]

    def pieces(self, limit: int = 0) -> Iterator[list[KeyValue]]:
        """All that is held, or the first `limit` of it, in order, each piece the work of one step."""
        merged: Iterator[KeyValue] = merge(*self._runs, key=self._value_of, reverse=self._is_descending)
        if limit:
            merged = islice(merged, limit)
        while piece := list(islice(merged, MERGED_RECORDS)):
            yield piece

    def release(self) -> None:
        self._room.left += self._held
        self._held = 0


def selected_in_steps(
    store_of: Callable[[], Store], counts: PastCounts, room: SortRoom, read: list[Any]
) -> Iterator[bytes | None]:
    """As range_in_steps, of a RANGE of the long form."""
    return range_in_steps(store_of, counts, read, partial(read_selected, room))


def read_selected(
    room: SortRoom,
    store_of: Callable[[], Store],
    counts: PastCounts,
    read: list[Any],
    revision: int,
    told: int = 0,
) -> Generator[None, None, bytes | None]:
    """Returns the result; None if the revision was compacted meanwhile. `told` as for read_as_of()."""
    limit, flags = read[3], read[5]
    selection = Selection(*read[6:])
    page, current = Page(limit, flags), told or store_of().revision
    if selection.sort_target <= SORT_KEY:
        total = yield from _choose(store_of, counts, read, revision, page)
        if total is None:
            return None
        return page.encode_selected(current, page.count if flags & UNCOUNTED else total)
    sorter = Sorter(selection, limit, room)
    try:
        total = yield from _choose(store_of, counts, read, revision, sorter)
        if total is None or sorter.refusal is not None:
            return sorter.refusal
        for piece in sorter.pieces():
            page.take(piece)
            if page.is_cut:
                break
            if len(piece) == MERGED_RECORDS:
                yield None
        return page.encode_selected(current, page.count if flags & UNCOUNTED else total)
    finally:
        sorter.release()


def _choose(
    store_of: Callable[[], Store], counts: PastCounts, read: list[Any], revision: int, into: Page | Sorter
) -> Generator[None, None, int | None]:
    """Looks at the range as of the revision; returns how many keys it has, whichever are chosen.

    None if the revision was compacted meanwhile.
    """
    key, range_end, selection = read[1], read[2], Selection(*read[6:])
    total = 0 if read[5] & UNCOUNTED else counts.get(key, range_end, revision)
    is_backwards = selection.sort_target == SORT_KEY and selection.sort_order == SORT_DESCENDING
    counted, start, end = 0, key, range_end
    is_first = True
    left: bytes | None = key
    while left is not None:
        store = store_of()  # it may be another one: a snapshot was restored
        if revision < store.oldest_revision:
            return None
        if total is None and is_first:
            total = store.quick_count(key, range_end, revision)
        is_first = False
        if is_backwards:
            records, left = store.slice_before(key, end, revision)
            end = left or end
        else:
            records, left = store.slice_as_of(start, range_end, revision)
            start = left or start
        counted += len(records)
        into.take(selection.matching(records))
        if isinstance(into, Sorter):
            if into.refusal is not None:
                return 0
            yield from into.shrink()
        elif into.is_cut and total is not None:
            return total
        if left is not None:
            yield None
    if total is None:
        total = counted
        counts.keep(key, range_end, revision, total)
    return total
