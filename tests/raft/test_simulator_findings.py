"""What the simulator found in the core, each as the shortest story that shows it."""

from __future__ import annotations

import pytest

from raft.config import RaftConfig
from raft.core import Core
from raft.membership import Configuration
from raft.messages import AppendEntries
from raft.ready import Role
from raft.storage import Recovered
from tests.raft.network import Network, batch, change, entries_of, make_core
from tests.raft.snapshot_network import chunks_of


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


def test_a_commit_index_is_not_on_disk_before_the_entries_that_it_is_about() -> None:
    """A follower's tail is replaced and committed in one turn, and the power goes after the hard state was
    written and before the entries were: at the next start the old tail is still there, and none of it is
    committed."""
    core = make_core("b", log=[1, 1, 1, 1], commit_index=2)
    core.step("a", AppendEntries(2, 2, 1, 4, batch(3, [2, 2])))
    ready = core.ready()
    assert ready.batch is not None and ready.hard_state is not None and core.commit_index == 4
    found = Recovered(ready.hard_state, 1, entries_of([1, 1, 1, 1]))
    again = Core("b", Configuration("abc"), found, RaftConfig())
    assert again.commit_index == 2

    core.advance()  # now they are durable, and the next hard state may vouch for them
    core.step("a", AppendEntries(2, 4, 2, 5, batch(5, [2])))
    state = core.ready().hard_state
    assert state is not None and state.commit_index == 4


def test_a_commit_index_is_not_on_disk_before_the_snapshot_that_it_is_about() -> None:
    """The hard state of the new term goes to the disk before the snapshot that replaces the log: what is
    still in the log, should the power go in between, is not committed by it."""
    core = make_core("b", log=[1, 1, 1], commit_index=1)
    for chunk in chunks_of([1, 1, 1, 2, 2], term=2):
        core.step("a", chunk)
    ready = core.ready()
    assert ready.snapshots is not None and ready.snapshots.installed is not None
    assert ready.hard_state is not None and core.commit_index == 5
    assert ready.hard_state == (2, None, 1)
