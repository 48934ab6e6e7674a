"""Dissertation 9.6: the pre-vote, which keeps a node that was away from disturbing those that were not."""

from __future__ import annotations

from raft.messages import (
    RequestPreVote,
)
from raft.ready import Role
from tests.raft.network import (
    Network,
    drain,
    make_core,
)


def test_a_campaign_first_asks_for_pre_votes_and_changes_no_term() -> None:
    """Dissertation 9.6: a candidate raises its term only if it learns that it could win."""
    core = make_core(log=[1, 2, 2], term=4, voted_for="c")
    core.campaign()
    ready = drain(core)
    question = RequestPreVote(term=5, last_index=3, last_term=2)  # the end of the log is told
    assert ready.messages == [("b", question), ("c", question)]
    assert (core.role, core.term, core.voted_for) == (Role.PRE_CANDIDATE, 4, "c")
    assert ready.hard_state is None and not ready.must_sync


def test_a_partitioned_node_returns_without_disturbing() -> None:
    """Dissertation 9.6: a node that was cut off comes back with the term that it had."""
    network = Network("abc")
    leader = network.elect("a")
    network.isolate("c")
    for _ in range(5):
        network["c"].campaign()
        network.settle()
    leader.propose([b"x"])
    network.settle()
    network.heal()
    network["c"].campaign()
    network.settle()
    leader.heartbeat()
    network.settle()
    assert (leader.role, leader.term) == (Role.LEADER, 1)
    assert (network["c"].leader_id, network["c"].last_index) == ("a", 2)
