"""Dissertation 4: membership changes one server at a time, and what a cluster needs to survive them."""

from __future__ import annotations

import pytest

from raft.core import Core
from raft.entries import NodeId
from raft.errors import ConfigurationReason, ConfigurationRefused
from raft.membership import Configuration
from raft.messages import (
    AppendEntries,
    AppendResponse,
    PreVoteResponse,
    RequestPreVote,
    RequestVote,
    VoteResponse,
)
from raft.ready import Role
from tests.paper.figures import elect
from tests.raft.cores import core_in
from tests.raft.network import Network, batch, change, drain, make_core, make_leader, outgoing


def heartbeats(network: Network, leader: Core, count: int = 3) -> None:
    """At this pace a leader sees how its learners follow."""
    for _ in range(count):
        leader.heartbeat()
        network.settle()


def leaders(network: Network) -> list[Core]:
    return [core for core in network.cores.values() if core.role is Role.LEADER]


def voters_of(network: Network, names: str) -> dict[NodeId, str]:
    return {name: "".join(sorted(network[name].configuration.voters)) for name in names}


# -- 4.1: safety -----------------------------------------------------------------------------------------


def test_appends_and_votes_are_taken_from_nodes_outside_the_configuration() -> None:
    """Dissertation 4.1: the own configuration may be old, so requests are taken from anybody."""
    core = make_core()
    core.step("new", RequestVote(2, 0, 0))
    assert outgoing(drain(core), VoteResponse, to="new") == [VoteResponse(2, True)]
    core.step("new", AppendEntries(2, 0, 0, 1, batch(1, [2])))
    assert outgoing(drain(core), AppendResponse, to="new") == [AppendResponse(2, 1)]
    assert (core.leader_id, core.commit_index) == ("new", 1)


def test_a_configuration_is_used_as_soon_as_it_is_in_the_log() -> None:
    """Dissertation 4.1: each server uses the latest configuration in its log, committed or not."""
    network = Network("abc")
    leader = network.elect("a")
    network.isolate("a", "b")
    change(leader, "remove", "c")
    assert (leader.configuration, leader.committed_configuration) == (
        Configuration("ab", removed="c"),
        Configuration("abc"),
    )
    network.settle()
    assert voters_of(network, "abc") == {"a": "ab", "b": "ab", "c": "abc"}
    assert leader.commit_index == 2  # by a and b, who are all of it


def test_a_configuration_goes_when_its_entry_is_overwritten() -> None:
    """Dissertation 4.1: a server falls back to the configuration before, if the entry is removed."""
    network = Network("abc")
    leader = network.elect("a")
    network.isolate("a")
    change(leader, "remove", "c")
    assert voters_of(network, "a") == {"a": "ab"}
    network.elect("b")
    network.heal()
    heartbeats(network, network["b"])
    assert voters_of(network, "abc") == dict.fromkeys("abc", "abc")


def test_an_uncommitted_configuration_outlives_a_restart() -> None:
    """Dissertation 4.1, 3.8: it is in the log, and the log is on disk."""
    network = Network("abc")
    leader = network.elect("a")
    network.isolate("a")
    change(leader, "remove", "c")
    network.turn("a")
    restarted = network.restart("a")
    assert restarted.configuration == Configuration("ab", removed="c")
    assert restarted.committed_configuration == Configuration("abc")


def test_one_change_at_a_time() -> None:
    """Dissertation 4.1: the next change begins when the last is committed, so that majorities overlap."""
    core = make_leader(voters="abcde")
    for peer in "bcde":
        core.step(peer, AppendResponse(1, 1))
    change(core, "remove", "e")
    with pytest.raises(ConfigurationRefused) as refusal:
        change(core, "remove", "d")
    assert refusal.value.reason is ConfigurationReason.IN_FLIGHT
    drain(core)
    for peer in "bc":
        core.step(peer, AppendResponse(1, 2))
    change(core, "remove", "d")
    assert core.configuration.voters == set("abc")


def four_servers_and_a_fifth() -> Network:
    """The schedule of the erratum, up to the point at which s2 leads with nothing of its term committed.

    s1 led, and began to add s5: s1 and s5 have that entry. s2 is elected by s3 and s4, who do not.
    """
    network = Network(["s1", "s2", "s3", "s4"], learners=["s5"])
    leader = network.elect("s1")
    heartbeats(network, leader)
    network.isolate("s1", "s5")
    change(leader, "promote", "s5")
    network.settle()
    assert [name for name, core in network.cores.items() if "s5" in core.configuration.voters] == ["s1", "s5"]
    assert elect(network, "s2") == 2 and network["s2"].role is Role.LEADER
    return network


def test_no_change_before_the_leader_has_committed_an_entry_of_its_term() -> None:
    """Dissertation 4.1, erratum of 2015: no change on top of one that may still come back.

    Otherwise s2 could remove s1 with the help of s3 alone, and s1 lead again with the help of s4 and s5.
    """
    network = four_servers_and_a_fifth()
    second = network["s2"]
    with pytest.raises(ConfigurationRefused) as refusal:
        change(second, "remove", "s1")
    assert refusal.value.reason is ConfigurationReason.NO_COMMIT_IN_TERM
    second.heartbeat()
    network.settle()
    change(second, "remove", "s1")
    network.settle()
    assert second.commit_index == second.last_index
    # Now s4 has an entry of term 2, so that s1 gets no majority of s1 to s5 for its own change any more.
    network.heal()
    network.isolate("s1", "s4", "s5")
    network.restart("s1")
    for _ in range(3):
        elect(network, "s1")
        assert network["s1"].role is not Role.LEADER


def test_without_that_rule_two_majorities_that_do_not_meet_would_decide() -> None:
    """Dissertation 4.1, erratum of 2015: what the rule prevents, in numbers."""
    before = Configuration(["s1", "s2", "s3", "s4"])
    added = before.toward(Configuration(["s1", "s2", "s3", "s4", "s5"]))
    removed = before.toward(Configuration(["s2", "s3", "s4"]))
    assert added.has_quorum(["s1", "s4", "s5"]) and removed.has_quorum(["s2", "s3"])
    # Each of them meets every majority of what was before, which is all that one step at a time promises.
    assert not before.has_quorum(["s4", "s1"]) and not before.has_quorum(["s2", "s3"])


def test_every_size_from_one_to_five_and_back() -> None:
    """Dissertation 4.1: one server after the other, while commands are committed all the way."""
    network = Network("a")
    leader = network.elect("a")
    for name in "bcde":
        network.join(name)
        change(leader, "add_voter", name)
        heartbeats(network, leader)
        leader.propose([name.encode()])
        network.settle()
        assert name in network[name].configuration.voters
    assert voters_of(network, "abcde") == dict.fromkeys("abcde", "abcde")
    for name in "edcb":
        change(leader, "remove", name)
        network.settle()
        leader.propose([name.upper().encode()])
        network.settle()
    assert leader.configuration == Configuration("a", removed="bcde")
    assert [body for _, kind, body in network.applied["a"] if kind == 1] == [
        b"b",
        b"c",
        b"d",
        b"e",
        b"E",
        b"D",
        b"C",
        b"B",
    ]


# -- 4.2: availability -----------------------------------------------------------------------------------


def test_a_new_server_catches_up_in_rounds_and_is_late_if_a_round_takes_too_long() -> None:
    """Dissertation 4.2.1: a round takes what the leader had when it began; the last must be short."""
    network = Network("abc", learners="d")
    leader = network.elect("a")
    network.isolate("d")
    leader.propose([b"x"] * 20)
    heartbeats(network, leader)
    leader.check_quorum()  # an election timeout passes, and the round is not over
    network.heal()
    heartbeats(network, leader, 1)
    with pytest.raises(ConfigurationRefused) as refusal:
        change(leader, "promote", "d")
    assert refusal.value.reason is ConfigurationReason.NOT_CAUGHT_UP
    heartbeats(network, leader)  # the next round is shorter than an election timeout
    change(leader, "promote", "d")
    network.settle()
    assert network["d"].configuration.voters == set("abcd")


def test_a_failed_server_is_replaced_without_waiting_for_the_new_one() -> None:
    """Dissertation 4.2.1, 4.2.4: with c down, d as a voter from the start would stop the cluster."""
    network = Network("abc")
    leader = network.elect("a")
    network.isolate("c")
    network.join("d")
    network.isolate("d")
    change(leader, "replace", "c", "d")
    for number in range(3):
        leader.propose([b"%d" % number])
        heartbeats(network, leader, 1)
    assert leader.commit_index == leader.last_index  # a and b, of a b and c
    network.heal()
    network.isolate("c")
    heartbeats(network, leader, 5)
    assert voters_of(network, "abd") == dict.fromkeys("abd", "abd")


def test_a_change_that_would_lose_the_majority_that_is_alive_is_refused() -> None:
    """Dissertation 4.2.4: remove the dead before the living."""
    network = Network("abc")
    leader = network.elect("a")
    network.isolate("c")
    for _ in range(3):
        heartbeats(network, leader, 1)
        leader.check_quorum()
    with pytest.raises(ConfigurationRefused) as refusal:
        change(leader, "remove", "b")
    assert refusal.value.reason is ConfigurationReason.LOSES_QUORUM
    change(leader, "remove", "c")
    network.settle()
    assert leader.commit_index == leader.last_index


def test_a_leader_manages_a_cluster_that_it_is_not_in() -> None:
    """Dissertation 4.2.2: it replicates its own removal and what came before it, without counting itself."""
    network = Network("abcd")
    leader = network.elect("a")
    network.isolate("a", "b")
    leader.propose([b"before"])
    change(leader, "remove", "a")
    network.settle()
    assert (leader.role, leader.commit_index) == (Role.LEADER, 1)  # b alone, of b c and d
    network.heal()
    leader.heartbeat()
    network.settle()
    assert leader.role is Role.FOLLOWER
    (successor,) = leaders(network)
    assert successor.configuration == Configuration("bcd", removed="a")
    assert b"before" in [body for _, _, body in network.applied[successor.node_id]]


def test_a_server_that_its_own_configuration_leaves_out_may_still_be_needed() -> None:
    """Dissertation 4.2.2, figure 4.6: a alone has the entry that removes it, so nobody else can win."""
    network = Network("ab")
    leader = network.elect("a")
    change(leader, "remove", "a")
    network.turn("a")
    network.mail.clear()
    network.restart("a")
    elect(network, "b")
    assert not leaders(network)  # a has a longer log, and gives no vote to b
    elect(network, "a")
    assert network["a"].role is Role.LEADER  # by the vote of b, not its own
    heartbeats(network, network["a"])
    assert [core.node_id for core in leaders(network)] == ["b"]  # it has done its duty
    assert (
        network["b"].configuration == network["b"].committed_configuration == Configuration("b", removed="a")
    )


def test_a_server_that_is_left_out_does_not_vote_for_itself() -> None:
    """Dissertation 4.2.2: a server that its latest configuration leaves out does not count its own vote."""
    network = Network("abc")
    leader = network.elect("a")
    change(leader, "remove", "a")
    network.turn("a")
    network.mail.clear()
    restarted = network.restart("a")
    network.isolate("a", "b")
    elect(network, "a")
    assert restarted.role is not Role.LEADER  # b alone is no majority of b and c


def test_a_campaign_that_the_leader_itself_asked_for_passes_the_gate() -> None:
    """Dissertation 4.2.3: an election that the leader itself wants passes the gate."""
    core = core_in(Role.FOLLOWER, term=3)
    core.step("c", RequestVote(4, 0, 0, transfer=True))
    assert (core.term, core.voted_for) == (4, "c")


def test_a_leader_is_not_deposed_by_a_candidate_while_it_has_its_quorum() -> None:
    """Dissertation 4.2.3: a leader that reaches its cluster is not deposed by a higher term."""
    core = make_leader()
    core.leader_silent()  # does not concern a leader
    core.step("c", RequestPreVote(9, 99, 9))
    core.step("c", RequestVote(9, 99, 9))
    assert (core.role, core.term) == (Role.LEADER, 1)
    assert outgoing(drain(core), PreVoteResponse) == [PreVoteResponse(1, False)]


# -- 4.3: joint consensus --------------------------------------------------------------------------------


@pytest.mark.parametrize("delivered", range(16))
@pytest.mark.parametrize("successor", "bcde")
def test_a_leader_may_crash_at_any_moment_of_a_joint_change(delivered: int, successor: str) -> None:
    """Dissertation 4.3: whoever can win next has either the old configuration or goes on to the new one."""
    network = Network("abc", learners="de")
    leader = network.elect("a")
    heartbeats(network, leader)
    leader.propose_configuration(Configuration("ade"))
    for _ in range(delivered):
        for name, core in network.cores.items():
            while core.has_ready():
                network.turn(name)
        if network.mail:
            network.deliver(network.mail.pop(0))
    network.mail.clear()
    network.restart("a")
    network.isolate("a")
    elect(network, successor)
    network.heal()
    # If the successor could not win, one of those with the longer logs can.
    for name in "abd":
        if not leaders(network):
            elect(network, name)
    for _ in range(5):
        (last,) = leaders(network)  # another one, once b or c has brought about its own removal
        heartbeats(network, last, 1)
    assert last.configuration in (Configuration("abc", "de"), Configuration("ade", removed="bc"))
    for name in last.configuration.members:
        assert network[name].configuration == last.configuration
        assert network.applied[name] == network.applied[last.node_id]


# -- 4.4: how it is used ---------------------------------------------------------------------------------


def test_a_cluster_begins_with_a_configuration_entry_in_the_log_of_one_server() -> None:
    """Dissertation 4.4: the others are started empty, and learn of the members from the log alone."""
    network = Network("a")
    leader = network.elect("a")
    network.join("b", "c")
    for name in "bc":
        network[name].campaign()
        assert network[name].role is Role.FOLLOWER and not network[name].has_ready()
    for name in "bc":
        change(leader, "add_voter", name)
        heartbeats(network, leader)
    assert voters_of(network, "abc") == dict.fromkeys("abc", "abc")
    network.restart("c")
    assert network["c"].configuration.voters == set("abc")


def test_a_name_that_left_does_not_come_back() -> None:
    """Dissertation 3.8, 4.4: who lost its disk would vote twice in a term, so it joins under another name."""
    network = Network("abc")
    leader = network.elect("a")
    change(leader, "remove", "c")
    network.settle()
    with pytest.raises(ConfigurationRefused) as refusal:
        change(leader, "add_voter", "c")
    assert refusal.value.reason is ConfigurationReason.NAME_USED_BEFORE
    network.join("d")
    change(leader, "add_voter", "d")
    heartbeats(network, leader)
    assert voters_of(network, "abd") == dict.fromkeys("abd", "abd")
