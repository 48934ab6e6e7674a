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
