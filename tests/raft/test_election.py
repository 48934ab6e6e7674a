"""Elections, terms and votes: the rules of the paper, and the bugs that others had with them."""

from __future__ import annotations

import pytest

from raft.config import RaftConfig
from raft.core import MAX_TERM, MAX_TERM_JUMP
from raft.entries import HardState
from raft.messages import (
    AppendEntries,
    AppendRejected,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    PreVoteResponse,
    ReadIndexRequest,
    RequestPreVote,
    RequestVote,
    VoteResponse,
)
from raft.ready import Role, RoleChange
from tests.raft.cores import core_in
from tests.raft.network import (
    batch,
    become_candidate,
    drain,
    make_core,
    make_leader,
    outgoing,
)

# -- who begins, and how ---------------------------------------------------------------------------------


def test_a_pre_vote_that_is_lost_ends_as_follower_in_the_same_term() -> None:
    core = core_in(Role.PRE_CANDIDATE, term=3)
    core.step("b", PreVoteResponse(3, False))
    assert core.role is Role.PRE_CANDIDATE
    core.step("c", PreVoteResponse(3, False))
    assert (core.role, core.term) == (Role.FOLLOWER, 3)
    assert drain(core).role_change == RoleChange(Role.FOLLOWER, 3, None)


def test_a_single_voter_leads_at_once() -> None:
    core = make_core(voters="a", log=[1])
    core.campaign()
    ready = drain(core)
    assert ready.role_change == RoleChange(Role.LEADER, 2, "a")
    assert ready.hard_state == HardState(2, "a", 0)
    assert ready.batch is not None and ready.batch.first_index == 2
    assert ready.committed is None
    second = drain(core)
    assert second.committed is not None and len(second.committed) == 2
    assert not core.has_ready()


def test_a1_nothing_of_a_term_leaves_before_the_term_is_on_disk() -> None:
    """A lone voter leads without asking anybody, so its appends could outrun its own memory of the term."""
    core = make_core(voters="a", learners="l")
    core.campaign()
    ready = core.ready()
    assert ready.messages == []
    assert [message.term for message in outgoing(ready, AppendEntries)] == [1]
    core.advance()
    core.propose([b"x"])
    core.step("l", AppendResponse(1, 1))
    assert [to for to, _ in core.ready().messages] == ["l"]  # the term is known by now: no need to wait


def test_d10_a_node_without_a_cluster_never_campaigns() -> None:
    core = make_core(voters="")
    core.campaign()
    assert core.role is Role.FOLLOWER and not core.has_ready()


def test_a19_a_learner_never_campaigns_but_votes_when_asked() -> None:
    learner = make_core("l", "abc", learners="l")
    learner.campaign()
    assert learner.role is Role.FOLLOWER and not learner.has_ready()
    learner.step("a", RequestVote(1, 0, 0))
    assert outgoing(drain(learner), VoteResponse, to="a") == [VoteResponse(1, True)]


def test_a_leader_does_not_campaign() -> None:
    core = make_leader()
    core.campaign()
    assert (core.role, core.term) == (Role.LEADER, 1)


# -- who gets a vote -------------------------------------------------------------------------------------


def test_a1_a_vote_in_a_term_that_is_known_already_is_stored_as_well() -> None:
    core = make_core(term=5)
    core.step("b", RequestVote(5, 0, 0))
    ready = core.ready()
    assert ready.hard_state == HardState(5, "b", 0) and ready.must_sync
    assert ready.messages_after_sync == [("b", VoteResponse(5, True))]


def test_a7_a_pre_vote_promises_nothing() -> None:
    core = make_core(term=4, voted_for="c")
    for candidate in ("b", "c", "b"):
        core.step(candidate, RequestPreVote(9, 0, 0))
        assert (core.term, core.voted_for) == (4, "c")
    ready = drain(core)
    assert outgoing(ready, PreVoteResponse) == [PreVoteResponse(9, True)] * 3
    assert ready.hard_state is None


def test_a8_pre_votes_at_the_own_term_need_a_vote_that_is_still_free() -> None:
    """The asker is a term behind. A refusal tells it so; then it asks for the next term."""
    for voted_for, granted in ((None, True), ("b", True), ("c", False)):
        core = make_core(term=4, voted_for=voted_for)
        core.step("b", RequestPreVote(4, 0, 0))
        assert outgoing(drain(core), PreVoteResponse) == [PreVoteResponse(4, granted)]
    following = core_in(Role.FOLLOWER, term=4)
    following.leader_silent()
    following.step("c", RequestPreVote(4, 0, 0))  # its leader of term 4 was elected, so that term is used up
    assert outgoing(drain(following), PreVoteResponse) == [PreVoteResponse(4, False)]


def test_a_follower_of_an_elected_leader_gives_its_vote_to_no_other_in_that_term() -> None:
    core = make_core()
    core.step("b", Heartbeat(2, 0, 0))
    core.leader_silent()
    core.step("c", RequestVote(2, 9, 9))
    assert outgoing(drain(core), VoteResponse) == [VoteResponse(2, False)]


@pytest.mark.parametrize("lost_by", ["check_quorum", "denials", "new leader"])
def test_a4_the_vote_outlives_the_role_within_a_term(lost_by: str) -> None:
    if lost_by == "check_quorum":
        core = make_leader()
        core.check_quorum()
        core.check_quorum()
    else:
        core = core_in(Role.CANDIDATE, term=1)
        if lost_by == "denials":
            core.step("b", VoteResponse(1, False))
            core.step("c", VoteResponse(1, False))
        else:
            core.step("b", Heartbeat(1, 0, 0))
            core.leader_silent()
    assert (core.role, core.term, core.voted_for) == (Role.FOLLOWER, 1, "a")
    drain(core)
    core.step("c", RequestVote(1, 9, 9))
    assert outgoing(drain(core), VoteResponse) == [VoteResponse(1, False)]


# -- counting answers ------------------------------------------------------------------------------------


def test_a6_votes_are_a_set_of_voters() -> None:
    core = make_core(voters="abcde")
    become_candidate(core)
    for _ in range(3):
        core.step("b", VoteResponse(1, True))
    assert (core.role, core.term) == (Role.CANDIDATE, 1)
    core.step("c", VoteResponse(1, True))
    assert core.role is Role.LEADER


def test_a6_votes_of_an_older_term_do_not_count() -> None:
    core = make_core(term=1)
    become_candidate(core)
    core.step("b", VoteResponse(1, True))
    assert (core.role, core.term) == (Role.CANDIDATE, 2)


def test_a7_late_pre_votes_are_no_votes_and_the_other_way_round() -> None:
    core = make_core()
    core.campaign()
    core.step("b", VoteResponse(0, True))
    assert (core.role, core.term) == (Role.PRE_CANDIDATE, 0)
    core.step("b", PreVoteResponse(1, True))
    assert (core.role, core.term) == (Role.CANDIDATE, 1)
    core.step("c", PreVoteResponse(1, True))  # was asked as well, and answers late
    assert (core.role, core.term) == (Role.CANDIDATE, 1)


def test_a_pre_vote_of_an_earlier_campaign_does_not_count() -> None:
    core = make_core(term=5)
    core.campaign()
    for late in (PreVoteResponse(5, True), PreVoteResponse(7, True), PreVoteResponse(4, False)):
        core.step("b", late)
        core.step("c", late)
    assert (core.role, core.term) == (Role.PRE_CANDIDATE, 5)


def test_a8_a_refusal_with_a_higher_term_is_taken_but_a_grant_is_not() -> None:
    core = make_core(term=1, voters="abcde")
    core.campaign()
    core.step("b", PreVoteResponse(2, True))
    assert (core.role, core.term) == (Role.PRE_CANDIDATE, 1)
    core.step("c", PreVoteResponse(7, False))
    assert (core.role, core.term, core.voted_for) == (Role.FOLLOWER, 7, None)


# -- terms -----------------------------------------------------------------------------------------------


def test_terms_from_zero_to_the_last_are_good() -> None:
    core = make_core()
    core.campaign()
    for voter in "bc":
        core.step(voter, PreVoteResponse(0, False))
    assert core.role is Role.FOLLOWER
    core.step("b", Heartbeat(MAX_TERM_JUMP, 0, 0))
    assert core.term == MAX_TERM_JUMP and core.ignored_messages == 0


def test_one_message_cannot_use_up_the_terms() -> None:
    """Whatever it names, the next campaign has a term that the others accept."""
    core = core_in(Role.FOLLOWER, term=3)
    core.step("b", Heartbeat(3 + MAX_TERM_JUMP + 1, 0, 0))
    assert core.term == 3 and core.ignored_messages == 1
    core = core_in(Role.FOLLOWER, term=MAX_TERM - 1)
    core.step("b", Heartbeat(MAX_TERM + 1, 0, 0))
    assert core.term == MAX_TERM - 1 and core.ignored_messages == 1


@pytest.mark.parametrize("term", [MAX_TERM + 1, 2**63, 2**80, -1])
def test_a22_an_absurd_term_is_not_adopted(term: int) -> None:
    core = core_in(Role.FOLLOWER, term=3)
    core.leader_silent()
    for message in (
        Heartbeat(term, 0, 0),
        RequestVote(term, 9, 9, transfer=True),
        RequestPreVote(term, 9, 9),
        AppendEntries(term, 0, 0, 0, batch(1)),
        VoteResponse(term, False),
        PreVoteResponse(term, False),
    ):
        core.step("b", message)
    assert core.term == 3 and not core.has_ready()
    assert core.ignored_messages == 6


def test_a5_a_second_leader_in_a_term_is_not_obeyed() -> None:
    """It cannot exist; a forged or misrouted frame may say it does."""
    follower = core_in(Role.FOLLOWER, term=3)
    follower.step("c", AppendEntries(3, 0, 0, 1, batch(1, [3])))
    assert (follower.leader_id, follower.last_index, follower.ignored_messages) == ("b", 0, 1)
    leader = make_leader()
    leader.step("b", AppendEntries(1, 0, 0, 1, batch(1, [1])))
    assert (leader.role, leader.commit_index) == (Role.LEADER, 0)
    assert not outgoing(drain(leader), AppendResponse)


def test_unknown_messages_and_own_messages_are_counted_and_dropped() -> None:
    core = make_core()
    core.step("b", object())
    core.step("a", RequestVote(1, 0, 0))
    assert core.ignored_messages == 2 and not core.has_ready()


def test_answers_from_nodes_outside_the_configuration_are_dropped_with_their_terms() -> None:
    core = make_leader()
    for answer in (
        VoteResponse(9, False),
        PreVoteResponse(9, False),
        AppendResponse(1, 1),
        AppendRejected(9, 0, 0, 0),
        HeartbeatResponse(9, 1),
        ReadIndexRequest(9, 1),
    ):
        core.step("stranger", answer)
    assert (core.role, core.term, core.commit_index) == (Role.LEADER, 1, 0)
    assert core.ignored_messages == 6


@pytest.mark.parametrize("priority", [0, 1])
def test_who_never_campaigns_forgets_a_dead_leader_all_the_same(priority: int) -> None:
    """A learner, or a voter that never leads: else it names the dead one for ever, and its reads wait."""
    core = make_core("l" if priority else "c", learners="l", config=RaftConfig(priority=priority))
    core.step("a", Heartbeat(1, 0, 0))
    core.read_index(7)
    assert drain(core).role_change == (Role.FOLLOWER, 1, "a")
    core.campaign()
    ready = drain(core)
    assert (ready.role_change, ready.refused_reads, ready.hard_state) == ((Role.FOLLOWER, 1, None), [7], None)
    core.campaign()
    assert not core.has_ready()
    core.step("a", Heartbeat(1, 0, 0))  # it was only slow
    assert core.leader_id == "a"
