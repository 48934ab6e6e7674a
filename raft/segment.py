"""One segment of the write-ahead log: its header block, its name, and the judgement of how it ends.

Knows bytes, not files. The judgement rests on one property that the writer keeps: whatever follows the last
record was zero before it was written over. So an unfinished write leaves zeros where it should have written,
and anything else that is not as it should be is damage.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple
from zlib import crc32

from raft.entries import HardState, Index
from raft.record import (
    HEADER_BYTES,
    SECTOR_BYTES,
    STUFFED,
    Header,
    RecordType,
    displaced_headers,
    encode_record,
    payload_is_intact,
    possible_places,
    read_header,
    read_payload,
    record_bytes,
    stored_payload,
)

SEGMENT_HEADER_BYTES = 512
# Since version 2 a segment is sealed before anything is written behind the head of the next one; in segments
# of version 1 a seal may be missing. Since version 3 the header block tells how much of the file was filled
# with zeros, and synced, before it got its name: it is never shorter.
FORMAT_VERSION = 3
MAX_ID_BYTES = 200  # of a cluster id or node id, in UTF-8
# No more than this is ever written between two syncs, unless a single record is longer.
MAX_UNSYNCED_BYTES = 16 << 20

_MAGIC = b"ASSENT\x1aW"
_FIXED = struct.Struct("<8sIIQIBB")  # magic, version, sequence, first index, previous crc, lengths of the ids
_FILLED = struct.Struct("<I")  # the last field before the checksum; zero before version 3
_CRC = struct.Struct("<I")
_FILLED_AT = SEGMENT_HEADER_BYTES - _CRC.size - _FILLED.size
_HARD_STATE = struct.Struct("<QQ?")
_SEAL = struct.Struct("<II")  # of the next segment: sequence, checksum of its header block
SEAL_BYTES = record_bytes(_SEAL.size)
_SUFFIX = ".wal"


class Identity(NamedTuple):
    """Whose data it is. A node never reads another node's."""

    cluster_id: str
    node_id: str


class SegmentHeader(NamedTuple):
    version: int
    identity: Identity
    sequence: int  # 1 for the first segment of a log, then without a gap
    first_index: Index  # of the entry that is to be written next
    previous_crc: int  # header_crc of the last record of the segment before; 0 in the first
    crc: int  # of the header block; seeds the checksums of all records in the segment
    filled_bytes: int  # the file has never been shorter since it got its name; 0 before version 3


class Ending(Enum):
    CLEAN = "clean"
    TORN = "torn"
    CORRUPT = "corrupt"


class Tail(NamedTuple):
    """What is found where the good records of a segment end."""

    ending: Ending
    reason: str = ""


def segment_name(sequence: int) -> str:
    return f"{sequence:010d}{_SUFFIX}"


def sequence_of(name: str) -> int | None:
    """The sequence in a segment's file name, None for any other file."""
    stem, dot, _ = name.partition(_SUFFIX)
    return int(stem) if dot and stem.isdecimal() and segment_name(int(stem)) == name else None


def encode_segment_header(
    identity: Identity, *, sequence: int, first_index: Index, previous_crc: int, filled_bytes: int
) -> tuple[bytes, int]:
    """The header block of a segment, and its checksum."""
    cluster_id, node_id = identity.cluster_id.encode(), identity.node_id.encode()
    assert max(len(cluster_id), len(node_id)) <= MAX_ID_BYTES, f"an id of {identity} is too long"
    lengths = (len(cluster_id), len(node_id))
    fixed = _FIXED.pack(_MAGIC, FORMAT_VERSION, sequence, first_index, previous_crc, *lengths)
    block = (fixed + cluster_id + node_id).ljust(_FILLED_AT, b"\0") + _FILLED.pack(filled_bytes)
    crc = crc32(block)
    return block + _CRC.pack(crc), crc


def decode_segment_header(data: bytes) -> SegmentHeader | str:
    """The header in the first block of a segment, or the reason why there is none.

    It may be of a version that this program does not know: then nothing behind it can be read.
    """
    block = data[: SEGMENT_HEADER_BYTES - _CRC.size]
    if len(data) < SEGMENT_HEADER_BYTES:
        return f"the file has only {len(data)} bytes"
    magic, version, sequence, first_index, previous_crc, *lengths = _FIXED.unpack_from(block)
    (crc,) = _CRC.unpack_from(data, len(block))
    if magic != _MAGIC:
        return "it does not begin as a segment does"
    if crc32(block) != crc:
        return "the checksum of the segment header is wrong"
    middle = _FIXED.size + lengths[0]
    cluster_id, node_id = block[_FIXED.size : middle], block[middle : middle + lengths[1]]
    identity = Identity(cluster_id.decode(errors="replace"), node_id.decode(errors="replace"))
    filled_bytes = _FILLED.unpack_from(block, _FILLED_AT)[0] if version >= 3 else 0
    return SegmentHeader(version, identity, sequence, first_index, previous_crc, crc, filled_bytes)


def encode_hard_state(state: HardState) -> bytes:
    vote = b"" if state.voted_for is None else state.voted_for.encode()
    return _HARD_STATE.pack(state.term, state.commit_index, state.voted_for is not None) + vote


def decode_hard_state(payload: bytes) -> HardState | None:
    """The hard state in a record, None if it is none."""
    if len(payload) < _HARD_STATE.size:
        return None
    term, commit_index, voted = _HARD_STATE.unpack_from(payload)
    try:
        vote = payload[_HARD_STATE.size :].decode()
    except UnicodeDecodeError:
        return None
    return HardState(term, vote if voted else None, commit_index)


def decode_seal(payload: bytes) -> tuple[int, int] | None:
    """Which segment a sealed one is followed by, as it was begun: its sequence, and its header's checksum."""
    return _SEAL.unpack(payload) if len(payload) == _SEAL.size else None


class SegmentWriter:
    """Turns payloads into the bytes of one segment, in order. Owned by the log that writes them.

    The head of a segment, its header and the hard state, is made at once: no segment exists without both.
    """

    __slots__ = ("_sequence", "durable", "end", "header_crc", "last_crc")

    def __init__(self, *, sequence: int, header_crc: int, end: int, durable: int, last_crc: int) -> None:
        self._sequence = sequence
        self.header_crc = header_crc  # of its header block; seeds the checksums of its records
        self.end = end  # where the next record goes
        self.durable = durable  # all before it is synced; durable <= end
        self.last_crc = last_crc

    @classmethod
    def begin(
        cls,
        identity: Identity,
        sequence: int,
        first_index: Index,
        previous_crc: int,
        state: HardState,
        filled_bytes: int,
    ) -> tuple[SegmentWriter, bytes]:
        """A writer for a new segment, and the bytes of the segment's head."""
        head, crc = encode_segment_header(
            identity,
            sequence=sequence,
            first_index=first_index,
            previous_crc=previous_crc,
            filled_bytes=filled_bytes,
        )
        at = SEGMENT_HEADER_BYTES
        writer = cls(sequence=sequence, header_crc=crc, end=at, durable=at, last_crc=crc)
        parts = writer.encode(RecordType.HARD_STATE, stored_payload(encode_hard_state(state)))
        writer.durable = writer.end  # A segment gets its name only after its head is synced.
        return writer, head + b"".join(parts)

    def seal(self, sequence: int, header_crc: int) -> bytes:
        """The record that ends this segment, once the one that follows it has its name.

        That one links to the record before the seal, which is older than both. It depends on nothing but
        the two, so a seal that broke off is written once more with the same bytes.
        """
        assert self.durable == self.end, f"records up to {self.end}, and synced only up to {self.durable}"
        return b"".join(self.encode(RecordType.SEAL, stored_payload(_SEAL.pack(sequence, header_crc))))

    def encode(self, record_type: int, stored: tuple[bytes, int]) -> tuple[bytes, bytes, bytes]:
        parts, self.last_crc = encode_record(
            record_type,
            stored,
            seed=self.header_crc,
            sequence=self._sequence,
            offset=self.end,
            durable=self.durable,
            previous_crc=self.last_crc,
        )
        self.end += len(parts[0]) + len(parts[1]) + len(parts[2])
        return parts


# Begins a segment in a file of which so many bytes are filled: its writer, and the bytes of its head.
Begin = Callable[[int], tuple[SegmentWriter, bytes]]


def head_bytes(state: HardState) -> int:
    """Room that the head of a segment takes."""
    return SEGMENT_HEADER_BYTES + record_bytes(len(stored_payload(encode_hard_state(state))[0]))


class SegmentReader:
    """Walks the records of one segment, then says how it ends. Owned by one recovery."""

    __slots__ = ("_count", "_data", "_seal_end", "end", "header", "last_crc", "seal")

    def __init__(self, data: bytes, header: SegmentHeader) -> None:
        self._data = data
        self.header = header
        self.end = SEGMENT_HEADER_BYTES  # end of the last good record; of the one before the seal
        self.last_crc = header.crc  # of the same record
        self.seal: bytes | None = None  # payload of the seal, if it is there
        self._seal_end = 0
        self._count = 0  # of good records before the seal

    def records(self) -> Iterator[tuple[int, int, bytes]]:
        """(offset, type, payload) of the good records, up to the first place where there is none."""
        data, seed = self._data, self.header.crc
        while (header := read_header(data, self.end, seed)) is not None:
            if self._misplaced(header) or not payload_is_intact(data, self.end, header):
                return
            at = self.end
            payload = read_payload(data, at, header)
            if header.record_type == RecordType.SEAL:
                self.seal, self._seal_end = payload, header.end
                yield at, header.record_type, payload
                return
            self.end = header.end
            self.last_crc = header.header_crc
            self._count += 1
            yield at, header.record_type, payload

    def writer(self) -> SegmentWriter:
        """Continues this segment after its last good record, which must have been synced.

        A seal is written over: it can only be followed by the same seal.
        """
        return SegmentWriter(
            sequence=self.header.sequence,
            header_crc=self.header.crc,
            end=self.end,
            durable=self.end,
            last_crc=self.last_crc,
        )

    def is_only_a_head(self) -> bool:
        """Whether nothing was written since the segment got its name; to be asked after records() too."""
        return self._count == 1 and not self.rest()

    def rest(self) -> bytes:
        """What stands after the last good record or the seal, without the zeros at its end."""
        return self._data[self._seal_end or self.end :].rstrip(b"\0")

    def tail(self, *, is_last: bool) -> Tail:
        """How the segment ends; to be asked after records() is exhausted.

        One that is not the last may end in a seal that broke off, and in nothing else that did.
        """
        rest, found, filled = self.rest(), len(self._data), self.header.filled_bytes
        if found < filled:
            return Tail(Ending.CORRUPT, f"the file has {found} bytes, and had {filled} when it was begun")
        if self.seal is not None:
            return Tail(Ending.CORRUPT, "something stands behind its seal") if rest else Tail(Ending.CLEAN)
        reason = self._reason_of_the_stop()
        if self.end == SEGMENT_HEADER_BYTES:
            return Tail(Ending.CORRUPT, f"{reason}, yet the head of a segment is synced before it has a name")
        if not rest:
            return Tail(Ending.CLEAN)
        if not is_last and len(rest) > SEAL_BYTES:
            return Tail(Ending.CORRUPT, f"{reason}, and a later segment follows")
        witness = self._witness()
        if witness is not None:
            return Tail(
                Ending.CORRUPT, f"{reason}, yet the record at byte {witness} was written after its sync"
            )
        for at, place in self._displaced(rest):
            # Somebody was told that it is durable, unless the power went: that cannot be known.
            return Tail(Ending.CORRUPT, f"{reason}, yet the record of byte {place} stands at byte {at}")
        if self._is_unfinished_write(rest):
            return Tail(Ending.TORN, reason)
        return Tail(Ending.CORRUPT, f"{reason}, and no unfinished write leaves that")

    def _misplaced(self, header: Header) -> bool:
        """An intact record may still be another place's, or the successor of another record."""
        place = (self.end, self.header.sequence, self.last_crc)
        return (header.offset, header.sequence, header.previous_crc) != place or header.flags > STUFFED

    def _reason_of_the_stop(self) -> str:
        header = read_header(self._data, self.end, self.header.crc)
        if header is None:
            started = self._data[self.end : self.end + HEADER_BYTES].strip(b"\0")
            return "a record header is damaged" if started else "zeros stand where a record should"
        if header.offset != self.end or header.sequence != self.header.sequence:
            return f"a record of segment {header.sequence}, byte {header.offset}, stands in a wrong place"
        if header.previous_crc != self.last_crc:
            return "a record does not continue the one before it"
        if header.flags > STUFFED:
            return f"a record has unknown flags {header.flags:#x}"
        return "the checksum of a record is wrong"

    def _witness(self) -> int | None:
        """A later record that was written after the damaged place had been synced.

        Records of the same unfinished turn are no witnesses: the disk may write its later sectors first.
        """
        data, seed, end = self._data, self.header.crc, self.end
        for at in possible_places(data, end + 1, self.header.sequence):
            header = read_header(data, at, seed)
            if header is not None and header.durable > end and payload_is_intact(data, at, header):
                return at
        return None

    def _displaced(self, rest: bytes) -> list[tuple[int, int]]:
        """Records that belong behind the end and stand somewhere else behind it: a write that went astray
        leaves zeros where it should be, as one that never was does. It is not further away than that."""
        if len(rest) > MAX_UNSYNCED_BYTES:
            return []  # damage in any case
        data = self._data[: self.end + len(rest) + HEADER_BYTES]
        return displaced_headers(data, self.end, self.header.sequence, self.header.crc)

    def _is_unfinished_write(self, rest: bytes) -> bool:
        """Whether sectors that were never written, or an end of file too early, explain what stands here."""
        data, end = self._data, self.end
        header = read_header(data, end, self.header.crc)
        if len(rest) > MAX_UNSYNCED_BYTES:
            return False  # further than any turn writes before its sync
        if header is None:
            # Only a whole sector may be missing, or everything from some byte on.
            first_sector = data[end : end + SECTOR_BYTES - end % SECTOR_BYTES]
            return not first_sector.strip(b"\0") or len(rest) < HEADER_BYTES
        if self._misplaced(header):
            return False
        stop = header.end
        if len(rest) < stop - end:
            return True  # Every record ends in a mark. This one does not, and nothing follows it.
        first = end - end % SECTOR_BYTES
        return any(
            not data[max(at, end) : min(at + SECTOR_BYTES, stop)].strip(b"\0")
            for at in range(first, stop, SECTOR_BYTES)
        )
