"""Raft §6: cluster membership changes."""

from __future__ import annotations

from raft.messages import (
    AppendEntries,
    AppendResponse,
    RequestPreVote,
    RequestVote,
    VoteResponse,
)
from raft.ready import Role
from tests.raft.network import Network, become_candidate, drain, make_core, make_leader, outgoing


def test_the_vote_of_a_learner_does_not_count() -> None:
    """Raft §6: new servers join as non-voting members, which no election counts."""
    core = make_core(learners="l")
    become_candidate(core)
    core.step("l", VoteResponse(1, True))
    assert (core.role, core.term) == (Role.CANDIDATE, 1)
    core.step("b", VoteResponse(1, True))
    assert core.role is Role.LEADER


def test_learners_get_the_log_and_are_not_counted() -> None:
    """Raft §6: the leader replicates to non-voting members, and does not count them for majorities."""
    core = make_leader(voters="abc", learners="lm")
    core.step("l", AppendResponse(1, 1))
    core.step("m", AppendResponse(1, 1))
    core.propose([b"x"])
    assert len(outgoing(drain(core), AppendEntries, to="l")) == 1
    core.step("l", AppendResponse(1, 2))
    core.step("m", AppendResponse(1, 2))
    assert core.commit_index == 0


def test_a_removed_node_with_a_higher_term_deposes_nobody() -> None:
    """Raft §6: who hears a leader ignores a RequestVote, its term included."""
    network = Network("abc")
    leader = network.elect("a")
    for term in range(2, 9):
        for name in "abc":
            network[name].step("removed", RequestPreVote(term, 99, 99))
            network[name].step("removed", RequestVote(term, 99, 99))
    leader.heartbeat()
    network.settle()
    assert [(core.term, core.leader_id) for core in network.cores.values()] == [(1, "a")] * 3
