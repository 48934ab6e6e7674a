"""Raft §5.2: who begins an election, who gets a vote, and how an election ends."""

from __future__ import annotations

import pytest

from raft.entries import HardState
from raft.messages import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    PreVoteResponse,
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
)


def test_a_node_starts_as_follower_and_says_nothing() -> None:
    """Raft §5.2: servers begin as followers, whatever they were before they stopped."""
    core = make_core(log=[1, 2])
    assert (core.role, core.term, core.leader_id) == (Role.FOLLOWER, 2, None)
    assert not core.has_ready()


def test_heartbeats_go_to_all_and_name_no_more_than_each_is_known_to_have() -> None:
    """Raft §5.2: a leader sends heartbeats to all, which name no more than each has."""
    core = make_leader(voters="abcd", learners="l", log=[1, 1])
    core.step("b", AppendResponse(2, 3))
    core.step("c", AppendResponse(2, 3))
    core.step("l", AppendResponse(2, 2))
    assert core.commit_index == 3
    drain(core)
    core.heartbeat()
    ready = core.ready()
    sent = {to: message for to, message in ready.messages if isinstance(message, Heartbeat)}
    assert {to: message.commit_index for to, message in sent.items()} == {"b": 3, "c": 3, "d": 0, "l": 2}
    assert sent["b"] is sent["c"]


def test_a_campaign_begins_a_term_with_its_own_vote_on_disk_before_it_asks() -> None:
    """Raft §5.2: a candidate increments its term, votes for itself and asks all others."""
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


def test_a_candidate_that_times_out_tries_again_in_a_new_term() -> None:
    """Raft §5.2: after a split vote a candidate starts another election with a term of its own."""
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
def test_votes_decide_by_majority(voters: str, granted: str, denied: str, outcome: Role) -> None:
    """Raft §5.2: a majority of grants wins, a majority of refusals loses, and anything else waits."""
    core = make_core(voters=voters)
    become_candidate(core)
    for voter in denied:
        core.step(voter, VoteResponse(1, False))
    for voter in granted:
        core.step(voter, VoteResponse(1, True))
    assert (core.role, core.term, core.voted_for) == (outcome, 1, "a")


def test_one_vote_in_a_term_first_come_first_served() -> None:
    """Raft §5.2: each server votes for one candidate in a term; asked again, it gives the same answer."""
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


@pytest.mark.parametrize("role", [Role.CANDIDATE, Role.PRE_CANDIDATE])
@pytest.mark.parametrize("message", [Heartbeat(3, 0, 0), AppendEntries(3, 0, 0, 0, batch(1, [3]))])
def test_a_candidate_returns_to_follower_for_a_leader_of_its_term(role: Role, message: object) -> None:
    """Raft §5.2: a candidate that hears the leader of its term recognises it and follows."""
    core = core_in(role, term=3)
    core.step("c", message)
    assert (core.role, core.term, core.leader_id) == (Role.FOLLOWER, 3, "c")
    assert core.last_index == (1 if isinstance(message, AppendEntries) else 0)
    assert drain(core).role_change == RoleChange(Role.FOLLOWER, 3, "c")
