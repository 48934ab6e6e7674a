"""Raft §5.4: what keeps a committed entry in the log of every later leader."""

from __future__ import annotations

import pytest

from raft.messages import (
    AppendResponse,
    PreVoteResponse,
    RequestPreVote,
    RequestVote,
    VoteResponse,
)
from raft.ready import Role
from tests.raft.network import (
    Network,
    drain,
    make_core,
    make_leader,
    outgoing,
)


@pytest.mark.parametrize(
    ("last_term", "last_index", "granted"),
    [(1, 9, False), (2, 2, False), (2, 3, True), (2, 4, True), (3, 1, True), (0, 0, False)],
)
def test_votes_and_pre_votes_go_to_logs_that_are_up_to_date(
    last_term: int, last_index: int, granted: bool
) -> None:
    """Raft §5.4.1: a log is more up to date by its last term, and at the same term by its length."""
    core = make_core(log=[1, 2, 2])
    core.step("b", RequestPreVote(3, last_index, last_term))
    assert outgoing(drain(core), PreVoteResponse) == [PreVoteResponse(3 if granted else 2, granted)]
    core.step("b", RequestVote(3, last_index, last_term))
    assert outgoing(drain(core), VoteResponse) == [VoteResponse(3, granted)]
    assert core.voted_for == ("b" if granted else None)


def test_entries_of_an_earlier_term_do_not_commit_by_being_counted() -> None:
    """Raft §5.4.2: only an entry of the own term commits by counting; with it commit all before it."""
    core = make_leader(log=[1, 2, 2])
    core.step("b", AppendResponse(3, 3))
    core.step("c", AppendResponse(3, 3))
    assert core.commit_index == 0
    core.step("b", AppendResponse(3, 4))
    assert core.commit_index == 4  # with an entry of its own term, all before it


def test_a_leader_without_a_committed_entry_cannot_be_elected() -> None:
    """Raft §5.4.3, figure 9: the voter that took the committed entry refuses who lacks it."""
    network = Network("abcde")
    leader = network.elect("a")
    network.isolate("d", "e")
    leader.propose([b"committed"])
    network.settle()
    network.heal()
    network.isolate("a")
    for candidate in ("d", "e"):
        for core in network.cores.values():
            core.leader_silent()
        network[candidate].campaign()
        network.settle()
        assert network[candidate].role is not Role.LEADER
    assert network.elect("b").last_index == 3
    assert network.applied["e"][1][2] == b"committed"
