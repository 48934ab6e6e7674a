"""Transactions that only read: answers as through the log, of one revision however long they take."""

from __future__ import annotations

import msgpack
import pytest

from kvstore import protocol, state_machine
from kvstore.operations import decode_read_transaction
from kvstore.protocol import COUNT_ONLY, KEYS_ONLY, OK
from kvstore.transaction_bodies import MALFORMED_LIST, read_transaction_body
from tests.kvstore.machine_log import Log
from tests.kvstore.transaction_log import NEVER, asked, compare, nested, read, transact

EVERYTHING = (b"\x00", b"\x00")


def test_a_transaction_that_is_read_answers_as_one_that_is_written() -> None:
    log = Log()
    for key in (b"a", b"b", b"c"):
        log.put(key)
    inner = nested([NEVER], [], [read(b"b", b"z", limit=1)])
    operations = [read(b"a"), read(*EVERYTHING, flags=KEYS_ONLY), inner, read(b"x", flags=COUNT_ONLY)]
    before = log.machine.digest()
    answer = log.ask(asked([compare("mod", b"a", "=", 2)], operations, [read(b"c")]))
    assert log.machine.digest() == before
    assert answer == transact(log, [compare("mod", b"a", "=", 2)], operations, [read(b"c")])
    assert log.ask(asked([NEVER], operations, [read(b"c")]))[2:] == [
        False,
        [[OK, 4, 1, False, [[b"c", b"v", 4, 4, 1, 0]]]],
    ]


def test_a_transaction_that_is_read_may_look_at_the_past() -> None:
    log = Log()
    for value in (b"1", b"2", b"3"):
        log.put(b"a", value)
    answer = log.ask(asked([], [read(b"a", revision=2), read(b"a", revision=4), read(b"a")]))
    assert [each[4][0][1] for each in answer[3]] == [b"1", b"3", b"3"]
    assert {each[1] for each in answer[3]} == {4}
    future = log.ask(asked([], [read(b"a"), read(b"a", revision=5)]))
    assert future == [protocol.FUTURE_REVISION, "required revision is a future revision", 4]
    log.apply(protocol.compact_body(0, 0, 0, 3))
    past = log.ask(asked([], [read(b"a"), read(b"a", revision=2)]))
    assert past == [protocol.COMPACTED, "required revision has been compacted", 3]


def test_a_long_read_is_of_one_revision_though_others_write_meanwhile() -> None:
    log = Log()
    log.apply(*(protocol.put_body(0, 0, 0, b"k%05d" % number, b"before") for number in range(5000)))
    span = (b"k", b"l")
    body = asked([compare("value", b"k", "=", b"before", range_end=b"l")], [read(*span), read(b"k00000")])
    [steps] = log.machine.begin_query([body])
    assert not isinstance(steps, bytes)
    assert next(steps) is None and next(steps) is None  # one step is not enough; so it begins
    then, taken = log.machine.revision, []
    for answer in steps:
        taken.append(answer)
        log.put(b"k00000", b"after")
        log.put(b"new")
    assert len(taken) >= 4 and taken[-1] is not None
    _, revision, succeeded, (long, short) = protocol.split_results(taken[-1], 1)[0]
    assert (revision, succeeded, long[1], long[2]) == (then, True, then, 5000)
    assert {record[1] for record in long[4]} == {b"before"} and short[4][0][1] == b"before"


def test_a_long_read_that_is_overtaken_by_a_compaction_begins_again() -> None:
    log = Log()
    log.apply(*(protocol.put_body(0, 0, 0, b"k%05d" % number, b"before") for number in range(5000)))
    [steps] = log.machine.begin_query([asked([], [read(b"k", b"l")])])
    assert not isinstance(steps, bytes)
    assert next(steps) is None and next(steps) is None
    log.put(b"k00000", b"after")
    log.apply(protocol.compact_body(0, 0, 0, log.machine.revision))
    last = [answer for answer in steps if answer is not None]
    [[_, revision, _, [found]]] = protocol.split_results(last[-1], 1)
    assert (revision, found[1], found[4][0][1]) == (log.machine.revision, log.machine.revision, b"after")


def test_a_read_with_a_larger_answer_than_a_range_may_have_is_refused() -> None:
    log = Log()
    for number in range(9):
        log.put(b"k%d" % number, bytes(1 << 20))
    assert log.ask(asked([], [read(b"k", b"l")]))[0] == OK
    assert log.ask(asked([], [read(b"k", b"l")] * 2))[0] == protocol.TOO_LARGE


def test_a_transaction_of_many_ranges_is_read_in_as_many_steps() -> None:
    """What was counted were reads: 256 ranges of 2000 keys each were one step, of most of a second."""
    log = Log()
    log.apply(*(protocol.put_body(0, 0, 0, b"k%05d" % number, b"") for number in range(2000)))
    whole = (b"k", b"l")
    steps_taken: list[int] = []
    for body in (
        asked([], [read(*whole, limit=1)] * 30),
        asked([compare("version", b"k", "=", 1, b"l")] * 30, []),
        asked([], [(*read(*whole, limit=1), 5, 1, 0, 0, 0, 0)] * 30),
    ):
        [steps] = log.machine.begin_query([body])
        assert not isinstance(steps, bytes)
        steps_taken.append(sum(1 for _ in steps))
    assert min(steps_taken) > 15  # each of two ranges at most
    assert isinstance(log.machine.begin_query([asked([], [read(b"k00001")] * 128)])[0], bytes)


def test_transactions_that_wait_to_be_read_wait_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a frame were taken apart at once: a second, and many times the memory of what waited."""
    taken_apart: list[object] = []

    def counted(read: list[object]) -> object:
        taken_apart.append(read)
        return decode_read_transaction(read)

    monkeypatch.setattr(state_machine, "decode_read_transaction", counted)
    log = Log()
    large = asked([compare("mod", b"a", "=", 0)] * 120, [read(b"a")] * 120, [read(b"a")] * 120)
    broken = read_transaction_body(b"", b"\x93" + bytes(1 << 20), b"")
    answers = log.machine.begin_query([large] * 500 + [broken])
    assert len(taken_apart) < 60
    for late in answers[-2:]:
        assert not isinstance(late, bytes)
    [fine, wrong] = [next(answer for answer in late if answer is not None) for late in answers[-2:]]
    assert fine == log.machine.query([large])[0]
    assert msgpack.unpackb(wrong) == [protocol.BAD_REQUEST, msgpack.unpackb(MALFORMED_LIST)[1]]


def test_many_reads_of_single_keys_are_answered_at_once_and_many_of_ranges_are_not() -> None:
    """A frame of the first kind must not take a turn for each; one of the second must not take all of one."""
    log = Log()
    small = asked([compare("mod", b"a", "=", 0)], [read(b"a"), read(b"b")])
    answers = log.machine.begin_query([small] * 900)
    assert all(isinstance(answer, bytes) for answer in answers)
    large = asked([], [nested([], [read(b"a", b"b")])])
    answers = log.machine.begin_query([large] * 9)
    assert 0 < sum(isinstance(answer, bytes) for answer in answers) < 9
