"""Who joins: learners that catch up, voters to be, replacements, and nodes that wait (dissertation 4.2.1)."""

from __future__ import annotations

import pytest

from raft.config import RaftConfig
from raft.entries import EntryBatch, EntryKind
from raft.errors import ConfigurationReason, ConfigurationRefused
from raft.membership import Configuration
from raft.messages import (
    AppendEntries,
    AppendResponse,
    HeartbeatResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    VoteResponse,
)
from raft.ready import Role
from tests.raft.changes import (
    ask,
    grown,
    refused,
)
from tests.raft.cores import settled_leader
from tests.raft.network import Network, drain, entry, make_core

# -- who catches up, and who is alive --------------------------------------------------------------------


def test_a_voter_to_be_is_refused_until_it_has_caught_up() -> None:
    """Dissertation 4.2.1: a new voter without the log would stall the commits."""
    network = Network("abc")
    leader = network.elect("a")
    leader.propose([b"x"] * 9)
    network.settle()
    assert refused(leader, Configuration("abcd")) is ConfigurationReason.NOT_CAUGHT_UP
    network.join("d")
    network.isolate("d")
    ask(leader, "add_learner", "d")
    network.settle()
    network.heartbeats(3)
    assert refused(leader, Configuration("abcd")) is ConfigurationReason.NOT_CAUGHT_UP
    network.heal()
    network.heartbeats(3)
    assert network["d"].commit_index == leader.commit_index
    ask(leader, "promote", "d")
    network.settle()
    assert leader.committed_configuration == Configuration("abcd")


def test_a_new_voter_enters_as_learner_and_is_promoted_when_it_has_caught_up() -> None:
    network = Network("abc")
    leader = network.elect("a")
    leader.propose([b"x"] * 9)
    network.settle()
    network.join("d")
    ask(leader, "add_voter", "d")
    assert leader.configuration == Configuration("abc", "d", incoming="d")
    network.settle()
    assert leader.configuration.voters == set("abc")
    network.heartbeats(3)
    assert network["d"].committed_configuration == Configuration("abcd")
    network.elect("d")


def test_a_learner_that_is_asked_to_stay_one_does() -> None:
    network = Network("abc")
    leader = network.elect("a")
    network.join("d")
    ask(leader, "add_learner", "d")
    network.heartbeats(5)
    assert leader.committed_configuration == Configuration("abc", "d")


def test_4_2_1_a_round_that_takes_longer_than_an_election_timeout_is_no_catching_up() -> None:
    core = settled_leader(learners="l")
    core.heartbeat()  # the round begins: up to index 1
    core.check_quorum()
    core.propose([b"x"] * 5)
    drain(core)
    core.step("l", AppendResponse(1, 1))
    core.heartbeat()  # it ends, and took a timeout; the next goes up to 6
    assert not core._leading().reconfiguration.has_caught_up("l")
    core.step("l", AppendResponse(1, 6))
    core.heartbeat()
    assert core._leading().reconfiguration.has_caught_up("l")
    core.propose([b"y"])
    core.heartbeat()
    for _ in range(2):  # since then it is silent
        for peer in "bc":
            core.step(peer, HeartbeatResponse(1, 0))
        core.check_quorum()
    assert not core._leading().reconfiguration.has_caught_up("l")


def test_the_promotion_goes_on_under_another_leader() -> None:
    network = Network("abc")
    leader = network.elect("a")
    network.join("d")
    network.isolate("d")
    ask(leader, "add_voter", "d")
    network.settle()
    network.heal()
    network.elect("b")
    network.heartbeats(3)
    assert network["b"].committed_configuration == Configuration("abcd")


def test_two_new_voters_are_promoted_each_as_it_is_ready() -> None:
    network = Network("abc")
    leader = network.elect("a")
    network.join("d")
    network.join("e")
    network.isolate("e")
    for name in "de":
        ask(leader, "add_voter", name)
        network.settle()
    network.heartbeats(3)
    assert leader.committed_configuration == Configuration("abcd", "e", incoming="e")
    network.heal()
    network.heartbeats(3)
    assert leader.committed_configuration == Configuration("abcde")


def test_removal_that_loses_the_quorum_of_live_nodes_is_refused_unless_forced() -> None:
    network = Network("abc")
    leader = network.elect("a")
    network.isolate("c")
    for _ in range(2):
        network.heartbeats()
        leader.check_quorum()
    network.heartbeats()
    assert refused(leader, Configuration("ac")) is ConfigurationReason.LOSES_QUORUM
    ask(leader, "remove", "c")  # that makes it better
    network.settle()
    assert leader.committed_configuration == Configuration("ab", removed="c")
    network.isolate("b")
    assert leader.role == Role.LEADER
    core = settled_leader()
    for _ in range(2):
        core.step("b", HeartbeatResponse(1, 0))
        core.check_quorum()
    assert refused(core, Configuration("ac")) is ConfigurationReason.LOSES_QUORUM
    core.propose_configuration(Configuration("ac"), force=True)


def test_4_2_4_a_dead_node_is_replaced_while_it_is_down() -> None:
    """Add first, remove then; with replace in one command."""
    network = Network("abc")
    leader = network.elect("a")
    network.isolate("c")
    network.join("d")
    ask(leader, "replace", "c", "d")
    network.settle()
    network.heartbeats(3)
    for name in "abd":
        assert network[name].committed_configuration == Configuration("abd", removed="c"), name


def test_replace_goes_on_under_another_leader_and_can_be_called_off() -> None:
    for calls_off in (False, True):
        network = Network("abc")
        leader = network.elect("a")
        network.join("d")
        network.isolate("d")
        ask(leader, "replace", "a", "d")
        network.settle()
        successor = network.elect("b")
        if calls_off:
            ask(successor, "remove", "d")
            network.settle()
        network.heal()
        network.heartbeats(4)
        expected = Configuration("abc", removed="d") if calls_off else Configuration("bcd", removed="a")
        assert network["b"].committed_configuration == expected
        assert network["c"].committed_configuration == expected


def test_a_whole_new_topology_at_once() -> None:
    """As one set of voters: who is new catches up first, then both decide, then the new ones alone."""
    network = Network("abc")
    leader = network.elect("a")
    leader.propose([b"x"])
    network.settle()
    for name in "def":
        network.join(name)
    ask(leader, "set", "d", "e", "f")
    network.settle()
    network.heartbeats(4)
    assert leader.role == Role.FOLLOWER
    network.elect(network["d"].leader_id or "d")
    for name in "def":
        assert network[name].committed_configuration == Configuration("def", removed="abc")
        assert [body for _, kind, body in network.applied[name] if kind == EntryKind.COMMAND] == [b"x"]


def test_a_new_member_is_not_taken_for_a_lost_quorum() -> None:
    core = settled_leader(voters="ab")
    core.step("b", HeartbeatResponse(1, 0))
    core.check_quorum()
    core.step("b", HeartbeatResponse(1, 0))
    core.propose_configuration(Configuration("abc"), force=True)
    assert core.progress["c"].is_active
    core.check_quorum()
    assert core.role == Role.LEADER


# -- who waits, and who learns ---------------------------------------------------------------------------


def test_a_node_that_waits_to_be_added_never_campaigns_and_follows_whoever_leads() -> None:
    network = Network("abc")
    leader = network.elect("a")
    leader.propose([b"x"])
    network.settle()
    network.join("d")
    waiting = network["d"]
    for _ in range(3):
        waiting.leader_silent()
        waiting.campaign()
        network.settle()
    assert (waiting.role, waiting.term, waiting.configuration) == (Role.FOLLOWER, 0, Configuration())
    ask(leader, "add_learner", "d")
    network.settle()
    assert waiting.configuration == Configuration("abc", "d") and waiting.leader_id == "a"
    assert waiting.log.slice(1, 3) == leader.log.slice(1, 3)
    assert network.restart("d").configuration == Configuration("abc", "d")


def test_a_learner_never_campaigns_and_votes_when_asked() -> None:
    """The candidate may know that it is a voter by now."""
    network = Network("abc", learners="l")
    leader = network.elect("a")
    network.heartbeats(2)
    network.cut_links = {("a", "l"), ("c", "l")}
    ask(leader, "promote", "l")
    network.settle()
    assert network["l"].configuration.learners == {"l"} and network["b"].configuration.voters == set("abcl")
    network["l"].leader_silent()
    network["l"].campaign()
    assert network["l"].role == Role.FOLLOWER
    network.isolate("a", "c")
    network["b"].leader_silent()
    network["l"].leader_silent()
    network["b"].campaign()
    network.settle()
    assert (network["b"].role, network["b"].term) == (Role.PRE_CANDIDATE, 1)  # two of four
    network.heal()
    network.isolate("a")
    for name in "bcl":
        network[name].leader_silent()
    network["b"].campaign()
    network.settle()
    assert network["b"].role == Role.LEADER
    assert VoteResponse(2, True) in network.sent(VoteResponse, sender="l")


def test_a_follower_reads_through_a_leader_that_its_configuration_does_not_know() -> None:
    core = make_core("d", voters="")
    core.step("a", AppendEntries(1, 0, 0, 1, EntryBatch(1, [entry(1)])))
    drain(core)
    core.read_index(7)
    (request,) = [message for _, message in drain(core).messages]
    assert isinstance(request, ReadIndexRequest)
    core.step("a", ReadIndexResponse(1, request.context, 1))
    assert drain(core).reads == [(7, 1)]


def test_promoting_twice_or_nobody_is_refused() -> None:
    network = Network("abc", learners="l")
    leader = network.elect("a")
    network.heartbeats(2)
    ask(leader, "promote", "l")
    network.settle()
    for node, reason in (("l", ConfigurationReason.UNCHANGED), ("z", ConfigurationReason.UNKNOWN_MEMBER)):
        with pytest.raises(ConfigurationRefused) as refusal:
            ask(leader, "promote", node)
        assert refusal.value.reason is reason


def test_small_appends_carry_configurations_like_anything_else() -> None:
    network = Network(
        "abc", config=RaftConfig(max_append_bytes=20, max_append_entries=1, max_inflight_messages=1)
    )
    network.elect("a")
    grown(network, "d", "e")
    assert network["e"].committed_configuration == Configuration("abcde")
