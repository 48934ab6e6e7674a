"""The vote gate, check-quorum, and nodes that disturb (dissertation 4.2.3, 6.2 and 9.6)."""

from __future__ import annotations

from raft.core import Core
from raft.entries import HardState
from raft.messages import (
    AppendEntries,
    AppendRejected,
    Heartbeat,
    HeartbeatResponse,
    PreVoteResponse,
    RequestPreVote,
    RequestVote,
    VoteResponse,
)
from raft.ready import Role
from tests.raft.network import (
    Disk,
    Network,
    batch,
    drain,
    entries_of,
    make_core,
    make_leader,
    outgoing,
)


def follower_of_b() -> Core:
    """In term 3, and it has just heard its leader."""
    core = make_core(term=2)
    core.step("b", Heartbeat(3, 0, 0))
    drain(core)
    return core


def test_4_2_3_who_hears_a_live_leader_refuses_to_be_disturbed() -> None:
    core = follower_of_b()
    core.step("c", RequestPreVote(9, 9, 9))
    core.step("c", RequestVote(9, 9, 9))
    ready = drain(core)
    assert outgoing(ready, PreVoteResponse) == [PreVoteResponse(3, False)]
    assert not any(vote.granted for vote in outgoing(ready, VoteResponse))
    assert (core.term, core.leader_id) == (3, "b")  # the term of a refused request is not adopted


def test_4_2_3_the_gate_opens_when_the_leader_is_silent_and_shuts_when_it_is_heard() -> None:
    core = follower_of_b()
    core.leader_silent()
    core.step("c", RequestPreVote(4, 0, 0))
    assert outgoing(drain(core), PreVoteResponse) == [PreVoteResponse(4, True)]
    core.step("b", AppendEntries(3, 0, 0, 0, batch(1)))
    core.step("c", RequestPreVote(4, 0, 0))
    assert outgoing(drain(core), PreVoteResponse) == [PreVoteResponse(3, False)]
    core.leader_silent()
    core.step("b", AppendEntries(2, 0, 0, 0, batch(1)))  # an old term is no sign of life
    core.step("c", RequestVote(4, 0, 0))
    assert (core.term, core.voted_for) == (4, "c")


def test_4_2_3_a_silent_leader_is_not_heard_through_another() -> None:
    core = follower_of_b()
    core.leader_silent()
    core.step("c", Heartbeat(3, 0, 0))  # not from its leader
    core.step("c", RequestPreVote(4, 0, 0))
    assert outgoing(drain(core), PreVoteResponse) == [PreVoteResponse(4, True)]
    core.step("b", Heartbeat(3, 0, 0))
    core.step("c", Heartbeat(3, 0, 0))
    core.step("c", RequestPreVote(4, 0, 0))
    assert outgoing(drain(core), PreVoteResponse) == [PreVoteResponse(3, False)]


def test_4_2_3_the_gate_is_open_for_who_has_no_leader_any_more() -> None:
    campaigning = follower_of_b()
    campaigning.campaign()
    deposed = make_leader()
    deposed.check_quorum()
    deposed.check_quorum()
    disturbed = follower_of_b()
    disturbed.step("c", HeartbeatResponse(5, 0))
    for core in (campaigning, deposed, disturbed):
        drain(core)
        core.step("c", RequestPreVote(6, 9, 9))
        assert outgoing(drain(core), PreVoteResponse) == [PreVoteResponse(6, True)]
        core.step("c", RequestVote(6, 9, 9))
        assert (core.term, core.voted_for) == (6, "c")


def test_a12_a_stuck_candidate_with_a_higher_term_is_freed() -> None:
    """It cannot win, since the others hear a leader; it does not follow, since that leader's term is old."""
    disks = {
        "a": Disk(HardState(1, None, 0), entries_of([1, 1])),
        "b": Disk(HardState(1, None, 0), entries_of([1, 1])),
        "c": Disk(HardState(7, "c", 0), entries_of([1])),
    }
    network = Network("abc", disks=disks)
    network.isolate("c")
    network.elect("a")
    network.heal()
    network["c"].campaign()
    network.settle()
    assert (network["a"].role, network["c"].term) == (Role.LEADER, 7)
    network["a"].heartbeat()
    network.settle()
    assert (network["a"].role, network["a"].term) == (
        Role.FOLLOWER,
        7,
    )  # it heard a higher term in the answer
    leader = network.elect("a")
    assert leader.term == 8
    assert [core.leader_id for core in network.cores.values()] == [leader.node_id] * 3


def test_a14_only_a_quorum_that_was_active_since_the_last_check_counts() -> None:
    core = make_leader(voters="abcde")
    core.check_quorum()
    core.step("b", HeartbeatResponse(1, 0))
    core.step("b", HeartbeatResponse(1, 0))
    core.check_quorum()
    assert core.role is Role.FOLLOWER


def test_check_quorum_counts_rejections_as_signs_of_life() -> None:
    core = make_leader()
    core.check_quorum()
    core.step("b", AppendRejected(1, 0, 1, 0))
    core.check_quorum()
    assert core.role is Role.LEADER


def test_a17_candidates_that_duel_elect_one_in_the_end() -> None:
    network = Network("abcde")
    for name in "abcde":
        network[name].campaign()
    network.settle()
    assert sum(core.role is Role.LEADER for core in network.cores.values()) <= 1
    for name in "cab":
        for core in network.cores.values():
            core.leader_silent()
        network[name].campaign()
        network.settle()
    assert len({core.leader_id for core in network.cores.values()} - {None}) == 1
    assert len({core.term for core in network.cores.values()}) == 1


def test_a10_in_a_chain_the_leader_at_one_end_stays_and_serves() -> None:
    """a - b - c: c hears no leader and campaigns again and again; b hears one, and refuses."""
    network = Network("abc")
    leader = network.elect("a")
    network.cut_links = {("a", "c"), ("c", "a")}
    for _ in range(5):
        network["c"].leader_silent()
        network["c"].campaign()
        leader.propose([b"x"])
        leader.heartbeat()
        network.settle()
        leader.check_quorum()
    assert (leader.role, leader.term, leader.commit_index) == (Role.LEADER, 1, 6)
    assert network["b"].commit_index == 6 and network["c"].term == 1


def test_a10_a_leader_without_quorum_makes_way_for_the_node_that_reaches_one() -> None:
    """Five nodes, of which only e still reaches the others; the leader a hears e alone."""
    network = Network("abcde")
    leader = network.elect("a")
    network.cut_links = {(x, y) for x in "abcd" for y in "abcd" if x != y}
    for _ in range(2):
        leader.heartbeat()
        network.settle()
        leader.check_quorum()
    network.settle()
    assert leader.role is Role.FOLLOWER
    successor = network.elect("e")
    successor.propose([b"x"])
    network.settle()
    assert {core.commit_index for core in network.cores.values()} == {3}


def test_a10_a_leader_that_hears_nobody_though_it_is_heard_does_not_stay() -> None:
    """One-way: its heartbeats keep everybody's gate shut, so it must be the one to notice."""
    network = Network("abc")
    leader = network.elect("a")
    network.cut_links = {("b", "a"), ("c", "a")}
    for _ in range(2):
        leader.heartbeat()
        network.settle()
        leader.check_quorum()
    assert leader.role is Role.FOLLOWER
    for core in network.cores.values():
        core.leader_silent()
    network["b"].campaign()
    network.settle()
    assert network["b"].role is Role.LEADER and network["c"].leader_id == "b"
