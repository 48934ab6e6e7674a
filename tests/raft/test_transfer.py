"""Handing leadership over (dissertation 3.10), and priority in elections."""

from __future__ import annotations

import pytest

from raft.config import RaftConfig
from raft.core import Core
from raft.entries import NodeId
from raft.errors import ConfigurationReason, TransferReason, TransferRefused, Transferring
from raft.membership import Configuration
from raft.messages import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    ReadIndexRequest,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
    VoteResponse,
)
from raft.ready import Role
from tests.raft.changes import ask, refused
from tests.raft.cores import settled_leader
from tests.raft.network import Network, batch, drain, make_core, outgoing


def settled(voters: str = "abc", learners: str = "") -> Network:
    """Led by a, and all have everything."""
    network = Network(voters, learners=learners)
    network.elect("a").propose([b"x"])
    network.settle()
    network.heartbeats(2)
    return network


def refusal(core: Core, target: NodeId | None) -> TransferReason:
    with pytest.raises(TransferRefused) as refused_transfer:
        core.transfer_leadership(target)
    assert refused_transfer.value.detail
    return refused_transfer.value.reason


# -- the way of it ---------------------------------------------------------------------------------------


def test_3_10_an_up_to_date_target_is_told_at_once_and_wins() -> None:
    network = settled()
    network["a"].transfer_leadership("b")
    network.settle()
    assert network.leader().node_id == "b" and network["b"].term == 2
    assert network["a"].leader_id == network["c"].leader_id == "b"
    assert network.sent(RequestVote, sender="b")[0].transfer
    assert not network.sent(RequestPreVote, sender="b")


def test_3_10_a_target_that_is_behind_gets_everything_first() -> None:
    network = settled()
    network.isolate("c")
    network["a"].propose([b"y"] * 3)
    network.settle()
    network.heal()
    network["a"].transfer_leadership("c")
    assert not network.sent(TimeoutNow)
    network.settle()  # nothing yet: c's answers were lost, and only a heartbeat finds that out
    network.heartbeats(1)
    assert network.leader().node_id == "c"
    assert network["c"].commit_index == network["c"].last_index == 6


def test_3_10_nothing_is_proposed_meanwhile_and_all_is_again_after_the_abort() -> None:
    core = settled_leader()
    core.propose([b"x"])
    core.transfer_leadership("b")
    with pytest.raises(Transferring) as busy:
        core.propose([b"y"])
    assert busy.value.target == core.transfer_target == "b"
    assert refused(core, Configuration("ab")) is ConfigurationReason.TRANSFERRING
    assert not outgoing(drain(core), TimeoutNow)
    core.abort_transfer()
    assert core.transfer_target is None
    core.propose([b"y"])
    core.step("b", AppendResponse(1, 3))
    assert not outgoing(drain(core), TimeoutNow)
    core.propose_configuration(Configuration("ab"))


def test_no_target_means_the_most_up_to_date_voter_that_may_lead() -> None:
    core = settled_leader(voters="abcd", learners="l")
    core.propose([b"x"])
    drain(core)
    for peer, match_index in (("b", 1), ("c", 2), ("l", 2)):
        core.step(peer, AppendResponse(1, match_index))
    core.transfer_leadership(None)
    assert core.transfer_target == "c"
    assert outgoing(drain(core), TimeoutNow, to="c") == [TimeoutNow(1)]
    core.transfer_leadership(None)  # it stays with the choice
    assert core.transfer_target == "c"


def test_no_target_is_found_among_the_dead_and_those_that_never_lead() -> None:
    core = settled_leader()
    core.check_quorum()
    core.step("b", HeartbeatResponse(1, 0, 0))
    core.check_quorum()
    assert refusal(core, None) is TransferReason.NO_CANDIDATE
    assert refusal(settled_leader("a"), None) is TransferReason.NO_CANDIDATE


def test_who_cannot_be_the_target() -> None:
    network = settled(learners="l")
    leader = network["a"]
    assert refusal(leader, "a") is TransferReason.LEADS_ALREADY
    for target in ("l", "nobody"):
        assert refusal(leader, target) is TransferReason.NOT_A_VOTER
    ask(leader, "remove", "c")
    assert refusal(leader, "c") is TransferReason.NOT_A_VOTER
    leader.step("b", HeartbeatResponse(1, 0, 0))
    assert refusal(leader, "b") is TransferReason.NEVER_LEADS
    assert leader.transfer_target is None


def test_a_second_transfer_to_the_same_node_changes_nothing_and_to_another_replaces_the_first() -> None:
    core = settled_leader()
    core.propose([b"x"])
    core.transfer_leadership("b")
    first = core._leading().transfer
    core.transfer_leadership("b")
    assert core._leading().transfer is first
    core.transfer_leadership("c")
    drain(core)
    core.step("b", AppendResponse(1, 2))
    assert not outgoing(drain(core), TimeoutNow)
    core.step("c", AppendResponse(1, 2))
    assert outgoing(drain(core), TimeoutNow, to="c") == [TimeoutNow(1)]


def test_a_word_that_was_lost_is_said_again_with_the_next_heartbeat() -> None:
    network = settled()
    network.cut_links = {("a", "b")}
    network["a"].transfer_leadership("b")
    network.settle()
    assert network["a"].role is Role.LEADER
    network.heal()
    network.heartbeats(1)
    assert network.leader().node_id == "b"


@pytest.mark.parametrize("verb", ["remove", "demote"])
def test_a_target_that_is_no_voter_any_more_is_given_up(verb: str) -> None:
    core = settled_leader()
    core.transfer_leadership("b")
    # Refused while the transfer is on, but a change may have been under way before it.
    core._leading().transfer, kept = None, core._leading().transfer
    ask(core, verb, "b")
    core._leading().transfer = kept
    core._leading().follow_configuration()
    assert core.transfer_target is None
    core.propose([b"x"])


def test_a_transfer_ends_with_the_leadership() -> None:
    core = settled_leader()
    core.transfer_leadership("b")
    core.step("c", AppendEntries(2, 1, 1, 0, batch(2, [2])))
    assert core.transfer_target is None
    core.abort_transfer()
    assert core.role is Role.FOLLOWER


def test_reads_during_a_transfer_are_right() -> None:
    """They go on, and are confirmed by a quorum like any: not once the target leads."""
    core = settled_leader()
    core.transfer_leadership("b")
    core.read_index(1)
    core.step("c", ReadIndexRequest(1, 9))
    drain(core)
    core.step("c", HeartbeatResponse(1, 1))
    assert drain(core).reads == [(1, 1)]
    network = settled()
    network["a"].transfer_leadership("b")
    network.cut_links = {("b", "a"), ("c", "a")}
    network.settle()
    network["b"].propose([b"new"])
    network.settle()
    assert network["b"].role is Role.LEADER and network["a"].role is Role.LEADER
    network["a"].read_index(5)
    network.heal()
    network.settle()
    assert network.reads["a"] == [] and network.refused_reads["a"] == [5]


# -- the target ------------------------------------------------------------------------------------------


def told(core: Core, term: int = 3) -> list[RequestVote]:
    core.step("b", Heartbeat(3, 0, 0))
    drain(core)
    core.step("b", TimeoutNow(term))
    return outgoing(drain(core), RequestVote, to="c")


def test_the_target_campaigns_at_once_without_asking_whether_it_would_win() -> None:
    core = make_core(log=[1, 1])
    assert told(core) == [RequestVote(4, 2, 1, transfer=True)]
    assert (core.role, core.term, core.leader_id) == (Role.CANDIDATE, 4, None)
    core.step("c", RequestVote(9, 9, 9))  # it hears no leader now, so it is free to vote for another
    assert (core.term, core.voted_for) == (9, "c")


def test_a_campaign_by_election_timeout_is_none_of_the_leaders_wish() -> None:
    core = make_core()
    core.campaign()
    core.step("b", VoteResponse(0, False))
    drain(core)
    network = Network("abc")
    network.elect("a")
    assert not any(message.transfer for message in network.sent(RequestVote))


def test_late_and_doubled_words_are_of_an_old_term() -> None:
    core = make_core(log=[1, 1])
    told(core)
    core.step("b", TimeoutNow(3))
    core.step("c", AppendEntries(5, 2, 1, 0, batch(3, [5])))
    core.step("b", TimeoutNow(3))
    core.step("b", TimeoutNow(5))  # not from the leader of that term
    assert (core.role, core.term, core.leader_id) == (Role.FOLLOWER, 5, "c")


def test_a_word_that_comes_after_the_abort_costs_one_election() -> None:
    network = settled()
    network["a"].transfer_leadership("b")
    network.turn("a")
    (late,) = [mail for mail in network.mail if isinstance(mail[2], TimeoutNow)]
    network.mail.clear()
    network["a"].abort_transfer()
    network["a"].propose([b"y"])
    network.settle()
    network.deliver(late)
    network.settle()
    assert network.leader().node_id == "b"
    assert network["b"].commit_index == 4


@pytest.mark.parametrize("case", ["learner", "waiting", "removed", "priority 0"])
def test_who_must_not_lead_does_nothing(case: str) -> None:
    config = RaftConfig(priority=0 if case == "priority 0" else 1)
    core = make_core(
        "a" if case != "learner" else "l",
        voters="" if case == "waiting" else "abc",
        learners="l" if case == "learner" else "",
        config=config,
    )
    if case == "removed":
        core.note_removed()
    assert told(core) == []
    assert (core.role, core.term, core.leader_id) == (Role.FOLLOWER, 3, "b")


def test_a_transfer_passes_the_vote_gates_of_all() -> None:
    """Dissertation 4.2.3; and the old leader votes too."""
    network = settled()
    network.isolate("c")
    network["a"].transfer_leadership("b")
    network.settle()
    assert network.leader().node_id == "b" and network["a"].voted_for == "b"


# -- priority --------------------------------------------------------------------------------------------


def test_with_priority_0_a_node_votes_and_never_campaigns() -> None:
    core = make_core(config=RaftConfig(priority=0))
    core.campaign()
    assert core.role is Role.FOLLOWER and not core.may_campaign()
    core.step("b", RequestVote(1, 0, 0))
    assert outgoing(drain(core), VoteResponse) == [VoteResponse(1, True)]
    core.step("b", Heartbeat(1, 0, 0))
    assert outgoing(drain(core), HeartbeatResponse) == [HeartbeatResponse(1, 0, 0)]


def timeout_passes(core: Core, **priorities: int) -> None:
    for peer, priority in priorities.items():
        core.step(peer, HeartbeatResponse(core.term, 0, priority))
    core.check_quorum()


def test_a_leader_makes_way_for_a_live_voter_of_higher_priority_that_has_the_log() -> None:
    core = settled_leader(voters="abcd", config=RaftConfig(priority=2))
    timeout_passes(core, b=2, c=3, d=1)
    assert core.transfer_target is None  # not before it has seen it for a while
    timeout_passes(core, b=2, c=3, d=1)
    assert core.transfer_target == "c"
    assert outgoing(drain(core), TimeoutNow, to="c") == [TimeoutNow(1)]


def test_a_leader_does_not_make_way_for_one_that_is_behind_silent_or_no_voter() -> None:
    behind = settled_leader(learners="l")
    behind.propose([b"x"])
    drain(behind)
    behind.step("b", AppendResponse(1, 2))
    for _ in range(4):
        timeout_passes(behind, b=1, c=9, l=9)
    assert behind.commit_index == 2 and behind.transfer_target is None
    silent = settled_leader()
    timeout_passes(silent, b=1, c=9)
    for _ in range(4):
        timeout_passes(silent, b=1)
    assert silent.transfer_target is None


def test_an_attempt_that_failed_is_not_repeated_at_once() -> None:
    core = settled_leader()
    for _ in range(2):
        timeout_passes(core, b=1, c=2)
    assert core.transfer_target == "c"
    core.abort_transfer()
    for _ in range(10):
        timeout_passes(core, b=1, c=2)
        assert core.transfer_target is None
    timeout_passes(core, b=1, c=2)
    assert core.transfer_target == "c"


def test_nobody_makes_way_while_the_membership_changes() -> None:
    core = settled_leader(voters="abcd")
    ask(core, "remove", "d")
    for _ in range(3):
        timeout_passes(core, b=1, c=2)
    assert core.transfer_target is None
