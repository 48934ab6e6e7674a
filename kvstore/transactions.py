"""Transactions: what one does to the store, and what one that only reads answers.

May know: the store, and the tree that `transaction_bodies` makes. Deterministic, as the state machine whose
part it is. Three steps, as in etcd: all compares, those of nested transactions too, look at the store as it
was before; then the operations are carried out on paper, each seeing what the ones before it did, and any
error ends the whole; only then is the store changed, in one revision. So one that fails leaves no trace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from operator import eq, gt, lt, ne
from typing import Any, Final, NamedTuple, Protocol

import msgpack

from kvstore import protocol
from kvstore.codes import SORT_VALUE, UNCOUNTED
from kvstore.error_results import error_result
from kvstore.history import range_filter
from kvstore.protocol import (
    COMPARE_VALUE,
    COUNT_ONLY,
    DELETE,
    IGNORE_LEASE,
    IGNORE_VALUE,
    KEYS_ONLY,
    MAX_RANGE_REPLY_BYTES,
    MAX_TXN_KEPT_BYTES,
    MAX_TXN_KEYS,
    MAX_TXN_REPLY_BYTES,
    OK,
    PREV_KV,
    PUT,
    TXN,
    KeyValue,
)
from kvstore.range_select import TOO_MANY_SORT, TOO_MANY_TO_SORT, Selection, SortRoom, read_selected
from kvstore.range_steps import PastCounts, compacted, in_one_step, read_as_of
from kvstore.store import SLICE_KEYS, Store
from kvstore.transaction_bodies import Transaction

FUTURE: Final = "required revision is a future revision"
KEY_MISSING: Final = error_result(protocol.KEY_NOT_FOUND, "key not found")
TOO_MUCH_WORK: Final = error_result(
    protocol.TOO_LARGE, f"the transaction looks at more than {MAX_TXN_KEYS} keys: nothing was done"
)
TOO_LONG_REPLY: Final = error_result(
    protocol.TOO_LARGE,
    f"the results of the transaction exceed {MAX_TXN_REPLY_BYTES} bytes: nothing was done",
)
TOO_MUCH_KEPT: Final = error_result(
    protocol.TOO_LARGE,
    f"the puts of the transaction keep values of more than {MAX_TXN_KEPT_BYTES} bytes: nothing was done",
)
TOO_LONG_ANSWER: Final = error_result(
    protocol.TOO_LARGE, f"the results of the transaction exceed {MAX_RANGE_REPLY_BYTES} bytes"
)
_READS_IN_A_STEP: Final = 256  # of a few keys each; a range counts as one for each _FEW_KEYS
_FEW_KEYS: Final = 8
# Where values are compared, or sorted by, so many bytes count as a look at a key.
_KEY_BYTES: Final = 16 << 10
_SORTED_BYTES: Final = 4 << 10

_packer: Final = msgpack.Packer()
_pack: Callable[[Any], bytes] = _packer.pack

_HOLDS: Final[dict[int, Callable[[Any, Any], bool]]] = {
    protocol.EQUAL: eq,
    protocol.NOT_EQUAL: ne,
    protocol.GREATER: gt,
    protocol.LESS: lt,
}
# The place of what is compared in a record.
_FIELDS: Final = {
    protocol.COMPARE_VERSION: 4,
    protocol.COMPARE_CREATE: 2,
    protocol.COMPARE_MOD: 3,
    protocol.COMPARE_VALUE: 1,
    protocol.COMPARE_LEASE: 5,
}


class LeaseBook(Protocol):
    """What puts ask of the leases."""

    def why_unattachable(self, lease: int, key: bytes, others: int) -> bytes | None:
        """The result of a put of `key` with `lease`, which is not 0, if it must not be done. `others` are the
        keys that come to the lease together with this one."""


class Refused(Exception):
    """`result` says why nothing was done."""

    def __init__(self, result: bytes) -> None:
        super().__init__(result)
        self.result = result


def resolved_put(
    leases: LeaseBook,
    previous: KeyValue | None,
    key: bytes,
    value: bytes,
    lease: int,
    flags: int,
    others: int = 0,
) -> tuple[bytes, int]:
    """The value and the lease that a put with these options gives the key. Raises Refused."""
    if lease:
        error = leases.why_unattachable(lease, key, others)
        if error is not None:
            raise Refused(error)
    if flags & (IGNORE_VALUE | IGNORE_LEASE):
        if previous is None:
            raise Refused(KEY_MISSING)
        value = previous[1] if flags & IGNORE_VALUE else value
        lease = previous[5] if flags & IGNORE_LEASE else lease
    return value, lease


# ---------------------------------------------------------------- compares


def record_holds(compare: list[Any], record: KeyValue) -> bool:
    target, result, _, _, operand = compare
    return _HOLDS[result](record[_FIELDS[target]], operand)


def absence_holds(compare: list[Any]) -> bool:
    """Of a key that is not there all numbers are 0; its value is nothing that could be compared."""
    target, result, _, _, operand = compare
    return target != COMPARE_VALUE and _HOLDS[result](0, operand)


class Chosen(NamedTuple):
    """The branches of a transaction that are taken; a nested one is [TXN, Chosen]."""

    succeeded: bool
    operations: list[list[Any]]


# ---------------------------------------------------------------- with writes


class Writing:
    """One transaction on its way through the log; owned by one call of apply().

    Nothing is changed before the end of run(). No key is put twice, or put and deleted: the body was checked
    for that. So what is there of a key before its put is what the store has.
    """

    def __init__(self, store: Store, leases: LeaseBook) -> None:
        self._store = store
        self._leases = leases
        self._revision = store.revision + 1  # of what it changes
        self._keys_left = MAX_TXN_KEYS
        self._bytes_left = MAX_TXN_REPLY_BYTES
        self._kept_bytes_left = MAX_TXN_KEPT_BYTES
        self._ranges: list[tuple[bytes, bytes]] = []  # to be deleted
        self._attached: Counter[int] = Counter()  # by lease, how many keys come to it
        self._results: list[list[Any]] = []  # of all operations; each lacks the revision
        # What it changes: by key, the records before it, None if there was none, and those after it.
        self.puts: dict[bytes, tuple[KeyValue | None, KeyValue]] = {}
        self.removed: dict[bytes, KeyValue] = {}

    def run(self, transaction: Transaction) -> bytes:
        """The result; the store is changed if it is one of success."""
        try:
            result = self._carry_out(self._choose(transaction))
        except Refused as refused:
            self.puts, self.removed = {}, {}
            return refused.result
        revision = self._revision if self.puts or self.removed else self._store.revision
        for each in self._results:
            each[1] = revision
        self._store.change_together((record for _, record in self.puts.values()), self._ranges)
        return _pack(result)

    def _look_at(self, keys: int) -> None:
        self._keys_left -= keys
        if self._keys_left < 0:
            raise Refused(TOO_MUCH_WORK)

    def _answer_with(self, records: list[KeyValue]) -> list[KeyValue]:
        self._bytes_left -= sum(len(record[0]) + len(record[1]) for record in records)
        if self._bytes_left < 0:
            raise Refused(TOO_LONG_REPLY)
        return records

    def _choose(self, transaction: Transaction) -> Chosen:
        succeeded = all(map(self._holds, transaction.compares))
        operations = transaction.then if succeeded else transaction.otherwise
        return Chosen(succeeded, [self._chosen(operation) for operation in operations])

    def _chosen(self, operation: list[Any]) -> list[Any]:
        return [TXN, self._choose(operation[1])] if operation[0] == TXN else operation

    def _holds(self, compare: list[Any]) -> bool:
        key, range_end = compare[2:4]
        if not range_end:
            self._look_at(1)
            record = self._store.get(key)
            return absence_holds(compare) if record is None else record_holds(compare, record)
        longest = len(compare[4]) if compare[0] == COMPARE_VALUE else 0
        self._look_at(1 + self._store.count(key, range_end) * (1 + longest // _KEY_BYTES))
        records = self._store.range(key, range_end).records
        return all(record_holds(compare, each) for each in records) if records else absence_holds(compare)

    def _carry_out(self, chosen: Chosen) -> list[Any]:
        results: list[Any] = []
        whole = [OK, 0, chosen.succeeded, results]
        self._results.append(whole)
        for operation in chosen.operations:
            kind = operation[0]
            if kind == TXN:
                results.append(self._carry_out(operation[1]))
                continue
            self._look_at(1)
            if kind == PUT:
                result = self._put(*operation[1:])
            elif kind == DELETE:
                result = self._delete(*operation[1:])
            else:
                result = self._range(operation)
            self._results.append(result)
            results.append(result)
        return whole

    def _put(self, key: bytes, value: bytes, lease: int, flags: int) -> list[Any]:
        previous = self._store.get(key)
        others = self._attached[lease] if lease else 0
        value, lease = resolved_put(self._leases, previous, key, value, lease, flags, others)
        if flags & IGNORE_VALUE:  # its own came with the body, which has a bound
            self._kept_bytes_left -= len(value)
            if self._kept_bytes_left < 0:
                raise Refused(TOO_MUCH_KEPT)
        self._attached[lease] += previous is None or previous[5] != lease
        created, version = (self._revision, 0) if previous is None else (previous[2], previous[4])
        self.puts[key] = previous, (key, value, created, self._revision, version + 1, lease)
        if not flags & PREV_KV or previous is None:
            return [OK, 0, None]
        return [OK, 0, *self._answer_with([previous])]

    def _delete(self, key: bytes, range_end: bytes, flags: int) -> list[Any]:
        self._look_at(self._store.count(key, range_end))
        found = self._store.range(key, range_end).records
        records = [record for record in found if record[0] not in self.removed]
        if records:
            self._ranges.append((key, range_end))
            self.removed.update((record[0], record) for record in records)
        return [OK, 0, len(records), self._answer_with(records) if flags & PREV_KV else []]

    def _range(self, operation: list[Any]) -> list[Any]:
        _, key, range_end, limit, _, flags = operation[:6]
        if len(operation) > 6:
            return self._selected(operation)
        if self.puts or self.removed:
            records = self._seen(key, range_end)
            total = len(records)
        else:
            total = self._store.count(key, range_end)
            self._look_at(0 if flags & COUNT_ONLY else min(limit or total, total))
            records = [] if flags & COUNT_ONLY else self._store.range(key, range_end, limit=limit).records
        if flags & COUNT_ONLY:
            return [OK, 0, total, False, []]
        return self._page(records[:limit] if limit else records, flags, total, 0 < limit < total)

    def _selected(self, operation: list[Any]) -> list[Any]:
        """The long form: what is left out is counted, and is not more of the answer."""
        _, key, range_end, limit, _, flags = operation[:6]
        selection = Selection(*operation[6:])
        seen = self._seen(key, range_end)
        if selection.sort_target == SORT_VALUE:
            self._look_at(sum(len(record[1]) for record in seen) // _SORTED_BYTES)
        chosen = selection.in_order(selection.matching(seen))
        records = chosen[:limit] if limit else chosen
        total = len(records) if flags & UNCOUNTED else len(seen)
        return self._page(records, flags, total, len(records) < len(chosen))

    def _page(self, records: list[KeyValue], flags: int, total: int, more: bool) -> list[Any]:
        if flags & KEYS_ONLY:
            records = [(record[0], b"", *record[2:]) for record in records]
        return [OK, 0, total, more, self._answer_with(records)]

    def _seen(self, key: bytes, range_end: bytes) -> list[KeyValue]:
        """The records of a range, in order, as the operations so far leave them."""
        self._look_at(self._store.count(key, range_end) + len(self.puts))
        removed, concerns = self.removed, range_filter(key, range_end)
        seen = {
            record[0]: record
            for record in self._store.range(key, range_end).records
            if record[0] not in removed
        }
        seen.update((name, after) for name, (_, after) in self.puts.items() if concerns(name))
        return [seen[name] for name in sorted(seen)]


# ---------------------------------------------------------------- reading only


def keys_of_first_step(transaction: Transaction) -> int:
    """How many keys the first step of reading it looks at: at most so many if it names single keys only."""
    operations = transaction.then + transaction.otherwise
    spans = any(compare[3] for compare in transaction.compares)
    if spans or any(operation[0] == TXN or operation[2] for operation in operations):
        return SLICE_KEYS
    return 1 + len(transaction.compares) + len(operations)


class _Overtaken(Exception):
    """A compaction took the revision that was being read."""


def read_in_steps(
    store_of: Callable[[], Store], counts: PastCounts, room: SortRoom, transaction: Transaction
) -> Iterator[bytes | None]:
    """None after each step but the last, and then the result of a transaction that was checked to only read.

    All of it is of one revision, however long it takes. If that is compacted meanwhile, it begins again;
    so it does after its first step, if there are more: what waits for the second one keeps nothing.
    """
    answer: bytes | None = None
    is_first = True
    while answer is None:
        reading = _Reading(store_of, counts, room).run(transaction)
        try:
            answer = in_one_step(reading) if is_first else (yield from reading)
        except Refused as refused:
            answer = refused.result
        except _Overtaken:
            continue
        if is_first and answer is None:
            yield None
        is_first = False
    yield answer


class _Reading:
    """One attempt to answer, at the revision that is current when it begins."""

    def __init__(self, store_of: Callable[[], Store], counts: PastCounts, room: SortRoom) -> None:
        self._store_of = store_of
        self._counts = counts
        self._room = room  # of all reads that sort
        self._revision = store_of().revision
        self._bytes_left = MAX_RANGE_REPLY_BYTES
        self._reads_left = _READS_IN_A_STEP

    def run(self, transaction: Transaction) -> Generator[None, None, bytes]:
        chosen = yield from self._choose(transaction)
        return (yield from self._answer(chosen))

    def _choose(self, transaction: Transaction) -> Generator[None, None, Chosen]:
        succeeded = True
        for compare in transaction.compares:
            if not (yield from self._holds(compare)):
                succeeded = False
                break
        operations = []
        for operation in transaction.then if succeeded else transaction.otherwise:
            if operation[0] == TXN:
                operations.append([TXN, (yield from self._choose(operation[1]))])
            else:
                operations.append(operation)
        return Chosen(succeeded, operations)

    def _holds(self, compare: list[Any]) -> Generator[None, None, bool]:
        start: bytes | None = compare[2]
        is_there = False
        while start is not None:
            store = self._current_store()
            records, start = store.slice_as_of(start, compare[3], self._revision)
            is_there = is_there or bool(records)
            if not all(record_holds(compare, record) for record in records):
                return False
            if start is not None:
                yield
        yield from self._breathe(compare[2], compare[3])
        return is_there or absence_holds(compare)

    def _answer(self, chosen: Chosen) -> Generator[None, None, bytes]:
        array = _packer.pack_array_header
        parts = [array(4), _pack(OK), _pack(self._revision), _pack(chosen.succeeded)]
        parts.append(array(len(chosen.operations)))
        for operation in chosen.operations:
            if operation[0] == TXN:
                part = yield from self._answer(operation[1])
            else:
                part = yield from self._range(operation)
                self._bytes_left -= len(part)
                if self._bytes_left < 0:
                    raise Refused(TOO_LONG_ANSWER)
            parts.append(part)
        return b"".join(parts)

    def _range(self, operation: list[Any]) -> Generator[None, None, bytes]:
        asked = operation[4]
        if asked > self._revision:
            raise Refused(error_result(protocol.FUTURE_REVISION, FUTURE, self._revision))
        oldest = self._store_of().oldest_revision
        if asked and asked < oldest:
            raise Refused(compacted(oldest))
        self._current_store()
        arguments = (self._store_of, self._counts, operation, asked or self._revision, self._revision)
        if len(operation) > 6:
            part = yield from read_selected(self._room, *arguments)
        else:
            part = yield from read_as_of(*arguments)
        if part is None:
            raise _Overtaken  # if it was compacted for good, that is found in the next attempt
        if part in (TOO_MANY_SORT, TOO_MANY_TO_SORT):
            raise Refused(part)
        yield from self._breathe(operation[1], operation[2])
        return part

    def _current_store(self) -> Store:
        store = self._store_of()
        if self._revision < store.oldest_revision:
            raise _Overtaken
        return store

    def _breathe(self, key: bytes, range_end: bytes) -> Generator[None, None, None]:
        """After each read, of which the last step has looked at no more than a slice."""
        self._reads_left -= 1 + min(self._store_of().width(key, range_end), SLICE_KEYS) // _FEW_KEYS
        if self._reads_left <= 0:
            self._reads_left = _READS_IN_A_STEP
            yield
