"""No body whatsoever makes a node raise, or two nodes differ."""

from __future__ import annotations

import tracemalloc

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import protocol
from kvstore.operations import UNGUARDED_BYTES
from kvstore.state_machine import StoreMachine
from kvstore.watch_plane import WatchPlane
from tests.kvstore.machine_log import Log

# ---------------------------------------------------------------- poison

LARGEST = 2**63 - 1


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ([0, 0, 0, 1, b"", b"v", 0, 0], protocol.EMPTY_KEY),
        ([0, 0, 0, 1, b"k" * 4096, b"", 0, 0], protocol.OK),
        ([0, 0, 0, 1, b"k" * 4097, b"", 0, 0], protocol.TOO_LARGE),
        ([0, 0, 0, 1, b"k", b"v" * (1 << 20), 0, 0], protocol.OK),
        ([0, 0, 0, 1, b"k", b"v" * ((1 << 20) + 1), 0, 0], protocol.TOO_LARGE),
        ([0, 0, 0, 1, b"k", b"v" * 1_600_000, 0, 0], protocol.TOO_LARGE),
        ([0, 0, 0, 1, b"\x00", b"\x00", 0, 0], protocol.OK),
        ([0, 0, 0, 1, b"k", b"v", 1, 0], protocol.LEASE_NOT_FOUND),
        ([0, 0, 0, 1, b"k", b"v", -1, 0], protocol.BAD_REQUEST),
        ([0, 0, 0, 1, b"k", b"v", 0, 2], protocol.VALUE_PROVIDED),
        ([0, 0, 0, 1, b"k", b"", 0, 2], protocol.KEY_NOT_FOUND),
        ([0, 0, 0, 1, b"k", b"v", 1, 4], protocol.LEASE_PROVIDED),
        ([0, 0, 0, 1, b"k", b"v", 0, 8], protocol.BAD_REQUEST),
        ([0, 0, 0, 1, b"k", b"v", 0, 2**64 - 1], protocol.BAD_REQUEST),
        ([0, 0, 0, 1, b"k", b"v", 0, -(2**63)], protocol.BAD_REQUEST),
        ([0, 0, 0, 1, b"k", b"v", 0, True], protocol.BAD_REQUEST),
        ([0, 0, 0, 1, b"k", b"v", 0.0, 0], protocol.BAD_REQUEST),
        ([0, 0, 0, 1, "k", b"v", 0, 0], protocol.BAD_REQUEST),
        ([0, 0, 0, 1, b"k", None, 0, 0], protocol.BAD_REQUEST),
        ([0, 0, 0, 1, b"k", [], 0, 0], protocol.BAD_REQUEST),
        ([0, 0, 0, 1, {}, b"v", 0, 0], protocol.BAD_REQUEST),
        ([0, 0, 0, 1, b"k", b"v", 0], protocol.BAD_REQUEST),
        ([0, 0, 0, 1, b"k", b"v", 0, 0, 0], protocol.BAD_REQUEST),
        ([0, 0, 0, 1, *[b"x"] * 1000], protocol.BAD_REQUEST),
        ([0, 0, 0, 99, b"k", b"v", 0, 0], protocol.BAD_REQUEST),
        ([0, 0, 0, 16, b"k", b"", 0, 0, 0], protocol.BAD_REQUEST),
        ([0, 0, 0, True, b"k", b"v", 0, 0], protocol.BAD_REQUEST),
        ([0, 0, 0, b"1", b"k", b"v", 0, 0], protocol.BAD_REQUEST),
        ([0, 1, 0, 1, b"k", b"v", 0, 0], protocol.BAD_REQUEST),
        ([1, 0, 0, 1, b"k", b"v", 0, 0], protocol.BAD_REQUEST),
        ([0, 0, 1, 1, b"k", b"v", 0, 0], protocol.BAD_REQUEST),
        ([1, 5, 6, 1, b"k", b"v", 0, 0], protocol.BAD_REQUEST),
        ([-1, 1, 1, 1, b"k", b"v", 0, 0], protocol.BAD_REQUEST),
        ([1, -1, -1, 1, b"k", b"v", 0, 0], protocol.BAD_REQUEST),
        ([2**63, 1, 1, 1, b"k", b"v", 0, 0], protocol.BAD_REQUEST),
        ([1, 2**63, 1, 1, b"k", b"v", 0, 0], protocol.BAD_REQUEST),
        ([LARGEST, LARGEST, LARGEST, 1, b"k", b"v", 0, 0], protocol.SESSION_EXPIRED),
        ([0, 0, 0, 2, b"", b"", 0], protocol.EMPTY_KEY),
        ([0, 0, 0, 2, b"k", b"e" * 4097, 0], protocol.OK),
        ([0, 0, 0, 2, b"k" * 4097, b"l" * 4097, 0], protocol.OK),
        ([0, 0, 0, 2, b"k" * 4097, b"", 0], protocol.TOO_LARGE),
        ([0, 0, 0, 2, b"k", b"e" * 4098, 0], protocol.TOO_LARGE),
        ([0, 0, 0, 2, b"k", b"", 2], protocol.BAD_REQUEST),
        ([0, 0, 0, 2, b"k", b""], protocol.BAD_REQUEST),
        ([0, 0, 0, 2, b"k", 0, 0], protocol.BAD_REQUEST),
        ([0, 0, 0, 2, b"b", b"a", 0], protocol.OK),
        ([0, 0, 0, 3, b"short"], protocol.BAD_REQUEST),
        ([0, 0, 0, 3], protocol.BAD_REQUEST),
        ([1, 1, 1, 3, b"n" * 16], protocol.BAD_REQUEST),
        ([0, 0, 0, 3, 16], protocol.BAD_REQUEST),
        ([0, 0, 0, 4], protocol.BAD_REQUEST),
        ([1, 1, 1, 4, 0], protocol.BAD_REQUEST),
        ([0, 0, 0, 5], protocol.BAD_REQUEST),
        ([0, 0, 0, 5, b"1"], protocol.BAD_REQUEST),
        ([0, 0, 0, 5, True], protocol.BAD_REQUEST),
        ([0, 0, 0, 5, -1], protocol.BAD_REQUEST),
        ([0, 0, 0, 5, 2**63], protocol.BAD_REQUEST),
        ([0, 0, 0, 5, 1, 0], protocol.BAD_REQUEST),
        ([0, 1, 0, 5, 1], protocol.BAD_REQUEST),
        ([0, 0, 0, 5, 0], protocol.COMPACTED),
        ([0, 0, 0, 5, 3], protocol.FUTURE_REVISION),
        ([0, 0, 0, 5, 1], protocol.OK),
        ([0, 0, 0, 7, 10], protocol.BAD_REQUEST),
        ([0, 0, 0, 7, b"10", 0], protocol.BAD_REQUEST),
        ([0, 0, 0, 7, -1, 0], protocol.BAD_REQUEST),
        ([0, 0, 0, 7, 10, 2**63], protocol.BAD_REQUEST),
        ([0, 0, 0, 7, 10, True], protocol.BAD_REQUEST),
        ([0, 0, 0, 7, 9_000_000_001, 0], protocol.LEASE_TTL_TOO_LARGE),
        ([0, 0, 0, 7, 9_000_000_000, LARGEST], protocol.OK),
        ([0, 0, 0, 8], protocol.BAD_REQUEST),
        ([0, 0, 0, 8, 1, 2], protocol.BAD_REQUEST),
        ([0, 0, 0, 8, 1], protocol.LEASE_NOT_FOUND),
        ([0, 0, 0, 9], protocol.BAD_REQUEST),
        ([0, 0, 0, 9, b"1"], protocol.BAD_REQUEST),
        ([0, 0, 0, 9, *range(1001)], protocol.BAD_REQUEST),
        ([0, 0, 0, 9, *range(1000)], protocol.OK),
        ([0, 0, 0, 32, 5, 5], protocol.BAD_REQUEST),
        ([0, 0, 0, 33, 5, 5], protocol.BAD_REQUEST),
        ([0, 0, 0], protocol.BAD_REQUEST),
        ([], protocol.BAD_REQUEST),
        ({}, protocol.BAD_REQUEST),
        (b"\x00\x00\x00\x01", protocol.BAD_REQUEST),
        (None, protocol.BAD_REQUEST),
        (5, protocol.BAD_REQUEST),
    ],
)
def test_j12_a_poison_command_has_a_result_like_any_other(command: object, code: int) -> None:
    """An exception would end every node that applies it, one after the other, for ever."""
    log = Log()
    log.put(b"b", b"unharmed")
    before = log.machine.digest()
    [result] = log.apply(msgpack.packb(command))
    assert result[0] == code
    if code != protocol.OK:
        assert isinstance(result[1], str)
        assert log.machine.digest() == before
    assert log.get(b"b") == b"unharmed"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([1, b"k", b"v", 0, 0], protocol.OK),
        ([1, b"k" * 4096, b"v" * (1 << 14), 0, 0], protocol.OK),
        ([1, b"", b"v", 0, 0], protocol.EMPTY_KEY),
        ([1, b"k" * 4097, b"v", 0, 0], protocol.TOO_LARGE),
        ([1, b"k", b"v" * ((1 << 20) + 1), 0, 0], protocol.TOO_LARGE),
        ([1, "k", b"v", 0, 0], protocol.BAD_REQUEST),
        ([1, b"k", "v", 0, 0], protocol.BAD_REQUEST),
        ([1, b"k", b"v", 0.0, 0], protocol.BAD_REQUEST),
        ([1, b"k", b"v", False, 0], protocol.BAD_REQUEST),
        ([1, b"k", b"v", 0, 0.0], protocol.BAD_REQUEST),
        ([1, b"k", b"v", 0, False], protocol.BAD_REQUEST),
        ([1, b"k", b"v", 7, 0], protocol.LEASE_NOT_FOUND),
        ([1, b"k", b"v", 0, 1], protocol.OK),
        ([1, b"k", b"v", 0, 3], protocol.VALUE_PROVIDED),
        ([1, b"k", b"v", 0, 9], protocol.BAD_REQUEST),
        ([1.0, b"k", b"v", 0, 0], protocol.BAD_REQUEST),
        ([2, b"k", b"", 0], protocol.OK),
        ([2, b"k", b"", 0.0], protocol.BAD_REQUEST),
    ],
)
def test_j12_the_fast_way_of_a_put_in_a_session_lets_nothing_more_in(
    arguments: list[object], code: int
) -> None:
    log = Log()
    session_id = log.open_session()
    assert log.apply(msgpack.packb([session_id, 1, 1, *arguments]))[0][0] == code
    for header in (
        [session_id, 1, True],
        [session_id, 1.0, 1],
        [True, 1, 1],
        [session_id, 0, 0],
        [session_id, 1, 2],
    ):
        assert log.apply(msgpack.packb([*header, *arguments]))[0][0] != protocol.OK


@pytest.mark.parametrize(
    ("read", "code"),
    [
        ([16, b"", b"", 0, 0, 0], protocol.EMPTY_KEY),
        ([16, b"k" * 4097, b"", 0, 0, 0], protocol.TOO_LARGE),
        ([16, b"k" * 4098, b"l", 0, 0, 0], protocol.TOO_LARGE),
        ([17, b"k" * 4097, b"l", 1, 0, 0], protocol.TOO_LARGE),
        ([17, b"k", b"l" * 4097, 1, 0, 0], protocol.TOO_LARGE),
        ([16, b"k", b"", 0, 0, 8], protocol.BAD_REQUEST),
        ([16, b"k", b"", -1, 0, 0], protocol.BAD_REQUEST),
        ([16, b"k", b"", 0, 2**63, 0], protocol.BAD_REQUEST),
        ([16, b"k", b"", LARGEST, 0, 3], protocol.OK),
        ([16, b"k", b"l", LARGEST, 0, 0], protocol.OK),
        ([16, b"k", b"l", 0, LARGEST, 0], protocol.FUTURE_REVISION),
        ([16, b"k", b"", 0, 0], protocol.BAD_REQUEST),
        ([16, b"k", [], 0, 0, 0], protocol.BAD_REQUEST),
        ([16], protocol.BAD_REQUEST),
        ([17, b"", b"", 0, 0, 0], protocol.EMPTY_KEY),
        ([17, b"b", b"a", 0, 0, 0], protocol.WATCH_RANGE_EMPTY),
        ([17, b"b", b"b", 5, 0, 0], protocol.WATCH_RANGE_EMPTY),
        ([17, b"k", b"", LARGEST, LARGEST, 0], protocol.OK),
        ([17, b"k", b"", 0, 0, 1], protocol.OK),
        ([17, b"k", b"", 0, 0, 2], protocol.BAD_REQUEST),
        ([17, b"k", b"", 0.5, 0, 0], protocol.BAD_REQUEST),
        ([19, 1, 0], protocol.OK),
        ([19, 1, 2], protocol.BAD_REQUEST),
        ([19, 1], protocol.BAD_REQUEST),
        ([19, b"1", 0], protocol.BAD_REQUEST),
        ([19, -1, 0], protocol.BAD_REQUEST),
        ([20], protocol.OK),
        ([20, 0], protocol.BAD_REQUEST),
        ([1, b"k", b"v", 0, 0], protocol.BAD_REQUEST),
        ([], protocol.BAD_REQUEST),
        ([[16]], protocol.BAD_REQUEST),
        (None, protocol.BAD_REQUEST),
    ],
)
def test_j12_a_poison_read_has_a_result_like_any_other(read: object, code: int) -> None:
    assert Log().ask(msgpack.packb(read))[0] == code


@pytest.mark.parametrize("size", [1000, UNGUARDED_BYTES, UNGUARDED_BYTES + 1, 1_500_000])
@pytest.mark.parametrize("filler", [b"\x90", b"\x80", b"\x91\xc0", b"\xc0", b"\xa0", b"\xc1"])
def test_a_body_of_nothing_but_structure_is_refused_alike_at_any_size(size: int, filler: bytes) -> None:
    body = b"\xdd" + (size // len(filler)).to_bytes(4, "big") + filler * (size // len(filler))
    tracemalloc.start()
    try:
        machine = StoreMachine(WatchPlane(1))
        [result] = machine.apply(1, [body])
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert result is not None
    assert msgpack.unpackb(result)[0] == protocol.BAD_REQUEST
    assert msgpack.unpackb(machine.query([body])[0])[0] == protocol.BAD_REQUEST


@pytest.mark.parametrize("depth", [2, 100, 500, 700, 1100, 5000])
def test_the_result_does_not_tell_how_deep_msgpack_can_go(depth: int) -> None:
    """Builds of msgpack differ in that; results of replicas must not."""
    for body in (b"\x91" * depth + b"\x90", b"\x94\x00\x00\x00" + b"\x91" * depth + b"\xc0"):
        [result] = Log().machine.apply(1, [body])
        [shallow] = Log().machine.apply(1, [b"\x91\x90"])
        assert result == shallow


ITEMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.binary(max_size=5),
    st.text(max_size=5),
)
ALMOST_COMMANDS = st.tuples(
    st.sampled_from([0, 0, 1, 7]),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 9),
    st.lists(ITEMS, max_size=6),
).map(lambda parts: msgpack.packb([*parts[:4], *parts[4]]))
ALMOST_READS = st.tuples(st.sampled_from([16, 17, 18, 19, 20]), st.lists(ITEMS, max_size=6)).map(
    lambda parts: msgpack.packb([parts[0], *parts[1]])
)


ALMOST_INTERNAL = st.tuples(st.sampled_from([32, 33, 34, 1]), st.lists(ITEMS, max_size=4)).map(
    lambda parts: protocol.INTERNAL_BYTE + msgpack.packb([parts[0], *parts[1]])
)


@pytest.mark.parametrize(
    "command", [[], [32], [32, 1], [32, 1, -1], [32, 1, 2, 3], [33], [33, b"1"], [33, True], [32.0, 1, 1], 32]
)
def test_j12_a_poison_command_of_a_leader_has_a_result_like_any_other(command: object) -> None:
    log = Log()
    before = log.machine.digest()
    [[code, _]] = log.apply(protocol.INTERNAL_BYTE + msgpack.packb(command))
    assert code == protocol.BAD_REQUEST and log.machine.digest() == before


@pytest.mark.parametrize(
    "read", [[], [34], [34, 1, 2], [34, 1, 2, "3"], [34, 1, -1, b""], [34, 1, 2, b"", 3], [33, 1, 2, b""], 34]
)
def test_j12_a_poison_read_of_a_leader_has_a_result_like_any_other(read: object) -> None:
    assert Log().ask(protocol.INTERNAL_BYTE + msgpack.packb(read))[0] == protocol.BAD_REQUEST


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=40), ALMOST_COMMANDS, ALMOST_READS, ALMOST_INTERNAL), max_size=8)
)
def test_g6_random_bodies_never_raise_and_give_every_replica_the_same(bodies: list[bytes]) -> None:
    one, other = Log(), Log()
    one.open_session()
    other.open_session()
    results = one.machine.apply(2, bodies)
    assert other.machine.apply(2, bodies) == results
    assert one.machine.query(bodies) == other.machine.query(bodies)
    assert one.machine.digest() == other.machine.digest()
    for result in results:
        assert result is not None
        assert msgpack.unpackb(result)[0] in protocol.CODE_NAMES
