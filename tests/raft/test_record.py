"""Records and segment headers as bytes, and the judgement of how a segment ends (docs/disk.md)."""

from __future__ import annotations

import struct
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raft.entries import HardState
from raft.record import (
    ALIGNMENT,
    HEADER_BYTES,
    MARK,
    SECTOR_BYTES,
    STUFFED,
    RecordType,
    encode_record,
    payload_is_intact,
    possible_places,
    read_header,
    read_payload,
    record_bytes,
    stored_payload,
)
from raft.replay import Replay
from raft.segment import (
    FORMAT_VERSION,
    SEAL_BYTES,
    SEGMENT_HEADER_BYTES,
    Ending,
    Identity,
    SegmentHeader,
    SegmentReader,
    SegmentWriter,
    decode_hard_state,
    decode_segment_header,
    encode_hard_state,
    encode_segment_header,
    segment_name,
    sequence_of,
)
from raft.storage import UnknownFormat

WHO = Identity("cluster", "n1")
ENTRIES = RecordType.ENTRIES


def one_record(payload: bytes, *, seed: int = 7, offset: int = 512, durable: int = 512) -> bytes:
    parts, _ = encode_record(
        ENTRIES,
        stored_payload(payload),
        seed=seed,
        sequence=3,
        offset=offset,
        durable=durable,
        previous_crc=9,
    )
    return b"".join(parts)


@given(st.binary(max_size=2000))
@example(bytes(5000))
@example(bytes(255) + b"x" + bytes(255))
@example(b"x" * 31)
@example(b"x" * 32)
def test_a_payload_comes_back_as_it_was(payload: bytes) -> None:
    data = one_record(payload)
    header = read_header(data, 0, 7)
    assert header is not None
    assert payload_is_intact(data, 0, header)
    assert read_payload(data, 0, header) == payload
    assert len(data) == record_bytes(header.payload_bytes) == header.end - 512
    assert len(data) % ALIGNMENT == 0
    assert data[-1] == data[HEADER_BYTES - 1] == MARK


@given(
    st.lists(
        st.sampled_from([bytes(255), bytes(256), bytes(257), bytes(700), b"x", b"\x01" * 300]), max_size=12
    )
)
def test_no_sector_of_a_record_is_nearly_zero(pieces: list[bytes]) -> None:
    """What was written never looks like what was not, not even after any single bit has flipped."""
    for offset in (512, 992):
        space = bytes(offset) + one_record(b"".join(pieces), offset=offset)
        for sector in range(offset // SECTOR_BYTES, -(-len(space) // SECTOR_BYTES)):
            written = space[max(offset, sector * SECTOR_BYTES) : (sector + 1) * SECTOR_BYTES]
            assert int.from_bytes(written, "big").bit_count() >= 2


def test_only_payloads_with_long_runs_of_zeros_are_stuffed() -> None:
    """The same bytes serve the wire and the disk, so they are copied only where they must be."""
    plain = bytes(255) + b"x" + bytes(255)
    assert stored_payload(plain) == (plain, 0)
    assert stored_payload(plain)[0] is plain
    stored, flags = stored_payload(bytes(600))
    assert flags == STUFFED
    assert stored == bytes(255) + b"\xa5" + bytes(255) + b"\xa5" + bytes(90)


def test_the_layout_of_a_record() -> None:
    """Byte for byte, so that a change of format is a decision and not an accident."""
    rest = struct.pack("<IIIIIIBBBB", 5, crc32(b"hello" + b"\xa5" * 27), 9, 512, 512, 3, 1, 0, 0, 0xA5)
    assert one_record(b"hello") == struct.pack("<I", crc32(rest, 7)) + rest + b"hello" + b"\xa5" * 27


def test_every_flipped_bit_of_a_record_is_seen() -> None:
    """The length is under a checksum of its own, so it is never believed when it is wrong."""
    good = one_record(b"some payload of a record")
    for place in range(len(good)):
        for bit in range(8):
            data = bytearray(good)
            data[place] ^= 1 << bit
            header = read_header(bytes(data), 0, 7)
            if place < HEADER_BYTES:
                assert header is None, (place, bit)
            else:
                assert header is not None and not payload_is_intact(bytes(data), 0, header), (place, bit)


def test_a_record_of_another_segment_is_none() -> None:
    """Checksums are seeded by the header of the segment, which names cluster, node and sequence."""
    assert read_header(one_record(b"x"), 0, 7) is not None
    assert read_header(one_record(b"x"), 0, 8) is None


def test_a_record_cut_short_is_none() -> None:
    good = one_record(b"x" * 100)
    for length in range(len(good)):
        header = read_header(good[:length], 0, 7)
        assert header is None or not payload_is_intact(good[:length], 0, header)


def test_places_where_a_record_may_stand() -> None:
    record = one_record(b"x", offset=544)
    data = bytes(544) + record + record + bytes(100)
    assert possible_places(data, 1, 3) == [544]
    assert possible_places(data, 545, 3) == []
    assert possible_places(data, 1, 4) == []
    assert possible_places(data[:550], 1, 3) == []
    assert possible_places(b"", 1, 3) == []


def test_hard_states_come_back_and_nothing_else_is_one() -> None:
    for state in (HardState(), HardState(7, "n2", 1 << 40), HardState(3, "", 1), HardState(1, "münchen", 0)):
        assert decode_hard_state(encode_hard_state(state)) == state
    assert encode_hard_state(HardState(7, "n2", 9)) == struct.pack("<QQB", 7, 9, 1) + b"n2"
    assert decode_hard_state(b"short") is None
    assert decode_hard_state(encode_hard_state(HardState(1, "x", 0)) + b"\xff") is None


def test_the_header_of_a_segment() -> None:
    block, crc = encode_segment_header(WHO, sequence=5, first_index=77, previous_crc=123, filled_bytes=4096)
    assert len(block) == SEGMENT_HEADER_BYTES
    assert decode_segment_header(block) == SegmentHeader(FORMAT_VERSION, WHO, 5, 77, 123, crc, 4096)
    fixed = struct.pack("<8sIIQIBB", b"ASSENT\x1aW", 3, 5, 77, 123, 7, 2) + b"clustern1"
    fixed = fixed.ljust(504, b"\0") + struct.pack("<I", 4096)
    assert block == fixed + struct.pack("<I", crc32(fixed))
    assert decode_segment_header(block[:-1]) == "the file has only 511 bytes"
    for place in range(SEGMENT_HEADER_BYTES):
        damaged = bytearray(block)
        damaged[place] ^= 16
        assert isinstance(decode_segment_header(bytes(damaged)), str), place


def test_a_later_format_is_named() -> None:
    block, _ = encode_segment_header(WHO, sequence=5, first_index=77, previous_crc=123, filled_bytes=4096)
    later = block[:8] + struct.pack("<I", FORMAT_VERSION + 1) + block[12:-4]
    header = decode_segment_header(later + struct.pack("<I", crc32(later)))
    assert isinstance(header, SegmentHeader) and header.version == FORMAT_VERSION + 1
    path = Path("/data/wal/0000000005.wal")
    with pytest.raises(UnknownFormat) as caught:
        Replay(WHO).segment(path, 5, later + struct.pack("<I", crc32(later)), is_last=True)
    assert str(caught.value) == (
        "/data/wal/0000000005.wal has format version 4, this program reads versions up to 3. "
        "Start this node with the version of Assent that wrote it, or with a later one."
    )


def test_names_of_segments() -> None:
    assert segment_name(12) == "0000000012.wal"
    assert sequence_of("0000000012.wal") == 12
    for other in ("12.wal", "0000000012.wal.512.broken", "next.tmp", "0000000012", "abc.wal", ".wal", "lock"):
        assert sequence_of(other) is None


# How a segment ends. `turns` are lists of payloads; each list is written by one write and one sync.


def segment(*turns: list[bytes]) -> tuple[bytes, list[int]]:
    """A segment of these turns with 4 KiB of zeros after it, and the offsets of all records but the first."""
    writer, data = SegmentWriter.begin(WHO, 1, 1, 0, HardState(1, "n1", 0), 512)
    places = []
    for turn in turns:
        for payload in turn:
            places.append(writer.end)
            data += b"".join(writer.encode(ENTRIES, stored_payload(payload)))
        writer.durable = writer.end
    return data + bytes(4096), places


def ending(data: bytes, *, is_last: bool = True) -> tuple[Ending, int]:
    """How it ends, and how many good records it has beside the first."""
    header = decode_segment_header(data)
    assert not isinstance(header, str)
    reader = SegmentReader(data, header)
    count = sum(1 for _ in reader.records())
    return reader.tail(is_last=is_last).ending, count - 1


def zeroed(data: bytes, start: int, stop: int) -> bytes:
    return data[:start] + bytes(stop - start) + data[stop:]


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


BIG = bytes(range(1, 251)) * 6  # 1500 bytes, several sectors


def test_zeros_are_the_end() -> None:
    """Space that was never written is no record."""
    data, _ = segment([b"a"], [b"b", b"c"])
    assert ending(data) == (Ending.CLEAN, 3)
    assert ending(data[:-4096]) == (Ending.CLEAN, 3)
    assert ending(data, is_last=False) == (Ending.CLEAN, 3)


def test_a_write_that_stopped_at_any_byte_is_torn() -> None:
    """In filled space and at the end of a file that grows."""
    data, places = segment([b"a"], [BIG])
    end = len(data) - 4096
    for stop in range(places[1], end):
        expected = Ending.CLEAN if stop == places[1] else Ending.TORN
        assert ending(zeroed(data, stop, end)) == (expected, 1), stop
        assert ending(data[:stop]) == (expected, 1), stop
        if expected is Ending.TORN:
            # Of a segment that is not the last one nothing but the seal is ever unfinished.
            may_be_a_seal = stop - places[1] <= SEAL_BYTES
            expected = Ending.TORN if may_be_a_seal else Ending.CORRUPT
            assert ending(data[:stop], is_last=False) == (expected, 1), stop


@pytest.mark.parametrize("lost", range(1, 16))
def test_any_missing_sectors_of_the_last_turn_are_torn(lost: int) -> None:
    """The disk may write the sectors of a turn in any order: later records may be there, earlier ones not."""
    data, places = segment([b"a"], [BIG, b"b", b"c"])
    first = places[1] // SECTOR_BYTES
    for sector in range(4):
        if lost & 1 << sector:
            start = max(places[1], (first + sector) * SECTOR_BYTES)
            data = zeroed(data, start, (first + sector + 1) * SECTOR_BYTES)
    found, count = ending(data)
    assert found is (Ending.CLEAN if not data[places[1] :].strip(b"\0") else Ending.TORN)
    assert 1 <= count < 4


def test_a_flipped_bit_in_the_last_record_is_damage() -> None:
    data, places = segment([b"a"], [BIG])
    for place in range(places[1], len(data) - 4096):
        assert ending(flipped(data, place)) == (Ending.CORRUPT, 1), place


def test_a_flipped_bit_among_stuffed_zeros_is_damage() -> None:
    data, places = segment([b"a"], [bytes(2000) + b"\1" + bytes(2000)])
    for place in range(places[1], len(data) - 4096):
        assert ending(flipped(data, place)) == (Ending.CORRUPT, 1), place


def test_a_missing_sector_before_a_later_turn_is_damage() -> None:
    """The later turn proves that the earlier one was on the disk."""
    data, places = segment([b"a"], [BIG], [b"b"])
    assert ending(zeroed(data, 1024, 1536)) == (Ending.CORRUPT, 1)
    assert ending(zeroed(data, places[1], places[2])) == (Ending.CORRUPT, 1)
    # Within one turn the same is an unfinished write.
    data, places = segment([b"a"], [BIG, b"b"])
    assert ending(zeroed(data, places[1], places[2])) == (Ending.TORN, 1)


def test_a_lost_head_of_a_segment_is_damage() -> None:
    """A segment gets its name after its head is synced, so no crash can leave it without."""
    data, places = segment([b"a"])
    assert ending(zeroed(data, SEGMENT_HEADER_BYTES, len(data))) == (Ending.CORRUPT, -1)
    assert ending(data[: places[0] - 1]) == (Ending.CORRUPT, -1)


def test_a_record_in_a_wrong_place_is_damage() -> None:
    """A write that went astray is intact and still not believed."""
    data, places = segment([b"a"], [b"b"], [b"c"])
    size = places[1] - places[0]
    record = data[places[0] : places[0] + size]
    end = places[2] + size
    assert ending(data[:end] + record + data[end + size :]) == (Ending.CORRUPT, 3)
    assert ending(data[: places[1]] + record + data[places[2] :]) == (Ending.CORRUPT, 1)


def test_a_record_that_says_it_stands_elsewhere_is_damage() -> None:
    """Where even the link to the record before is right."""
    head, _ = segment()
    writer, _ = SegmentWriter.begin(WHO, 1, 1, 0, HardState(1, "n1", 0), 512)
    end = writer.end
    writer.end += 512
    record = b"".join(writer.encode(ENTRIES, stored_payload(b"astray")))
    assert ending(head[:end] + record + head[end + len(record) :]) == (Ending.CORRUPT, 0)


def test_a_record_that_does_not_continue_its_predecessor_is_damage() -> None:
    """A lost write inside a segment: both neighbours are intact, and the link between them is broken."""
    data, places = segment([b"a"], [b"b"])
    other, _ = segment([b"A"], [b"b"])
    assert ending(data[: places[1]] + other[places[1] :]) == (Ending.CORRUPT, 1)


def test_bytes_far_behind_the_end_are_damage() -> None:
    """No turn writes so far ahead, so no unfinished turn explains them."""
    data, _ = segment([b"a"])
    assert ending(data + bytes(17 << 20) + b"x") == (Ending.CORRUPT, 1)


def test_bytes_behind_a_header_that_is_missing_are_damage() -> None:
    """A sector comes whole or not at all: zeros for a header, bytes behind it in one sector: neither."""
    data, _ = segment([b"a"])
    end = len(data) - 4096
    assert ending(data[: end + 40] + b"x" + data[end + 41 :]) == (Ending.CORRUPT, 1)
