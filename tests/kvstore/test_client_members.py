"""The client and the members: admin requests, nodes that are none, and members that come and go."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvstore import errors, protocol
from kvstore.client import Client, Membership
from kvstore.client.calls import admin_call, status_call
from kvstore.client.links import REFRESH_SECONDS
from kvstore.errors import BadRequest, ChangeRefused, NotMember, OutcomeUnknown
from kvstore.protocol import ADMIN, OK, STATUS
from kvstore.protocol_admin import AddMember, ListMembers, PromoteMember
from tests.kvstore.fake_wire import Desk, endpoint_of

ANSWER = [OK, "desk", "a", False, [["a", "voter", "tcp://a:3", "tcp://a:1"]]]


def test_an_admin_request_goes_to_the_leader_alone_in_its_frame() -> None:
    desk = Desk().started()
    first, second = (
        desk.submit(admin_call(ListMembers()), 5.0),
        desk.submit(admin_call(PromoteMember("d")), 5.0),
    )
    desk.flush()
    sent = desk.take(ADMIN)
    assert [(desk.name_of(frame), frame.bodies) for frame in sent] == [("a", [[1]]), ("a", [[3, "d"]])]
    desk.reply(sent[0], ANSWER)
    desk.reply(sent[1], [protocol.CHANGE_REFUSED, "no such learner", "unknown_member"])
    assert isinstance(first.value, Membership) and first.value.leader == "a"
    assert isinstance(second.error, ChangeRefused) and second.error.reason == "unknown_member"


def test_an_admin_request_follows_the_leader_and_is_asked_again_when_its_answer_is_lost() -> None:
    desk = Desk().started()
    call = desk.submit(admin_call(AddMember("d", "tcp://127.0.0.1:1", False)), 5.0)
    desk.flush()
    [sent] = desk.take(ADMIN)
    desk.refuse(sent, protocol.OUTCOME_UNKNOWN)
    desk.leader, desk.term = "b", 2
    desk.pass_time(0.05)
    desk.join("b")
    desk.pass_time(0.1)
    [again] = desk.take(ADMIN)
    assert desk.name_of(again) == "b" and again.bodies == sent.bodies
    desk.lose("b")
    desk.pass_time(6.0)
    assert type(call.error) is OutcomeUnknown


def test_a_node_that_is_no_member_is_left_and_its_clients_served_by_others() -> None:
    """A removed node's old data must not be read any more, local reads included."""
    desk = Desk().started()
    desk.pass_time(0.2)
    local = desk.get(is_local=True)
    desk.flush()
    sent = desk.take_one()
    assert desk.name_of(sent) == "a"
    desk.refuse(sent, protocol.NOT_MEMBER)
    desk.leader, desk.term = "b", 2
    desk.pass_time(0.1)
    desk.join("b")
    desk.pass_time(0.1)
    again = desk.take_one()
    assert desk.name_of(again) == "b"
    desk.reply(again, [OK, 2, 0, False, []])
    assert local.done and local.error is None


@pytest.mark.parametrize("member", ["waiting", "removed"])
def test_where_every_node_is_none_the_caller_is_told_so(member: str) -> None:
    desk = Desk("a")
    call = desk.get(seconds=1.0)
    desk.flush()
    desk.connect("a")
    desk.greet("a", member=member, cluster_id="0" * 16, role="waiting", leader=None, leader_client=None)
    desk.pass_time(2.0)
    assert type(call.error) is NotMember
    assert not desk.take()


def test_a_waiting_node_among_the_endpoints_is_no_mismatch_and_may_be_spoken_to_by_name() -> None:
    desk = Desk()
    call = status_call()
    call.pinned = desk.core.links.pin(endpoint_of("c"))
    desk.submit(call, 5.0)
    desk.flush()
    desk.connect("c")
    desk.greet("c", member="waiting", cluster_id="0" * 16)
    desk.take(STATUS)
    desk.pass_time(0.2)
    desk.join("a")
    assert desk.core.links.cluster_id == "desk" and desk.core.links.mismatch is None
    assert desk.core.links.leader() is not None


def test_members_that_came_and_went_are_learned_while_the_leader_is_in_use() -> None:
    desk = Desk("a").started()
    for peers in ({"b": endpoint_of("b")}, {"c": endpoint_of("c")}):
        desk.take(STATUS)
        desk.pass_time(REFRESH_SECONDS)
        call = desk.put()
        desk.flush()
        desk.pass_time(0.25)
        desk.greet("a", peers=peers)
        desk.reply(desk.take_one(), [OK, 2, None])
        assert call.error is None
    desk.lose("a")
    desk.pass_time(1.0)
    assert endpoint_of("c") in desk.wire.opened
    assert endpoint_of("b") not in desk.wire.opened  # it had left


def test_the_only_node_that_a_client_knew_is_removed_and_tells_it_of_the_others() -> None:
    """The cluster grew and changed faster than a client asks who the members are."""
    desk = Desk("a").started()
    call = desk.put()
    desk.flush()
    desk.refuse(desk.take_one(), protocol.NOT_MEMBER)
    desk.pass_time(0.25)
    desk.greet("a", member="removed", role="follower", leader=None, peers={"b": endpoint_of("b")})
    desk.pass_time(1.0)
    assert endpoint_of("b") in desk.wire.opened
    assert not call.done


def test_a_node_of_another_cluster_that_takes_no_part_is_not_learned_from() -> None:
    desk = Desk("a").started()
    call = desk.put()
    desk.flush()
    desk.refuse(desk.take_one(), protocol.NOT_MEMBER)
    desk.pass_time(0.25)
    desk.greet("a", member="removed", cluster_id="0" * 16, leader=None, peers={"b": endpoint_of("b")})
    desk.pass_time(1.0)
    assert endpoint_of("b") not in desk.wire.opened
    assert not call.done


def test_an_answer_that_names_the_members_is_learned_from() -> None:
    """Who has just added nodes and removed the one that he knew must not be left alone with that one."""
    desk = Desk("a").started()
    for members in ([("b", endpoint_of("b")), ("c", endpoint_of("c"))], [("b", ""), ("d", endpoint_of("d"))]):
        call = desk.submit(admin_call(PromoteMember("d")), 5.0)
        desk.flush()
        named = [[name, "voter", "tcp://127.0.0.1:1", endpoint] for name, endpoint in members]
        desk.reply(desk.take(ADMIN)[0], [OK, "desk", "a", False, named])
        assert isinstance(call.value, Membership), call.error
    desk.lose("a")
    desk.pass_time(1.0)
    assert {endpoint_of("b"), endpoint_of("d")} <= set(desk.wire.opened)
    assert endpoint_of("c") not in desk.wire.opened  # it had left


def test_names_and_endpoints_are_looked_at_before_anything_is_sent() -> None:
    with Client(["tcp://127.0.0.1:1"], timeout_seconds=0.1) as client:
        calls: tuple[Callable[[], Membership], ...] = (
            lambda: client.cluster.promote_member("N"),
            lambda: client.cluster.demote_member("N"),
            lambda: client.cluster.add_member("n4", "nowhere"),
            lambda: client.cluster.set_members({"n4": "tcp://*:1"}),
            lambda: client.cluster.replace_member("n1", "n 4", "tcp://127.0.0.1:1"),
            lambda: client.cluster.move_leader("?"),
        )
        for call in calls:
            with pytest.raises(BadRequest):
                call()


def test_every_refusal_has_its_class() -> None:
    refusal = protocol.decode_reply(protocol.encode_refused(1, 1, protocol.NOT_MEMBER, "gone"))
    assert isinstance(refusal, protocol.Refusal)
    assert type(errors.error_of_refusal(refusal)) is NotMember
