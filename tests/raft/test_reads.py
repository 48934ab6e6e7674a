"""Linearizable reads: one quorum round for all that wait, here or at a follower (dissertation 6.4)."""

from __future__ import annotations

import pytest

from raft.config import RaftConfig
from raft.core import Core
from raft.errors import NotLeader, Overloaded
from raft.messages import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    ReadIndexRefused,
    ReadIndexRequest,
    ReadIndexResponse,
    VoteResponse,
)
from raft.ready import Role
from tests.raft.cores import round_sent, settled_leader
from tests.raft.network import batch, become_candidate, drain, make_core, make_leader, outgoing


def follower_of_b(incarnation: int = 0) -> Core:
    core = make_core(config=RaftConfig(incarnation=incarnation))
    core.step("b", Heartbeat(1, 0, 0))
    drain(core)
    return core


# -- at the leader ---------------------------------------------------------------------------------------


def test_c2_a_read_needs_a_quorum_and_not_just_an_answer() -> None:
    core = settled_leader("abcde", learners="l")
    core.read_index(7)
    assert round_sent(core) == 1
    for answer_of in ("b", "b", "l", "stranger"):
        core.step(answer_of, HeartbeatResponse(1, 1))
    assert drain(core).reads == []
    core.step("d", HeartbeatResponse(1, 1))
    assert drain(core).reads == [(7, 1)]


def test_c3_c4_only_answers_to_a_round_sent_after_the_read_count() -> None:
    core = settled_leader()
    core.read_index(1)
    assert round_sent(core) == 1
    core.read_index(2)  # after round 1 has left
    core.step("b", HeartbeatResponse(1, 1))
    ready = drain(core)
    assert ready.reads == [(1, 1)]
    assert {message.round for message in outgoing(ready, Heartbeat)} == {2}
    core.step("b", HeartbeatResponse(1, 1))  # the same answer again, and one of another to the old round
    core.step("c", HeartbeatResponse(1, 1))
    core.step("c", HeartbeatResponse(1, 0))
    assert drain(core).reads == []
    core.step("c", HeartbeatResponse(1, 2))
    assert drain(core).reads == [(2, 1)]


def test_c4_an_answer_to_a_round_that_was_never_sent_is_ignored() -> None:
    core = settled_leader()
    core.step("b", HeartbeatResponse(1, 5))
    core.read_index(1)
    ready = drain(core)
    assert {message.round for message in outgoing(ready, Heartbeat)} == {1}
    assert ready.reads == []


def test_the_read_index_is_not_older_than_the_read() -> None:
    core = settled_leader()
    core.read_index(1)
    assert round_sent(core) == 1
    core.propose([b"x"])
    drain(core)
    core.step("b", AppendResponse(1, 2))
    core.read_index(2)
    core.step("b", HeartbeatResponse(1, 1))
    assert drain(core).reads == [(1, 1)]
    core.step("b", HeartbeatResponse(1, 2))
    assert drain(core).reads == [(2, 2)]


def test_a_round_that_was_lost_is_asked_again_with_the_next_heartbeat() -> None:
    core = settled_leader()
    core.read_index(1)
    assert round_sent(core) == 1
    core.heartbeat()
    assert round_sent(core) == 1
    core.step("c", HeartbeatResponse(1, 1))
    assert drain(core).reads == [(1, 1)]


def test_a_single_voter_answers_at_once() -> None:
    core = make_leader(voters="a")
    core.read_index(7)
    assert drain(core).reads == [(7, 1)]


@pytest.mark.parametrize("lost_by", ["higher term", "check_quorum"])
def test_reads_that_wait_when_leadership_is_lost_are_refused(lost_by: str) -> None:
    core = settled_leader()
    core.read_index(1)
    core.step("b", ReadIndexRequest(1, 100))
    drain(core)
    core.read_index(2)
    core.step("b", ReadIndexRequest(1, 101))
    if lost_by == "higher term":
        core.step("c", Heartbeat(5, 0, 0))
    else:
        core.check_quorum()
        core.check_quorum()
    assert core.role is Role.FOLLOWER
    ready = drain(core)
    assert (ready.reads, ready.refused_reads) == ([], [1, 2])
    assert outgoing(ready, ReadIndexRefused, to="b") == [
        ReadIndexRefused(core.term, 100),
        ReadIndexRefused(core.term, 101),
    ]


def test_c3_an_answer_of_an_earlier_leadership_confirms_nothing() -> None:
    core = settled_leader()
    core.read_index(1)
    assert round_sent(core) == 1
    core.step("b", HeartbeatResponse(2, 0))
    become_candidate(core)
    core.step("b", VoteResponse(3, True))
    drain(core)
    core.step("b", AppendResponse(3, 2))
    core.read_index(2)
    assert round_sent(core) == 1
    core.step("b", HeartbeatResponse(1, 1))
    core.step("c", HeartbeatResponse(1, 1))
    assert drain(core).reads == []


def test_reads_that_wait_are_bounded() -> None:
    core = settled_leader(config=RaftConfig(max_waiting_reads=2))
    core.read_index(1)
    core.step("b", ReadIndexRequest(1, 100))
    with pytest.raises(Overloaded):
        core.read_index(3)
    core.step("b", ReadIndexRequest(1, 101))
    assert outgoing(drain(core), ReadIndexRefused, to="b") == [ReadIndexRefused(1, 101)]


# -- through a follower ----------------------------------------------------------------------------------


def test_c6_a_follower_asks_the_leader_once_for_all_its_reads_of_a_turn() -> None:
    core = follower_of_b()
    for context in (1, 2, 3):
        core.read_index(context)
    ready = drain(core)
    ((to, request),) = ready.messages
    assert to == "b" and isinstance(request, ReadIndexRequest)
    assert ready.reads == []
    core.step("b", ReadIndexResponse(1, request.context, 42))
    assert drain(core).reads == [(1, 42), (2, 42), (3, 42)]
    core.step("b", ReadIndexResponse(1, request.context, 50))  # delivered twice
    assert not core.has_ready()


def test_nobody_reads_while_no_leader_is_known() -> None:
    core = make_core()
    with pytest.raises(NotLeader) as refusal:
        core.read_index(1)
    assert refusal.value.leader_id is None
    core.campaign()
    with pytest.raises(NotLeader):
        core.read_index(1)


def test_c3_an_index_counts_only_from_the_leader_of_the_term() -> None:
    core = follower_of_b()
    core.read_index(1)
    (request,) = outgoing(drain(core), ReadIndexRequest)
    core.step("c", ReadIndexResponse(1, request.context, 5))
    core.step("b", ReadIndexResponse(0, request.context, 5))
    core.step("b", ReadIndexResponse(1, request.context + 1, 5))
    assert not core.has_ready()


def test_c3_an_answer_to_an_earlier_run_of_the_node_is_not_taken() -> None:
    before = follower_of_b(incarnation=1)
    before.read_index(1)
    (old_request,) = outgoing(drain(before), ReadIndexRequest)
    after = follower_of_b(incarnation=2)
    after.read_index(1)
    (new_request,) = outgoing(drain(after), ReadIndexRequest)
    after.step("b", ReadIndexResponse(1, old_request.context, 5))
    assert not after.has_ready()
    after.step("b", ReadIndexResponse(1, new_request.context, 9))
    assert drain(after).reads == [(1, 9)]
    assert 0 < new_request.context < 1 << 63  # it must fit in a signed integer of the wire


@pytest.mark.parametrize("change", ["new leader", "campaign", "higher term"])
def test_reads_of_a_follower_are_refused_when_its_leader_is_gone(change: str) -> None:
    core = follower_of_b()
    core.read_index(1)
    drain(core)
    core.read_index(2)
    if change == "new leader":
        core.step("c", AppendEntries(2, 0, 0, 0, batch(1)))
    elif change == "campaign":
        core.campaign()
    else:
        core.step("c", HeartbeatResponse(4, 0))
    assert drain(core).refused_reads == [1, 2]


def test_a_refusal_of_the_leader_is_passed_on_and_one_of_others_is_not() -> None:
    core = follower_of_b()
    core.read_index(1)
    (request,) = outgoing(drain(core), ReadIndexRequest)
    core.step("c", ReadIndexRefused(1, request.context))
    assert not core.has_ready()
    core.step("b", ReadIndexRefused(1, request.context))
    assert drain(core).refused_reads == [1]


def test_who_does_not_lead_refuses_to_give_an_index() -> None:
    for core in (make_core(term=1), follower_of_b()):
        core.step("c", ReadIndexRequest(1, 100))
        assert outgoing(drain(core), ReadIndexRefused, to="c") == [ReadIndexRefused(1, 100)]


def test_a_request_that_was_lost_is_sent_again_after_a_heartbeat_or_two() -> None:
    core = follower_of_b()
    core.read_index(1)
    (request,) = outgoing(drain(core), ReadIndexRequest)
    core.step("b", Heartbeat(1, 0, 0))
    assert not outgoing(drain(core), ReadIndexRequest)  # the answer may still be on its way
    core.read_index(2)
    drain(core)
    core.step("b", Heartbeat(1, 0, 0))
    assert outgoing(drain(core), ReadIndexRequest) == [request]


def test_a_request_that_came_twice_is_answered_by_one_round() -> None:
    core = settled_leader()
    for _ in range(3):
        core.step("b", ReadIndexRequest(1, 100))
    drain(core)
    core.step("b", HeartbeatResponse(1, 1))
    assert outgoing(drain(core), ReadIndexResponse) == [ReadIndexResponse(1, 100, 1)]


def test_reads_of_a_follower_are_bounded_and_the_bound_is_released() -> None:
    core = make_core(config=RaftConfig(max_waiting_reads=2))
    core.step("b", Heartbeat(1, 0, 0))
    for context in (1, 2):
        core.read_index(context)
        requests = outgoing(drain(core), ReadIndexRequest)
    with pytest.raises(Overloaded):
        core.read_index(3)
    core.step("b", ReadIndexResponse(1, requests[0].context, 5))
    core.read_index(3)
    with pytest.raises(Overloaded):
        core.read_index(4)
    core.step("b", ReadIndexRefused(1, requests[0].context))  # answered already: changes nothing
    with pytest.raises(Overloaded):
        core.read_index(4)
    (request,) = outgoing(drain(core), ReadIndexRequest)
    core.step("b", ReadIndexRefused(1, request.context))
    core.read_index(4)
    with pytest.raises(Overloaded):
        core.read_index(5)
