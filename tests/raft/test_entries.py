"""Runs of entries as bytes: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import gc
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft.entries import LIMIT, CorruptEntries, Entry, EntryBatch, EntryKind, HardState, decode_entries

HEADER = struct.Struct("<QII")

entry_lists = st.lists(
    st.tuples(st.integers(1, LIMIT - 1), st.sampled_from([0, 1, 2]), st.binary(max_size=40)), max_size=30
).map(lambda entries: sorted(entries, key=lambda entry: entry[0]))


def sample() -> EntryBatch:
    return EntryBatch(7, [(3, EntryKind.NOOP, b""), (3, EntryKind.COMMAND, b"abc"), (5, 2, b"\0" * 9)])


@given(st.integers(1, LIMIT - 100), entry_lists)
def test_what_is_encoded_is_decoded(first_index: int, entries: list[Entry]) -> None:
    batch = EntryBatch(first_index, entries)
    expected_bytes = batch.size_bytes
    blob = batch.encode()
    assert len(blob) == expected_bytes == batch.size_bytes
    for given_as in (blob, memoryview(blob)):
        back = EntryBatch.decode(given_as)
        assert back == batch
        assert back.encode() == blob
    assert decode_entries(blob) == (first_index, entries)


def test_the_bytes_are_little_endian_columns() -> None:
    """The layout of docs/disk.md, byte for byte: any host must read what any other wrote."""
    columns = struct.pack("<QQQ", 3, 3, 5) + bytes([0, 1, 2]) + struct.pack("<III", 0, 3, 9)
    assert sample().encode() == HEADER.pack(7, 3, 12) + columns + b"abc" + bytes(9)


def test_encoding_happens_once_and_the_bytes_received_are_the_bytes_stored() -> None:
    batch = sample()
    assert batch.encode() is batch.encode()
    received = bytes(batch.encode())
    assert EntryBatch.decode(received).encode() is received


def test_indexes_and_terms() -> None:
    batch = sample()
    assert (batch.first_index, batch.last_index, batch.last_term, len(batch)) == (7, 9, 5, 3)
    empty = EntryBatch(7, [])
    assert (empty.last_index, len(empty), bool(empty)) == (6, 0, True)
    assert EntryBatch.decode(empty.encode()) == empty


def test_the_rest_of_a_batch_from_an_index() -> None:
    batch = sample()
    assert batch.from_index(7) is batch
    assert batch.from_index(9) == EntryBatch(9, [(5, 2, bytes(9))])
    assert batch.from_index(10) == EntryBatch(10, [])
    for outside in (6, 11):
        with pytest.raises(AssertionError):
            batch.from_index(outside)


def test_batches_compare_by_what_they_hold() -> None:
    assert sample() == EntryBatch.decode(sample().encode())
    assert sample() != EntryBatch(8, sample().entries)
    assert sample() != EntryBatch(7, sample().entries[:2])
    assert sample() != (7, sample().entries)


def test_decoded_entries_cost_the_garbage_collector_nothing() -> None:
    entries = EntryBatch.decode(sample().encode()).entries
    gc.collect()
    assert [gc.is_tracked(entry) for entry in entries] == [False] * 3


def test_entries_out_of_term_order_are_a_mistake_of_the_program() -> None:
    """Raft §5.4.1: a log with decreasing terms could not be read back, so it is not written."""
    with pytest.raises(AssertionError, match="out of order"):
        EntryBatch(1, [(5, 1, b""), (3, 1, b"")]).encode()
    with pytest.raises(AssertionError, match="begin at 1"):
        EntryBatch(0, [])


def test_every_truncation_is_refused() -> None:
    blob = sample().encode()
    for length in range(len(blob)):
        with pytest.raises(CorruptEntries):
            EntryBatch.decode(blob[:length])
    with pytest.raises(CorruptEntries):
        EntryBatch.decode(blob + b"\0")


def raw(first_index: int, terms: list[int], kinds: list[int], lengths: list[int], bodies: bytes) -> bytes:
    count = len(terms)
    header = HEADER.pack(first_index, count, len(bodies))
    return header + struct.pack(f"<{count}Q{count}B{count}I", *terms, *kinds, *lengths) + bodies


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (raw(0, [1], [1], [1], b"x"), "first index"),
        (raw(LIMIT - 1, [1], [1], [1], b"x"), "first index"),
        (raw(2**64 - 1, [1], [1], [1], b"x"), "first index"),
        (raw(1, [0], [1], [1], b"x"), "terms"),
        (raw(1, [LIMIT], [1], [1], b"x"), "terms"),
        (raw(1, [2, 1], [1, 1], [1, 0], b"x"), "terms"),
        (raw(1, [1, LIMIT, 1], [1, 1, 1], [1, 0, 0], b"x"), "terms"),
        (raw(1, [1], [3], [1], b"x"), "kind"),
        (raw(1, [1, 1], [1, 255], [1, 0], b"x"), "kind"),
        (raw(1, [1], [1], [2], b"x"), "lengths"),
        (raw(1, [1, 1], [1, 1], [0, 0], b"x"), "lengths"),
        (raw(1, [1, 1], [1, 1], [2**32 - 1, 2], b"x"), "lengths"),
        (HEADER.pack(1, 2**32 - 1, 0), "entries"),
        (HEADER.pack(1, 0, 2**32 - 1), "entries"),
        (b"", "header"),
    ],
)
def test_each_malformed_field_is_refused_and_named(blob: bytes, reason: str) -> None:
    """Among them: a term of 2**63 is never adopted."""
    with pytest.raises(CorruptEntries, match=reason):
        EntryBatch.decode(blob)


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_random_bytes_are_refused_or_mean_themselves(blob: bytes) -> None:
    try:
        batch = EntryBatch.decode(blob)
    except CorruptEntries:
        return
    assert EntryBatch(batch.first_index, batch.entries).encode() == blob


@given(st.integers(0, len(sample().encode()) - 1), st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_means_something_else(place: int, bit: int) -> None:
    """Detection is the checksum's work; decoding must only never break, nor read past what is there."""
    blob = bytearray(sample().encode())
    blob[place] ^= 1 << bit
    try:
        batch = EntryBatch.decode(bytes(blob))
    except CorruptEntries:
        return
    assert EntryBatch(batch.first_index, batch.entries).encode() == bytes(blob)


@pytest.mark.parametrize("count", [2**32 - 1, 2**31, 100_000_000])
def test_a_count_beyond_the_blob_allocates_nothing(count: int) -> None:
    """A length must not be believed before it is compared with what is there."""
    blob = HEADER.pack(1, count, 0) + bytes(1000)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptEntries):
            EntryBatch.decode(blob)
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()


def test_a_hard_state_begins_with_nothing() -> None:
    assert HardState() == (0, None, 0)
