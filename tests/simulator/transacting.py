"""The transactions of the simulated clients: compare and swap with a nested part, and reads of one moment.

Knows the bodies and results of the protocol; what an answer says is noted in what the history has of it, and
judged there.
"""

from __future__ import annotations

from typing import Any

from kvstore import protocol
from kvstore.protocol import DELETE, EQUAL, GREATER, PREV_KV, PUT, RANGE, TXN
from kvstore.transaction_bodies import encode_list, read_transaction_body, transaction_body
from tests.simulator.history import Seen
from tests.simulator.model import Record
from tests.simulator.tracing import Violation

Span = tuple[bytes, bytes]


def read_all(span: Span) -> bytes:
    return encode_list([(RANGE, *span, 0, 0, 0)])


def is_there(key: bytes) -> bytes:
    return encode_list([(protocol.COMPARE_VERSION, GREATER, key, b"", 0)])


def swap_body(
    header: tuple[int, int, int],
    span: Span,
    known: Record | None,
    by_value: bool,
    key: bytes,
    toggled: bytes,
    value: bytes,
) -> bytes:
    """If `key` is as it is known to be, put it, and put the other one or remove it. Then all is read."""
    if known is None:
        compare = (protocol.COMPARE_VERSION, EQUAL, key, b"", 0)
    elif by_value:
        compare = (protocol.COMPARE_VALUE, EQUAL, key, b"", known[1])
    else:
        compare = (protocol.COMPARE_MOD, EQUAL, key, b"", known[3])
    then: list[Any] = [(PUT, key, value, 0, 0)]
    if toggled:
        remove, put = (DELETE, toggled, b"", PREV_KV), (PUT, toggled, value, 0, 0)
        then.append((TXN, is_there(toggled), encode_list([remove]), encode_list([put])))
    otherwise = read_all(span)
    return transaction_body(*header, encode_list([compare]), encode_list(then) + otherwise, otherwise)


def note_swap(seen: Seen, result: list[Any]) -> None:
    _, _, seen.succeeded, results = result
    seen.records = results[-1][4]
    if seen.succeeded and seen.toggled:
        seen.existed = results[1][2]


def reading_body(span: Span, key: bytes) -> bytes:
    """The key; and all, on both ways of a nested transaction that asks whether it is there."""
    every = read_all(span)
    items = [(RANGE, key, b"", 0, 0, 0), (TXN, is_there(key), every, every)]
    return read_transaction_body(b"", encode_list(items), b"")


def note_reading(seen: Seen, result: list[Any]) -> None:
    one, nested = result[3]
    [every] = nested[3]
    seen.records = every[4]
    found = [record for record in seen.records if record[0] == seen.compared]
    revisions = {each[1] for each in (result, one, nested, every)}
    if one[4] != found or nested[2] != bool(found) or len(revisions) > 1:
        raise Violation(f"{seen} is of several moments: {result}")
