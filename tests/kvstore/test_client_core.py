"""The client's core without sockets: what is sent where, again, and with what outcome."""

from __future__ import annotations

import random

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import errors, protocol
from kvstore.client import ClusterMismatch, RevisionWentBack, State
from kvstore.client.calls import Call, delete_call, status_call
from kvstore.client.links import MAX_IDLE_POLL_SECONDS, MAX_POLL_SECONDS
from kvstore.client.session import WINDOW
from kvstore.protocol import OK, STATUS
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
    """I10"""
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
    """P34"""
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
    """J1: a hint may say anything."""
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
        ([protocol.CONFLICT_WITH_LEADER], errors.NoLeader),
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


def test_a_full_socket_is_tried_again() -> None:
    """I4"""
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
    """G4: a write that may have been applied must not come again under another session."""
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


# ---------------------------------------------------------------- links


def test_the_other_endpoints_are_tried_when_the_first_does_not_answer() -> None:
    desk = Desk()
    desk.put()
    desk.flush()
    desk.pass_time(0.05)
    assert desk.wire.opened == [endpoint_of("a")]
    desk.pass_time(0.1)
    assert desk.wire.opened == [endpoint_of(name) for name in "abc"]


def test_a_refused_first_endpoint_leads_to_the_others_at_once() -> None:
    desk = Desk()
    desk.put()
    desk.flush()
    desk.core.on_refused(desk.connection("a"), desk.now)
    desk.pass_time(0.001)
    assert len(desk.wire.opened) == 3
    desk.leader = "b"
    desk.join("b")
    assert desk.name_of(desk.take_one()) == "b"
    assert not desk.connection("a")  # and is not tried for ever


def test_a_lost_leader_is_searched_for_every_few_milliseconds() -> None:
    desk = Desk().started()
    call = desk.put()
    desk.flush()
    sent = desk.take_one()
    desk.lose("a")
    assert desk.state() is State.SUSPENDED
    desk.pass_time(0.001)
    for name in "bc":
        desk.connect(name)
        desk.greet(name)  # they still believe in a
    desk.take(STATUS)
    count = 0
    for _ in range(200):
        desk.pass_time(0.001)
        for probe in desk.take(STATUS):
            if desk.name_of(probe) in "bc":
                count += 1
                desk.reply(probe, [OK, desk.status(desk.name_of(probe))])
    assert 10 <= count <= 25
    desk.leader, desk.term = "c", 2
    begun = desk.now
    while not (found := desk.take()):
        desk.pass_time(0.001)
        for probe in desk.take(STATUS):
            name = desk.name_of(probe)
            if name in "bc":
                desk.reply(probe, [OK, desk.status(name)])
    assert desk.now - begun < 0.03
    assert desk.name_of(found[0]) == "c"
    assert found[0].bodies == sent.bodies
    desk.reply(found[0], [OK, 3, None])
    assert call.value == (3, None)
    assert desk.state() is State.CONNECTED


def test_a_long_search_slows_down() -> None:
    """I15"""
    desk = Desk().started()
    desk.lose("a")
    desk.pass_time(0.001)
    desk.leader = None
    for name in "abc":
        desk.join(name)

    def questions(seconds: float) -> int:
        count = 0
        for _ in range(int(seconds / 0.005)):
            desk.pass_time(0.005)
            for probe in desk.take(STATUS):
                count += 1
                desk.reply(probe, [OK, desk.status(desk.name_of(probe))])
        return count

    questions(20.0)
    assert questions(10.0) <= 10.0 / MAX_IDLE_POLL_SECONDS * 1.5
    desk.put(seconds=100.0)
    questions(1.0)
    assert questions(10.0) <= 10.0 / MAX_POLL_SECONDS * 1.5


def test_a_node_that_hangs_up_at_once_is_left_alone_for_a_moment() -> None:
    desk = Desk("a")
    desk.put(seconds=100.0)
    desk.flush()
    for _ in range(1000):
        if desk.connection("a"):
            desk.connect("a")
            desk.lose("a")
        desk.pass_time(0.001)
    assert len(desk.wire.opened) <= 130


def test_a_silent_link_is_given_up_while_others_answer() -> None:
    """I6: half open; the leader is still the leader, and is reached by a new connection."""
    desk = Desk().started()
    call = desk.put()
    desk.flush()
    sent = desk.take_one()
    old = desk.connection("a")
    for _ in range(120):
        desk.pass_time(0.01)
        for name in "bc":
            if desk.connection(name):
                desk.connect(name)
        for probe in desk.take(STATUS):
            if probe.connection != old and probe.connection in desk.wire.endpoints:
                desk.core.on_connected(probe.connection, desk.now)
                desk.reply(probe, [OK, desk.status(desk.name_of(probe))])
    assert desk.connection("a") not in (0, old)
    again = desk.take_one()
    assert again.connection == desk.connection("a")
    assert again.bodies == sent.bodies
    assert not call.done
    desk.receive(old, b"whatever")


def test_a_slow_but_living_leader_is_waited_for() -> None:
    desk = Desk("a").started()
    call = desk.put(seconds=10.0)
    desk.flush()
    sent = desk.take_one()
    for _ in range(60):
        desk.pass_time(0.1)
        for probe in desk.take(STATUS):
            desk.reply(probe, [OK, desk.status("a")])
    assert desk.take() == []
    desk.reply(sent, [OK, 3, None])
    assert call.value == (3, None)


def test_a_deposed_leader_that_still_talks_is_left() -> None:
    """A14: it answers every STATUS, believes in itself, and commits nothing."""
    desk = Desk().started()
    desk.put()
    desk.flush()
    sent = desk.take_one()
    again = []
    for _ in range(100):
        desk.pass_time(0.01)
        for probe in desk.take(STATUS):
            desk.core.on_connected(probe.connection, desk.now)
            name = desk.name_of(probe)
            desk.leader, desk.term = ("a", 1) if name == "a" else ("b", 2)
            desk.reply(probe, [OK, desk.status(name)])
        again += desk.take()
    assert [desk.name_of(frame) for frame in again] == ["b"]
    assert again[0].bodies == sent.bodies


def test_late_answers_are_counted_and_dropped() -> None:
    """I8"""
    desk = Desk().started()
    call = desk.put(seconds=0.05)
    desk.flush()
    sent = desk.take_one()
    desk.pass_time(0.06)
    assert error_of(call) is errors.OutcomeUnknown
    desk.reply(sent, [OK, 3, None])
    assert desk.core.counters["late_replies"] == 1
    assert len(desk.finished) == 1


def test_local_reads_need_no_leader_and_others_do() -> None:
    desk = Desk()
    desk.leader = None
    local, linearizable = desk.get(is_local=True), desk.get()
    desk.flush()
    desk.join("a")
    sent = desk.take_one()
    assert sent.kind == protocol.STALE_READ
    desk.reply(sent, [OK, 5, 0, False, []])
    assert local.done
    assert not linearizable.done
    assert desk.core.revision == 0  # a local answer promises nothing about the next one


def test_a_read_goes_by_way_of_a_follower_when_the_leader_is_out_of_reach() -> None:
    desk = Desk()
    desk.leader = "c"
    call = desk.get()
    desk.flush()
    desk.join("a")
    for _ in range(10):
        desk.pass_time(0.1)
        desk.greet("a")
    sent = desk.take_one()
    assert desk.name_of(sent) == "a"
    desk.reply(sent, [OK, 5, 0, False, []])
    assert call.done


def test_a_node_of_another_cluster_is_barred() -> None:
    """J4"""
    desk = Desk("ab").started()
    desk.lose("a")
    call = desk.put(seconds=0.5)
    desk.pass_time(0.01)
    desk.core.on_refused(desk.connection("a"), desk.now)
    desk.connect("b")
    desk.greet("b", cluster_id="other", role="leader", term=99)
    assert not desk.connection("b")
    desk.pass_time(0.5)
    assert error_of(call) is ClusterMismatch
    assert desk.take() == []
    desk.leader, desk.term = "a", 3
    desk.join("a")
    call = desk.put()
    desk.flush()
    desk.reply(desk.take_one(), [OK, 3, None])
    assert call.value == (3, None)


def test_an_only_node_of_another_cluster_is_told_at_once() -> None:
    desk = Desk("a").started()
    desk.lose("a")
    call = desk.put()
    desk.pass_time(0.01)
    desk.connect("a")
    desk.greet("a", cluster_id="other")
    assert error_of(call) is ClusterMismatch


def test_a_linearizable_answer_must_not_be_of_the_past() -> None:
    desk = Desk().started()
    first = desk.get()
    desk.flush()
    early = desk.take_one()
    second = desk.put()
    desk.flush()
    desk.reply(desk.take_one(), [OK, 10, None])
    desk.reply(early, [OK, 2, 0, False, []])  # it was asked before 10 was seen
    assert first.error is None
    third = desk.get()
    desk.flush()
    desk.reply(desk.take_one(), [OK, 9, 0, False, []])
    assert second.value == (10, None)
    assert isinstance(third.error, RevisionWentBack)
    assert (third.error.known_revision, third.error.found_revision) == (10, 9)


def test_a_pinned_call_is_not_sent_elsewhere() -> None:
    desk = Desk().started()
    call = status_call()
    call.pinned = desk.core.links.pin(endpoint_of("b"))
    desk.submit(call, 1.0)
    desk.core.on_refused(desk.connection("b"), desk.now)
    assert error_of(call) is errors.Unreachable
    assert not desk.connection("b")


def test_closing_tells_each_caller_what_is_known() -> None:
    desk = Desk().started()
    sent, read = desk.put(), desk.get()
    desk.flush()
    desk.core.links.target = None
    waiting = desk.put()
    desk.core.close()
    assert error_of(sent) is errors.OutcomeUnknown
    assert error_of(read) is errors.ClientClosed
    assert error_of(waiting) is errors.ClientClosed
    with pytest.raises(errors.ClientClosed):
        desk.put()
    assert desk.wire.endpoints == {}


# ---------------------------------------------------------------- whatever a server sends

values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**64 - 1) | st.binary(max_size=8) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(values, max_size=7), st.booleans(), st.binary(max_size=40))
def test_no_frame_of_a_server_can_hurt(items: list[object], is_framed: bool, noise: bytes) -> None:
    """J1: of random results, refusals and bytes."""
    desk = Desk().started()
    call = desk.submit(delete_call(b"k", b"", False), 5.0)
    desk.flush()
    sent = desk.take_one()
    first = sent.first_request_id
    frames = [noise, b"\x01" + noise, b"\x01" + msgpack.packb(items)]
    if is_framed:
        blob = msgpack.packb([0, *items])
        frames.append(protocol.encode_results(first, 1, blob))
        frames.append(b"\x01" + msgpack.packb([protocol.REFUSED, first, 2**62, *items[:4]]))
        frames.append(protocol.encode_results(desk.core.links.links[0].probe_id, 1, blob))
    for frame in frames:
        desk.receive(sent.connection, frame)
    if not call.done:
        desk.receive(sent.connection, protocol.encode_results(first, 1, msgpack.packb([OK, 9, 1, []])))
    assert call.done or call.link is None


def test_a_refusal_for_more_than_there_is_costs_no_more_than_there_is() -> None:
    desk = Desk().started()
    call = desk.put()
    desk.flush()
    sent = desk.take_one()
    frame = protocol.encode_refused(0, protocol.MAX_INTEGER, protocol.OVERLOADED, "no")
    desk.receive(sent.connection, frame)
    desk.pass_time(0.1)
    desk.reply(desk.take_one(), [OK, 3, None])
    assert call.done


# ---------------------------------------------------------------- exactly once, whatever happens


@pytest.mark.parametrize("seed", range(12))
def test_every_write_happens_once_or_is_of_unknown_outcome(seed: int) -> None:
    """G1: random loss of requests, answers and connections, refusals and changes of leader."""
    chance = random.Random(seed)
    desk = Desk(seed=seed)
    applied: dict[tuple[int, int], int] = {}  # (session, sequence) to revision
    revision = 1
    calls = [desk.put(f"k{number}", seconds=chance.uniform(0.05, 3.0)) for number in range(5)]
    for step in range(3000):
        if chance.random() < 0.1 and len(calls) < 300:
            calls.append(desk.put(f"k{len(calls)}", seconds=chance.uniform(0.05, 3.0)))
        if chance.random() < 0.01:
            desk.leader, desk.term = chance.choice(["a", "b", "c", None]), desk.term + 1
        if chance.random() < 0.01 and desk.wire.endpoints:
            desk.core.on_lost(chance.choice(list(desk.wire.endpoints)), desk.now)
        desk.pass_time(chance.uniform(0.0, 0.005))
        desk.flush()
        for sent in desk.take(STATUS, protocol.WRITE):
            if sent.connection not in desk.wire.endpoints or chance.random() < 0.05:
                continue
            name = desk.name_of(sent)
            desk.core.on_connected(sent.connection, desk.now)
            if sent.kind == STATUS:
                desk.reply(sent, [OK, desk.status(name)])
                continue
            if name != desk.leader:
                code = protocol.NO_LEADER if desk.leader is None else protocol.NOT_LEADER
                desk.refuse(sent, code, desk.leader)
                continue
            if chance.random() < 0.1:
                code = chance.choice([protocol.OVERLOADED, protocol.CONFLICT_WITH_LEADER])
                desk.refuse(sent, code, desk.leader)
                continue
            results: list[list[object]] = []
            for session_id, sequence, below, operation, *_ in sent.bodies:
                if operation == protocol.OPEN_SESSION:
                    results.append([OK, revision, 7])
                    continue
                assert below <= sequence
                if (session_id, sequence) not in applied:
                    revision += 1
                    applied[session_id, sequence] = revision
                results.append([OK, applied[session_id, sequence], None])
            fate = chance.random()
            if fate < 0.1:
                desk.refuse(sent, protocol.OUTCOME_UNKNOWN, desk.leader)
            elif fate < 0.9:
                desk.reply(sent, *results)
        assert step < 3000
    desk.pass_time(5.0)
    assert desk.core.outstanding == 0
    assert all(call.done for call in calls)
    assert len(desk.finished) == len(calls)
    answered = [call.value.revision for call in calls if call.error is None]
    assert len(answered) > len(calls) / 4
    assert len(set(answered)) == len(answered)  # no two writes share an effect
    for call in calls:
        happened = (call.session_id, call.sequence) in applied
        if call.error is None:
            assert applied[call.session_id, call.sequence] == call.value.revision
        elif not isinstance(call.error, errors.OutcomeUnknown):
            assert not happened, f"{call.error!r}, and yet it happened"
