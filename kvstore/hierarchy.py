"""The children of a path, found by leaps: whatever is below a child is passed over unread.

May know: paths, the store, and how a result is encoded. Each step looks at a bounded number of keys, also
where all that there was is deleted; the answer is of one revision all the same.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

import msgpack

from kvstore.paths import AFTER, SEPARATOR, below, normal_path
from kvstore.protocol import OK
from kvstore.range_steps import PastCounts, range_in_steps
from kvstore.store import Store

MAX_CHILDREN: Final = 32_768  # of one answer
MAX_CHILDREN_BYTES: Final = 4 << 20  # of their names
FEW_KEYS: Final = 8  # looked at after a leap; twice as many each time without one
MANY_KEYS: Final = 512
STEP_KEYS: Final = 1024  # looked at in one step, about
LEAP_KEYS: Final = 16  # a leap counts as so many

_pack: Final[Callable[[Any], bytes]] = msgpack.Packer().pack

Child = tuple[bytes, bool, bool]
"""Its name, whether it has a value, and whether there are keys below it."""


def children_in_steps(
    store_of: Callable[[], Store], counts: PastCounts, read: list[Any]
) -> Iterator[bytes | None]:
    """None after each step but the last, and then the result of `read`, a CHILDREN that was checked."""
    return range_in_steps(store_of, counts, read, _read_children)


class _Compacted(Exception):
    """The revision is not kept any more."""


class _Cursor:
    """Keys of a range as of a revision, of which some are known at a time. Owned by one read."""

    def __init__(self, store_of: Callable[[], Store], end: bytes, revision: int) -> None:
        self._store_of = store_of
        self._end = end
        self._revision = revision
        self._keys: list[bytes] = []  # all there are in [_start, _following)
        self._start = end
        self._following: bytes | None = b""  # None: the end
        self._size = FEW_KEYS
        self.work = 0  # since the last step, in keys

    def known(self, start: bytes) -> tuple[bool, bytes | None]:
        """Whether the first key from `start` on is known without a further look, and which it is."""
        following = self._following
        if start < self._start or (following is not None and start >= following):
            return False, None
        at = bisect_left(self._keys, start)
        if at < len(self._keys):
            return True, self._keys[at]
        return following is None, None

    def seek(self, start: bytes) -> Generator[None, None, bytes | None]:
        """The first key from `start` on; None if there is none."""
        while True:
            is_known, key = self.known(start)
            if is_known:
                return key
            following = self._following
            if following is not None and self._start <= start <= following:
                start, self._size = following, min(2 * self._size, MANY_KEYS)
            else:
                self._size = FEW_KEYS
            if self.work >= STEP_KEYS:
                self.work = 0
                yield None
            self._look(start)

    def _look(self, start: bytes) -> None:
        store = self._store_of()  # it may be another one: a snapshot was restored
        if self._revision < store.oldest_revision:
            raise _Compacted
        records, self._following = store.slice_as_of(start, self._end, self._revision, self._size)
        self._start, self._keys = start, [record[0] for record in records]
        self.work += self._size + LEAP_KEYS


def _read_children(
    store_of: Callable[[], Store], _: PastCounts, read: list[Any], revision: int
) -> Generator[None, None, bytes | None]:
    """Returns the result; None if the revision was compacted meanwhile."""
    _, path, limit, start_after, _ = read
    current = store_of().revision
    limit = min(limit or MAX_CHILDREN, MAX_CHILDREN)
    found: list[Child] = []
    size_bytes, more = 0, False
    try:
        for child in _children(store_of, normal_path(path), start_after, revision):
            if child is None:
                yield None
                continue
            if len(found) == limit or size_bytes > MAX_CHILDREN_BYTES:
                more = True
                break
            found.append(child)
            size_bytes += len(child[0])
    except _Compacted:
        return None
    return _pack((OK, current, more, found))


def _children(
    store_of: Callable[[], Store], path: bytes, last: bytes, revision: int
) -> Iterator[Child | None]:
    """The children whose names come after `last`, in order of their names; None after each step.

    Keys are not in that order: "/a/b-c" comes between "/a/b" and "/a/b/d". So where a name goes on with what
    comes before a slash, the names that it begins with are asked for first, and what comes later is passed
    over. A key with an empty name in its path, as "/a//b", is nobody's child.
    """
    prefix, end = below(path)
    cursor, probe = (_Cursor(store_of, end, revision) for _ in range(2))
    start = prefix + last
    while (key := (yield from cursor.seek(start))) is not None:
        name = key[len(prefix) :].partition(SEPARATOR)[0]
        has_value = len(key) == len(prefix) + len(name)
        if name > last:
            for length in range(1, len(name)):
                shorter = name[:length]
                if name[length : length + 1] >= SEPARATOR or shorter <= last:
                    continue
                if (yield from _is_any_below(prefix + shorter, cursor, probe)):
                    yield shorter, False, True
            has_children = not has_value or (yield from _is_any_below(key, cursor, probe))
            yield name, has_value, has_children
            last = name
        start = key + b"\0" if has_value else prefix + name + AFTER


def _is_any_below(path: bytes, cursor: _Cursor, probe: _Cursor) -> Generator[None, None, bool]:
    start, end = below(path)
    is_known, key = cursor.known(start)
    if not is_known:
        probe.work = cursor.work
        key = yield from probe.seek(start)
        cursor.work = probe.work
    return key is not None and key < end
