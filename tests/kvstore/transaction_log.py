"""Transactions written down shortly, for the tests of all that has to do with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvstore import protocol
from kvstore.protocol import DELETE, PUT, RANGE, TXN
from kvstore.transaction_bodies import encode_list, read_transaction_body, transaction_body
from tests.kvstore.machine_log import Log

Item = Sequence[Any]

TARGETS = {
    "version": protocol.COMPARE_VERSION,
    "create": protocol.COMPARE_CREATE,
    "mod": protocol.COMPARE_MOD,
    "value": protocol.COMPARE_VALUE,
    "lease": protocol.COMPARE_LEASE,
}
RESULTS = {"=": protocol.EQUAL, "!=": protocol.NOT_EQUAL, ">": protocol.GREATER, "<": protocol.LESS}
ALWAYS: Item = (protocol.COMPARE_VERSION, protocol.EQUAL, b"\x00never\x00", b"", 0)
NEVER: Item = (protocol.COMPARE_VERSION, protocol.GREATER, b"\x00never\x00", b"", 0)


def compare(target: str, key: bytes, sign: str, operand: int | bytes, range_end: bytes = b"") -> Item:
    return TARGETS[target], RESULTS[sign], key, range_end, operand


def put(key: bytes, value: bytes = b"v", lease: int = 0, flags: int = 0) -> Item:
    return PUT, key, value, lease, flags


def delete(key: bytes, range_end: bytes = b"", flags: int = 0) -> Item:
    return DELETE, key, range_end, flags


def read(key: bytes, range_end: bytes = b"", limit: int = 0, revision: int = 0, flags: int = 0) -> Item:
    return RANGE, key, range_end, limit, revision, flags


def nested(when: Sequence[Item] = (), then: Sequence[Item] = (), otherwise: Sequence[Item] = ()) -> Item:
    return TXN, encode_list(when), encode_list(then), encode_list(otherwise)


def written(
    when: Sequence[Item] = (),
    then: Sequence[Item] = (),
    otherwise: Sequence[Item] = (),
    header: tuple[int, int, int] = (0, 0, 0),
) -> bytes:
    """The body of one that goes through the log."""
    return transaction_body(*header, encode_list(when), encode_list(then), encode_list(otherwise))


def asked(when: Sequence[Item] = (), then: Sequence[Item] = (), otherwise: Sequence[Item] = ()) -> bytes:
    """The body of one that is read."""
    return read_transaction_body(encode_list(when), encode_list(then), encode_list(otherwise))


def transact(
    log: Log, when: Sequence[Item] = (), then: Sequence[Item] = (), otherwise: Sequence[Item] = ()
) -> list[Any]:
    """The result of one that goes through the log."""
    [result] = log.apply(written(when, then, otherwise))
    found: list[Any] = result
    return found
