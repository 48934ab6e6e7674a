"""The client's links without sockets: who is asked, who is followed, who is given up."""

from __future__ import annotations

import pytest

from kvstore import errors, protocol
from kvstore.client import ClusterMismatch, RevisionWentBack, State
from kvstore.client.calls import Call, admin_call, status_call
from kvstore.client.links import MAX_IDLE_POLL_SECONDS, MAX_POLL_SECONDS
from kvstore.protocol import OK, STATUS
from kvstore.protocol_admin import Initialise
from tests.kvstore.fake_wire import Desk, endpoint_of


def error_of(call: Call) -> type[Exception] | type[None]:
    assert call.done
    return type(call.error)


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
    """Half open; the leader is still the leader, and is reached by a new connection."""
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
    """It answers every STATUS, believes in itself, and commits nothing."""
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
    desk = Desk("ab").started()
    desk.lose("a")
    call = desk.put(seconds=0.5)
    desk.pass_time(0.01)
    desk.core.on_refused(desk.connection("a"), desk.now)
    desk.connect("b")
    desk.greet("b", cluster_id="other", role="leader", term=99)
    assert not desk.connection("b")
    desk.pass_time(4.5)
    assert error_of(call) is ClusterMismatch
    assert desk.take() == []
    assert desk.wire.opened.count(endpoint_of("b")) == 1
    desk.pass_time(1.0)
    assert desk.wire.opened.count(endpoint_of("b")) == 2  # it may have been set right meanwhile
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


def test_a_pinned_call_ends_with_a_connection_that_ends_before_it_is_sent() -> None:
    desk = Desk().started()
    call = status_call()
    call.pinned = desk.core.links.pin(endpoint_of("b"))
    desk.submit(call, 1.0)
    desk.connect("b")
    desk.lose("b")
    assert error_of(call) is errors.Unreachable


@pytest.mark.parametrize(
    ("call", "error"),
    [(status_call(), errors.Unreachable), (admin_call(Initialise(bytes(16))), errors.OutcomeUnknown)],
)
def test_a_pinned_change_whose_connection_ends_is_not_said_to_be_not_applied(
    call: Call, error: type[Exception]
) -> None:
    desk = Desk().started()
    call.pinned = desk.core.links.pin(endpoint_of("b"))
    desk.submit(call, 1.0)
    desk.join("b")
    desk.take(call.kind)
    desk.lose("b")
    assert error_of(call) is error


def test_a_new_term_ends_the_pause_of_the_former() -> None:
    """The pause is for a node that has just refused; whoever leads now has refused nothing."""
    desk = Desk("a").started()
    desk.put()
    for _ in range(6):  # the pause has grown to its limit
        desk.flush()
        while not (sent := desk.take()):
            desk.pass_time(0.001)
            for probe in desk.take(STATUS):
                desk.reply(probe, [OK, desk.status("a")])
        desk.refuse(sent[0], protocol.NO_LEADER)
    desk.term += 1
    desk.pass_time(0.0)
    desk.greet("a")
    assert len(desk.take()) == 1


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
