"""Raft §6: cluster membership changes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, combinations

import pytest

from raft.core import Core
from raft.entries import EntryBatch, EntryKind, NodeId
from raft.errors import ConfigurationRefused
from raft.membership import Configuration
from raft.messages import (
    AppendEntries,
    AppendResponse,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
    VoteResponse,
)
from raft.quorum import has_majority
from raft.ready import Role
from tests.raft.network import Network, become_candidate, change, drain, make_core, make_leader, outgoing


def groups(names: Iterable[NodeId]) -> list[frozenset[NodeId]]:
    nodes = sorted(names)
    return [
        frozenset(some) for some in chain.from_iterable(combinations(nodes, n) for n in range(len(nodes) + 1))
    ]


def joint_leader() -> Core:
    """a leads in the joint configuration of a b c and a d e, which nobody has acknowledged yet."""
    core = make_leader(voters="abc", learners="de")
    for peer in "bcde":
        core.step(peer, AppendResponse(1, 1))
    core.heartbeat()
    drain(core)
    core.propose_configuration(Configuration("ade"))
    drain(core)
    assert core.configuration == Configuration("ade", outgoing="abc")
    return core


# -- figure 10 -------------------------------------------------------------------------------------------


def test_switching_directly_would_let_two_majorities_decide_without_each_other() -> None:
    """Raft §6, figure 10: 1 and 2 are a majority of the old three, and 3, 4 and 5 one of the new five."""
    old, new = "123", "12345"
    assert has_majority(old, "12") and has_majority(new, "345") and not set("12") & set("345")
    # So the way from one to the other is never direct.
    step = Configuration(old).toward(Configuration(new))
    assert step == Configuration(new, outgoing=old) and step.left() == Configuration(new)


@pytest.mark.parametrize("old", ["1", "12", "123", "1234"])
@pytest.mark.parametrize("new", ["1", "2", "23", "345", "12345", "45"])
def test_on_the_way_any_two_majorities_that_may_decide_have_a_server_in_common(old: str, new: str) -> None:
    """Raft §6, figure 10: of each configuration with itself and with the one that follows it."""
    way = [Configuration(old)]
    while way[-1].voters != set(new) or way[-1].is_joint:
        way.append(way[-1].left() if way[-1].is_joint else way[-1].toward(Configuration(new)))
    assert len(way) <= 3
    for before, after in zip(way, [*way[1:], way[-1]]):
        for one in groups(before.electorate):
            for other in groups(after.electorate):
                if before.has_quorum(one) and after.has_quorum(other):
                    assert one & other, f"{sorted(one)} and {sorted(other)}"


# -- figure 11 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "commits"),
    [("", False), ("bc", False), ("de", False), ("b", False), ("bd", True), ("ce", True)],
)
def test_while_joint_an_entry_needs_a_majority_of_the_old_and_one_of_the_new(
    answers: str, commits: bool
) -> None:
    """Raft §6, figure 11: agreement needs separate majorities of both configurations."""
    core = joint_leader()
    for peer in answers:
        core.step(peer, AppendResponse(1, 2))
    assert (core.commit_index >= 2) == commits


@pytest.mark.parametrize(
    ("votes", "wins"), [("", False), ("bc", False), ("de", False), ("d", False), ("bd", True), ("ce", True)]
)
def test_while_joint_an_election_needs_both_majorities(votes: str, wins: bool) -> None:
    """Raft §6, figure 11: an election, too, needs separate majorities of both configurations."""
    core = make_core("a", voters="abc")
    joint = Configuration("ade", outgoing="abc").encode()
    core.step("b", AppendEntries(1, 0, 0, 0, EntryBatch(1, [(1, int(EntryKind.CONFIGURATION), joint)])))
    become_candidate(core)
    for voter in votes:
        core.step(voter, VoteResponse(2, True))
    assert (core.role is Role.LEADER) == wins


def test_once_the_joint_configuration_is_committed_the_leader_goes_on_to_the_new_one() -> None:
    """Raft §6, figure 11: C_new is proposed when C_old,new is committed, and commits by the new majority."""
    core = joint_leader()
    for peer in "bd":
        core.step(peer, AppendResponse(1, 2))
    assert core.configuration == Configuration("ade", removed="bc") and core.last_index == 3
    drain(core)
    core.step("b", AppendResponse(1, 3))  # does not count any more
    assert core.commit_index == 2
    core.step("e", AppendResponse(1, 3))
    assert core.commit_index == 3 and core.role is Role.LEADER


def test_a_cluster_serves_while_its_voters_change() -> None:
    """Raft §6: client requests are taken all the way from the old configuration to the new one."""
    network = Network("abc")
    leader = network.elect("a")
    network.join("d", "e")
    change(leader, "set", "a", "d", "e")
    for number in range(8):
        leader.propose([b"%d" % number])
        leader.heartbeat()
        network.settle()
    assert {core.configuration.voters for name, core in network.cores.items() if name in "ade"} == {
        frozenset("ade")
    }
    bodies = [body for _, kind, body in network.applied["e"] if kind == 1]
    assert bodies == [b"%d" % number for number in range(8)]


# -- who joins -------------------------------------------------------------------------------------------


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


def test_a_server_becomes_a_voter_only_when_it_has_caught_up() -> None:
    """Raft §6: the change proceeds when new servers have caught up with the rest."""
    network = Network("abc")
    leader = network.elect("a")
    network.join("d")
    network.isolate("d")
    change(leader, "add_voter", "d")
    for number in range(5):
        leader.propose([b"%d" % number])
        leader.heartbeat()
        network.settle()
    assert leader.configuration.voters == set("abc")  # nobody waits for d, and it is asked for nothing
    with pytest.raises(ConfigurationRefused, match="not_caught_up"):
        change(leader, "promote", "d")
    network.heal()
    for _ in range(4):
        leader.heartbeat()
        network.settle()
    assert network["d"].configuration.voters == set("abcd")


# -- who leaves ------------------------------------------------------------------------------------------


def test_a_leader_that_is_not_in_the_new_configuration_does_not_count_itself() -> None:
    """Raft §6: it manages a cluster that it is no part of, until the new configuration is committed."""
    core = make_leader(voters="abc")
    for peer in "bc":
        core.step(peer, AppendResponse(1, 1))
    core.heartbeat()
    drain(core)
    change(core, "remove", "a")
    drain(core)
    core.step("b", AppendResponse(1, 2))
    assert (core.role, core.commit_index) == (Role.LEADER, 1)  # a and b are two of three, but a is none now
    core.step("c", AppendResponse(1, 2))
    assert (core.role, core.commit_index) == (Role.FOLLOWER, 2)
    assert outgoing(drain(core), TimeoutNow)  # and somebody takes over without waiting


def test_after_a_leader_removed_itself_the_others_elect_one_at_once() -> None:
    """Raft §6: and who stepped down does not come back."""
    network = Network("abc")
    change(network.elect("a"), "remove", "a")
    network.settle()
    (leader,) = [name for name, core in network.cores.items() if core.role is Role.LEADER]
    assert leader in "bc" and network[leader].term == 2
    network["a"].campaign()
    assert network["a"].role is Role.FOLLOWER and not network["a"].has_ready()


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
