"""Joint configurations at work: both majorities, and the way out (Raft §6, dissertation 4.3)."""

from __future__ import annotations

import pytest

from raft.core import Core
from raft.entries import HardState, NodeId
from raft.membership import Configuration
from raft.messages import (
    AppendResponse,
    HeartbeatResponse,
    PreVoteResponse,
    RequestPreVote,
    VoteResponse,
)
from raft.ready import Role
from raft.storage import Recovered
from tests.raft.changes import (
    configuration_batch,
)
from tests.raft.cores import settled_leader
from tests.raft.network import Network, drain

# -- joint -----------------------------------------------------------------------------------------------


def joint_leader() -> Core:
    """a of a, b and c, on the way to a, d and e, who are caught up; the joint entry is at index 2."""
    core = settled_leader(learners="de")
    for _ in range(2):
        core.heartbeat()
        for name in "de":
            core.step(name, HeartbeatResponse(1, 0))
    core.propose_configuration(Configuration("ade"))
    drain(core)
    assert core.configuration == Configuration("ade", outgoing="abc")
    return core


def test_4_3_a_joint_entry_is_committed_by_both_majorities() -> None:
    core = joint_leader()
    for name in "de":
        core.step(name, AppendResponse(1, 2))
    assert core.commit_index == 1
    core.step("b", AppendResponse(1, 2))
    assert core.commit_index == 2
    assert core.configuration == Configuration("ade", removed="bc")  # left by itself
    other = joint_leader()
    for name in "bc":
        other.step(name, AppendResponse(1, 2))
    assert other.commit_index == 1


def test_4_3_reads_and_the_quorum_check_need_both_majorities() -> None:
    core = joint_leader()
    core.read_index(1)
    drain(core)
    for name in "bc":
        core.step(name, HeartbeatResponse(1, 1))
    assert not drain(core).reads
    core.step("d", HeartbeatResponse(1, 1))
    assert drain(core).reads == [(1, 1)]
    core.check_quorum()
    for name in "bc":
        core.step(name, HeartbeatResponse(1, 1))
    core.check_quorum()
    assert core.role == Role.FOLLOWER


def test_4_3_an_election_in_a_joint_configuration_needs_both_majorities() -> None:
    joint = Configuration("ade", outgoing="abc")
    entries = configuration_batch(1, 1, Configuration("abc"), joint).entries
    core = Core("a", Configuration("abc"), Recovered(HardState(1), 1, entries))
    core.campaign()
    asked = [to for to, message in drain(core).messages if isinstance(message, RequestPreVote)]
    assert asked == ["b", "c", "d", "e"]
    for name in "bd":
        core.step(name, PreVoteResponse(2, True))
    drain(core)
    for name in "de":
        core.step(name, VoteResponse(2, True))
    assert (core.role, core.term) == (Role.CANDIDATE, 2)
    core.step("b", VoteResponse(2, True))
    assert core.role == Role.LEADER


@pytest.mark.parametrize("successor", ["b", "d"])
def test_4_3_a_new_leader_that_finds_a_joint_configuration_leaves_it(successor: NodeId) -> None:
    """The old leader crashed with it, before or after it was committed; old or new voters may take over."""
    network = Network("abc", learners="de")
    leader = network.elect("a")
    network.heartbeats(3)
    leader.propose_configuration(Configuration("ade"))
    network.turn("a")
    for mail in network.mail:
        network.deliver(mail)
    network.mail.clear()
    assert network[successor].configuration.is_joint
    network.isolate("a")
    for _ in range(2):
        leader.check_quorum()
    for core in network.cores.values():
        core.leader_silent()
    network[successor].campaign()
    network.settle()  # b is none of the new voters, and hands over at the end
    network.heartbeats()
    assert network.leader().node_id in "de" and network["b"].role == Role.FOLLOWER
    assert network["d"].committed_configuration == Configuration("ade", removed="bc")
