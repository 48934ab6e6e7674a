"""Transactions as a caller builds them: compares, two branches of operations, and one outcome.

May know: calls, bodies and results. What is built here is never changed, so it may be kept and committed as
often as wanted; each commit is a call of its own. `Answer` is what a face of the client gives for a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar, Unpack

from kvstore import protocol
from kvstore.client import calls, results
from kvstore.client.calls import AnyLease, Call, Chosen, Consistency
from kvstore.client.results import DeleteResult, KeyValue, PutResult, RangeResult
from kvstore.errors import TooLarge
from kvstore.protocol import MalformedFrame
from kvstore.transaction_bodies import encode_list, read_transaction_body, transaction_body

Sign = Literal["=", "!=", ">", "<"]
Answer = TypeVar("Answer")

_SIGNS: Final[dict[str, int]] = {
    "=": protocol.EQUAL,
    "!=": protocol.NOT_EQUAL,
    ">": protocol.GREATER,
    "<": protocol.LESS,
}
_OVERHEAD_BYTES: Final = 64  # of a body, beside its three lists


class TxnResult(NamedTuple):
    """`results` has one for each operation of the branch that was taken: `then` if it `succeeded`.

    All of it is of `revision`, the store's after the transaction. True if it succeeded.
    """

    revision: int
    succeeded: bool
    results: list[OperationResult]

    def __bool__(self) -> bool:
        return self.succeeded


OperationResult: TypeAlias = PutResult | DeleteResult | RangeResult | KeyValue | TxnResult | None
"""Of put, of the deletes, of range and prefix, of get (None: not there), and of a nested transaction."""


# ---------------------------------------------------------------- compares


class Compare(NamedTuple):
    """What must be so. Of a key that is not there all numbers are 0, and no compare of its value holds.

    With `prefix` it must be so of every key that begins with the key.
    """

    target: int
    sign: int
    key: bytes
    range_end: bytes
    operand: int | bytes

    @staticmethod
    def version(key: str | bytes, sign: Sign, number: int, *, prefix: bool = False) -> Compare:
        """Changes since its creation, from 1 on."""
        return _number(protocol.COMPARE_VERSION, key, sign, number, prefix)

    @staticmethod
    def create_revision(key: str | bytes, sign: Sign, revision: int, *, prefix: bool = False) -> Compare:
        return _number(protocol.COMPARE_CREATE, key, sign, revision, prefix)

    @staticmethod
    def mod_revision(key: str | bytes, sign: Sign, revision: int, *, prefix: bool = False) -> Compare:
        return _number(protocol.COMPARE_MOD, key, sign, revision, prefix)

    @staticmethod
    def lease(key: str | bytes, sign: Sign, lease: int | AnyLease, *, prefix: bool = False) -> Compare:
        """0 for a key that has none."""
        held_by = calls.lease_id(lease) if lease else 0
        return _number(protocol.COMPARE_LEASE, key, sign, held_by, prefix)

    @staticmethod
    def value(key: str | bytes, sign: Sign, value: str | bytes, *, prefix: bool = False) -> Compare:
        """Bytewise."""
        return _compare(protocol.COMPARE_VALUE, key, sign, calls.checked_value(value), prefix)

    @staticmethod
    def exists(key: str | bytes) -> Compare:
        return _number(protocol.COMPARE_CREATE, key, ">", 0, False)

    @staticmethod
    def is_absent(key: str | bytes) -> Compare:
        return _number(protocol.COMPARE_CREATE, key, "=", 0, False)

    @staticmethod
    def is_unchanged(item: KeyValue) -> Compare:
        """Nobody has put or deleted the key since `item` was read."""
        return _number(protocol.COMPARE_MOD, item.key, "=", item.mod_revision, False)

    @staticmethod
    def is_held(key: str | bytes, token: int) -> Compare:
        """The key is still the one whose create_revision is `token`: a guard for what a lock protects."""
        return _number(protocol.COMPARE_CREATE, key, "=", token, False)


def _number(target: int, key: str | bytes, sign: Sign, number: int, prefix: bool) -> Compare:
    if not protocol.is_integer(number):
        raise ValueError(f"{number!r} is no number from 0 to {protocol.MAX_INTEGER}")
    return _compare(target, key, sign, number, prefix)


def _compare(target: int, key: str | bytes, sign: Sign, operand: int | bytes, prefix: bool) -> Compare:
    if sign not in _SIGNS:
        raise ValueError(f"sign: {sign!r} is none of {', '.join(_SIGNS)}")
    span = calls.key_prefix(key) if prefix else calls.one_key(key)
    return Compare(target, _SIGNS[sign], *span, operand)


# ---------------------------------------------------------------- operations


@dataclass(frozen=True, slots=True)
class Operation:
    """What is to be done in one of the branches; later ones see what earlier ones did."""

    item: tuple[Any, ...]  # as the protocol has it
    decode: Callable[[list[Any]], OperationResult]
    is_write: bool

    @staticmethod
    def put(
        key: str | bytes,
        value: str | bytes,
        *,
        previous: bool = False,
        lease: int | AnyLease = 0,
        ignore_value: bool = False,
        ignore_lease: bool = False,
    ) -> Operation:
        """As client.put()."""
        flags = calls.put_flags(previous, ignore_value=ignore_value, ignore_lease=ignore_lease)
        number = calls.lease_id(lease) if lease else 0
        item = (protocol.PUT, calls.one_key(key)[0], calls.checked_value(value), number, flags)
        return Operation(item, results.decode_put, is_write=True)

    @staticmethod
    def delete(key: str | bytes, *, previous: bool = False) -> Operation:
        return _delete(calls.one_key(key), previous)

    @staticmethod
    def delete_range(key: str | bytes, end: str | bytes, *, previous: bool = False) -> Operation:
        return _delete(calls.key_range(key, end), previous)

    @staticmethod
    def delete_prefix(prefix: str | bytes, *, previous: bool = False) -> Operation:
        return _delete(calls.key_prefix(prefix), previous)

    @staticmethod
    def get(key: str | bytes, *, revision: int = 0) -> Operation:
        """A past `revision` can be read in a transaction that changes nothing in either branch."""
        found = _range(calls.one_key(key), revision=revision)
        return replace(found, decode=calls.first_item)

    @staticmethod
    def range(
        key: str | bytes,
        end: str | bytes,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        **chosen: Unpack[Chosen],
    ) -> Operation:
        """As client.range(). `revision` as for get()."""
        span = calls.key_range(key, end)
        return _range(
            span, limit=limit, revision=revision, keys_only=keys_only, count_only=count_only, **chosen
        )

    @staticmethod
    def prefix(
        prefix: str | bytes,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        **chosen: Unpack[Chosen],
    ) -> Operation:
        """As client.prefix(). `revision` as for get()."""
        span = calls.key_prefix(prefix)
        return _range(
            span, limit=limit, revision=revision, keys_only=keys_only, count_only=count_only, **chosen
        )

    @staticmethod
    def nested(
        when: Iterable[Compare] = (), then: Iterable[Operation] = (), otherwise: Iterable[Operation] = ()
    ) -> Operation:
        """A transaction within. Its compares look at what was before the outermost one."""
        tree = Tree(tuple(when), tuple(then), tuple(otherwise))
        return Operation((protocol.TXN, *tree.encode()), partial(_decode, tree), tree.is_write)


def _delete(span: tuple[bytes, bytes], previous: bool) -> Operation:
    flags = protocol.PREV_KV if previous else 0
    return Operation((protocol.DELETE, *span, flags), results.decode_delete, is_write=True)


def _range(
    span: tuple[bytes, bytes],
    *,
    limit: int = 0,
    revision: int = 0,
    keys_only: bool = False,
    count_only: bool = False,
    **chosen: Unpack[Chosen],
) -> Operation:
    item = calls.range_item(
        span, limit=limit, revision=revision, keys_only=keys_only, count_only=count_only, **chosen
    )
    return Operation(item, results.decode_range, is_write=False)


# ---------------------------------------------------------------- the whole


class Tree(NamedTuple):
    """Compares and branches, without anybody to carry them out."""

    compares: tuple[Compare, ...] = ()
    operations: tuple[Operation, ...] = ()
    alternatives: tuple[Operation, ...] = ()

    @property
    def is_write(self) -> bool:
        """In either branch, at any depth."""
        return any(operation.is_write for operation in (*self.operations, *self.alternatives))

    def encode(self) -> tuple[bytes, bytes, bytes]:
        then, otherwise = (
            [operation.item for operation in branch] for branch in (self.operations, self.alternatives)
        )
        return encode_list(self.compares), encode_list(then), encode_list(otherwise)


EMPTY: Final = Tree()


class Txn(Generic[Answer]):
    """Of one client: `client.txn().when(…).then(…).otherwise(…).commit()`.

    Each method but commit() gives another Txn, and leaves this one as it is. What is named by several calls
    of one method is all there, in order.
    """

    __slots__ = ("_ask", "tree")

    def __init__(self, ask: Callable[[Call, float | None], Answer], tree: Tree = EMPTY) -> None:
        self._ask = ask
        self.tree = tree

    def when(self, *compares: Compare) -> Txn[Answer]:
        """What must be so, all of it, for the branch `then`. Without any, that one is taken."""
        return Txn(self._ask, self.tree._replace(compares=self.tree.compares + compares))

    def then(self, *operations: Operation) -> Txn[Answer]:
        return Txn(self._ask, self.tree._replace(operations=self.tree.operations + operations))

    def otherwise(self, *operations: Operation) -> Txn[Answer]:
        return Txn(self._ask, self.tree._replace(alternatives=self.tree.alternatives + operations))

    def commit(
        self, *, consistency: Consistency = "linearizable", timeout_seconds: float | None = None
    ) -> Answer:
        """Has it carried out, once. One without writes in either branch is a read, and leaves no trace.

        An error in any operation is raised, and nothing was changed then. "local" is for reads alone: what
        the first endpoint that answers has now, which may be old.
        """
        return self._ask(transaction_call(self.tree, consistency), timeout_seconds)


def transaction_call(tree: Tree, consistency: Consistency = "linearizable") -> Call:
    kind = calls.read_kind(consistency)
    if tree.is_write:
        if kind != protocol.READ:
            raise ValueError("a transaction that may write cannot be local")
        kind = protocol.WRITE
    lists = tree.encode()
    size_bytes = sum(map(len, lists)) + _OVERHEAD_BYTES
    if size_bytes > protocol.MAX_BODY_BYTES:
        raise TooLarge(f"the transaction has {size_bytes} bytes, more than {protocol.MAX_BODY_BYTES}")
    call = Call(kind, partial(_decode, tree), size_bytes)
    if tree.is_write:
        call.encode = partial(_encode, lists)
    else:
        call.body = read_transaction_body(*lists)
    return call


def _encode(
    lists: tuple[bytes, bytes, bytes], session_id: int, sequence: int, below: int, *_: bytes, flags: int
) -> bytes:
    assert flags == 0, f"flags {flags}"
    return transaction_body(session_id, sequence, below, *lists)


def _decode(tree: Tree, result: list[Any]) -> TxnResult:
    """Believes nothing of it. Raises MalformedFrame."""
    if len(result) < 4 or not protocol.is_integer(result[1]):
        raise MalformedFrame("a transaction's result has a revision, an outcome and results")
    revision, succeeded, given = result[1:4]
    if type(succeeded) is not bool or type(given) is not list:
        raise MalformedFrame("a transaction's result has a revision, an outcome and results")
    operations = tree.operations if succeeded else tree.alternatives
    if len(given) != len(operations):
        raise MalformedFrame(f"{len(given)} results of {len(operations)} operations")
    found: list[OperationResult] = []
    for operation, item in zip(operations, given, strict=True):
        if type(item) is not list or item[:2] != [protocol.OK, revision]:
            raise MalformedFrame("a result in a transaction is one of success, at the revision of the whole")
        found.append(operation.decode(item))
    return TxnResult(revision, succeeded, found)
