"""Who is interested in a key: streams of ranges, and prefixes, found without a look at each.

May know: keys, ranges and streams; nothing of what is said to them. What one key costs is bounded by its
own length and by the few streams that have to be asked, whatever others subscribe to.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from typing import Final, Generic, TypeVar

from kvstore import protocol
from kvstore.paths import AFTER
from kvstore.protocol import Event
from kvstore.versions import ALL_FROM_KEY
from kvstore.watch_streams import Stream

MAX_SCANNED_STREAMS: Final = 64  # of ranges that are neither one key nor a prefix nor a tree

Item = TypeVar("Item")


class PrefixTable(Generic[Item]):
    """What is noted for prefixes of keys. Owned by whoever notes it."""

    def __init__(self) -> None:
        self._by_length: dict[int, dict[bytes, Item]] = {}  # no empty dict
        self._lengths: list[int] = []  # just those, ascending: prefixes longer than a key cost it nothing
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, prefix: bytes) -> bool:
        return prefix in self._by_length.get(len(prefix), ())

    def breadth(self) -> int:
        """No key has more than so many prefixes here."""
        return len(self._lengths)

    def add(self, prefix: bytes, item: Item) -> None:
        """One that is not there yet."""
        length = len(prefix)
        same_length = self._by_length.get(length)
        if same_length is None:
            same_length = self._by_length[length] = {}
            insort(self._lengths, length)
        same_length[prefix] = item
        self._count += 1

    def discard(self, prefix: bytes) -> None:
        if prefix not in self:
            return
        length = len(prefix)
        same_length = self._by_length[length]
        del same_length[prefix]
        self._count -= 1
        if not same_length:
            del self._by_length[length]
            del self._lengths[bisect_left(self._lengths, length)]

    def of(self, key: bytes) -> Iterator[Item]:
        """What is noted for the prefixes of this key, the shortest first."""
        for length in self._lengths:
            if length > len(key):
                return
            item = self._by_length[length].get(key[:length])
            if item is not None:
                yield item


class Interests:
    """The streams, found by the keys that concern them: by key, by prefix, or by asking each."""

    def __init__(self) -> None:
        self._all: dict[bytes, Stream] = {}  # by topic; each is in one of the following, too
        self._exact: dict[bytes, Stream] = {}
        self._by_prefix: PrefixTable[Stream] = PrefixTable()
        self._by_root: PrefixTable[Stream] = PrefixTable()  # of trees; not all that begins so is in one
        self._scanned: dict[bytes, Stream] = {}  # by topic

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, stream: Stream) -> bool:
        """False if there are too many of the kind that has to be asked one by one."""
        prefix = prefix_of(stream.key, stream.range_end)
        if not stream.range_end:
            self._exact[stream.key] = stream
        elif prefix is not None:
            self._by_prefix.add(prefix, stream)
        elif is_tree(stream.key, stream.range_end):
            self._by_root.add(stream.key, stream)
        elif len(self._scanned) < MAX_SCANNED_STREAMS:
            self._scanned[stream.topic] = stream
        else:
            return False
        self._all[stream.topic] = stream
        return True

    def remove(self, stream: Stream) -> None:
        prefix = prefix_of(stream.key, stream.range_end)
        if not stream.range_end:
            del self._exact[stream.key]
        elif prefix is not None:
            self._by_prefix.discard(prefix)
        elif is_tree(stream.key, stream.range_end):
            self._by_root.discard(stream.key)
        else:
            del self._scanned[stream.topic]
        del self._all[stream.topic]

    def breadth(self) -> int:
        """No key concerns more streams than this, or has to ask more."""
        return bool(self._exact) + self._by_prefix.breadth() + self._by_root.breadth() + len(self._scanned)

    def of(self, key: bytes) -> list[Stream]:
        """The streams that this key concerns."""
        found = list(self._by_prefix.of(key))
        exact = self._exact.get(key)
        if exact is not None:
            found.append(exact)
        if self._by_root:
            found.extend(stream for stream in self._by_root.of(key) if stream.concerns(key))
        if self._scanned:
            found.extend(stream for stream in self._scanned.values() if stream.concerns(key))
        return found

    def spread(self, events: Sequence[Event]) -> Iterator[tuple[Sequence[Event], list[Stream]]]:
        """Of one revision's events, in order of keys: each lot with the streams that it concerns, just once.

        A delete of a hundred thousand keys is not looked at key by key: what a stream has of it is one slice,
        and streams with the same slice have one lot.
        """
        if len(events) < len(self._all):
            few: dict[Stream, list[Event]] = {}
            for event in events:
                for stream in self.of(event[1]):
                    few.setdefault(stream, []).append(event)
            yield from ((lot, [stream]) for stream, lot in few.items())
            return
        keys = [event[1] for event in events]
        slices: dict[tuple[int, int], list[Stream]] = {}
        for stream in self._all.values():
            low, high = _bounds_in(keys, stream)
            if low < high:
                slices.setdefault((low, high), []).append(stream)
        yield from ((events[low:high], streams) for (low, high), streams in slices.items())


def _bounds_in(keys: list[bytes], stream: Stream) -> tuple[int, int]:
    low = bisect_left(keys, stream.key)
    if not stream.range_end:
        return low, bisect_right(keys, stream.key, lo=low)
    if stream.range_end == ALL_FROM_KEY:
        return low, len(keys)
    return low, bisect_left(keys, stream.range_end, lo=low)


def prefix_of(key: bytes, range_end: bytes) -> bytes | None:
    """The prefix which all keys of the range have in common, and no others have; None if there is none."""
    if key == range_end == ALL_FROM_KEY:
        return b""
    return key if range_end and protocol.prefix_range(key) == (key, range_end) else None


def is_tree(key: bytes, range_end: bytes) -> bool:
    """A path and all that is below it, and what begins with the path and a byte before the separator."""
    return range_end == key + AFTER
