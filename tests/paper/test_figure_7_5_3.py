"""Raft figure 7: six followers whose logs differ from that of a new leader, in every way there is."""

from __future__ import annotations

import pytest

from raft.entries import HardState
from raft.messages import RequestVote, VoteResponse
from raft.progress import ProgressState
from tests.raft.network import (
    Disk,
    Network,
    become_candidate,
    drain,
    entries_of,
    make_core,
    outgoing,
)

FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


FIGURE_7_LEADER = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]


@pytest.mark.parametrize("followers", [*FIGURE_7, "abcdef"])
def test_every_follower_comes_to_the_leaders_log(followers: str) -> None:
    disks = {
        name: Disk(HardState(max(7, log[-1]), None, 0), entries_of(log))
        for name, log in [("leader", FIGURE_7_LEADER), *FIGURE_7.items()]
    }
    voters = ["leader", *FIGURE_7]
    network = Network(voters, disks=disks)
    # The leader of term 8 was elected by some; the one under test answers from here on.
    leader = network["leader"]
    become_candidate(leader)
    for name in FIGURE_7:
        leader.step(name, VoteResponse(8, True))
    for name in set(FIGURE_7) - set(followers):
        network.isolate(name)
    network.settle()
    leader.propose([b"after"])
    network.settle()
    for name in followers:
        assert network[name].log.slice(1, 12) == leader.log.slice(1, 12)
        assert leader.progress[name].state is ProgressState.REPLICATE
        assert network.disks[name].entries == leader.log.slice(1, 12)


def test_who_could_have_been_elected() -> None:
    grants = {}
    for candidate, log in FIGURE_7.items():
        grants[candidate] = 0
        for voter_log in [FIGURE_7_LEADER, *FIGURE_7.values()]:
            voter = make_core("voter", [*FIGURE_7, "voter"], log=voter_log, term=7)
            voter.step(candidate, RequestVote(8, len(log), log[-1]))
            grants[candidate] += outgoing(drain(voter), VoteResponse) == [VoteResponse(8, True)]
    # Four of seven are needed. a, c and d have the last terms 6 and 7 and the length.
    assert {name for name, count in grants.items() if count >= 4} == {"a", "c", "d"}
