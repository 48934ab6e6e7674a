"""One of each command that a log may have, as this version writes them; used when golden files are made.

What was made once stays as it is: a test that read the bodies from here would follow a change, and not find
it.
"""

from __future__ import annotations

from collections.abc import Callable

from kvstore import codes, protocol, protocol_lease
from kvstore.transaction_bodies import encode_list, transaction_body
from tests.kvstore.machine_log import Log

_PUT, _DELETE, _RANGE = codes.PUT, codes.DELETE, codes.RANGE


def fill(log: Log, apply: Callable[[bytes | None], object], half: Callable[[], None]) -> None:
    """Each body is handed to `apply`, which has `log` apply it; `half` is called between two of them."""
    put, delete = protocol.put_body, protocol.delete_body
    session = 2  # a session is called after the index of the entry that opens it
    for body in (
        protocol.open_session_body(b"nonce of session"),
        protocol.open_session_body(b"nonce of another"),
        put(0, 0, 0, b"a", b"1"),
        put(session, 1, 0, b"a", b"2", flags=codes.PREV_KV),
        put(session, 1, 0, b"a", b"2", flags=codes.PREV_KV),  # sent again
        put(0, 0, 0, b"binary\0\xff", bytes(range(256))),
        put(0, 0, 0, b"b", b"gone"),
        delete(session, 2, 1, b"b", flags=codes.PREV_KV),
        protocol_lease.grant_body(session, 3, 2, 60, 77),
        protocol_lease.grant_body(0, 0, 0, 10),
        put(0, 0, 0, b"leased", b"v", lease=77),
        put(0, 0, 0, b"leased", b"w", flags=codes.IGNORE_LEASE),
        put(0, 0, 0, b"leased", b"", lease=77, flags=codes.IGNORE_VALUE),
        None,
    ):
        apply(body)
    half()
    for body in (*_leases(log), *_transactions(session), *_endings(session)):
        apply(body)


def _leases(log: Log) -> list[bytes]:
    return [
        protocol_lease.tick_body(1234, log.machine.applied_index - 2),
        protocol_lease.grant_body(0, 0, 0, 5, 78),
        protocol.put_body(0, 0, 0, b"soon gone", b"v", lease=78),
        protocol_lease.keepalive_body([77, 78, 79]),
        protocol_lease.tick_body(60_000, log.machine.applied_index + 4),
        protocol_lease.tick_body(66_000, log.machine.applied_index + 5),
        protocol_lease.expire_body(66_000, [78]),
    ]


def _transactions(session: int) -> list[bytes]:
    compares = encode_list(
        [
            (codes.COMPARE_VALUE, codes.EQUAL, b"a", b"", b"2"),
            (codes.COMPARE_VERSION, codes.GREATER, b"a", b"", 1),
            (codes.COMPARE_CREATE, codes.LESS, b"a", b"b", 1000),
            (codes.COMPARE_MOD, codes.NOT_EQUAL, b"a", b"", 1000),
            (codes.COMPARE_LEASE, codes.EQUAL, b"leased", b"", 77),
        ]
    )
    nested = (codes.TXN, b"", encode_list([(_PUT, b"nested", b"n", 0, 0)]), b"")
    then = [
        (_PUT, b"c", b"of a transaction", 0, codes.PREV_KV),
        (_DELETE, b"b", b"c", 0),
        (_RANGE, b"a", b"d", 10, 0, 0),
        (_RANGE, b"a", b"d", 0, 0, codes.KEYS_ONLY, codes.SORT_MOD, codes.SORT_DESCENDING, 0, 0, 0, 0),
        nested,
    ]
    other = encode_list([(_PUT, b"else", b"e", 0, 0)])
    fails = encode_list([(codes.COMPARE_VERSION, codes.EQUAL, b"a", b"", 0)])
    return [
        transaction_body(session, 4, 3, compares, encode_list(then), other),
        transaction_body(0, 0, 0, fails, encode_list(then[:1]), other),
        transaction_body(
            0, 0, 0, b"", encode_list([(_PUT, b"d", b"1", 0, 0), (_PUT, b"d", b"2", 0, 0)]), b""
        ),
    ]


def _endings(session: int) -> list[bytes]:
    return [
        protocol_lease.revoke_body(session, 5, 4, 77),
        protocol.compact_body(session, 6, 5, 5),
        protocol.compact_body(0, 0, 0, 5),  # refused: it is done
        protocol.delete_body(0, 0, 0, b"a", b"c"),
        protocol.close_session_body(3, 1, 0),
        protocol.put_body(3, 2, 0, b"late", b"of a session that is closed"),
        b"\x90",  # what no client of this project sends
    ]
