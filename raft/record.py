"""One record of the write-ahead log as bytes. Knows the layout of docs/disk.md, nothing of files or of Raft.

A record vouches for itself (two checksums and its own place) and for what was before it (the checksum of its
predecessor, and up to where the segment was synced when it was written). The second tells damage from
an unfinished write: a record written after its predecessors were synced proves that they once were whole.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple
from zlib import crc32

SECTOR_BYTES = 512  # The disk writes a sector wholly or not at all.
ALIGNMENT = 32  # A header is as long as its alignment, so it never straddles two sectors.
HEADER_BYTES = 32
MARK = 0xA5  # Last byte of every header and of every record: zeros there show a write that broke off.
STUFFED = 1  # Flag: the payload has a MARK after every 255 bytes.

_HEADER = struct.Struct("<IIIIIIIBBBB")
_HEADER_REST = struct.Struct("<IIIIIIBBBB")  # all but the checksum of the header itself
_CRC = struct.Struct("<I")
_PLACE = struct.Struct("<16xI4xI3xB")  # own offset, segment sequence and mark of a header
_PADDING = [bytes([MARK]) * length for length in range(ALIGNMENT + 1)]
_STUFFING_BYTES = 255
# With no such run inside, a sector of payload has two bytes at least that are not zero. So no single flipped
# bit can make a sector look like one that was never written.
_ZERO_RUN = bytes(256)


class RecordType(IntEnum):
    ENTRIES = 1
    HARD_STATE = 2
    SNAPSHOT_MARK = 3
    MEMBERSHIP = 4  # reserved
    SEAL = 5  # the last one of a segment that another one follows


class Header(NamedTuple):
    """The first 32 bytes of a record, in their order."""

    header_crc: int  # of the 28 bytes that follow, seeded by the checksum of the segment's header
    payload_bytes: int  # as stored
    payload_crc: int  # of the stored payload and its padding
    previous_crc: int  # header_crc of the record before; of the segment's header, for the first one
    offset: int  # where in the segment this record begins
    durable: int  # everything before this offset was synced when this record was written; at most `offset`
    sequence: int  # of the segment
    record_type: int
    flags: int
    reserved: int
    mark: int

    @property
    def end(self) -> int:
        return self.offset + record_bytes(self.payload_bytes)


def record_bytes(payload_bytes: int) -> int:
    """Room that a record takes with a stored payload of this length: there is always some padding."""
    return (payload_bytes + HEADER_BYTES + ALIGNMENT) & -ALIGNMENT


def stored_payload(payload: bytes) -> tuple[bytes, int]:
    """The payload as it is stored, and the flags that say how."""
    if _ZERO_RUN not in payload:
        return payload, 0
    pieces = [payload[at : at + _STUFFING_BYTES] for at in range(0, len(payload), _STUFFING_BYTES)]
    return _PADDING[1].join(pieces), STUFFED


def encode_record(
    record_type: int,
    stored: tuple[bytes, int],
    *,
    seed: int,
    sequence: int,
    offset: int,
    durable: int,
    previous_crc: int,
) -> tuple[tuple[bytes, bytes, bytes], int]:
    """The parts of a record, and its header_crc, to which the next one links."""
    payload, flags = stored
    padding = _PADDING[ALIGNMENT - len(payload) % ALIGNMENT]
    rest = _HEADER_REST.pack(
        len(payload),
        crc32(padding, crc32(payload)),
        previous_crc,
        offset,
        durable,
        sequence,
        record_type,
        flags,
        0,
        MARK,
    )
    crc = crc32(rest, seed)
    return (_CRC.pack(crc) + rest, payload, padding), crc


def read_header(data: bytes, at: int, seed: int) -> Header | None:
    """The header at this place, or None if there is none that is intact."""
    if at + HEADER_BYTES > len(data) or data[at + HEADER_BYTES - 1] != MARK:
        return None
    header = Header._make(_HEADER.unpack_from(data, at))
    intact = crc32(data[at + 4 : at + HEADER_BYTES], seed) == header.header_crc
    return header if intact else None


def payload_is_intact(data: bytes, at: int, header: Header) -> bool:
    end = at + record_bytes(header.payload_bytes)
    return end <= len(data) and crc32(memoryview(data)[at + HEADER_BYTES : end]) == header.payload_crc


def read_payload(data: bytes, at: int, header: Header) -> bytes:
    """The payload of an intact record, as it was before it was stored."""
    start = at + HEADER_BYTES
    stored = data[start : start + header.payload_bytes]
    if not header.flags & STUFFED:
        return stored
    step = _STUFFING_BYTES + 1
    return b"".join([stored[cut : cut + _STUFFING_BYTES] for cut in range(0, len(stored), step)])


def possible_places(data: bytes, start: int, sequence: int) -> list[int]:
    """Offsets from `start` on where bytes stand that claim to be a record of just that place."""
    first = start + -start % ALIGNMENT
    whole = len(data) - len(data) % ALIGNMENT
    if first >= whole:
        return []
    claims = _PLACE.iter_unpack(memoryview(data)[first:whole])
    places = range(first, whole, ALIGNMENT)
    return [at for at, claim in zip(places, claims) if claim == (at, sequence, MARK)]


def displaced_headers(data: bytes, start: int, sequence: int, seed: int) -> list[tuple[int, int]]:
    """Where from `start` on intact headers stand of records whose own place is another one, also from
    `start` on; and that place. Bytes that were written, and went elsewhere."""
    first = start + -start % ALIGNMENT
    whole = len(data) - len(data) % ALIGNMENT
    if first >= whole:
        return []
    found = []
    claims = _PLACE.iter_unpack(memoryview(data)[first:whole])
    for at, (offset, claimed, mark) in zip(range(first, whole, ALIGNMENT), claims):
        if mark != MARK or claimed != sequence or offset == at or offset < start:
            continue
        if read_header(data, at, seed) is not None:
            found.append((at, offset))
    return found
