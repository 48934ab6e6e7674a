"""Raft figure 7: six followers whose logs differ from that of a new leader, in every way there is."""

from __future__ import annotations

import pytest

from raft.entries import HardState
from raft.messages import AppendEntries, AppendRejected, RequestVote, VoteResponse
from raft.progress import ProgressState
from raft.ready import Role
from tests.paper.figures import drawn, elect, logs
from tests.raft.network import Disk, Network, drain, entries_of, make_core, outgoing

FIGURE_7 = drawn(
    """
    leader  1 1 1 4 4 5 5 6 6 6          | is about to lead term 8
    a       1 1 1 4 4 5 5 6 6            | lacks an entry
    b       1 1 1 4                      | lacks many
    c       1 1 1 4 4 5 5 6 6 6 6        | has one too many
    d       1 1 1 4 4 5 5 6 6 6 7 7      | has those of another leader too many
    e       1 1 1 4 4 4 4                | lacks some, and has others
    f       1 1 1 2 2 2 3 3 3 3 3        | lacks some, and has those of two leaders whom nobody else heard
    """
)
FOLLOWERS = sorted(FIGURE_7.keys() - {"leader"})


def figure_7() -> Network:
    """All seven were in term 7, led by d. The leader of term 8 is elected, and nothing has left it."""
    disks = {name: Disk(HardState(7, None, 0), entries_of(log)) for name, log in FIGURE_7.items()}
    network = Network(FIGURE_7, disks=disks)
    assert elect(network, "leader") == 8 and network["leader"].role is Role.LEADER
    assert logs(network, FOLLOWERS) == {name: FIGURE_7[name] for name in FOLLOWERS}
    return network


@pytest.mark.parametrize("name", FOLLOWERS)
def test_each_follower_comes_to_the_leaders_log(name: str) -> None:
    """Raft §5.3, figure 7: the leader finds where the logs agree, and replaces the rest."""
    network = figure_7()
    network.isolate(*set(FOLLOWERS) - {name})
    leader = network["leader"]
    leader.heartbeat()
    network.settle()
    assert logs(network, [name]) == {name: [*FIGURE_7["leader"], 8]}
    assert network.disks[name].entries == network.disks["leader"].entries
    assert leader.progress[name].state is ProgressState.REPLICATE
    # One of seven does not commit anything.
    assert leader.commit_index == network[name].commit_index == 0


def test_all_followers_come_to_the_leaders_log_and_apply_it() -> None:
    """Raft §5.3, figure 7: with all of them there, the entry of term 8 commits, and all before it."""
    network = figure_7()
    leader = network["leader"]
    leader.heartbeat()
    network.settle()
    leader.propose([b"after"])
    network.settle()
    everything = [*FIGURE_7["leader"], 8, 8]
    assert logs(network, FIGURE_7) == dict.fromkeys(FIGURE_7, everything)
    assert all(network.applied[name] == network.applied["leader"] for name in FIGURE_7)
    assert [term for term, _, _ in network.applied["a"]] == everything


@pytest.mark.parametrize(("name", "refusals"), [("a", 1), ("b", 1), ("c", 0), ("d", 0), ("e", 2), ("f", 2)])
def test_a_follower_refuses_once_for_each_term_in_conflict(name: str, refusals: int) -> None:
    """Raft §5.3, end: f differs in eight entries of two terms, and is found after two refusals."""
    network = figure_7()
    network.isolate(*set(FOLLOWERS) - {name})
    network["leader"].heartbeat()
    network.settle()
    assert len(network.sent(AppendRejected, name)) == refusals
    assert all(len(message.batch) <= 9 for message in network.sent(AppendEntries, to=name))


def test_who_could_have_been_elected() -> None:
    """Raft §5.4.1, figure 7: of the followers a, c and d could have won term 8, and b, e and f could not."""
    votes: dict[str, set[str]] = {name: set() for name in FIGURE_7}
    for candidate, log in FIGURE_7.items():
        for voter, voter_log in FIGURE_7.items():
            core = make_core(voter, FIGURE_7, log=voter_log, term=7)
            if voter == candidate:
                votes[candidate].add(voter)
            else:
                core.step(candidate, RequestVote(8, len(log), log[-1]))
                if outgoing(drain(core), VoteResponse) == [VoteResponse(8, True)]:
                    votes[candidate].add(voter)
    assert {name: "".join(sorted(voters - {"leader"})) for name, voters in votes.items()} == {
        "leader": "abef",
        "a": "abef",
        "b": "bf",
        "c": "abcef",
        "d": "abcdef",
        "e": "bef",
        "f": "f",
    }
    # Four of seven are needed.
    assert {name for name, voters in votes.items() if len(voters) >= 4} == {"leader", "a", "c", "d"}
