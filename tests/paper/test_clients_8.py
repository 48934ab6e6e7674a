"""Raft §8: clients find the leader, and read without writing to the log."""

from __future__ import annotations

import pytest

from raft.entries import EntryKind
from raft.errors import NotLeader
from raft.messages import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    VoteResponse,
)
from raft.ready import Role
from tests.raft.cores import round_sent
from tests.raft.network import (
    Network,
    become_candidate,
    drain,
    make_core,
    make_leader,
    outgoing,
)


def test_only_a_leader_takes_proposals_and_the_others_say_who_is() -> None:
    """Raft §8: a server that does not lead refuses, and names the leader that it heard last."""
    core = make_core()
    with pytest.raises(NotLeader) as refusal:
        core.propose([b"x"])
    assert refusal.value.leader_id is None
    core.step("b", Heartbeat(1, 0, 0))
    with pytest.raises(NotLeader) as refusal:
        core.propose([b"x"])
    assert refusal.value.leader_id == "b"
    core.campaign()
    with pytest.raises(NotLeader) as refusal:
        core.propose([b"x"])
    assert refusal.value.leader_id is None
    assert core.last_index == 0


def test_a_leader_begins_its_term_with_an_entry_of_its_own() -> None:
    """Raft §8: to learn what is committed, a leader commits a blank entry at the start of its term."""
    core = make_core(log=[1, 2])
    core.configurations.append(1, core.configuration)  # as if its first entry were the founding members
    become_candidate(core)
    core.step("b", VoteResponse(3, True))
    ready = drain(core)
    assert ready.batch is not None
    assert (ready.batch.first_index, ready.batch.entries) == (3, [(3, EntryKind.NOOP, b"")])
    assert [to for to, _ in ready.messages] == ["b", "c"]
    assert outgoing(ready, AppendEntries)[0] == AppendEntries(3, 2, 2, 0, ready.batch)


def test_a_new_leader_answers_no_read_before_an_entry_of_its_term_is_committed() -> None:
    """Raft §8: read-only requests wait for the blank entry of the term."""
    core = make_leader(log=[1, 1])
    core.read_index(7)
    core.heartbeat()
    drain(core)
    core.step("b", HeartbeatResponse(2, 0))
    core.step("b", HeartbeatResponse(2, 1))
    core.step("b", AppendResponse(2, 2))
    ready = drain(core)
    assert ready.reads == [] and not outgoing(ready, Heartbeat)
    core.step("b", AppendResponse(2, 3))
    assert round_sent(core) == 1
    core.step("b", HeartbeatResponse(2, 1))
    assert drain(core).reads == [(7, 3)]


def test_a_leader_cut_off_never_answers_and_refuses_when_it_is_deposed() -> None:
    """Raft §8: a leader exchanges heartbeats with a majority before it answers, lest it was deposed."""
    network = Network("abc")
    old = network.elect("a")
    network.isolate("a")
    network.elect("b").propose([b"newer"])
    network.settle()
    old.read_index(7)
    old.heartbeat()
    network.settle()
    assert network.reads["a"] == []
    network.heal()
    network["b"].heartbeat()
    network.settle()
    assert old.role is Role.FOLLOWER
    assert (network.reads["a"], network.refused_reads["a"]) == ([], [7])
