"""What a snapshot of the store is made of: revision, records in key order, sessions in order of use.

May know: the shapes that the store and the sessions give and take; nothing of files, time or Raft. A stream
of msgpack items, which a reader takes as its bytes come, so neither side ever holds more than a batch of it
encoded. The same state gives the same bytes on every node: what has an order of its own is written in that
order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgpack

from kvstore.protocol import KeyValue

FORMAT_VERSION: Final = 1
BATCH_BYTES: Final = 64 << 10  # of keys and values in one piece, or one record if that is larger
_RECORD_OVERHEAD_BYTES: Final = 32
_MAX_BUFFER_BYTES: Final = 64 << 20  # of one item, when read back

SessionState = tuple[int, bytes, bytes, int, Sequence[tuple[int, bytes]]]
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


class Contents(NamedTuple):
    """What the first item of a snapshot tells of the rest."""

    applied_index: int
    revision: int
    keys: int


def contents_of(data: bytes) -> Contents:
    """`data` is the beginning of a snapshot, as much as there is or a kilobyte. Raises CorruptState."""
    unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=_MAX_BUFFER_BYTES)
    try:
        unpacker.feed(data)
        header = unpacker.unpack()
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise CorruptState(f"a snapshot begins with an item that is none: {error!r}") from error
    _, applied_index, revision, keys, _ = _checked_header(header)
    return Contents(applied_index, revision, keys)


class StateReader:
    """Takes a snapshot apart as it comes, and hands over what it finds. Owned by one restorer.

    Arrays come as tuples, which is what records are, so a batch is taken over without a look at each record.
    """

    def __init__(
        self,
        take_records: Callable[[Sequence[KeyValue]], None],
        take_session: Callable[[SessionState], None],
    ) -> None:
        """Records are handed over in batches, in key order; after them the sessions, as frozen() had them."""
        self.applied_index = 0  # this and the revision are known from the first item on
        self.revision = 0
        self._unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=_MAX_BUFFER_BYTES)
        self._take_records = take_records
        self._take_session = take_session
        self._has_begun = False
        self._records_left = 0
        self._sessions_left = 0

    def feed(self, data: bytes) -> None:
        """The next bytes, cut anywhere. Raises CorruptState."""
        try:
            self._unpacker.feed(data)
            for item in self._unpacker:
                self._take(item)
        except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
            raise CorruptState(f"a snapshot has an item that is none: {error!r}") from error

    def finish(self) -> None:
        """Nothing follows. Raises CorruptState unless everything has come."""
        if not self._has_begun:
            raise CorruptState("a snapshot has nothing in it")
        if self._records_left or self._sessions_left:
            left = f"{self._records_left} records and {self._sessions_left} sessions"
            raise CorruptState(f"a snapshot ends too early: {left} are missing")

    def _take(self, item: Any) -> None:
        if not self._has_begun:
            self._begin(item)
        elif self._records_left:
            if not item or len(item) > self._records_left:
                raise CorruptState(f"{len(item)} records where {self._records_left} are missing")
            self._take_records(item)
            self._records_left -= len(item)
        elif self._sessions_left:
            self._take_session(item)
            self._sessions_left -= 1
        else:
            raise CorruptState("something follows the last session")

    def _begin(self, header: Any) -> None:
        _, applied_index, revision, records, sessions = _checked_header(header)
        self.applied_index, self.revision = applied_index, revision
        self._records_left, self._sessions_left = records, sessions
        self._has_begun = True


def _checked_header(header: Any) -> tuple[int, int, int, int, int]:
    if type(header) is not tuple or len(header) != 5 or header[0] != FORMAT_VERSION:
        raise CorruptState(f"a snapshot begins with {header!r}, expected format version {FORMAT_VERSION}")
    if not all(type(field) is int and field >= 0 for field in header):
        raise CorruptState(f"a snapshot begins with {header!r}, expected whole numbers")
    return header
