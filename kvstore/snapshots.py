"""What a snapshot of the store is made of: the revisions and the time, leases by id, versions in key order,
sessions in order of use.

May know: the shapes that the store and the sessions give and take; nothing of files, time or Raft. A stream
of msgpack items, which a reader takes as its bytes come, so neither side ever holds more than a batch of it
encoded. The same state gives the same bytes on every node: what has an order of its own is written in that
order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import msgpack

from kvstore.leases import LeaseState
from kvstore.protocol import KeyValue

FORMAT_VERSION: Final = 3
BATCH_BYTES: Final = 64 << 10  # of keys and values in one piece, or one record if that is larger
MAX_IDLE_SLICES: Final = 16  # looked through without a piece being made of them; a millisecond or two
_RECORD_OVERHEAD_BYTES: Final = 32
_MAX_BUFFER_BYTES: Final = 64 << 20  # of one item, when read back
BATCH_LEASES: Final = 1024  # in one piece
_HEADERS: Final = (((1,), 5), ((2,), 8), ((FORMAT_VERSION,), 10))  # those that can be read, and their lengths

SessionState = tuple[int, bytes, bytes, int, Sequence[tuple[int, bytes]]]
"""Session id, nonce, result of the opening, floor, and the remembered results by sequence."""

_pack: Callable[[Any], bytes] = msgpack.Packer().pack


class CorruptState(Exception):
    """A snapshot that is intact and yet is none of this state machine."""


class UnknownState(CorruptState):
    """It is one, of a later version: nothing is wrong with it, and this program cannot read it."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"it has content of version {version}, this program reads versions up to {FORMAT_VERSION}"
        )
        self.version = version


class StateHeader(NamedTuple):
    """The first item of a snapshot, behind the version of the format."""

    applied_index: int
    revision: int
    compact_revision: int
    known_from: int  # as the store has it
    fingerprint: int | None  # of the whole state; None in a snapshot of version 1
    key_count: int  # of the records that are current
    session_count: int
    time_ms: int = 0  # of the leases; 0 before version 3
    lease_count: int = 0


def encode_state(
    header: StateHeader,
    leases: Iterable[LeaseState],
    slices: Iterable[Sequence[KeyValue]],
    sessions: Iterable[SessionState],
) -> Iterator[bytes]:
    """The pieces of a snapshot, made as they are asked for; an empty one after much work without any.

    `slices` are the versions in order, however many at a time: where they are cut does not show.
    """
    yield _pack((FORMAT_VERSION, *header))
    remaining = iter(leases)
    while some := list(islice(remaining, BATCH_LEASES)):
        yield _pack(some)
    batch: list[KeyValue] = []
    size_bytes = idle_slices = 0
    for versions in slices:
        idle_slices += 1
        for version in versions:
            batch.append(version)
            size_bytes += len(version[0]) + len(version[1]) + _RECORD_OVERHEAD_BYTES
            if size_bytes >= BATCH_BYTES:
                yield _pack(batch)
                batch, size_bytes, idle_slices = [], 0, 0
        if idle_slices >= MAX_IDLE_SLICES:
            yield b""
            idle_slices = 0
    if batch:
        yield _pack(batch)
    yield _pack(())  # the end of the versions
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
    state = _checked_header(header)
    return Contents(state.applied_index, state.revision, state.key_count)


class StateReader:
    """Takes a snapshot apart as it comes, and hands over what it finds. Owned by one restorer.

    Arrays come as tuples, which is what records are, so a batch is taken over without a look at each record.
    """

    def __init__(
        self,
        begin: Callable[[StateHeader], None],
        take_leases: Callable[[Sequence[LeaseState]], None],
        take_versions: Callable[[Sequence[KeyValue]], None],
        take_session: Callable[[SessionState], None],
    ) -> None:
        """Leases come first, in batches; then versions, in batches and in key order; then the sessions."""
        self._unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=_MAX_BUFFER_BYTES)
        self._begin = begin
        self._take_leases = take_leases
        self._take_versions = take_versions
        self._take_session = take_session
        self._header: StateHeader | None = None
        self._leases_left = 0
        self._more_versions = False
        self._counts_down = False  # version 1 says beforehand how many records there are
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

    def finish(self) -> StateHeader:
        """Nothing follows. Raises CorruptState unless everything has come."""
        if self._header is None:
            raise CorruptState("a snapshot has nothing in it")
        if self._more_versions or self._sessions_left:
            versions = "versions" if self._more_versions else "no versions"
            raise CorruptState(
                f"a snapshot ends too early: {self._leases_left} leases, {versions} and "
                f"{self._sessions_left} sessions are missing"
            )
        return self._header

    def _take(self, item: Any) -> None:
        if self._header is None:
            self._take_header(item)
        elif self._leases_left:
            if not 0 < len(item) <= self._leases_left:
                raise CorruptState(f"{len(item)} leases where {self._leases_left} are missing")
            self._leases_left -= len(item)
            self._take_leases(item)
        elif self._more_versions:
            self._take_batch(item)
        elif self._sessions_left:
            self._take_session(item)
            self._sessions_left -= 1
        else:
            raise CorruptState("something follows the last session")

    def _take_header(self, item: Any) -> None:
        header = _checked_header(item)
        self._more_versions = True
        if header.fingerprint is None:
            self._counts_down, self._records_left = True, header.key_count
            self._more_versions = header.key_count > 0
        self._leases_left = header.lease_count
        self._sessions_left = header.session_count
        self._header = header
        self._begin(header)

    def _take_batch(self, item: Any) -> None:
        if self._counts_down:
            if not item or len(item) > self._records_left:
                raise CorruptState(f"{len(item)} records where {self._records_left} are missing")
            self._records_left -= len(item)
            self._more_versions = self._records_left > 0
        elif not item:
            self._more_versions = False
            return
        self._take_versions(item)


def _checked_header(item: Any) -> StateHeader:
    if type(item) is tuple and item and type(item[0]) is int and item[0] > FORMAT_VERSION:
        raise UnknownState(item[0])
    if type(item) is not tuple or (item[:1], len(item)) not in _HEADERS:
        raise CorruptState(f"a snapshot begins with {item!r}, expected format version {FORMAT_VERSION}")
    if not all(type(field) is int and field >= 0 for field in item):
        raise CorruptState(f"a snapshot begins with {item!r}, expected whole numbers")
    if item[0] != 1:
        return StateHeader(*item[1:])
    # Of what was before its revision, a snapshot of version 1 knew nothing.
    _, applied_index, revision, key_count, session_count = item
    return StateHeader(applied_index, revision, 0, revision, None, key_count, session_count)
