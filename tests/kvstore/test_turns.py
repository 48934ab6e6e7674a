"""The store asks for the time often enough, whatever is written: no turn of the applier goes on without end.

Times are not measured here: how many commands, and how many bytes, come between two questions is counted.
"""

from __future__ import annotations

import msgpack
import pytest

from kvstore import protocol
from kvstore.protocol import IGNORE_VALUE, MAX_VALUE_BYTES, PREV_KV, put_body
from kvstore.state_machine import MAX_RESULTS_BYTES, UNASKED_BYTES, UNASKED_PUTS
from kvstore.transaction_bodies import encode_list, transaction_body
from kvstore.watch_frames import stream_topic
from tests.kvstore.machine_log import Log

MANY = 4096  # what is handed out at once
LARGE = b"x" * MAX_VALUE_BYTES


def plain(key: bytes, value: bytes = b"v", **options: int) -> bytes:
    return put_body(0, 0, 0, key, value, **options)


def turns_of(log: Log, bodies: list[bytes]) -> list[int]:
    """How many commands each turn applies, if the time is up whenever it is asked for."""
    counts = []
    while bodies:
        results = log.machine.apply_some(log.machine.applied_index + 1, bodies, is_time_up=lambda: True)
        assert results
        counts.append(len(results))
        del bodies[: len(results)]
    return counts


def internal(*items: int) -> bytes:
    body: bytes = protocol.INTERNAL_BYTE + msgpack.packb(items)
    return body


def of(operation: int, *arguments: object) -> bytes:
    body: bytes = msgpack.packb((0, 0, 0, operation, *arguments))
    return body


# Whatever is no put is asked behind: one a turn, be it carried out or refused.
OTHERS: dict[int, bytes] = {
    protocol.DELETE: protocol.delete_body(0, 0, 0, b"\x00", b"\x00"),
    protocol.COMPACT: of(protocol.COMPACT, 2),
    protocol.TXN: transaction_body(
        0, 0, 0, b"", encode_list([(protocol.RANGE, b"\x00", b"\x00", 0, 0, 0)]), b""
    ),
    protocol.LEASE_GRANT: of(protocol.LEASE_GRANT, 0, 10),
    protocol.LEASE_REVOKE: of(protocol.LEASE_REVOKE, 1),
    protocol.LEASE_KEEPALIVE: of(protocol.LEASE_KEEPALIVE, 1),
    protocol.LEASE_TICK: internal(protocol.LEASE_TICK, 1, 1),
    protocol.LEASE_EXPIRE: internal(protocol.LEASE_EXPIRE, 1),
    protocol.OPEN_SESSION: protocol.open_session_body(b"0123456789abcdef"),
    protocol.CLOSE_SESSION: of(protocol.CLOSE_SESSION),
}


def test_there_is_no_other_operation() -> None:
    sessions = {protocol.OPEN_SESSION, protocol.CLOSE_SESSION}
    assert {protocol.PUT, *OTHERS} == {*Log().machine._commands, *sessions}


@pytest.mark.parametrize("body", [*OTHERS.values(), b"", b"\x90" * 2000], ids=lambda body: body[:12].hex())
def test_the_time_is_asked_for_behind_each_command_that_is_no_put(body: bytes) -> None:
    log = Log()
    log.put(b"k")
    assert set(turns_of(log, [body] * 50)) == {1}


def test_the_time_is_asked_for_at_least_once_in_so_many_plain_puts() -> None:
    log = Log()
    counts = turns_of(log, [plain(b"k%d" % number) for number in range(MANY)])
    assert max(counts) <= UNASKED_PUTS
    assert min(counts[:-1]) > UNASKED_PUTS // 2  # a call for each would be too dear


@pytest.mark.parametrize(
    ("prepare", "body", "touched_bytes"),
    [
        (plain(b"k", LARGE), plain(b"k", b"", flags=IGNORE_VALUE), MAX_VALUE_BYTES),
        (plain(b"k", LARGE), plain(b"k", b"", flags=IGNORE_VALUE | PREV_KV), 2 * MAX_VALUE_BYTES),
        (plain(b"k", LARGE[:65536]), plain(b"k", LARGE[:65536]), 2 * 65536),
        (plain(b"other"), plain(b"k", LARGE[: 1 << 19], flags=PREV_KV), 1 << 19),
        (plain(b"k", LARGE[:5000]), plain(b"k", b"", flags=IGNORE_VALUE), 5000),
    ],
    ids=["kept", "kept-and-returned", "overwritten", "new", "kept-5000"],
)
def test_the_time_is_asked_for_whenever_so_many_bytes_were_touched(
    prepare: bytes, body: bytes, touched_bytes: int
) -> None:
    """Twelve bytes of request may look at a megabyte, and copy it."""
    log = Log()
    log.apply(prepare)
    assert max(turns_of(log, [body] * 60)) <= UNASKED_BYTES // touched_bytes + 1


def test_an_empty_value_in_the_place_of_a_large_one_counts_as_the_large_one() -> None:
    """Its checksum is computed anew."""
    log = Log()
    log.apply(*[plain(b"k%d" % number, LARGE[: 1 << 18]) for number in range(40)])
    assert max(turns_of(log, [plain(b"k%d" % number, b"") for number in range(40)])) == 1


def test_remembered_results_count_as_often_as_they_are_given() -> None:
    """A command that is asked again does nothing, and may have a result of a megabyte."""
    log = Log()
    session = log.open_session()
    log.put(b"k", LARGE)
    body = put_body(session, 1, 1, b"k", b"", flags=IGNORE_VALUE | PREV_KV)
    log.apply(body)
    assert set(turns_of(log, [body] * 20)) == {1}


@pytest.mark.parametrize(
    ("topics", "most"),
    [
        ([stream_topic(b"k", b"l%d" % number) for number in range(64)], 4),
        ([stream_topic(*protocol.prefix_range(b"k" * size)) for size in range(1, 513)], 1),
        ([stream_topic(b"k", b"l%d" % number) for number in range(16)], 13),
        ([stream_topic(b"other%d" % number, b"") for number in range(1000)], UNASKED_PUTS),
    ],
    ids=["ranges", "prefixes", "few-ranges", "other-keys"],
)
def test_the_time_is_asked_for_more_often_where_many_watch_one_key(topics: list[bytes], most: int) -> None:
    log = Log()
    log.machine.watch_plane.subscribed([b"\x01" + topic for topic in topics])
    counts = turns_of(log, [plain(b"k" * 512) for _ in range(200)])
    assert max(counts) <= most
    assert most < UNASKED_PUTS or max(counts) > UNASKED_PUTS // 2


def test_the_watchers_are_told_before_the_time_is_asked_for() -> None:
    """To tell them may take longer than the command itself."""
    log = Log()
    log.machine.watch_plane.subscribed([b"\x01" + stream_topic(b"k", b"")])
    seen: list[tuple[int, int]] = []

    def is_time_up() -> bool:
        seen.append((log.machine.watch_plane.revision, log.machine.revision))
        return False

    log.machine.apply_some(1, [plain(b"k")] * 500 + [OTHERS[protocol.DELETE]] * 2, is_time_up=is_time_up)
    assert len(seen) > 500 // UNASKED_PUTS
    assert all(told == applied for told, applied in seen)


@pytest.mark.parametrize("flags", [PREV_KV | IGNORE_VALUE, 0], ids=["puts", "transactions"])
def test_results_of_one_call_have_a_bound_whatever_the_time_is(flags: int) -> None:
    """Fifty kilobytes of requests must not become gigabytes of results on every node."""
    log = Log()
    log.put(b"k", LARGE)
    body = plain(b"k", b"", flags=flags) if flags else OTHERS[protocol.TXN]
    results = log.machine.apply_some(2, [body] * 100)
    size_bytes = sum(len(result) for result in results if result is not None)
    assert MAX_RESULTS_BYTES <= size_bytes < MAX_RESULTS_BYTES + 3 * MAX_VALUE_BYTES
    whole = Log()
    whole.put(b"k", LARGE)
    assert len(whole.machine.apply(2, [body] * 100)) == 100  # who asks for all gets all


def test_in_however_small_pieces_the_state_is_the_same() -> None:
    bodies = [plain(b"k%d" % (number % 7), b"v" * number) for number in range(300)]
    one, other = Log(), Log()
    one.machine.apply(1, bodies)
    turns_of(other, bodies)
    assert one.machine.digest() == other.machine.digest()
