"""Followers whose logs differ, or that were away, come to the leader's log (Raft §5.3)."""

from __future__ import annotations

import pytest

from raft.entries import EntryBatch, HardState
from raft.messages import (
    AppendEntries,
    AppendRejected,
    RequestVote,
    VoteResponse,
)
from raft.progress import ProgressState
from raft.ready import Role
from tests.raft.network import (
    Disk,
    Network,
    batch,
    become_candidate,
    drain,
    entries_of,
    make_core,
    make_leader,
    outgoing,
    terms_of,
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
def test_p16_figure_7_every_follower_comes_to_the_leaders_log(followers: str) -> None:
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


def test_p16_who_of_figure_7_could_be_elected() -> None:
    grants = {}
    for candidate, log in FIGURE_7.items():
        grants[candidate] = 0
        for voter_log in [FIGURE_7_LEADER, *FIGURE_7.values()]:
            voter = make_core("voter", [*FIGURE_7, "voter"], log=voter_log, term=7)
            voter.step(candidate, RequestVote(8, len(log), log[-1]))
            grants[candidate] += outgoing(drain(voter), VoteResponse) == [VoteResponse(8, True)]
    # Four of seven are needed. a, c and d have the last terms 6 and 7 and the length.
    assert {name for name, count in grants.items() if count >= 4} == {"a", "c", "d"}


def test_5_3_one_rejection_skips_a_whole_conflicting_term() -> None:
    disks = {
        "a": Disk(HardState(9, None, 0), entries_of([1, *[4] * 30, *[9] * 30])),
        "b": Disk(HardState(8, None, 0), entries_of([1, *[2] * 20, *[3] * 20, *[5] * 20])),
        "c": Disk(HardState(9, None, 0), entries_of([1])),
    }
    network = Network("abc", disks=disks)
    network.elect("a")
    assert network["b"].log.slice(1, 62) == network["a"].log.slice(1, 62)
    assert len(network.sent(AppendRejected, "b")) <= 3
    assert len(network.sent(AppendRejected, "c")) == 1


def test_5_3_the_leader_uses_its_own_last_entry_of_the_conflicting_term() -> None:
    core = make_leader(voters="ab", log=[1, 2, 2, 2, 5, 5])
    core.step("b", AppendRejected(6, 6, 4, 2))
    (probe,) = outgoing(drain(core), AppendEntries)
    assert (probe.prev_index, probe.prev_term) == (4, 2)
    core.step("b", AppendRejected(6, 4, 2, 3))  # a term that this log does not have: go to where it begins
    (probe,) = outgoing(drain(core), AppendEntries)
    assert (probe.prev_index, probe.prev_term) == (1, 1)


def test_p24_a_follower_that_crashes_in_the_middle_catches_up() -> None:
    network = Network("abc")
    leader = network.elect("a")
    for number in range(5):
        leader.propose([b"%d" % number])
        network.settle()
    network.restart("b")
    network.isolate("b")
    for number in range(5, 20):
        leader.propose([b"%d" % number])
        network.settle()
    network.heal()
    leader.heartbeat()
    network.settle()
    assert network.applied["b"] == network.applied["a"] and len(network.applied["b"]) == 21


def test_p24_a_follower_that_loses_what_it_had_not_acknowledged_gets_it_again() -> None:
    network = Network("abc")
    leader = network.elect("a")
    leader.propose([b"x"])
    network.turn("a")
    for mail in network.mail:
        network.deliver(mail)
    network.mail.clear()
    network["b"].ready()  # given to the disk, which crashes before it is written
    network.restart("b")
    leader.heartbeat()
    network.settle()
    leader.heartbeat()
    network.settle()
    assert network["b"].last_index == 2 and network["b"].commit_index == 2


def test_a_leader_that_is_deposed_in_the_middle_of_a_write_keeps_its_log_whole() -> None:
    core = make_leader(log=[1])
    core.propose([b"x"])
    ready = core.ready()
    core.step("b", AppendEntries(3, 1, 1, 0, batch(2, [3])))
    core.advance()
    assert core.role is Role.FOLLOWER and ready.batch is not None
    assert terms_of(core) == [1, 3] and core.stable_index == 1
    second = drain(core)
    assert second.batch == EntryBatch(2, entries_of([3], 2)) and second.truncated_from == 2
