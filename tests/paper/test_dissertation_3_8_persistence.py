"""Dissertation 3.8: what must be on disk before an answer leaves, and what may be forgotten."""

from __future__ import annotations

from raft.messages import (
    PreVoteResponse,
    RequestVote,
    VoteResponse,
)
from tests.raft.network import (
    Network,
    drain,
    make_core,
    outgoing,
)


def test_a_candidate_that_restarts_remembers_its_vote_for_itself() -> None:
    """Dissertation 3.8: term and vote outlive the process, the vote for itself included."""
    network = Network("abc")
    network.isolate("a")
    network["a"].campaign()
    network["a"].step("b", PreVoteResponse(1, True))
    network.turn("a")
    restarted = network.restart("a")
    restarted.step("c", RequestVote(1, 9, 9))
    assert outgoing(drain(restarted), VoteResponse) == [VoteResponse(1, False)]


def test_a_vote_given_is_remembered_over_a_restart() -> None:
    """Dissertation 3.8: a voter that restarts neither votes twice in a term nor takes its vote back."""
    core = make_core(term=1, voted_for="b")
    core.step("c", RequestVote(1, 5, 5))
    core.step("b", RequestVote(1, 0, 0))
    assert outgoing(drain(core), VoteResponse) == [VoteResponse(1, False), VoteResponse(1, True)]


def test_after_a_restart_committed_entries_are_given_out_from_the_first() -> None:
    """Dissertation 3.8: a volatile state machine is rebuilt by applying the log again."""
    core = make_core(log=[1, 1, 2], commit_index=2)
    assert core.has_ready()
    committed = drain(core).committed
    assert committed is not None and (committed.first_index, committed.last_index) == (1, 2)
    assert not core.has_ready()


def test_the_stored_commit_index_is_a_hint_that_never_leads() -> None:
    """Dissertation 3.8: what is stored of the commit index is a hint; the log bounds it."""
    core = make_core(log=[1, 1], commit_index=9)
    assert core.commit_index == 2
    assert make_core(commit_index=9).commit_index == 0
