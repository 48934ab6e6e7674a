"""Transactions as bytes: how one is written, and from the bytes of a body to a checked tree of operations.

May know: the protocol. Pure and deterministic, as `operations`, whose checks of operations it is given. Each
list in a transaction is a stream of flat msgpack arrays in one bin, so that no body nests msgpack, however
deep transactions nest. All that can be said without the store is said here: limits, types, and keys that are
put twice. Nothing of this depends on which branch will be taken.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, NoReturn

import msgpack

from kvstore import protocol
from kvstore.error_results import error_result
from kvstore.protocol import (
    DELETE,
    MAX_BOUND_BYTES,
    MAX_KEY_BYTES,
    MAX_TXN_DEPTH,
    MAX_TXN_ITEMS,
    MAX_TXN_OPERATIONS,
    PUT,
    READ_TXN,
    TXN,
    UNPACK_ERRORS,
)

OperationCheck = Callable[[list[Any]], bytes | None]
"""The error of one operation, [op, argument, …], that is no transaction."""

_pack: Callable[[Any], bytes] = msgpack.Packer().pack

MALFORMED_LIST: Final = error_result(
    protocol.BAD_REQUEST, "a list in a transaction is not a stream of flat msgpack arrays"
)
BAD_LISTS: Final = error_result(protocol.BAD_REQUEST, "a transaction has three lists of type bin")
BAD_COMPARE: Final = error_result(
    protocol.BAD_REQUEST, "a compare has target, result, key, range_end, operand"
)
COMPARE_KEY_EMPTY: Final = error_result(protocol.EMPTY_KEY, "key is not provided")
COMPARE_KEY_TOO_LARGE: Final = error_result(protocol.TOO_LARGE, f"a key has at most {MAX_KEY_BYTES} bytes")
DUPLICATE: Final = error_result(protocol.DUPLICATE_KEY, "duplicate key given in txn request")
TOO_MANY: Final = error_result(protocol.TOO_MANY_OPERATIONS, "too many operations in txn request")
TOO_DEEP: Final = error_result(
    protocol.TOO_MANY_OPERATIONS, f"transactions are nested more than {MAX_TXN_DEPTH} deep"
)


class Transaction(NamedTuple):
    """`then` is carried out if all compares hold, else `otherwise`; a nested one is [TXN, Transaction]."""

    compares: list[list[Any]]  # [target, result, key, range_end, operand]
    then: list[list[Any]]  # [op, argument, …]
    otherwise: list[list[Any]]
    has_put: bool  # in either branch, at any depth: it may make the data grow


class _Refused(Exception):
    """`args` has the result that says why."""


# ---------------------------------------------------------------- writing


def encode_list(items: Iterable[Sequence[Any]]) -> bytes:
    """Compares, or operations; a nested transaction among these is (TXN, and its three lists, encoded)."""
    return b"".join(map(_pack, items))


def transaction_body(
    session_id: int, sequence: int, acknowledged_below: int, compares: bytes, then: bytes, otherwise: bytes
) -> bytes:
    return _pack((session_id, sequence, acknowledged_below, TXN, compares, then, otherwise))


def read_transaction_body(compares: bytes, then: bytes, otherwise: bytes) -> bytes:
    return _pack((READ_TXN, compares, then, otherwise))


# ---------------------------------------------------------------- reading


def decode_transaction(lists: Sequence[Any], check: OperationCheck) -> Transaction | bytes:
    """A transaction, or the result of lists that are none."""
    try:
        transaction = _Decoder(check).transaction(lists, MAX_TXN_OPERATIONS, 1)
        if transaction.has_put:
            _check_branch(transaction.then)
            _check_branch(transaction.otherwise)
    except _Refused as refused:
        result: bytes = refused.args[0]
        return result
    return transaction


class _Decoder:
    """Owned by one call of decode_transaction()."""

    def __init__(self, check: OperationCheck) -> None:
        self._check = check
        self._items_left = MAX_TXN_ITEMS

    def transaction(self, lists: Sequence[Any], limit: int, depth: int) -> Transaction:
        """`limit` as etcd counts: of what the longest list leaves, the nested ones have the rest."""
        if depth > MAX_TXN_DEPTH:
            raise _Refused(TOO_DEEP)
        if len(lists) != 3 or not all(type(blob) is bytes for blob in lists):
            raise _Refused(BAD_LISTS)
        compares, then, otherwise = (self._items(blob, limit) for blob in lists)
        for compare in compares:
            error = _compare_error(compare)
            if error is not None:
                raise _Refused(error)
        rest = limit - max(len(compares), len(then), len(otherwise))
        has_put = False
        for operations in (then, otherwise):
            for operation in operations:
                has_put = self._operation(operation, rest, depth) or has_put
        return Transaction(compares, then, otherwise, has_put)

    def _operation(self, operation: list[Any], limit: int, depth: int) -> bool:
        """Checks it, and puts the tree of a nested transaction in the place of its lists. True if it puts."""
        if operation and type(operation[0]) is int and operation[0] == TXN:
            nested = self.transaction(operation[1:], limit, depth + 1)
            operation[1:] = [nested]
            return nested.has_put
        error = self._check(operation)
        if error is not None:
            raise _Refused(error)
        return bool(operation[0] == PUT)

    def _items(self, blob: bytes, limit: int) -> list[list[Any]]:
        """The arrays of a list. A body full of nested ones must not become a hundred times as much memory."""
        if not blob:
            return []
        is_inside = False

        def count_array(items: list[Any]) -> list[Any]:
            nonlocal is_inside
            if is_inside:
                raise ValueError("an array in an array")
            is_inside = True
            return items

        unpacker = msgpack.Unpacker(max_buffer_size=len(blob), list_hook=count_array, object_hook=_refuse_map)
        items: list[list[Any]] = []
        end = 0  # of the last item that is whole
        try:
            unpacker.feed(blob)
            for item in unpacker:
                if type(item) is not list:
                    raise _Refused(MALFORMED_LIST)
                is_inside, end = False, unpacker.tell()
                items.append(item)
                self._items_left -= 1
                if len(items) > limit or self._items_left < 0:
                    raise _Refused(TOO_MANY)
        except UNPACK_ERRORS:
            raise _Refused(MALFORMED_LIST) from None
        if end != len(blob):
            raise _Refused(MALFORMED_LIST)
        return items


def _refuse_map(_: object) -> NoReturn:
    raise ValueError("a map is not expected here")


def _compare_error(compare: list[Any]) -> bytes | None:
    if len(compare) != 5:
        return BAD_COMPARE
    target, result, key, range_end, operand = compare
    if not (type(target) is type(result) is int and type(key) is type(range_end) is bytes):
        return BAD_COMPARE
    if not (
        protocol.COMPARE_VERSION <= target <= protocol.COMPARE_LEASE
        and protocol.EQUAL <= result <= protocol.LESS
    ):
        return BAD_COMPARE
    if target == protocol.COMPARE_VALUE:
        if type(operand) is not bytes:
            return BAD_COMPARE
    elif not protocol.is_integer(operand):
        return BAD_COMPARE
    if not key:
        return COMPARE_KEY_EMPTY
    if len(key) > (MAX_BOUND_BYTES if range_end else MAX_KEY_BYTES) or len(range_end) > MAX_BOUND_BYTES:
        return COMPARE_KEY_TOO_LARGE
    return None


# ---------------------------------------------------------------- keys that are put twice

_Range = tuple[bytes, bytes]


def _check_branch(operations: list[list[Any]]) -> tuple[list[bytes], list[_Range]]:
    """What the operations of a branch put and delete, at any depth; refused if a key is put twice, or put and
    deleted.

    Only one branch of a nested transaction comes to pass, so its two may put the same key. To delete a key
    twice is no harm. (etcd overlooks a put in one nested transaction and a delete in a later one.)
    """
    owners: dict[bytes, int] = {}  # key that is put, to the place of the operation that does
    deletes: list[tuple[_Range, int]] = []
    for place, operation in enumerate(operations):
        if operation[0] == PUT:
            _own(owners, [operation[1]], place)
        elif operation[0] == DELETE:
            deletes.append(((operation[1], operation[2]), place))
        elif operation[0] == TXN:
            for branch in (operation[1].then, operation[1].otherwise):
                keys, ranges = _check_branch(branch)
                _own(owners, keys, place)
                deletes += [(each, place) for each in ranges]
    if owners and deletes:
        _check_deletes(owners, deletes)
    return list(owners), [each for each, _ in deletes]


def _own(owners: dict[bytes, int], keys: list[bytes], place: int) -> None:
    for key in keys:
        if owners.setdefault(key, place) != place:
            raise _Refused(DUPLICATE)


def _check_deletes(owners: dict[bytes, int], deletes: list[tuple[_Range, int]]) -> None:
    """Each deleted range has no key that is put by another operation than the one that deletes it."""
    keys = sorted(owners)
    same_until = list(range(1, len(keys) + 1))  # from here to there all keys have the same owner
    for at in range(len(keys) - 2, -1, -1):
        if owners[keys[at]] == owners[keys[at + 1]]:
            same_until[at] = same_until[at + 1]
    for (key, range_end), place in deletes:
        low = bisect_left(keys, key)
        if not range_end:
            high = low + 1 if keys[low : low + 1] == [key] else low
        elif range_end == b"\x00":
            high = len(keys)
        else:
            high = bisect_left(keys, range_end)
        if low < high and (owners[keys[low]] != place or same_until[low] < high):
            raise _Refused(DUPLICATE)
