"""Transactions, one fact of the store's semantics after the other. How bodies are checked is tested apart."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from kvstore import codes, protocol
from kvstore.protocol import COUNT_ONLY, IGNORE_LEASE, IGNORE_VALUE, KEYS_ONLY, OK, PREV_KV
from tests.kvstore.machine_log import Log
from tests.kvstore.transaction_log import (
    ALWAYS,
    NEVER,
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

EVERYTHING = (b"\x00", b"\x00")


def holds(log: Log, *compares: Item) -> bool:
    """What both ways say, through the log and as a read; they must agree."""
    result = transact(log, compares)
    assert result == log.ask(asked(compares)), "written and read differ"
    code, _, succeeded, results = result
    assert (code, results) == (OK, [])
    return bool(succeeded)


def _body(operation: Item) -> bytes:
    packed: bytes = msgpack.packb(operation)
    return packed


def refused(log: Log, *operations: Item) -> list[Any]:
    """The error of a transaction, which has left no trace."""
    before, keys = log.machine.digest(), log.ask(protocol.range_body(*EVERYTHING))
    result = transact(log, [], operations)
    assert result[0] != OK
    assert log.machine.digest() == before
    assert log.ask(protocol.range_body(*EVERYTHING)) == keys
    return result


# ---------------------------------------------------------------- revisions


def test_all_writes_of_a_transaction_have_one_revision() -> None:
    log = Log()
    result = transact(log, [], [put(b"a"), put(b"b"), delete(b"x"), read(*EVERYTHING)])
    records = [[b"a", b"v", 2, 2, 1, 0], [b"b", b"v", 2, 2, 1, 0]]
    assert result == [OK, 2, True, [[OK, 2, None], [OK, 2, None], [OK, 2, 0, []], [OK, 2, 2, False, records]]]
    assert log.machine.revision == 2
    assert log.ask(protocol.range_body(*EVERYTHING))[4] == records


def test_a_transaction_that_changes_nothing_leaves_the_revision_as_it_is() -> None:
    """One that is empty, one that only reads, one that deletes what is not there."""
    log = Log()
    log.put(b"a")
    assert transact(log) == [OK, 2, True, []]
    assert transact(log, [], [read(b"a")])[:2] == [OK, 2]
    assert transact(log, [], [delete(b"x"), delete(b"y", b"z")]) == [OK, 2, True, [[OK, 2, 0, []]] * 2]
    assert transact(log, [], [put(b"b")])[1] == log.machine.revision == 3


def test_a_put_counts_versions_and_keeps_the_creation() -> None:
    log = Log()
    log.put(b"a", b"1")
    [previous] = transact(log, [], [put(b"a", b"2", flags=PREV_KV)])[3]
    assert previous == [OK, 3, [b"a", b"1", 2, 2, 1, 0]]
    assert log.ask(protocol.range_body(b"a"))[4] == [[b"a", b"2", 2, 3, 2, 0]]
    transact(log, [], [delete(b"a")])
    transact(log, [], [put(b"a", b"3")])
    assert log.ask(protocol.range_body(b"a"))[4] == [[b"a", b"3", 5, 5, 1, 0]]


def test_all_events_of_a_transaction_are_one_revision_of_the_history_in_key_order() -> None:
    log = Log()
    log.put(b"b", b"old")
    transact(log, [], [put(b"c"), delete(b"b"), put(b"a")])
    assert log.ask(protocol.watch_history_body(*EVERYTHING, start_revision=3))[5] == [
        [3, [[0, b"a", b"v", 3, 3, 1, 0], [1, b"b", b"", 0, 3, 0, 0], [0, b"c", b"v", 3, 3, 1, 0]]]
    ]
    at_2 = log.ask(protocol.range_body(*EVERYTHING, revision=2))
    assert at_2[4] == [[b"b", b"old", 2, 2, 1, 0]]


# ---------------------------------------------------------------- compares


@pytest.mark.parametrize("target", ["version", "create", "mod", "lease"])
def test_numbers_of_a_missing_key_act_as_0(target: str) -> None:
    log = Log()
    assert holds(log, compare(target, b"x", "=", 0))
    assert holds(log, compare(target, b"x", "!=", 7))
    assert holds(log, compare(target, b"x", "<", 1))
    assert not holds(log, compare(target, b"x", "=", 1))
    assert not holds(log, compare(target, b"x", ">", 0))
    assert holds(log, compare(target, b"x", "=", 0, range_end=b"y"))


@pytest.mark.parametrize("sign", ["=", "!=", ">", "<"])
def test_a_compare_of_the_value_of_a_missing_key_never_holds_not_equal_either(sign: str) -> None:
    log = Log()
    for operand in (b"", b"v"):
        assert not holds(log, compare("value", b"x", sign, operand))
        assert not holds(log, compare("value", b"x", sign, operand, range_end=b"y"))


def test_each_target_is_compared_with_its_own_field() -> None:
    log = Log()
    log.put(b"other")
    for value in (b"1", b"2", b"3"):
        log.put(b"a", value)
    # a: create_revision 3, mod_revision 5, version 3, lease 0
    fields: dict[str, int | bytes] = {"version": 3, "create": 3, "mod": 5, "lease": 0, "value": b"3"}
    for target, actual in fields.items():
        assert holds(log, compare(target, b"a", "=", actual))
        assert not holds(log, compare(target, b"a", "!=", actual))
        assert not holds(log, compare(target, b"a", ">", actual))
        assert not holds(log, compare(target, b"a", "<", actual))
    assert holds(log, compare("version", b"a", "<", 4), compare("mod", b"a", ">", 4))
    assert holds(log, compare("value", b"a", "<", b"30"), compare("value", b"a", ">", b"2zz"))


def test_all_compares_must_hold_and_none_is_none_too_few() -> None:
    log = Log()
    assert holds(log)
    assert holds(log, ALWAYS, ALWAYS)
    assert not holds(log, ALWAYS, NEVER, ALWAYS)
    assert transact(log, [ALWAYS, NEVER], [put(b"then")], [put(b"else")])[2] is False
    assert (log.get(b"then"), log.get(b"else")) == (None, b"v")


def test_a_compare_of_a_range_holds_when_it_holds_for_every_key_there() -> None:
    log = Log()
    for key in (b"a", b"b", b"c"):
        log.put(key, b"same")
    log.put(b"b", b"same")
    assert holds(log, compare("value", b"a", "=", b"same", range_end=b"d"))
    assert holds(log, compare("version", b"a", ">", 0, range_end=b"d"))
    assert not holds(log, compare("version", b"a", "=", 1, range_end=b"d"))
    assert holds(log, compare("version", b"c", "=", 1, range_end=b"\x00"))
    log.put(b"c", b"different")
    assert not holds(log, compare("value", b"a", "=", b"same", range_end=b"d"))
    assert not holds(log, compare("value", b"a", "!=", b"same", range_end=b"d"))


def test_a_compare_of_a_range_that_ends_before_it_begins_is_one_of_a_missing_key() -> None:
    log = Log()
    log.put(b"a")
    assert holds(log, compare("version", b"b", "=", 0, range_end=b"a"))
    assert not holds(log, compare("value", b"b", "=", b"v", range_end=b"a"))


# ---------------------------------------------------------------- what operations see


def test_a_put_is_visible_to_later_operations_and_to_no_earlier_one() -> None:
    log = Log()
    log.put(b"a", b"before")
    results = transact(log, [], [read(b"a"), put(b"a", b"after"), read(b"a"), read(b"a", b"b")])[3]
    assert [each[4][0][1] for each in (results[0], results[2], results[3])] == [b"before", b"after", b"after"]
    assert results[2][4] == [[b"a", b"after", 2, 3, 2, 0]]


def test_a_delete_is_visible_to_later_operations() -> None:
    log = Log()
    for key in (b"a", b"b", b"c"):
        log.put(key)
    results = transact(
        log,
        [],
        [delete(b"b"), read(*EVERYTHING), delete(b"a", b"c", flags=PREV_KV), read(b"a"), delete(b"b")],
    )[3]
    assert [record[0] for record in results[1][4]] == [b"a", b"c"]
    assert results[2][2:] == [1, [[b"a", b"v", 2, 2, 1, 0]]]
    assert results[3][2:] == [0, False, []]
    assert results[4][2:] == [0, []]
    assert [record[0] for record in log.ask(protocol.range_body(*EVERYTHING))[4]] == [b"c"]


def test_a_range_in_a_transaction_is_in_order_with_limit_count_and_keys_only() -> None:
    log = Log()
    for key in (b"a", b"c", b"e"):
        log.put(key)
    both: list[list[Any]] = []
    for first in ([], [put(b"b", b"new"), delete(b"c")]):
        results = transact(
            log,
            [],
            [
                *first,
                read(b"a", b"z", limit=2),
                read(b"a", b"z", limit=2, flags=COUNT_ONLY),
                read(b"a", b"z", flags=KEYS_ONLY),
            ],
        )[3][len(first) :]
        both.append(results)
    assert [[each[2], each[3], [record[0] for record in each[4]]] for each in both[0]] == [
        [3, True, [b"a", b"c"]],
        [3, False, []],
        [3, False, [b"a", b"c", b"e"]],
    ]
    assert [[each[2], each[3], [record[0] for record in each[4]]] for each in both[1]] == [
        [3, True, [b"a", b"b"]],
        [3, False, []],
        [3, False, [b"a", b"b", b"e"]],
    ]
    assert all(record[1] == b"" for results in both for record in results[2][4])


def test_a_range_in_a_transaction_sorts_and_chooses_what_the_operations_so_far_have_left() -> None:
    log = Log()
    for key, value in ((b"a", b"3"), (b"b", b"1"), (b"c", b"2")):
        log.put(key, value)
    by_value = (codes.SORT_VALUE, codes.SORT_DESCENDING, 0, 0, 0, 0)
    new_ones = (0, 0, 5, 0, 0, 0)
    uncounted = codes.UNCOUNTED
    operations = [
        put(b"b", b"9"),
        delete(b"a"),
        (*read(*EVERYTHING, limit=1), *by_value),
        (*read(*EVERYTHING), *new_ones),
        (*read(*EVERYTHING, flags=uncounted), *new_ones),
    ]
    results = transact(log, [], operations)[3][2:]
    expected = [[2, True, [b"b"]], [2, False, [b"b"]], [1, False, [b"b"]]]
    assert [[each[2], each[3], [record[0] for record in each[4]]] for each in results] == expected
    reads = log.ask(asked([], operations[2:]))[3]
    assert [each[1:] for each in reads] == [each[1:] for each in results]
    assert [log.ask(_body(each))[2:] for each in operations[2:]] == [each[2:] for each in reads]


# ---------------------------------------------------------------- nested ones


def test_a_transaction_may_nest_and_has_one_revision_all_the_same() -> None:
    log = Log()
    inner = nested([ALWAYS], [put(b"b"), nested([NEVER], [], [put(b"c"), read(b"b")])], [put(b"no")])
    result = transact(log, [], [put(b"a"), inner])
    deepest = [OK, 2, False, [[OK, 2, None], [OK, 2, 1, False, [[b"b", b"v", 2, 2, 1, 0]]]]]
    assert result == [OK, 2, True, [[OK, 2, None], [OK, 2, True, [[OK, 2, None], deepest]]]]
    assert [record[0] for record in log.ask(protocol.range_body(*EVERYTHING))[4]] == [b"a", b"b", b"c"]


def test_nested_compares_look_at_the_store_as_it_was_before() -> None:
    """As in etcd: all branches are chosen before anything is done."""
    log = Log()
    inner = nested([compare("version", b"a", "=", 0)], [put(b"absent")], [put(b"present")])
    transact(log, [], [put(b"a"), inner])
    assert (log.get(b"absent"), log.get(b"present")) == (b"v", None)


# ---------------------------------------------------------------- the options of a put


@pytest.mark.parametrize("in_transaction", [False, True], ids=["alone", "in a transaction"])
class TestPutOptions:
    def put(
        self, log: Log, in_transaction: bool, key: bytes, value: bytes, lease: int, flags: int
    ) -> list[Any]:
        if not in_transaction:
            return log.put(key, value, lease=lease, flags=flags)
        result = transact(log, [], [put(key, value, lease, flags)])
        return list(result[3][0]) if result[0] == OK else result

    def test_prev_kv_answers_with_what_was_there(self, in_transaction: bool) -> None:
        log = Log()
        assert self.put(log, in_transaction, b"a", b"1", 0, PREV_KV) == [OK, 2, None]
        assert self.put(log, in_transaction, b"a", b"2", 0, PREV_KV) == [OK, 3, [b"a", b"1", 2, 2, 1, 0]]
        assert self.put(log, in_transaction, b"a", b"3", 0, 0) == [OK, 4, None]

    def test_ignore_value_keeps_the_value_and_is_a_change(self, in_transaction: bool) -> None:
        log = Log()
        log.put(b"a", b"kept")
        assert self.put(log, in_transaction, b"a", b"", 0, IGNORE_VALUE) == [OK, 3, None]
        assert log.ask(protocol.range_body(b"a"))[4] == [[b"a", b"kept", 2, 3, 2, 0]]

    def test_ignore_lease_takes_the_new_value(self, in_transaction: bool) -> None:
        log = Log()
        log.put(b"a", b"old")
        assert self.put(log, in_transaction, b"a", b"new", 0, IGNORE_LEASE)[0] == OK
        assert log.ask(protocol.range_body(b"a"))[4] == [[b"a", b"new", 2, 3, 2, 0]]

    @pytest.mark.parametrize("flags", [IGNORE_VALUE, IGNORE_LEASE, IGNORE_VALUE | IGNORE_LEASE | PREV_KV])
    def test_of_a_missing_key_nothing_can_be_kept(self, in_transaction: bool, flags: int) -> None:
        log = Log()
        result = self.put(log, in_transaction, b"a", b"", 0, flags)
        assert result == [protocol.KEY_NOT_FOUND, "key not found"]
        assert log.machine.revision == 1

    def test_a_value_given_though_it_is_to_be_kept_is_an_error(self, in_transaction: bool) -> None:
        log = Log()
        log.put(b"a")
        result = self.put(log, in_transaction, b"a", b"v", 0, IGNORE_VALUE)
        assert result == [protocol.VALUE_PROVIDED, "value is provided"]

    def test_a_lease_given_though_it_is_to_be_kept_is_an_error(self, in_transaction: bool) -> None:
        log = Log()
        log.put(b"a")
        result = self.put(log, in_transaction, b"a", b"v", 7, IGNORE_LEASE)
        assert result == [protocol.LEASE_PROVIDED, "lease is provided"]

    def test_an_unknown_lease_is_refused(self, in_transaction: bool) -> None:
        log = Log()
        result = self.put(log, in_transaction, b"a", b"v", 7_000, 0)
        assert result == [protocol.LEASE_NOT_FOUND, "requested lease not found"]
        assert log.machine.revision == 1

    def test_an_empty_key_is_refused(self, in_transaction: bool) -> None:
        result = self.put(Log(), in_transaction, b"", b"v", 0, 0)
        assert result == [protocol.EMPTY_KEY, "key is not provided"]


# ---------------------------------------------------------------- errors leave no trace


def test_an_error_in_a_later_operation_undoes_the_earlier_ones() -> None:
    log = Log()
    log.put(b"a", b"unharmed")
    for failing, code in (
        (put(b"missing", b"", flags=IGNORE_VALUE), protocol.KEY_NOT_FOUND),
        (put(b"b", lease=7_000), protocol.LEASE_NOT_FOUND),
        (nested([], [put(b"missing", b"", flags=IGNORE_LEASE)]), protocol.KEY_NOT_FOUND),
    ):
        assert refused(log, put(b"a", b"harmed"), delete(b"c"), failing)[0] == code


def test_what_is_wrong_in_the_branch_that_is_not_taken_harms_nobody_unless_the_body_shows_it() -> None:
    log = Log()
    missing = put(b"missing", b"", flags=IGNORE_VALUE)
    assert transact(log, [], [put(b"a")], [missing])[0] == OK
    assert transact(log, [], [put(b"a")], [put(b"b"), put(b"b")])[0] == protocol.DUPLICATE_KEY


@pytest.mark.parametrize(
    "operations",
    [
        [put(b"a"), put(b"a")],
        [put(b"a"), delete(b"a")],
        [delete(b"a"), put(b"a")],
        [put(b"b"), delete(b"a", b"c")],
        [delete(b"a", b"\x00"), put(b"b")],
        [put(b"a"), nested([], [put(b"a")])],
        [nested([], [put(b"a")]), nested([], [], [put(b"a")])],
        [nested([], [put(b"a")]), nested([], [delete(b"a")])],
        [nested([], [delete(b"a")]), nested([], [nested([], [put(b"a")])])],
        [nested([], [put(b"a")], [put(b"b")]), delete(b"b", b"c")],
        [nested([], [], [put(b"a"), put(b"a")])],
    ],
)
def test_a_key_that_is_put_twice_or_put_and_deleted_is_refused(operations: list[Item]) -> None:
    result = refused(Log(), *operations)
    assert result == [protocol.DUPLICATE_KEY, "duplicate key given in txn request"]


@pytest.mark.parametrize(
    "operations",
    [
        [put(b"a"), put(b"b")],
        [delete(b"a"), delete(b"a"), delete(b"a", b"c"), delete(b"b", b"d")],
        [put(b"c"), delete(b"a", b"c"), put(b"d")],
        [nested([], [put(b"a")], [put(b"a")])],
        [nested([], [put(b"a")], [delete(b"a", b"z")]), put(b"z")],
        [nested([], [put(b"a"), put(b"b")], [delete(b"a", b"c")]), nested([], [put(b"c")])],
        [put(b"b"), delete(b"c", b"a"), delete(b"b\x00"), delete(b"a", b"b")],
    ],
)
def test_what_comes_to_pass_but_once_is_no_duplicate(operations: list[Item]) -> None:
    assert transact(Log(), [], operations)[0] == OK


def test_a_transaction_with_too_large_results_is_refused_before_anything_is_done() -> None:
    log = Log()
    for number in range(3):
        log.put(b"k%d" % number, bytes(1 << 20))
    assert refused(log, put(b"a"), read(b"k", b"l"))[0] == protocol.TOO_LARGE
    assert refused(log, put(b"a"), delete(b"k", b"l", flags=PREV_KV))[0] == protocol.TOO_LARGE
    assert (
        refused(log, *(put(b"k%d" % number, flags=PREV_KV) for number in range(3)))[0] == protocol.TOO_LARGE
    )
    assert transact(log, [], [put(b"a"), read(b"k0"), read(b"k", b"l", flags=KEYS_ONLY)])[0] == OK
    assert transact(log, [], [delete(b"k", b"l")])[3][0][2] == 3


def test_a_transaction_that_looks_at_too_many_keys_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing could interrupt it."""
    monkeypatch.setattr("kvstore.transactions.MAX_TXN_KEYS", 20)
    log = Log()
    for number in range(15):
        log.put(b"k%02d" % number)
    span = (b"k", b"l")
    assert refused(log, put(b"a"), read(*span), read(*span))[0] == protocol.TOO_LARGE
    assert transact(log, [], [read(*span, flags=COUNT_ONLY)] * 5)[0] == OK
    assert transact(log, [], [read(*span, limit=2)] * 5)[0] == OK
    two_looks = [compare("version", *span[:1], ">", 0, range_end=span[1])] * 2
    assert transact(log, two_looks)[0] == protocol.TOO_LARGE
    assert transact(log, two_looks[:1], [put(b"a")])[:3] == [OK, 17, True]
    assert transact(log, [], [delete(*span)])[3][0][2] == 15


# ---------------------------------------------------------------- exactly once


def test_g1_a_transaction_that_is_retried_has_the_first_result_and_no_second_effect() -> None:
    log = Log()
    session_id = log.open_session()
    body = written([], [put(b"a", flags=PREV_KV), read(b"a")], header=(session_id, 1, 1))
    [first] = log.apply(body)
    log.put(b"a", b"later")
    assert log.apply(body) == [first]
    assert log.get(b"a") == b"later"


def test_g1_a_compare_that_failed_stays_failed_for_a_retry() -> None:
    log = Log()
    session_id = log.open_session()
    body = written([compare("version", b"a", ">", 0)], [put(b"b")], header=(session_id, 1, 1))
    [first] = log.apply(body)
    log.put(b"a")
    assert log.apply(body) == [first]
    assert first[2] is False and log.get(b"b") is None


def test_g2_the_result_of_a_transaction_travels_with_the_snapshot() -> None:
    log = Log()
    session_id = log.open_session()
    body = written([], [put(b"a"), nested([], [put(b"b"), delete(b"c")])], header=(session_id, 1, 1))
    log.put(b"c")
    [first] = log.apply(body)
    other = Log()
    restorer = other.machine.restorer()
    for piece in log.machine.snapshot():
        restorer.feed(piece)
    restorer.finish()
    assert other.machine.digest() == log.machine.digest()
    assert other.machine.fingerprint() == log.machine.fingerprint()
    assert other.apply(body) == [first]
