"""Bodies of transactions: every limit, every malformed one, and none that does harm before it is refused."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Sequence

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import protocol
from kvstore.operations import decode_read, decode_read_transaction, decode_write
from kvstore.protocol import MAX_TXN_DEPTH, MAX_TXN_ITEMS, MAX_TXN_OPERATIONS, OK
from kvstore.space_gate import runs
from kvstore.transaction_bodies import encode_list, read_transaction_body, transaction_body
from tests.kvstore.machine_log import Log
from tests.kvstore.transaction_log import (
    ALWAYS,
    Item,
    asked,
    compare,
    delete,
    nested,
    put,
    read,
    transact,
    written,
)


def code_of(body: bytes) -> int:
    [result] = Log().apply(body)
    return int(result[0])


# ---------------------------------------------------------------- limits


def puts(count: int, prefix: bytes = b"k") -> list[Item]:
    return [put(prefix + b"%d" % number) for number in range(count)]


@pytest.mark.parametrize("place", ["compares", "then", "otherwise"])
def test_a_list_has_at_most_128_compares_or_operations(place: str) -> None:
    assert MAX_TXN_OPERATIONS == 128
    for count, code in ((128, OK), (129, protocol.TOO_MANY_OPERATIONS)):
        lists = {
            "compares": ([ALWAYS] * count, [], []),
            "then": ([], puts(count), []),
            "otherwise": ([], [], puts(count)),
        }
        result = transact(Log(), *lists[place])
        assert result[0] == code
        if code != OK:
            assert result[1] == "too many operations in txn request"


def test_compares_and_both_branches_are_counted_apart() -> None:
    assert transact(Log(), [ALWAYS] * 128, puts(128), puts(128))[0] == OK


@pytest.mark.parametrize(("outer", "inner"), [(1, 127), (28, 100), (127, 1)])
def test_nested_ones_have_what_the_longest_list_of_their_parent_leaves(outer: int, inner: int) -> None:
    """As etcd counts."""
    for more, code in ((0, OK), (1, protocol.TOO_MANY_OPERATIONS)):
        operations = [*puts(outer - 1, b"o"), nested([], puts(inner + more, b"i"))]
        assert transact(Log(), [], operations)[0] == code
    compares = [ALWAYS] * (outer + 1)
    assert transact(Log(), compares, [nested([], puts(inner))])[0] == protocol.TOO_MANY_OPERATIONS


def test_transactions_nest_at_most_8_deep() -> None:
    inner: Item = put(b"a")
    for depth in range(1, MAX_TXN_DEPTH + 2):
        assert code_of(written([], [inner])) == (OK if depth <= 8 else protocol.TOO_MANY_OPERATIONS)
        inner = nested([], [inner])


def test_all_compares_and_operations_together_are_bounded() -> None:
    """Lists of 64 in 64 transactions are within every other limit."""
    inner = nested([ALWAYS] * 64, [read(b"a")] * 64, [read(b"b")] * 63)
    assert MAX_TXN_ITEMS == 8192
    assert code_of(written([], [inner] * 42)) == OK
    assert code_of(written([], [inner] * 43)) == protocol.TOO_MANY_OPERATIONS


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (put(b""), protocol.EMPTY_KEY),
        (put(b"k" * 4097), protocol.TOO_LARGE),
        (put(b"k", bytes((1 << 20) + 1)), protocol.TOO_LARGE),
        (put(b"k", flags=8), protocol.BAD_REQUEST),
        (put(b"k", lease=-1), protocol.BAD_REQUEST),
        (put(b"k", flags=protocol.IGNORE_VALUE), protocol.VALUE_PROVIDED),
        (put(b"k", lease=1, flags=protocol.IGNORE_LEASE), protocol.LEASE_PROVIDED),
        ((protocol.PUT, "k", b"v", 0, 0), protocol.BAD_REQUEST),
        ((protocol.PUT, b"k", b"v", 0), protocol.BAD_REQUEST),
        (delete(b""), protocol.EMPTY_KEY),
        (delete(b"k", flags=2), protocol.BAD_REQUEST),
        ((protocol.DELETE, b"k"), protocol.BAD_REQUEST),
        (read(b""), protocol.EMPTY_KEY),
        (read(b"k", flags=8), protocol.BAD_REQUEST),
        (read(b"k", limit=-1), protocol.BAD_REQUEST),
        (read(b"k", revision=1), protocol.BAD_REQUEST),
        ((protocol.OPEN_SESSION, bytes(16)), protocol.BAD_REQUEST),
        ((protocol.CLOSE_SESSION,), protocol.BAD_REQUEST),
        ((protocol.COMPACT, 1), protocol.BAD_REQUEST),
        ((protocol.WATCH_HISTORY, b"k", b"", 0, 0, 0), protocol.BAD_REQUEST),
        ((protocol.READ_TXN, b"", b"", b""), protocol.BAD_REQUEST),
        ((protocol.TXN, b"", b""), protocol.BAD_REQUEST),
        ((protocol.TXN, b"", b"", b"", b""), protocol.BAD_REQUEST),
        ((protocol.TXN, b"", 0, b""), protocol.BAD_REQUEST),
        ((protocol.TXN, b"\x01", b"", b""), protocol.BAD_REQUEST),
        ((True, b"k", b"v", 0, 0), protocol.BAD_REQUEST),
        ((None,), protocol.BAD_REQUEST),
        ((), protocol.BAD_REQUEST),
    ],
)
def test_a_bad_operation_is_refused_wherever_it_is(bad: Item, code: int) -> None:
    for operations in ([put(b"a"), bad], [nested([], [bad])]):
        assert code_of(written([], operations)) == code
        assert code_of(written([], [put(b"a")], operations)) == code


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (compare("mod", b"", "=", 0), protocol.EMPTY_KEY),
        (compare("mod", b"k" * 4097, "=", 0), protocol.TOO_LARGE),
        (compare("mod", b"k" * 4098, "=", 0, range_end=b"l"), protocol.TOO_LARGE),
        (compare("mod", b"k", "=", 0, range_end=b"l" * 4098), protocol.TOO_LARGE),
        (compare("mod", b"k", "=", b"0"), protocol.BAD_REQUEST),
        (compare("mod", b"k", "=", -1), protocol.BAD_REQUEST),
        (compare("value", b"k", "=", 0), protocol.BAD_REQUEST),
        ((0, 0, b"k", b"", 0), protocol.BAD_REQUEST),
        ((6, 0, b"k", b"", 0), protocol.BAD_REQUEST),
        ((1, 4, b"k", b"", 0), protocol.BAD_REQUEST),
        ((1, -1, b"k", b"", 0), protocol.BAD_REQUEST),
        ((True, 0, b"k", b"", 0), protocol.BAD_REQUEST),
        ((1, 0, "k", b"", 0), protocol.BAD_REQUEST),
        ((1, 0, b"k", b"", True), protocol.BAD_REQUEST),
        ((1, 0, b"k", b"", 2**63), protocol.BAD_REQUEST),
        ((1, 0, b"k", b""), protocol.BAD_REQUEST),
        ((), protocol.BAD_REQUEST),
    ],
)
def test_a_bad_compare_is_refused_wherever_it_is(bad: Item, code: int) -> None:
    assert code_of(written([ALWAYS, bad])) == code
    assert code_of(written([], [], [nested([bad])])) == code


@pytest.mark.parametrize("write", [put(b"a"), delete(b"a"), nested([], [put(b"a")])])
def test_a_transaction_that_is_read_has_no_writes(write: Item) -> None:
    log = Log()
    assert log.ask(asked([], [read(b"a"), write]))[0] == protocol.BAD_REQUEST
    assert log.ask(asked([], [], [write]))[0] == protocol.BAD_REQUEST


# ---------------------------------------------------------------- bytes that are no transaction


STREAMS = [
    b"\x01",
    b"\xc0",
    b"\xa1k",
    b"\x80",
    b"\x91",
    b"\x92\x01",
    b"\x91\x90",
    b"\x91\x80",
    b"\xc1",
    b"\x90\x90\xff",
    b"\x91\x91\x91",
    b"\x91" * 2000 + b"\xc0",
    b"\x91\xa1\xff",
    b"\xdd\xff\xff\xff\xff",
]


@pytest.mark.parametrize("stream", STREAMS, ids=range(len(STREAMS)))
def test_a_list_that_is_no_stream_of_flat_arrays_is_refused(stream: bytes) -> None:
    for lists in ((stream, b"", b""), (b"", stream, b""), (b"", b"", stream)):
        assert code_of(transaction_body(0, 0, 0, *lists)) == protocol.BAD_REQUEST
        assert Log().ask(read_transaction_body(*lists))[0] == protocol.BAD_REQUEST


@pytest.mark.parametrize(
    "filler", [b"\x90", b"\x80", b"\x91\x90", b"\x94\x06\xc4\x00\xc4\x00\xc4\x00", b"\xc0"]
)
@pytest.mark.parametrize("wrapping", [b"", b"\xdd\x00\x16\x00\x00"], ids=["bare", "in an array"])
def test_a_body_of_nothing_but_structure_takes_neither_memory_nor_time(
    filler: bytes, wrapping: bytes
) -> None:
    body = transaction_body(0, 0, 0, b"", wrapping + filler * (1_400_000 // len(filler)), b"")
    tracemalloc.start()
    try:
        started_at = time.process_time()
        decoded = decode_write(body)
        assert time.process_time() - started_at < 5.0
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()
    assert isinstance(decoded, bytes)


@pytest.mark.parametrize("depth", [2, 100, 700, 1100, 5000])
def test_the_result_does_not_tell_how_deep_msgpack_can_go(depth: int) -> None:
    """Builds of msgpack differ in that; results of replicas must not."""
    lists = [b"\x91" * depth + b"\x90", b"\x91\x90"]
    deep, shallow = (decode_write(transaction_body(0, 0, 0, b"", each, b"")) for each in lists)
    assert deep == shallow


def test_thousands_of_puts_and_deletes_are_told_apart_quickly() -> None:
    """Not each put with each delete: within the limits that would be millions."""
    groups = [
        nested([], puts(60, b"p%d/" % group), [delete(b"p%d/" % group, b"p%d0" % group)] * 60)
        for group in range(60)
    ]
    started_at = time.process_time()
    assert isinstance(decode_write(written([], groups)), list)
    assert time.process_time() - started_at < 2.0


FEW_KEYS = st.sampled_from([b"", b"a", b"b", b"c", b"\x00"])
SMALL = st.integers(-1, 6)
WILD = st.one_of(st.none(), st.booleans(), st.binary(max_size=3), st.integers(-(2**63), 2**64 - 1))
OPERATIONS = st.one_of(
    st.tuples(st.just(1), FEW_KEYS, FEW_KEYS, st.integers(0, 1), SMALL),
    st.tuples(st.just(2), FEW_KEYS, FEW_KEYS, st.integers(0, 1)),
    st.tuples(st.just(16), FEW_KEYS, FEW_KEYS, st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)),
    st.lists(WILD, max_size=6).map(tuple),
)
COMPARES = st.one_of(
    st.tuples(SMALL, SMALL, FEW_KEYS, FEW_KEYS, st.one_of(FEW_KEYS, st.integers(-1, 3))),
    st.lists(WILD, max_size=5).map(tuple),
)


def almost(operations: st.SearchStrategy[Item]) -> st.SearchStrategy[tuple[bytes, bytes, bytes]]:
    some: Callable[[st.SearchStrategy[Item]], st.SearchStrategy[bytes]]
    some = lambda each: st.one_of(  # noqa: E731
        st.lists(each, max_size=4).map(encode_list), st.binary(max_size=4)
    )
    return st.tuples(some(COMPARES), some(operations), some(operations))


ALMOST_TRANSACTIONS = almost(st.one_of(OPERATIONS, almost(OPERATIONS).map(lambda lists: (6, *lists))))


@settings(max_examples=300, deadline=None)
@given(st.lists(ALMOST_TRANSACTIONS, max_size=6))
def test_g6_random_transactions_never_raise_and_give_every_replica_the_same(
    transactions: list[tuple[bytes, bytes, bytes]],
) -> None:
    """And what is refused changes nothing."""
    bodies = [transaction_body(0, 0, 0, *lists) for lists in transactions]
    reads = [read_transaction_body(*lists) for lists in transactions]
    one, other = Log(), Log()
    results = other.machine.apply(1, bodies)
    for body, expected in zip(bodies, results, strict=True):
        before = one.machine._store.digest()
        [result] = one.machine.apply(one.machine.applied_index + 1, [body])
        assert result == expected is not None
        code = msgpack.unpackb(result)[0]
        assert code in protocol.CODE_NAMES
        assert code == OK or one.machine._store.digest() == before
    assert one.machine.digest() == other.machine.digest()
    assert one.machine.query(reads) == other.machine.query(reads)
    assert one.machine.digest() == other.machine.digest()


# ---------------------------------------------------------------- who else looks into bodies


def test_while_space_is_low_a_transaction_that_puts_is_no_frugal_one() -> None:
    """What it might do counts: which branch is taken is not known where this is asked."""
    bodies: Sequence[bytes] = [
        written([], [delete(b"a")], [read(b"b")]),
        written([], [], [nested([], [], [delete(b"a")])]),
        written([], [delete(b"a")], [put(b"b")]),
        written([], [nested([], [put(b"b")])]),
        written([], [put(b"")]),
    ]
    assert list(runs(list(bodies))) == [(0, 2, True), (2, 5, False)]


def test_a_decoded_transaction_is_the_one_argument_of_its_command() -> None:
    """Of one that is read, when it is read."""
    command, waiting = decode_write(written([], [read(b"a")])), decode_read(asked([], [read(b"a")]))
    assert isinstance(command, list) and isinstance(waiting, list)
    for decoded in (command[-1], decode_read_transaction(waiting)):
        assert not isinstance(decoded, bytes)
        assert decoded.then == [[protocol.RANGE, b"a", b"", 0, 0, 0]]
        assert not decoded.has_put
