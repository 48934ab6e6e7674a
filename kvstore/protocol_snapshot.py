"""Reading a snapshot over the client plane, as bytes: the bodies of SNAPSHOT requests and their results.

May know: msgpack by way of `protocol`; nothing of Raft, sockets or files. Encoders trust their caller,
decoders trust nobody. A reader chooses a nonce, which is the name of what it reads for as long as it reads:
asked again, after a lost answer, OPEN and CLOSE find that it is so already.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgpack

from kvstore import protocol
from kvstore.protocol import NONCE_BYTES, UNPACK_ERRORS, MalformedFrame, is_integer, unpack_guarded

SLICE_BYTES: Final = 256 << 10  # of every answer to READ but the last
_MAX_CONFIGURATION_BYTES: Final = 1 << 20
_MAX_CHECKSUM: Final = (1 << 32) - 1
_MAX_NAME_CHARACTERS: Final = 1024


class Open(NamedTuple):
    """A snapshot that is no older than this moment is to be taken, or found, and kept while it is read."""

    nonce: bytes


class Read(NamedTuple):
    """The slice of it that begins at `offset`."""

    nonce: bytes
    offset: int


class Close(NamedTuple):
    """It is read, or given up."""

    nonce: bytes


SnapshotRequest = Open | Read | Close
_OPERATIONS: Final[dict[int, type[SnapshotRequest]]] = {1: Open, 2: Read, 3: Close}
_NUMBERS: Final = {kind: number for number, kind in _OPERATIONS.items()}


def encode_snapshot_request(request: SnapshotRequest) -> bytes:
    """The body of a SNAPSHOT request."""
    packed: bytes = msgpack.packb((_NUMBERS[type(request)], *request))
    return packed


def decode_snapshot_request(body: bytes) -> SnapshotRequest:
    """Raises MalformedFrame."""
    try:
        items = unpack_guarded(body, max_arrays=1)
    except UNPACK_ERRORS:
        raise MalformedFrame("the body is not one msgpack array") from None
    if type(items) is not list or len(items) < 2 or type(items[0]) is not int:
        raise MalformedFrame("the body is not an array that begins with an operation")
    kind = _OPERATIONS.get(items[0])
    if kind is None:
        raise MalformedFrame("unknown operation")
    if len(items) != 1 + len(kind._fields):
        raise MalformedFrame(f"operation {items[0]} has {len(kind._fields)} arguments")
    if type(items[1]) is not bytes or len(items[1]) != NONCE_BYTES:
        raise MalformedFrame(f"a nonce is {NONCE_BYTES} bytes")
    if not all(map(is_integer, items[2:])):
        raise MalformedFrame("an offset is an integer in range")
    return kind(*items[1:])


# ---------------------------------------------------------------- results


class Opened(NamedTuple):
    """What is read: it does not change any more, and stays as long as it is read."""

    node: str
    cluster_id: str
    log_index: int  # of the last entry of the log that it stands for
    term: int  # its term
    size_bytes: int
    checksum: int  # CRC-32 of all of it
    configuration: bytes  # the membership at that entry


class Pending(NamedTuple):
    """The snapshot is being taken, and so much of it is written: ask again."""

    written_bytes: int


class Slice(NamedTuple):
    offset: int
    checksum: int  # CRC-32 of the data
    data: bytes


def encode_opened(opened: Opened) -> bytes:
    packed: bytes = msgpack.packb((protocol.OK, True, *opened))
    return packed


def encode_pending(written_bytes: int) -> bytes:
    packed: bytes = msgpack.packb((protocol.OK, False, written_bytes))
    return packed


def encode_slice(piece: Slice) -> bytes:
    packed: bytes = msgpack.packb((protocol.OK, *piece))
    return packed


def encode_closed() -> bytes:
    packed: bytes = msgpack.packb((protocol.OK,))
    return packed


def decode_opened(result: list[Any]) -> Opened | Pending:
    """Of a result of OPEN whose code is OK. Raises MalformedFrame."""
    if len(result) == 3 and result[1] is False and is_integer(result[2]):
        return Pending(result[2])
    if len(result) != 9 or result[1] is not True:
        raise MalformedFrame("neither an opened snapshot nor one that is being taken")
    opened = Opened(*result[2:])
    if not (_is_name(opened.node) and _is_name(opened.cluster_id)):
        raise MalformedFrame("an opened snapshot has names of node and cluster")
    if not all(map(is_integer, opened[2:6])) or opened.checksum > _MAX_CHECKSUM:
        raise MalformedFrame("an opened snapshot has index, term, size and checksum")
    if not opened.log_index or not opened.term:
        raise MalformedFrame("an opened snapshot stands for something")
    if type(opened.configuration) is not bytes or len(opened.configuration) > _MAX_CONFIGURATION_BYTES:
        raise MalformedFrame("an opened snapshot has a configuration")
    return opened


def decode_slice(result: list[Any]) -> Slice:
    """Of a result of READ whose code is OK. Raises MalformedFrame."""
    if len(result) != 4 or not is_integer(result[1]) or not is_integer(result[2]):
        raise MalformedFrame("a slice has offset, checksum and data")
    if type(result[3]) is not bytes or len(result[3]) > SLICE_BYTES:
        raise MalformedFrame("a slice has offset, checksum and data")
    return Slice(*result[1:])


def decode_closed(result: list[Any]) -> None:
    """Nothing more is told of it."""


def _is_name(value: object) -> bool:
    return type(value) is str and 0 < len(value) <= _MAX_NAME_CHARACTERS
