"""Elections, terms and votes: the rules of the paper, and the bugs that others had with them."""

from __future__ import annotations

from typing import Any

import pytest

from raft.core import MAX_TERM, MAX_TERM_JUMP, Core
from raft.entries import HardState
from raft.messages import (
    AppendEntries,
    AppendRejected,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    PreVoteResponse,
    ReadIndexRefused,
    ReadIndexRequest,
    RequestPreVote,
    RequestVote,
    VoteResponse,
)
from raft.ready import Role, RoleChange
from tests.raft.network import (
    Network,
    batch,
    become_candidate,
    drain,
    make_core,
    make_leader,
    outgoing,
)


def core_in(role: Role, term: int = 3) -> Core:
    """A core of three voters that got into `role` at `term` in the regular way."""
    core = make_core(term=term - 1)
    if role is Role.FOLLOWER:
        core.step("b", Heartbeat(term, 0, 0))
    elif role is Role.PRE_CANDIDATE:
        core = make_core(term=term)
        core.campaign()
    else:
        become_candidate(core)
        if role is Role.LEADER:
            core.step("b", VoteResponse(term, True))
    drain(core)
    assert (core.role, core.term) == (role, term)
    return core


# -- who begins, and how ---------------------------------------------------------------------------------


def test_p3_a_node_starts_as_follower_and_says_nothing() -> None:
    core = make_core(log=[1, 2])
    assert (core.role, core.term, core.leader_id) == (Role.FOLLOWER, 2, None)
    assert not core.has_ready()


def test_t24_a_campaign_first_asks_for_pre_votes_and_changes_no_term() -> None:
    core = make_core(log=[1, 2, 2], term=4, voted_for="c")
    core.campaign()
    ready = drain(core)
    question = RequestPreVote(term=5, last_index=3, last_term=2)  # the end of the log is told
    assert ready.messages == [("b", question), ("c", question)]
    assert (core.role, core.term, core.voted_for) == (Role.PRE_CANDIDATE, 4, "c")
    assert ready.hard_state is None and not ready.must_sync


def test_p5_a_pre_vote_won_begins_a_term_with_its_own_vote_on_disk_before_it_asks() -> None:
    core = make_core(log=[1, 2, 2], term=4)
    core.campaign()
    drain(core)
    core.step("c", PreVoteResponse(5, True))
    ready = core.ready()
    assert core.role is Role.CANDIDATE
    assert ready.hard_state == HardState(5, "a", 0) and ready.must_sync
    question = RequestVote(term=5, last_index=3, last_term=2)
    assert ready.messages == []
    assert ready.messages_after_sync == [("b", question), ("c", question)]


def test_a3_a_candidate_that_restarts_remembers_its_vote_for_itself() -> None:
    network = Network("abc")
    network.isolate("a")
    network["a"].campaign()
    network["a"].step("b", PreVoteResponse(1, True))
    network.turn("a")
    restarted = network.restart("a")
    restarted.step("c", RequestVote(1, 9, 9))
    assert outgoing(drain(restarted), VoteResponse) == [VoteResponse(1, False)]


def test_p6_a_candidate_that_times_out_tries_again_in_a_new_term() -> None:
    core = core_in(Role.CANDIDATE, term=3)
    core.campaign()
    assert (core.role, core.term) == (Role.PRE_CANDIDATE, 3)
    core.step("b", PreVoteResponse(4, True))
    assert (core.role, core.term, core.voted_for) == (Role.CANDIDATE, 4, "a")


@pytest.mark.parametrize(
    ("voters", "granted", "denied", "outcome"),
    [
        ("abc", "b", "", Role.LEADER),
        ("abc", "", "b", Role.CANDIDATE),
        ("abc", "", "bc", Role.FOLLOWER),
        ("abc", "b", "c", Role.LEADER),
        ("abcde", "bc", "", Role.LEADER),
        ("abcde", "b", "", Role.CANDIDATE),
        ("abcde", "b", "cd", Role.CANDIDATE),
        ("abcde", "b", "cde", Role.FOLLOWER),
        ("abcde", "", "bcd", Role.FOLLOWER),
        ("abcd", "b", "", Role.CANDIDATE),
        ("abcd", "b", "cd", Role.FOLLOWER),
        ("abcd", "bc", "d", Role.LEADER),
    ],
)
def test_p7_votes_decide_by_majority(voters: str, granted: str, denied: str, outcome: Role) -> None:
    core = make_core(voters=voters)
    become_candidate(core)
    for voter in denied:
        core.step(voter, VoteResponse(1, False))
    for voter in granted:
        core.step(voter, VoteResponse(1, True))
    assert (core.role, core.term, core.voted_for) == (outcome, 1, "a")


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


def test_p28_the_vote_of_a_learner_does_not_count() -> None:
    core = make_core(learners="l")
    become_candidate(core)
    core.step("l", VoteResponse(1, True))
    assert (core.role, core.term) == (Role.CANDIDATE, 1)
    core.step("b", VoteResponse(1, True))
    assert core.role is Role.LEADER


def test_a_leader_does_not_campaign() -> None:
    core = make_leader()
    core.campaign()
    assert (core.role, core.term) == (Role.LEADER, 1)


# -- who gets a vote -------------------------------------------------------------------------------------


def test_p8_one_vote_in_a_term_first_come_first_served() -> None:
    core = make_core()
    core.step("b", RequestVote(1, 0, 0))
    core.step("c", RequestVote(1, 5, 5))
    core.step("b", RequestVote(1, 0, 0))  # asked again: the same answer
    ready = core.ready()
    assert ready.messages_after_sync == [
        ("b", VoteResponse(1, True)),
        ("c", VoteResponse(1, False)),
        ("b", VoteResponse(1, True)),
    ]
    # The vote is on disk before it is given.
    assert ready.messages == [] and ready.hard_state == HardState(1, "b", 0) and ready.must_sync


def test_a1_a_vote_in_a_term_that_is_known_already_is_stored_as_well() -> None:
    core = make_core(term=5)
    core.step("b", RequestVote(5, 0, 0))
    ready = core.ready()
    assert ready.hard_state == HardState(5, "b", 0) and ready.must_sync
    assert ready.messages_after_sync == [("b", VoteResponse(5, True))]


def test_a1_a_vote_given_is_remembered_over_a_restart() -> None:
    core = make_core(term=1, voted_for="b")
    core.step("c", RequestVote(1, 5, 5))
    core.step("b", RequestVote(1, 0, 0))
    assert outgoing(drain(core), VoteResponse) == [VoteResponse(1, False), VoteResponse(1, True)]


@pytest.mark.parametrize(
    ("last_term", "last_index", "granted"),
    [(1, 9, False), (2, 2, False), (2, 3, True), (2, 4, True), (3, 1, True), (0, 0, False)],
)
def test_p19_a9_votes_and_pre_votes_go_to_logs_that_are_up_to_date(
    last_term: int, last_index: int, granted: bool
) -> None:
    core = make_core(log=[1, 2, 2])
    core.step("b", RequestPreVote(3, last_index, last_term))
    assert outgoing(drain(core), PreVoteResponse) == [PreVoteResponse(3 if granted else 2, granted)]
    core.step("b", RequestVote(3, last_index, last_term))
    assert outgoing(drain(core), VoteResponse) == [VoteResponse(3, granted)]
    assert core.voted_for == ("b" if granted else None)


def test_a7_a_pre_vote_promises_nothing() -> None:
    core = make_core(term=4, voted_for="c")
    for candidate in ("b", "c"):
        core.step(candidate, RequestPreVote(9, 0, 0))
    ready = drain(core)
    assert outgoing(ready, PreVoteResponse) == [PreVoteResponse(9, True)] * 2
    assert (core.term, core.voted_for, ready.hard_state) == (4, "c", None)


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


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize(
    "message",
    [
        AppendEntries(9, 0, 0, 0, batch(1)),
        Heartbeat(9, 0, 0),
        VoteResponse(9, False),
        AppendResponse(9, 0),
        AppendRejected(9, 5, 1, 0),
        HeartbeatResponse(9, 1),
        ReadIndexRequest(9, 1),
        ReadIndexRefused(9, 1),
        PreVoteResponse(9, False),
        RequestVote(9, 0, 0, transfer=True),
    ],
    ids=lambda message: type(message).__name__,
)
def test_p1_every_role_follows_a_higher_term(role: Role, message: object) -> None:
    core = core_in(role)
    core.step("b", message)
    assert (core.role, core.term) == (Role.FOLLOWER, 9)
    assert core.leader_id == ("b" if isinstance(message, AppendEntries | Heartbeat) else None)
    ready = drain(core)
    assert ready.hard_state is not None and ready.hard_state.term == 9 and ready.must_sync


@pytest.mark.parametrize("role", list(Role))
def test_p2_requests_of_an_old_term_are_refused_with_the_own_term(role: Role) -> None:
    core = core_in(role, term=5)
    requests: dict[type, object] = {
        AppendRejected: AppendEntries(4, 0, 0, 0, batch(1, [4])),
        HeartbeatResponse: Heartbeat(4, 0, 3),
        VoteResponse: RequestVote(4, 9, 9),
        PreVoteResponse: RequestPreVote(4, 9, 9),
        ReadIndexRefused: ReadIndexRequest(4, 1),
    }
    before = (core.role, core.leader_id, core.last_index, core.voted_for)
    for answer_kind, request in requests.items():
        core.step("c", request)
        answer: Any
        (answer,) = outgoing(drain(core), answer_kind, to="c")
        assert answer.term == 5
        assert not getattr(answer, "granted", False)
    assert (core.role, core.leader_id, core.last_index, core.voted_for) == before


@pytest.mark.parametrize("role", list(Role))
def test_p2_answers_of_an_old_term_are_dropped(role: Role) -> None:
    core = core_in(role, term=5)
    for answer in (
        VoteResponse(4, True),
        PreVoteResponse(4, True),
        AppendResponse(4, 9),
        AppendRejected(4, 0, 0, 0),
        HeartbeatResponse(4, 9),
    ):
        core.step("b", answer)
        core.step("c", answer)
    assert (core.role, core.term) == (role, 5) and core.commit_index == 0
    assert not outgoing(drain(core), AppendEntries)


@pytest.mark.parametrize("role", [Role.CANDIDATE, Role.PRE_CANDIDATE])
@pytest.mark.parametrize("message", [Heartbeat(3, 0, 0), AppendEntries(3, 0, 0, 0, batch(1, [3]))])
def test_p9_a_candidate_returns_to_follower_for_a_leader_of_its_term(role: Role, message: object) -> None:
    core = core_in(role, term=3)
    core.step("c", message)
    assert (core.role, core.term, core.leader_id) == (Role.FOLLOWER, 3, "c")
    assert core.last_index == (1 if isinstance(message, AppendEntries) else 0)
    assert drain(core).role_change == RoleChange(Role.FOLLOWER, 3, "c")


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


def test_d8_t8_appends_and_votes_are_taken_from_nodes_outside_the_configuration() -> None:
    core = make_core()
    core.step("new", RequestVote(2, 0, 0))
    assert outgoing(drain(core), VoteResponse, to="new") == [VoteResponse(2, True)]
    core.step("new", AppendEntries(2, 0, 0, 1, batch(1, [2])))
    assert outgoing(drain(core), AppendResponse, to="new") == [AppendResponse(2, 1)]
    assert (core.leader_id, core.commit_index) == ("new", 1)


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
