"""Dissertation 4: membership changes one server at a time, and what a cluster needs to survive them."""

from __future__ import annotations

from raft.messages import (
    AppendEntries,
    AppendResponse,
    PreVoteResponse,
    RequestPreVote,
    RequestVote,
    VoteResponse,
)
from raft.ready import Role
from tests.raft.cores import core_in
from tests.raft.network import (
    batch,
    drain,
    make_core,
    make_leader,
    outgoing,
)


def test_appends_and_votes_are_taken_from_nodes_outside_the_configuration() -> None:
    """Dissertation 4.1: the own configuration may be old, so requests are taken from anybody."""
    core = make_core()
    core.step("new", RequestVote(2, 0, 0))
    assert outgoing(drain(core), VoteResponse, to="new") == [VoteResponse(2, True)]
    core.step("new", AppendEntries(2, 0, 0, 1, batch(1, [2])))
    assert outgoing(drain(core), AppendResponse, to="new") == [AppendResponse(2, 1)]
    assert (core.leader_id, core.commit_index) == ("new", 1)


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
