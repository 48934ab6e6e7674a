"""The client's core without sockets: what is sent where, again, and with what outcome."""

from __future__ import annotations

import msgpack
import pytest

from kvstore import errors, protocol
from kvstore.client import State
from kvstore.client.calls import Call
from kvstore.client.session import WINDOW
from kvstore.protocol import OK
from tests.kvstore.fake_wire import Desk, endpoint_of


def sequences(calls: list[list[object]]) -> list[object]:
    return [body[1] for body in calls]


def error_of(call: Call) -> type[Exception] | type[None]:
    assert call.done
    return type(call.error)


# ---------------------------------------------------------------- the way of a write


def test_the_first_write_opens_a_session_after_the_node_has_told_its_cluster() -> None:
    desk = Desk()
    first, second = desk.put("k1"), desk.put("k2")
    desk.flush()
    assert desk.wire.opened == [endpoint_of("a")]
    assert desk.take() == []
    desk.join("a")
    opening = desk.take_one()
    assert opening.bodies[0][:4] == [0, 0, 0, protocol.OPEN_SESSION]
    desk.reply(opening, [OK, 1, 7])
    puts = desk.take_one()
    assert [body[:5] for body in puts.bodies] == [
        [7, 1, 1, protocol.PUT, b"k1"],
        [7, 2, 1, protocol.PUT, b"k2"],
    ]
    desk.reply(puts, [OK, 2, None], [OK, 3, [b"k2", b"", 1, 1, 1, 0]])
    assert desk.finished == [first, second]
    assert first.value == (2, None)
    assert second.value.previous.key == b"k2"
    assert desk.state() is State.CONNECTED


def test_writes_and_reads_of_one_moment_share_a_frame_each() -> None:
    desk = Desk().started()
    for number in range(10):
        desk.put(f"k{number}")
        desk.get(f"k{number}")
    desk.flush()
    assert sorted((sent.kind, len(sent.bodies)) for sent in desk.take()) == [
        (protocol.WRITE, 10),
        (protocol.READ, 10),
    ]


def test_frames_keep_to_their_limit() -> None:
    desk = Desk().started()
    for _ in range(5):
        desk.put("k", b"x" * protocol.MAX_VALUE_BYTES)
    desk.flush()
    frames = desk.take()
    assert [len(frame.bodies) for frame in frames] == [1] * 5
    assert sequences([body for frame in frames for body in frame.bodies]) == [2, 3, 4, 5, 6]


def test_answers_out_of_order_move_what_is_acknowledged() -> None:
    """T20: the lowest sequence not answered bounds what the server has to remember."""
    desk = Desk().started()
    frames = []
    for _ in range(3):
        desk.put()
        desk.flush()
        frames.append(desk.take_one())
    desk.reply(frames[1], [OK, 4, None])
    desk.put()
    desk.flush()
    assert desk.take_one().bodies[0][1:3] == [5, 2]
    desk.reply(frames[0], [OK, 3, None])
    desk.put()
    desk.flush()
    assert desk.take_one().bodies[0][1:3] == [6, 4]


def test_a_stuck_write_holds_back_what_the_server_could_not_remember() -> None:
    """More sequences than a session remembers must never be unanswered at a time."""
    desk = Desk(max_outstanding=10_000).started()
    stuck = desk.put("stuck", seconds=60.0)
    desk.flush()
    desk.take_one()
    for _ in range(WINDOW + 50):
        desk.put(seconds=60.0)
    desk.flush()
    frame = desk.take_one()
    assert frame.bodies[-1][1] == 2 + WINDOW - 1
    desk.reply(frame, *([OK, 3, None] for _ in frame.bodies))
    assert desk.take() == []
    desk.pass_time(61.0)
    assert error_of(stuck) is errors.OutcomeUnknown


def test_in_flight_and_waiting_are_bounded() -> None:
    desk = Desk(max_outstanding=4).started()
    calls = [desk.get() for _ in range(64)]
    with pytest.raises(errors.Overloaded):
        desk.get()
    desk.flush()
    frame = desk.take_one()
    assert len(frame.bodies) == 4
    desk.reply(frame, *([OK, 2, 0, False, []] for _ in range(4)))
    assert len(desk.take_one().bodies) == 4
    desk.get()
    assert [call.done for call in calls[:8]] == [True] * 4 + [False] * 4
    large = [desk.put("k", b"x" * protocol.MAX_VALUE_BYTES) for _ in range(3)]
    assert not any(call.done for call in large)


def test_waiting_bytes_are_bounded() -> None:
    desk = Desk()
    value = b"x" * protocol.MAX_VALUE_BYTES
    with pytest.raises(errors.Overloaded):
        for _ in range(100):
            desk.put("k", value)
    assert desk.core.outstanding == 63


def test_finished_calls_do_not_pile_up_until_their_deadline() -> None:
    desk = Desk().started()
    for _ in range(100):
        for _ in range(100):
            desk.get(seconds=1000.0)
        desk.flush()
        desk.reply(desk.take_one(), *([OK, 2, 0, False, []] for _ in range(100)))
    assert len(desk.core._ledger._deadlines) < 1500


# ---------------------------------------------------------------- refusals


def test_a_redirect_keeps_session_and_sequence_and_costs_no_pause() -> None:
    desk = Desk().started()
    desk.put("k1")
    desk.put("k2")
    desk.flush()
    sent = desk.take_one()
    desk.leader = "b"
    desk.term = 2
    desk.refuse(sent, protocol.NOT_LEADER, "b")
    desk.put("k3")
    desk.join("b")
    again = desk.take_one()
    assert desk.name_of(again) == "b"
    assert sequences(again.bodies) == [2, 3, 4]
    assert again.bodies[:2] == sent.bodies
    assert again.first_request_id > sent.first_request_id
    assert desk.state() is State.CONNECTED


def test_two_nodes_that_point_at_one_another_are_asked_at_a_walking_pace() -> None:
    desk = Desk("ab").started()
    desk.put()
    desk.flush()
    desk.refuse(desk.take_one(), protocol.NOT_LEADER, "b")
    desk.join("b")
    count = 0
    for _ in range(1000):
        for sent in desk.take():
            count += 1
            other = "a" if desk.name_of(sent) == "b" else "b"
            desk.refuse(sent, protocol.NOT_LEADER, other)
        desk.pass_time(0.001)
    assert 10 <= count <= 120


def test_an_endpoint_of_nobody_is_no_leader() -> None:
    """A hint may say anything."""
    desk = Desk().started()
    for hint in ("garbage", "tcp://0.0.0.0:1", "ipc://", "tcp://x:99999", "tcp://b:1/../"):
        desk.put()
        desk.flush()
        sent = desk.take_one()
        frame = protocol.encode_refused(sent.first_request_id, 1, protocol.NOT_LEADER, "no", "z", hint)
        desk.receive(sent.connection, frame)
        assert hint not in desk.wire.opened
        desk.pass_time(0.02)
        desk.greet("a")
        desk.pass_time(0.2)
        retried = desk.take_one()
        desk.reply(retried, [OK, 9, None])


def test_the_deadline_tells_what_is_known() -> None:
    desk = Desk().started()
    desk.leader = None
    cases = [
        ([protocol.NO_LEADER], errors.NoLeader),
        ([protocol.CONFLICT_WITH_LEADER], errors.OutcomeUnknown),
        ([protocol.OVERLOADED], errors.Overloaded),
        ([protocol.OUTCOME_UNKNOWN], errors.OutcomeUnknown),
        ([], errors.OutcomeUnknown),
    ]
    for codes, expected in cases:
        desk.core.links.target = desk.core.links.links[0]
        call = desk.put(seconds=0.005)
        desk.core._resume_at = 0.0
        desk.flush()
        sent = desk.take_one()
        for code in codes:
            desk.refuse(sent, code)
        assert not call.done
        desk.pass_time(0.006)
        assert error_of(call) is expected, codes
        desk.take()


@pytest.mark.parametrize("code", [protocol.OVERLOADED, protocol.OUTCOME_UNKNOWN])
@pytest.mark.parametrize("left_seconds", [0.006, 0.02])
def test_a_refused_change_is_not_sent_again_right_before_its_deadline(code: int, left_seconds: float) -> None:
    """That attempt would be on its way when the deadline passes, and what was sure before would not be so any
    more. If nobody knows anyway, or there is time for an answer, it is sent."""
    desk = Desk().started()
    call = desk.put(seconds=0.3)
    desk.flush()
    desk.refuse(desk.take_one(), code)
    desk.core.links.target, desk.core._resume_at = desk.core.links.links[0], 0.0
    desk.now = call.deadline - left_seconds
    desk.flush()
    is_sent = code == protocol.OUTCOME_UNKNOWN or left_seconds > 0.01
    assert [sent.kind for sent in desk.take() if sent.kind == protocol.WRITE] == [protocol.WRITE] * is_sent
    assert call.done is not is_sent
    if not is_sent:
        assert error_of(call) is errors.Overloaded


def test_a_later_refusal_does_not_undo_an_unknown_outcome() -> None:
    desk = Desk().started()
    call = desk.put(seconds=0.5)
    desk.flush()
    desk.refuse(desk.take_one(), protocol.OUTCOME_UNKNOWN)
    desk.pass_time(0.0)
    desk.greet("a")
    desk.pass_time(0.1)
    desk.refuse(desk.take_one(), protocol.NO_LEADER)
    desk.leader = None
    desk.pass_time(0.5)
    assert error_of(call) is errors.OutcomeUnknown


def test_a_refusal_for_want_of_space_is_final_and_never_hides_an_earlier_attempt() -> None:
    """Exactly once: who is told that a put was not applied may do something else instead."""
    result = msgpack.packb((protocol.SPACE_EXCEEDED, "no room"))
    for codes, expected in (
        ([], errors.SpaceExceeded),
        ([protocol.OVERLOADED], errors.SpaceExceeded),
        ([protocol.OUTCOME_UNKNOWN], errors.OutcomeUnknown),
        ([protocol.CONFLICT_WITH_LEADER], errors.OutcomeUnknown),
    ):
        desk = Desk().started()
        call = desk.put(seconds=5)
        desk.flush()
        sent = desk.take_one()
        for code in codes:
            desk.refuse(sent, code)
            desk.pass_time(0.0)
            desk.greet("a")
            desk.pass_time(0.1)
            sent = desk.take_one()
        desk.receive(sent.connection, protocol.encode_results(sent.first_request_id, 1, result))
        assert error_of(call) is expected, codes


def test_a_frame_that_the_node_cannot_read_is_not_sent_for_ever() -> None:
    desk = Desk().started()
    call = desk.put()
    desk.flush()
    desk.refuse(desk.take_one(), protocol.BAD_FRAME)
    assert error_of(call) is errors.BadFrame
    call = desk.put()
    desk.flush()
    desk.refuse(desk.take_one(), 99)
    assert error_of(call) is errors.UnknownAnswer


@pytest.mark.parametrize("code", [protocol.BAD_FRAME, 99])
def test_a_final_refusal_says_nothing_of_an_earlier_attempt(code: int) -> None:
    """Another node cannot read the write: "not applied" would be a lie, the first one may have applied it."""
    desk = Desk().started()
    call = desk.put(seconds=5)
    desk.flush()
    desk.refuse(desk.take_one(), protocol.OUTCOME_UNKNOWN)
    desk.pass_time(0.0)
    desk.greet("a")
    desk.pass_time(0.1)
    desk.refuse(desk.take_one(), code)
    assert call.error is not None and isinstance(call.error, errors.MaybeApplied)


def test_a_full_socket_is_tried_again() -> None:
    desk = Desk().started()
    desk.wire.is_full = True
    call = desk.put()
    desk.flush()
    desk.pass_time(0.1)
    desk.wire.is_full = False
    desk.pass_time(0.1)
    desk.reply(desk.take_one(), [OK, 3, None])
    assert call.value == (3, None)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ([protocol.BAD_REQUEST, "m"], errors.BadRequest),
        ([protocol.TOO_LARGE, "m"], errors.TooLarge),
        ([protocol.SEQUENCE_FORGOTTEN, "m"], errors.SequenceForgotten),
        ([protocol.COMPACTED, "m", 5], errors.Compacted),
        ([77, "m"], errors.UnknownAnswer),
        ([protocol.BAD_REQUEST], errors.BadRequest),
    ],
)
def test_the_stores_own_answer_is_final(result: list[object], expected: type[Exception]) -> None:
    desk = Desk().started()
    call = desk.put()
    desk.flush()
    desk.reply(desk.take_one(), result)
    assert error_of(call) is expected


# ---------------------------------------------------------------- sessions


def test_an_opening_is_retried_with_its_nonce() -> None:
    desk = Desk()
    desk.put()
    desk.flush()
    desk.join("a")
    first = desk.take_one()
    desk.lose("a")
    desk.leader, desk.term = "b", 2
    desk.join("b")
    assert desk.take_one().bodies == first.bodies


def test_an_expired_session_is_replaced_only_when_nothing_of_it_is_open() -> None:
    """A write that may have been applied must not come again under another session."""
    desk = Desk().started()
    expired, open_one = desk.put("k1"), desk.put("k2")
    desk.flush()
    sent = desk.take_one()
    later = desk.put("k3")
    first_only = protocol.encode_results(
        sent.first_request_id, 1, msgpack.packb([protocol.SESSION_EXPIRED, "m"])
    )
    desk.receive(sent.connection, first_only)
    assert error_of(expired) is errors.SessionExpired
    assert desk.state() is State.LOST
    assert desk.take() == []
    second_only = protocol.encode_results(
        sent.first_request_id + 1, 1, msgpack.packb([protocol.SESSION_EXPIRED, "m"])
    )
    desk.receive(sent.connection, second_only)
    assert error_of(open_one) is errors.SessionExpired
    opening = desk.take_one()
    assert opening.bodies[0][3] == protocol.OPEN_SESSION
    desk.reply(opening, [OK, 2, 8])
    assert desk.state() is State.CONNECTED
    again = desk.take_one()
    assert again.bodies[0][:3] == [8, 1, 1]
    desk.reply(again, [OK, 3, None])
    assert later.value == (3, None)


def test_a_session_that_cannot_be_opened_fails_who_waits_for_it() -> None:
    desk = Desk()
    calls = [desk.put(), desk.put()]
    desk.flush()
    desk.join("a")
    desk.reply(desk.take_one(), [protocol.BAD_REQUEST, "no"])
    assert [error_of(call) for call in calls] == [errors.BadRequest] * 2
