"""What the simulator found in the core, each as the shortest story that shows it."""

from __future__ import annotations

import pytest

from raft.ready import Role
from tests.raft.network import Network, change


def roles(network: Network) -> list[Role]:
    return [network[name].role for name in "ab"]


@pytest.mark.parametrize("verb", ["demote", "remove"])
def test_who_votes_no_more_by_an_entry_that_nobody_else_has_may_still_be_elected(verb: str) -> None:
    """Two voters; the leader takes the vote from itself, and nobody hears of it. Its log is the longer one,
    so it votes for nobody; did it not campaign itself, there would never be a leader again."""
    network = Network("ab")
    leader = network.elect("a")
    network.isolate("a")
    change(leader, verb, "a", force=True)
    network.turn("a")
    assert not leader.configuration.may_campaign("a")
    network.heal()
    network.restart("a")
    network.restart("b")

    network["b"].campaign()
    network.settle()
    assert roles(network) == [Role.FOLLOWER, Role.FOLLOWER]
    network["a"].campaign()
    network.settle()
    # It led for as long as it took to commit its own leaving, then it handed over.
    assert roles(network) == [Role.FOLLOWER, Role.LEADER]
    assert network["b"].configuration.voters == {"b"}
    assert not network["a"].may_campaign()


def test_a_read_that_waits_for_a_node_that_leaves_is_answered_without_it() -> None:
    """The round was asked of two voters, and one is removed before it answers. The leader alone is a majority
    now, and nobody else will ever answer: neither this read nor any later one must wait for that."""
    network = Network("ab")
    leader = network.elect("a")
    network.cut_links = {("b", "a")}
    leader.read_index(1)
    network.turn("a")
    assert network.reads["a"] == []
    change(leader, "remove", "b", force=True)
    network.settle()
    leader.read_index(2)
    network.settle()
    assert [context for context, _ in network.reads["a"]] == [1, 2]
