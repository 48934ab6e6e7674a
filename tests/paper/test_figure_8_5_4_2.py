"""Raft figure 8."""

from __future__ import annotations

from raft.messages import AppendEntries, AppendResponse, Heartbeat, VoteResponse
from raft.ready import Role
from tests.raft.cores import disk_of
from tests.raft.network import (
    Network,
    batch,
    become_candidate,
    terms_of,
)


def figure_8_c() -> Network:
    """Raft figure 8 (c): S1 leads term 4 and has entry 2 (of term 2) on a majority, S5 has one of term 3."""
    network = Network(
        ["s1", "s2", "s3", "s4", "s5"],
        disks={
            "s1": disk_of([1, 2], 3),
            "s2": disk_of([1, 2], 2),
            "s3": disk_of([1], 3),
            "s4": disk_of([1], 3),
            "s5": disk_of([1, 3], 3, "s5"),
        },
    )
    network.isolate("s5")
    leader = network["s1"]
    become_candidate(leader)
    for voter in ("s2", "s3"):
        leader.step(voter, VoteResponse(4, True))
    assert (leader.role, leader.term, terms_of(leader)) == (Role.LEADER, 4, [1, 2, 4])
    return network


def test_d_an_entry_on_a_majority_is_overwritten_since_it_was_not_committed() -> None:
    network = figure_8_c()
    leader = network["s1"]
    # S3 gets entry 2, and not yet the entry of term 4.
    network["s3"].step("s1", AppendEntries(4, 1, 1, 0, batch(2, [2])))
    network.turn("s3")
    network["s2"].step("s1", Heartbeat(4, 0, 0))
    for peer in ("s2", "s3"):
        leader.step(peer, AppendResponse(4, 2))
    assert leader.commit_index == 0  # it is on S1, S2 and S3, and must not count
    network.heal()
    network.mail.clear()
    network.isolate("s1")
    network["s5"].campaign()
    network.settle()  # refused, and so told of term 4
    assert network.elect("s5").term == 5
    for name in ("s2", "s3", "s4", "s5"):
        assert terms_of(network[name]) == [1, 3, 5]
        assert [term for term, _, _ in network.applied[name]] == [1, 3, 5]
    network.heal()
    network["s5"].heartbeat()
    network.settle()
    assert network.applied["s1"] == network.applied["s5"]


def test_e_with_an_entry_of_its_term_committed_s5_cannot_win() -> None:
    network = figure_8_c()
    leader = network["s1"]
    network.settle()
    assert leader.commit_index == 3
    network.heal()
    network.isolate("s1")
    for core in network.cores.values():
        core.leader_silent()
    network["s5"].campaign()
    network.settle()
    assert network["s5"].role is not Role.LEADER
    assert network.elect("s2").term == 5
    for name in ("s2", "s3", "s4", "s5"):
        assert [term for term, _, _ in network.applied[name]] == [1, 2, 4, 5]
