"""Commands and reads: from the bytes of a body to checked arguments, or to a result that says what is wrong.

May know: the protocol. Pure and deterministic: what is wrong with a body, and the text that says so,
depend on its bytes alone, never on the state, the version of a library or the node. No body whatsoever
makes these functions raise. A decoded command is the list that the protocol describes, [session_id,
sequence, acknowledged_below, op, arguments …], with every element of the right type and in range; a
decoded read is [op, arguments …]. Of a transaction the one argument is its tree, a Transaction; of one
that is read it is made when it is read, for it takes many times the memory of its bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgpack

from kvstore import protocol
from kvstore.codes import SORT_DESCENDING, SORT_KEY, SORT_NONE, SORT_VALUE, UNCOUNTED
from kvstore.error_results import error_result as error_result
from kvstore.protocol import (
    CHILDREN,
    CLOSE_SESSION,
    COMPACT,
    DELETE,
    IGNORE_LEASE,
    IGNORE_VALUE,
    INTERNAL_BYTE,
    LEASE_EXPIRE,
    LEASE_GRANT,
    LEASE_KEEPALIVE,
    LEASE_KEYS,
    LEASE_LIST,
    LEASE_REVOKE,
    LEASE_TICK,
    LEASE_TIME_TO_LIVE,
    MAX_BODY_BYTES,
    MAX_BOUND_BYTES,
    MAX_INTEGER,
    MAX_KEEPALIVES,
    MAX_KEY_BYTES,
    MAX_TTL_SECONDS,
    MAX_VALUE_BYTES,
    NONCE_BYTES,
    OPEN_SESSION,
    PREV_KV,
    PUT,
    RANGE,
    READ_TXN,
    REMEMBERED,
    TXN,
    UNPACK_ERRORS,
    WATCH_HISTORY,
    unpack_guarded,
)
from kvstore.transaction_bodies import BAD_LISTS, Transaction, decode_transaction

# A body up to this size is unpacked without guard: whatever it holds becomes a megabyte at most.
UNGUARDED_BYTES: Final = 16_384

_unpack: Callable[[bytes], Any] = msgpack.unpackb
_PUT_FLAGS: Final = PREV_KV | IGNORE_VALUE | IGNORE_LEASE
_RANGE_FLAGS: Final = protocol.KEYS_ONLY | protocol.COUNT_ONLY | UNCOUNTED
_NOTHING_CHOSEN: Final = [0] * 6  # the rest of the long form


MALFORMED: Final = error_result(protocol.BAD_REQUEST, "not a msgpack array of plain items")
BAD_HEADER: Final = error_result(
    protocol.BAD_REQUEST, "a command begins with session id, sequence, acknowledged_below, operation"
)
BAD_SEQUENCE: Final = error_result(
    protocol.BAD_REQUEST, "a session needs a sequence from 1 on, no session needs 0 for both"
)
UNKNOWN_OPERATION: Final = error_result(protocol.BAD_REQUEST, "unknown operation")
BAD_ARGUMENTS: Final = error_result(protocol.BAD_REQUEST, "wrong number, type or range of arguments")
UNKNOWN_FLAG: Final = error_result(protocol.BAD_REQUEST, "unknown flag")
VALUE_GIVEN: Final = error_result(protocol.VALUE_PROVIDED, "value is provided")
LEASE_GIVEN: Final = error_result(protocol.LEASE_PROVIDED, "lease is provided")
WRITE_IN_READ: Final = error_result(protocol.BAD_REQUEST, "a transaction that is read has no put or delete")
PAST_IN_WRITE: Final = error_result(
    protocol.BAD_REQUEST, "a transaction that is written reads the current revision only"
)
BAD_NONCE: Final = error_result(protocol.BAD_REQUEST, f"a nonce has {NONCE_BYTES} bytes")
KEY_EMPTY: Final = error_result(protocol.EMPTY_KEY, "key is not provided")
KEY_TOO_LARGE: Final = error_result(protocol.TOO_LARGE, f"a key has at most {MAX_KEY_BYTES} bytes")
VALUE_TOO_LARGE: Final = error_result(protocol.TOO_LARGE, f"a value has at most {MAX_VALUE_BYTES} bytes")
BODY_TOO_LARGE: Final = error_result(protocol.TOO_LARGE, f"a request has at most {MAX_BODY_BYTES} bytes")
TTL_TOO_LARGE: Final = error_result(protocol.LEASE_TTL_TOO_LARGE, "too large lease TTL")
RANGE_EMPTY: Final = error_result(protocol.WATCH_RANGE_EMPTY, "watcher range is empty")


def decode_write(body: bytes) -> list[Any] | bytes:
    """A command, or the result of a body that is none."""
    if len(body) > UNGUARDED_BYTES:
        items = _unpack_items(body)
        return items if isinstance(items, bytes) else _checked_write(items)
    try:
        command = _unpack(body)
    except UNPACK_ERRORS:
        return _decode_internal(body)
    if type(command) is not list:
        return MALFORMED
    if len(command) == 8:
        # A plain put within a session, the command that has to be fast, is let in by one expression. It may
        # say no to other good commands, but yes to no bad one. (The value is small, as the body is.)
        session_id, sequence, acknowledged_below, operation, key, value, lease, flags = command
        if (
            type(session_id) is int
            and type(sequence) is int
            and type(acknowledged_below) is int
            and type(operation) is int
            and type(key) is bytes
            and type(value) is bytes
            and type(lease) is int
            and type(flags) is int
            and operation == PUT
            and 0 <= acknowledged_below <= sequence <= MAX_INTEGER
            and 0 < session_id <= MAX_INTEGER
            and sequence
            and 0 < len(key) <= MAX_KEY_BYTES
            and lease == 0
            and flags == 0
        ):
            return command
    return _checked_write(command)


def _checked_write(command: list[Any]) -> list[Any] | bytes:
    if len(command) < 4:
        return _blame(command, BAD_HEADER)
    session_id, sequence, acknowledged_below, operation = command[:4]
    if not (type(session_id) is type(sequence) is type(acknowledged_below) is type(operation) is int):
        return _blame(command, BAD_HEADER)
    if not (0 <= session_id <= MAX_INTEGER and 0 <= acknowledged_below <= sequence <= MAX_INTEGER):
        return _blame(command, BAD_HEADER)
    check = _WRITE_CHECKS.get(operation)
    error = UNKNOWN_OPERATION if check is None else check(command)
    if error is None and (session_id == 0) != (sequence == 0):
        error = BAD_SEQUENCE
    return command if error is None else _blame(command, error)


def _decode_internal(body: bytes) -> list[Any] | bytes:
    """A command of a leader: as one without a session, [0, 0, 0, op, arguments …]."""
    if body[:1] != INTERNAL_BYTE:
        return MALFORMED
    try:
        command = _unpack(body[1:])
    except UNPACK_ERRORS:
        return MALFORMED
    if type(command) is not list or not _are_integers(command):
        return MALFORMED
    if (command[:1] == [LEASE_TICK] and len(command) >= 3 and len(command) % 2) or (
        command[:1] == [LEASE_EXPIRE] and len(command) >= 2
    ):
        return [0, 0, 0, *command]
    return MALFORMED


def decode_read(body: bytes) -> list[Any] | bytes:
    """A read, or the result of a body that is none."""
    read = _unpack_items(body)
    if isinstance(read, bytes):
        return _decode_internal_read(body, read)
    if not read or type(read[0]) is not int:
        return _blame(read, UNKNOWN_OPERATION)
    check = _READ_CHECKS.get(read[0])
    error = UNKNOWN_OPERATION if check is None else check(read)
    return read if error is None else _blame(read, error)


def _decode_internal_read(body: bytes, error: bytes) -> list[Any] | bytes:
    """A read of a leader, or this error."""
    if body[:1] != INTERNAL_BYTE:
        return error
    try:
        read = _unpack(body[1:])
    except UNPACK_ERRORS:
        return error
    if type(read) is not list or len(read) != 4 or read[0] != REMEMBERED:
        return error
    return read if _are_integers(read[:3]) and type(read[3]) is bytes else error


def _unpack_items(body: bytes) -> list[Any] | bytes:
    size_bytes = len(body)
    try:
        if size_bytes <= UNGUARDED_BYTES:
            items = _unpack(body)
        elif size_bytes <= MAX_BODY_BYTES:
            items = unpack_guarded(body, max_arrays=1)
        else:
            return BODY_TOO_LARGE
    except UNPACK_ERRORS:
        return MALFORMED
    return items if type(items) is list else MALFORMED


def _blame(items: list[Any], error: bytes) -> bytes:
    """Nested arrays and maps are malformed whatever else is wrong.

    How deep they may go before unpacking itself fails depends on msgpack's build; the result must not.
    """
    if any(type(item) is list or type(item) is dict for item in items):
        return MALFORMED
    return error


# ---------------------------------------------------------------- writes


def _check_put(command: list[Any]) -> bytes | None:
    if len(command) != 8:
        return BAD_ARGUMENTS
    _, _, _, _, key, value, lease, flags = command
    if not (type(key) is type(value) is bytes and type(lease) is type(flags) is int):
        return BAD_ARGUMENTS
    if not 0 < len(key) <= MAX_KEY_BYTES:
        return KEY_TOO_LARGE if key else KEY_EMPTY
    if len(value) > MAX_VALUE_BYTES:
        return VALUE_TOO_LARGE
    if lease or flags:
        if not (0 <= lease <= MAX_INTEGER and 0 <= flags <= MAX_INTEGER):
            return BAD_ARGUMENTS
        if flags & ~_PUT_FLAGS:
            return UNKNOWN_FLAG
        if flags & IGNORE_VALUE and value:
            return VALUE_GIVEN
        if flags & IGNORE_LEASE and lease:
            return LEASE_GIVEN
    return None


def _check_delete(command: list[Any]) -> bytes | None:
    if len(command) != 7:
        return BAD_ARGUMENTS
    _, _, _, _, key, range_end, flags = command
    error = _check_range(key, range_end, flags, 0, 0)
    if error is None and flags & ~PREV_KV:
        return UNKNOWN_FLAG
    return error


def _check_open_session(command: list[Any]) -> bytes | None:
    if len(command) != 5 or type(command[4]) is not bytes:
        return BAD_ARGUMENTS
    if command[0] or command[1]:
        return BAD_SEQUENCE
    return None if len(command[4]) == NONCE_BYTES else BAD_NONCE


def _check_close_session(command: list[Any]) -> bytes | None:
    if len(command) != 4:
        return BAD_ARGUMENTS
    return None if command[0] else BAD_SEQUENCE


def _check_compact(command: list[Any]) -> bytes | None:
    if len(command) != 5 or type(command[4]) is not int or not 0 <= command[4] <= MAX_INTEGER:
        return BAD_ARGUMENTS
    return None


def _check_grant(command: list[Any]) -> bytes | None:
    if len(command) != 6 or not _are_integers(command[4:]):
        return BAD_ARGUMENTS
    return TTL_TOO_LARGE if command[4] > MAX_TTL_SECONDS else None


def _check_revoke(command: list[Any]) -> bytes | None:
    return None if len(command) == 5 and _are_integers(command[4:]) else BAD_ARGUMENTS


def _check_keepalive(command: list[Any]) -> bytes | None:
    return None if 5 <= len(command) <= 4 + MAX_KEEPALIVES and _are_integers(command[4:]) else BAD_ARGUMENTS


def _are_integers(items: list[Any]) -> bool:
    return all(type(item) is int and 0 <= item <= MAX_INTEGER for item in items)


# ---------------------------------------------------------------- transactions


def _check_transaction(command: list[Any]) -> bytes | None:
    """Puts the tree of operations in the place of its encoded lists."""
    transaction = decode_transaction(command[4:], _check_written_operation)
    if isinstance(transaction, bytes):
        return transaction
    command[4:] = [transaction]
    return None


def _check_read_transaction(read: list[Any]) -> bytes | None:
    return None if len(read) == 4 and all(type(blob) is bytes for blob in read[1:]) else BAD_LISTS


def decode_read_transaction(read: list[Any]) -> Transaction | bytes:
    """The tree of a transaction that decode_read() let in, or the result of one that is none."""
    return decode_transaction(read[1:], _check_read_operation)


def _check_written_operation(operation: list[Any]) -> bytes | None:
    kind = operation[0] if operation and type(operation[0]) is int else None
    if kind == PUT:
        return _check_put([0, 0, 0, *operation])
    if kind == DELETE:
        return _check_delete([0, 0, 0, *operation])
    if kind != RANGE:
        return UNKNOWN_OPERATION
    # What can be read of the past is not the same on all nodes, and this result is remembered by all.
    error = _check_range_read(operation)
    return PAST_IN_WRITE if error is None and operation[4] else error


def _check_read_operation(operation: list[Any]) -> bytes | None:
    kind = operation[0] if operation and type(operation[0]) is int else None
    if kind in (PUT, DELETE):
        return WRITE_IN_READ
    return _check_range_read(operation) if kind == RANGE else UNKNOWN_OPERATION


# ---------------------------------------------------------------- reads


def _check_range_read(read: list[Any]) -> bytes | None:
    if len(read) != 6 and len(read) != 12:
        return BAD_ARGUMENTS
    _, key, range_end, limit, revision, flags = read[:6]
    error = _check_range(key, range_end, flags, limit, revision)
    if error is None and flags & ~_RANGE_FLAGS:
        return UNKNOWN_FLAG
    if error is None and (len(read) == 12 or flags & UNCOUNTED):
        return _check_selection(read)
    return error


def _check_selection(read: list[Any]) -> bytes | None:
    """A long form that chooses and sorts nothing becomes a short one, if that has all that is asked for."""
    if len(read) == 6:
        read += _NOTHING_CHOSEN
    target, order = read[6:8]
    if not all(map(protocol.is_integer, read[6:])):
        return BAD_ARGUMENTS
    if target > SORT_VALUE or order > SORT_DESCENDING or (order and not target):
        return BAD_ARGUMENTS
    only_counts, is_uncounted = read[5] & protocol.COUNT_ONLY, read[5] & UNCOUNTED
    if only_counts and is_uncounted:
        return UNKNOWN_FLAG
    if target == SORT_KEY and not order:
        read[6] = SORT_NONE  # it comes in this order anyway
    if only_counts or not (is_uncounted or any(read[6:])):
        del read[6:]
    return None


def _check_children(read: list[Any]) -> bytes | None:
    if len(read) != 5:
        return BAD_ARGUMENTS
    _, path, limit, start_after, revision = read
    if not (type(path) is type(start_after) is bytes):
        return BAD_ARGUMENTS
    if not (protocol.is_integer(limit) and protocol.is_integer(revision)):
        return BAD_ARGUMENTS
    # Slashes at the ends of a path are no part of it.
    return KEY_TOO_LARGE if len(path) > MAX_BOUND_BYTES or len(start_after) > MAX_KEY_BYTES else None


def _check_watch_history(read: list[Any]) -> bytes | None:
    if len(read) != 6:
        return BAD_ARGUMENTS
    _, key, range_end, start_revision, limit_bytes, flags = read
    error = _check_range(key, range_end, flags, start_revision, limit_bytes)
    if error is None and flags & ~PREV_KV:
        return UNKNOWN_FLAG
    if error is None and (len(key) > MAX_KEY_BYTES or len(range_end) > MAX_KEY_BYTES):
        return KEY_TOO_LARGE  # no stream has such a topic
    if error is None and protocol.range_is_inverted(key, range_end):
        return RANGE_EMPTY
    return error


def _check_time_to_live(read: list[Any]) -> bytes | None:
    if len(read) != 3 or not _are_integers(read):
        return BAD_ARGUMENTS
    return UNKNOWN_FLAG if read[2] & ~LEASE_KEYS else None


def _check_lease_list(read: list[Any]) -> bytes | None:
    return None if len(read) == 1 else BAD_ARGUMENTS


def _check_range(key: Any, range_end: Any, flags: Any, first: Any, second: Any) -> bytes | None:
    """`first` and `second` are whatever other integers the operation has."""
    if not (type(key) is bytes and type(range_end) is bytes):
        return BAD_ARGUMENTS
    if not (type(flags) is int and type(first) is int and type(second) is int):
        return BAD_ARGUMENTS
    if not (0 <= flags <= MAX_INTEGER and 0 <= first <= MAX_INTEGER and 0 <= second <= MAX_INTEGER):
        return BAD_ARGUMENTS
    if not key:
        return KEY_EMPTY
    # A range that was cut is continued at the last key with a zero byte appended.
    if len(key) > (MAX_BOUND_BYTES if range_end else MAX_KEY_BYTES) or len(range_end) > MAX_BOUND_BYTES:
        return KEY_TOO_LARGE
    return None


_WRITE_CHECKS: Final[dict[int, Callable[[list[Any]], bytes | None]]] = {
    PUT: _check_put,
    DELETE: _check_delete,
    OPEN_SESSION: _check_open_session,
    CLOSE_SESSION: _check_close_session,
    COMPACT: _check_compact,
    LEASE_GRANT: _check_grant,
    LEASE_REVOKE: _check_revoke,
    LEASE_KEEPALIVE: _check_keepalive,
    TXN: _check_transaction,
}
_READ_CHECKS: Final[dict[int, Callable[[list[Any]], bytes | None]]] = {
    RANGE: _check_range_read,
    WATCH_HISTORY: _check_watch_history,
    LEASE_TIME_TO_LIVE: _check_time_to_live,
    LEASE_LIST: _check_lease_list,
    READ_TXN: _check_read_transaction,
    CHILDREN: _check_children,
}
