"""Dissertation 6: stepping down without a quorum, and linearizable reads."""

from __future__ import annotations

from raft.messages import (
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    ReadIndexRequest,
    ReadIndexResponse,
)
from raft.ready import Role, RoleChange
from tests.raft.cores import round_sent, settled_leader
from tests.raft.network import (
    Network,
    drain,
    make_leader,
    outgoing,
)


def test_a_leader_steps_down_unless_it_hears_a_quorum() -> None:
    """Dissertation 6.2: a leader that hears no majority for an election timeout steps down."""
    core = make_leader(voters="abcde", learners="l")
    assert {node_id for node_id, peer in core.progress.items() if peer.is_active} == {"b", "c"}
    core.check_quorum()  # those who elected it were heard
    assert core.role is Role.LEADER
    core.step("b", HeartbeatResponse(1, 0))
    core.step("c", AppendResponse(1, 0))
    core.check_quorum()
    assert core.role is Role.LEADER
    core.step("b", HeartbeatResponse(1, 0))  # a minority, and who does not count
    core.step("l", HeartbeatResponse(1, 0))
    core.step("stranger", HeartbeatResponse(1, 0))
    core.check_quorum()
    assert (core.role, core.term, core.leader_id) == (Role.FOLLOWER, 1, None)
    assert drain(core).role_change == RoleChange(Role.FOLLOWER, 1, None)


def test_a_read_is_answered_after_a_quorum_round() -> None:
    """Dissertation 6.4: a majority confirms the leader before a read may be served."""
    core = settled_leader()
    core.read_index(7)
    ready = drain(core)
    assert ready.reads == []
    assert [to for to, message in ready.messages if message == Heartbeat(1, 1, 1)] == ["b", "c"]
    core.step("c", HeartbeatResponse(1, 1))
    ready = drain(core)
    assert ready.reads == [(7, 1)] and ready.refused_reads == []
    core.step("b", HeartbeatResponse(1, 1))
    assert not core.has_ready()


def test_one_round_serves_all_that_wait_and_one_is_under_way_at_most() -> None:
    """Dissertation 6.4: one round of heartbeats serves any number of reads that wait."""
    core = settled_leader()
    for context in (1, 2, 3):
        core.read_index(context)
    assert round_sent(core) == 1
    for context in (4, 5):
        core.read_index(context)
        assert not outgoing(drain(core), Heartbeat)
    core.step("b", HeartbeatResponse(1, 1))
    ready = drain(core)
    assert ready.reads == [(1, 1), (2, 1), (3, 1)]
    assert {message.round for message in outgoing(ready, Heartbeat)} == {2}
    core.step("b", HeartbeatResponse(1, 2))
    assert drain(core).reads == [(4, 1), (5, 1)]


def test_the_leader_answers_followers_after_the_same_round() -> None:
    """Dissertation 6.4: a follower asks the leader for an index, which is confirmed by the same round."""
    core = settled_leader()
    core.step("b", ReadIndexRequest(1, 100))
    core.step("c", ReadIndexRequest(1, 100))
    core.read_index(7)
    ready = drain(core)
    assert not outgoing(ready, ReadIndexResponse)
    core.step("c", HeartbeatResponse(1, 1))
    ready = drain(core)
    assert ready.reads == [(7, 1)]
    assert ready.messages == [("b", ReadIndexResponse(1, 100, 1)), ("c", ReadIndexResponse(1, 100, 1))]


def test_reads_through_every_node_see_what_was_committed() -> None:
    """Dissertation 6.4: followers help with reads, and what they read is not older than the question."""
    network = Network("abc", learners="l")
    leader = network.elect("a")
    for number in range(5):
        leader.propose([b"%d" % number])
        network.settle()
        for name in network.cores:
            network[name].read_index(number)
        network.settle()
    for name in network.cores:
        assert network.reads[name] == [(number, number + 2) for number in range(5)]
