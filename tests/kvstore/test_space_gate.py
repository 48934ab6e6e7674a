"""Writes while a disk is nearly full: who has said so, for how long it is believed, and what goes on."""

from __future__ import annotations

from kvstore import protocol
from kvstore.errors import OutcomeUnknown, SpaceExceeded, error_of_result
from kvstore.protocol import close_session_body, delete_body, open_session_body, put_body
from kvstore.space_gate import BELIEVE_SECONDS, SpaceGate, SpaceNotice, runs
from raft.space_watch import MISGIVING_CHECKS, SpaceAlarm
from raft.storage import Space

LOW, ENOUGH = SpaceNotice(True, 5), SpaceNotice(False, 500)


def test_only_what_does_not_grow_goes_on() -> None:
    put, delete = put_body(1, 1, 1, b"k", b"v"), delete_body(1, 2, 1, b"k")
    others = [open_session_body(bytes(16)), close_session_body(1, 3, 1)]
    bodies = [put, put, delete, *others, b"nonsense", b"\xc1", put, delete]
    assert list(runs(bodies)) == [(0, 2, False), (2, 5, True), (5, 8, False), (8, 9, True)]


def test_one_member_is_enough_and_is_believed_for_a_while() -> None:
    gate, members = SpaceGate("n1"), {"n1", "n2", "n3"}
    gate.note("n2", LOW, 10.0)
    assert gate.is_closed and gate.nodes() == ["n2"]
    gate.sweep(members, 10.0 + BELIEVE_SECONDS)
    assert gate.is_closed
    gate.sweep(members, 10.1 + BELIEVE_SECONDS)
    assert not gate.is_closed
    gate.note("n2", LOW, 20.0)
    gate.sweep({"n1", "n3"}, 20.0)
    assert not gate.is_closed
    gate.note("n2", LOW, 20.0)
    gate.note("n1", LOW, 20.0)
    gate.sweep(members, 100.0)
    assert gate.nodes() == ["n1"]  # of itself a node knows
    gate.note("n1", ENOUGH, 100.0)
    assert not gate.is_closed


def test_the_others_are_told_again_and_again_and_once_that_it_is_over() -> None:
    gate = SpaceGate("n1")
    assert gate.take_notice() is None
    gate.note("n1", LOW, 1.0)
    gate.note("n2", LOW, 1.0)
    assert [gate.take_notice(), gate.take_notice()] == [LOW, LOW]
    gate.note("n1", ENOUGH, 2.0)
    assert [gate.take_notice(), gate.take_notice()] == [ENOUGH, None]


def test_a_node_that_falls_silent_takes_back_what_it_said_and_says_no_more() -> None:
    gate = SpaceGate("n1")
    gate.note("n1", LOW, 1.0)
    assert gate.take_notice() == LOW
    gate.fall_silent()
    gate.note("n1", LOW, 2.0)
    assert [gate.take_notice(), gate.take_notice()] == [SpaceNotice(False, LOW.free_bytes), None]
    gate.note("n1", LOW, 3.0)
    assert gate.take_notice() is None and gate.nodes() == ["n1"]


def test_a_node_that_falls_silent_takes_nothing_back_that_it_never_said() -> None:
    gate = SpaceGate("n1")
    gate.fall_silent()
    gate.note("n1", LOW, 1.0)
    assert gate.take_notice() is None


def test_a_refusal_is_final_and_names_the_node() -> None:
    gate = SpaceGate("n1")
    gate.note("n2", LOW, 1.0)
    [result] = protocol.split_results(gate.refusal(), 1)
    error = error_of_result(result)
    assert type(error) is SpaceExceeded and not error.may_be_applied and "n2" in str(error)
    assert OutcomeUnknown.may_be_applied


def test_the_alarm_begins_and_ends_at_different_places() -> None:
    alarm = SpaceAlarm(100)
    space = Space(free_bytes=150, wanted_bytes=50, gave_up=False)
    assert not alarm.judge(space) and not alarm.is_low
    assert alarm.judge(space._replace(free_bytes=149)) and alarm.is_low
    assert not alarm.judge(space._replace(free_bytes=186))
    assert alarm.judge(space._replace(free_bytes=187)) and not alarm.is_low


def test_what_was_given_up_raises_the_alarm_whatever_is_said_to_be_free() -> None:
    alarm = SpaceAlarm(0)
    plenty = Space(free_bytes=1 << 40, wanted_bytes=0, gave_up=False)
    assert alarm.judge(plenty._replace(gave_up=True))
    assert [alarm.judge(plenty) for _ in range(MISGIVING_CHECKS)] == [False] * (MISGIVING_CHECKS - 1) + [True]
    assert not alarm.is_low
