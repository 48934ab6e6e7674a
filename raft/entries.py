"""Log entries, runs of them, and the hard state: the values that the core, the wire and the disk share.

This file knows one byte layout and nothing about who sends or stores it. An entry is a plain tuple, because
millions of them are alive at once and the garbage collector need not look at tuples of atoms. A run of
entries is encoded once, column by column, and the same bytes go to the peers and into the write-ahead log.
Bytes from outside are checked completely before an entry is made of them.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

NodeId = str
Index = int
Term = int
Entry = tuple[Term, int, bytes]  # (term, kind, body)

MAX_CONFIGURATION_BYTES = 1 << 20  # of an encoded membership, in an entry or with a snapshot
LIMIT = 1 << 63  # Terms and indexes stay below this; a peer that claims more is lying or broken.

_HEADER = struct.Struct("<QII")  # first index, count, total length of the bodies
_COLUMN_BYTES = 8 + 1 + 4  # per entry: term, kind, length of the body
_SWAP = sys.byteorder == "big"  # The layout is little endian on every host.


class EntryKind(IntEnum):
    """What an entry is for; only a command has a body that the state machine gets."""

    NOOP = 0
    COMMAND = 1
    CONFIGURATION = 2


_LAST_KIND = max(EntryKind)
assert _LAST_KIND is EntryKind.CONFIGURATION  # EntryBatch.holds_configurations asks for no other


class HardState(NamedTuple):
    """What a node must not forget. Term and vote change together, so they are written together."""

    term: Term = 0
    voted_for: NodeId | None = None  # the vote given in this very term
    commit_index: Index = 0  # a hint that speeds a restart: it may lag, it never leads


class SnapshotMeta(NamedTuple):
    """What is known of a snapshot beside its content."""

    index: Index  # type: ignore[assignment]  # of the last entry that it stands for; hides tuple.index
    term: Term  # of that entry
    configuration: bytes  # in force at that entry, as membership encodes it; storage does not look at it
    size_bytes: int  # of the content
    checksum: int  # CRC-32 of the content


class CorruptEntries(Exception):
    """Bytes that are not an encoded run of entries."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class EntryBatch:
    """A run of consecutive entries. Nobody changes one after it is made, so anybody may hold it.

    The list is the batch's own: whoever passes it in gives it away.
    """

    __slots__ = ("_encoded", "_largest_kind", "entries", "first_index")

    def __init__(
        self,
        first_index: Index,
        entries: list[Entry],
        encoded: bytes | None = None,
        largest_kind: int | None = None,
    ) -> None:
        assert first_index >= 1, f"log indexes begin at 1, not {first_index}"
        self.first_index = first_index
        self.entries = entries
        self._encoded = encoded  # None until somebody asks for the bytes
        self._largest_kind = largest_kind  # of the entries; None until somebody asks

    @property
    def last_index(self) -> Index:
        """Index of the last entry; first_index - 1 for an empty batch."""
        return self.first_index + len(self.entries) - 1

    @property
    def last_term(self) -> Term:
        """Term of the last entry; the batch must not be empty."""
        return self.entries[-1][0]

    @property
    def size_bytes(self) -> int:
        """Length of the encoded batch, without encoding it."""
        if self._encoded is not None:
            return len(self._encoded)
        entries = self.entries
        return _HEADER.size + _COLUMN_BYTES * len(entries) + sum([len(body) for _, _, body in entries])

    @property
    def holds_configurations(self) -> bool:
        """Is any entry a configuration? Known of a decoded batch without a look at its entries."""
        if self._largest_kind is None:
            self._largest_kind = max([kind for _, kind, _ in self.entries], default=0)
        return self._largest_kind == _LAST_KIND

    def from_index(self, index: Index) -> EntryBatch:
        """The part of this batch from `index` on; the batch itself if that is all of it."""
        skip = index - self.first_index
        assert 0 <= skip <= len(self.entries), f"{index} is outside {self.first_index}..{self.last_index + 1}"
        return EntryBatch(index, self.entries[skip:]) if skip else self

    def encode(self) -> bytes:
        """The bytes for wire and disk. The first call makes them, later calls return the same object."""
        if self._encoded is None:
            self._encoded = _encode(self.first_index, self.entries)
        return self._encoded

    @classmethod
    def decode(cls, blob: bytes | memoryview) -> EntryBatch:
        """The batch that `blob` holds. Raises CorruptEntries; allocates no more than its length warrants."""
        data = bytes(blob)  # no copy if it is bytes already
        first_index, entries, largest_kind = _decode(data)
        return cls(first_index, entries, data, largest_kind)

    def __len__(self) -> int:
        return len(self.entries)

    def __bool__(self) -> bool:
        return True  # An empty batch is a batch: only None is none.

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EntryBatch):
            return NotImplemented
        return self.first_index == other.first_index and self.entries == other.entries

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"EntryBatch({self.first_index}..{self.last_index})"


def decode_entries(blob: bytes | memoryview) -> tuple[Index, list[Entry]]:
    """First index and entries of an encoded batch, without keeping its bytes."""
    return _decode(bytes(blob))[:2]


def _decode(data: bytes) -> tuple[Index, list[Entry], int]:
    """First index, entries, and the largest kind among them."""
    if len(data) < _HEADER.size:
        raise CorruptEntries(f"{len(data)} bytes are too few for a header")
    first_index, count, bodies_bytes = _HEADER.unpack_from(data)
    terms_at = _HEADER.size
    kinds_at = terms_at + 8 * count
    lengths_at = kinds_at + count
    bodies_at = lengths_at + 4 * count
    # Every size is settled against the length of the blob before anything is allocated by it.
    if bodies_at + bodies_bytes != len(data):
        raise CorruptEntries(f"{count} entries, {bodies_bytes} bytes of bodies do not make {len(data)} bytes")
    if not 1 <= first_index < LIMIT - count:
        raise CorruptEntries(f"first index {first_index} is out of range")
    if count == 0:
        return first_index, [], 0
    terms = _decode_terms(data[terms_at:kinds_at], count)
    kinds = data[kinds_at:lengths_at]
    bounds = list(accumulate(_integers("I", data[lengths_at:bodies_at]), initial=bodies_at))
    if bounds[-1] != len(data):
        raise CorruptEntries(f"lengths end at {bounds[-1]} of {len(data)} bytes")
    largest_kind = max(kinds)
    if largest_kind > _LAST_KIND:
        raise CorruptEntries(f"unknown kind of entry {largest_kind}")
    bodies = [data[start:end] for start, end in pairwise(bounds)]
    return first_index, list(zip(terms, kinds, bodies)), largest_kind


def _encode(first_index: Index, entries: list[Entry]) -> bytes:
    if not entries:
        return _HEADER.pack(first_index, 0, 0)
    terms, kinds, bodies = zip(*entries)
    lengths = list(map(len, bodies))
    header = _HEADER.pack(first_index, len(entries), sum(lengths))
    columns = (header, _encode_terms(terms), bytes(kinds), _little_endian(array("I", lengths)))
    return b"".join(columns + bodies)  # one copy of each body, no more


def _encode_terms(terms: tuple[Term, ...]) -> bytes:
    first, count = terms[0], len(terms)
    if terms.count(first) == count:  # nearly always: a leader appends in its own term only
        return first.to_bytes(8, "little") * count
    # Raft §5.4.1: terms never decrease along a log. Unordered ones would be refused when read back.
    assert _monotone(terms), f"terms {first}..{terms[-1]} are out of order"
    return _little_endian(array("Q", terms))


def _decode_terms(column: bytes, count: int) -> list[Term]:
    first = int.from_bytes(column[:8], "little")
    # One integer object for all of them, where they are equal: a long log keeps millions.
    terms = [first] * count if column == column[:8] * count else _integers("Q", column)
    if first < 1 or terms[-1] >= LIMIT or not _monotone(terms):
        raise CorruptEntries(f"terms {first}..{terms[-1]} are out of range or out of order")
    return terms


def _monotone(terms: Sequence[int]) -> bool:
    return sorted(terms) == list(terms)  # linear on sorted input, and at C speed


def _integers(typecode: str, data: bytes) -> list[int]:
    values: array[Any] = array(typecode, data)
    if _SWAP:
        values.byteswap()
    return values.tolist()


def _little_endian(values: array[Any]) -> bytes:
    if _SWAP:
        values.byteswap()
    return values.tobytes()


assert array("Q").itemsize == 8 and array("I").itemsize == 4, "this platform has unusual integer sizes"
