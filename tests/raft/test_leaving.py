"""Who leaves: leaders, and nodes that do not know it yet (dissertation 4.2.2, 4.2.3)."""

from __future__ import annotations

from raft.membership import Configuration
from raft.messages import (
    AppendEntries,
    AppendResponse,
    HeartbeatResponse,
    PreVoteResponse,
    Removed,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
)
from raft.ready import Role
from tests.raft.changes import (
    ask,
    configuration_batch,
)
from tests.raft.cores import settled_leader
from tests.raft.network import Network, drain, make_core, outgoing

# -- who leaves ------------------------------------------------------------------------------------------


def test_4_2_2_a_leader_that_leaves_does_not_count_itself_and_steps_down_when_that_is_committed() -> None:
    core = settled_leader()
    ask(core, "remove", "a")
    drain(core)
    assert (core.role, core.term) == (Role.LEADER, 1)
    core.step("b", AppendResponse(1, 2))
    assert (core.role, core.commit_index) == (Role.LEADER, 1)  # it and b would be two of three
    core.propose([b"x"])  # it manages the cluster as long as it must
    drain(core)
    core.step("c", AppendResponse(1, 3))
    assert (core.role, core.commit_index, core.leader_id) == (Role.FOLLOWER, 2, None)
    assert outgoing(drain(core), TimeoutNow, to="c") == [TimeoutNow(1)]
    core.campaign()
    assert core.role == Role.FOLLOWER and core.is_removed


def test_removing_the_leader_leaves_a_cluster_that_is_led() -> None:
    network = Network("abc")
    leader = network.elect("a")
    ask(leader, "remove", "a")
    network.settle()
    assert leader.role == Role.FOLLOWER
    successor = network.leader()
    successor.propose([b"x"])
    network.settle()
    assert network["b"].commit_index == network["c"].commit_index == successor.last_index


def test_a_leader_that_becomes_a_learner_makes_way() -> None:
    network = Network("abc")
    leader = network.elect("a")
    ask(leader, "demote", "a")
    network.settle()
    network.heartbeats()
    assert network.leader().node_id in "bc"
    assert network["a"].leader_id == network.leader().node_id and not network["a"].is_removed
    assert network["a"].commit_index == network.leader().commit_index
    network["a"].leader_silent()
    network["a"].campaign()
    assert network["a"].role == Role.FOLLOWER


def test_a_leader_that_leaves_and_reads_until_then_needs_the_others() -> None:
    core = settled_leader()
    ask(core, "remove", "a")
    drain(core)
    core.read_index(1)
    drain(core)
    core.step("b", HeartbeatResponse(1, 1))
    assert not drain(core).reads
    core.step("c", HeartbeatResponse(1, 1))
    assert drain(core).reads == [(1, 1)]


def test_who_left_is_sent_nothing_and_its_late_answers_are_ignored() -> None:
    core = settled_leader()
    ask(core, "remove", "c")
    ignored = core.ignored_messages
    core.step("c", AppendResponse(1, 2))
    core.step("c", HeartbeatResponse(1, 0))
    assert core.ignored_messages == ignored + 2 and core.commit_index == 1
    core.propose([b"x"])
    core.heartbeat()
    assert {to for to, _ in drain(core).messages} == {"b"}


def test_who_left_is_told_and_campaigns_no_more() -> None:
    network = Network("abc")
    leader = network.elect("a")
    ask(leader, "remove", "c")
    network.settle()
    assert network["c"].is_removed and network.sent(Removed, to="c")
    assert not leader.is_removed and not network["b"].is_removed
    term = network["c"].term
    network["c"].leader_silent()
    network["c"].campaign()
    assert (network["c"].role, network["c"].term) == (Role.FOLLOWER, term)


def test_who_was_away_when_it_was_removed_learns_it_when_it_campaigns() -> None:
    network = Network("abc")
    leader = network.elect("a")
    network.isolate("c")
    network["c"].leader_silent()
    ask(leader, "remove", "c")
    network.settle()
    network.heal()
    assert network["c"].may_campaign()
    network["c"].campaign()
    network.settle()
    core = network["c"]
    assert core.is_removed and core.role == Role.FOLLOWER and not core.may_campaign()
    assert (leader.role, leader.term) == (Role.LEADER, 1)
    assert network["b"].leader_id == "a"
    for name in "ab":  # a vote for real, in a term of its own making, is refused as well
        network[name].leader_silent()
        network[name].step("c", RequestVote(9, 99, 9))
        assert network[name].term == 1


def test_a_removal_that_is_not_committed_costs_nobody_its_vote() -> None:
    core = make_core("b", log=[1])
    core.step("a", AppendEntries(1, 1, 1, 0, configuration_batch(2, 1, Configuration("ab", removed="c"))))
    core.leader_silent()
    drain(core)
    core.step("c", RequestPreVote(2, 2, 1))
    ready = drain(core)
    assert outgoing(ready, PreVoteResponse) == [PreVoteResponse(2, True)] and not outgoing(ready, Removed)


def test_a_stranger_cannot_remove_a_node() -> None:
    core = make_core()
    core.step("stranger", Removed(0))
    assert not core.is_removed and core.ignored_messages == 1
