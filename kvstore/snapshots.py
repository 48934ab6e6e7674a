"""What a snapshot of the store is made of: revision, records in key order, sessions in order of use.

May know: the shapes that the store and the sessions give and take; nothing of files, time or Raft. A stream
of msgpack items, which a reader takes one by one, so neither side ever holds more than a batch of it encoded.
The same state gives the same bytes on every node: what has an order of its own is written in that order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgpack

from kvstore.protocol import KeyValue

FORMAT_VERSION: Final = 1
BATCH_BYTES: Final = 64 << 10  # of keys and values in one piece, or one record if that is larger
_RECORD_OVERHEAD_BYTES: Final = 32
_MAX_BUFFER_BYTES: Final = 64 << 20  # of one item, when read back

SessionState = tuple[int, bytes, bytes, int, list[tuple[int, bytes]]]
"""Session id, nonce, result of the opening, floor, and the remembered results by sequence."""

_pack: Callable[[Any], bytes] = msgpack.Packer().pack


class CorruptState(Exception):
    """A snapshot that is intact and yet is none of this state machine."""


def encode_state(
    applied_index: int,
    revision: int,
    records: Iterable[KeyValue],
    record_count: int,
    sessions: Iterable[SessionState],
    session_count: int,
) -> Iterator[bytes]:
    """The pieces of a snapshot, made as they are asked for."""
    yield _pack((FORMAT_VERSION, applied_index, revision, record_count, session_count))
    batch: list[KeyValue] = []
    size_bytes = 0
    for record in records:
        batch.append(record)
        size_bytes += len(record[0]) + len(record[1]) + _RECORD_OVERHEAD_BYTES
        if size_bytes >= BATCH_BYTES:
            yield _pack(batch)
            batch, size_bytes = [], 0
    if batch:
        yield _pack(batch)
    for session in sessions:
        yield _pack(session)


class StateReader:
    """Takes a snapshot apart. Owned by one restore; raises CorruptState."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._items = _items_of(chunks)
        header = next(self._items, None)
        if type(header) is not list or len(header) != 5 or header[0] != FORMAT_VERSION:
            raise CorruptState(f"a snapshot begins with {header!r}, expected format version {FORMAT_VERSION}")
        self.applied_index: int = header[1]
        self.revision: int = header[2]
        self._record_count: int = header[3]
        self._session_count: int = header[4]

    def records(self) -> Iterator[KeyValue]:
        """In key order; to be read before the sessions, to the end."""
        left = self._record_count
        while left > 0:
            batch = next(self._items, ())
            if not batch:
                raise CorruptState(f"{left} records are missing")
            left -= len(batch)
            for record in batch:
                yield tuple(record)

    def sessions(self) -> Iterator[SessionState]:
        """The least recently used one first."""
        for number in range(self._session_count):
            session = next(self._items, None)
            if session is None:
                raise CorruptState(f"{self._session_count - number} sessions are missing")
            session_id, nonce, opened, floor, results = session
            yield session_id, nonce, opened, floor, [(sequence, result) for sequence, result in results]
        if next(self._items, None) is not None:
            raise CorruptState("something follows the last session")


def _items_of(chunks: Iterable[bytes]) -> Iterator[Any]:
    unpacker = msgpack.Unpacker(max_buffer_size=_MAX_BUFFER_BYTES)
    for chunk in chunks:
        unpacker.feed(chunk)
        yield from unpacker
