"""What may be under way to a peer, and what becomes of it when the peer is away (dissertation 10.2)."""

from __future__ import annotations

import pytest

from raft.config import RaftConfig
from raft.errors import Overloaded
from raft.messages import AppendEntries, AppendResponse, Heartbeat, HeartbeatResponse
from raft.progress import ProgressState
from tests.raft.cores import settled_leader
from tests.raft.network import Network, drain, outgoing


def test_a_peer_that_was_silent_for_an_election_timeout_is_probed() -> None:
    core = settled_leader()
    for _ in range(3):
        core.propose([b"lost"])
        drain(core)
    core.step("b", AppendResponse(1, 4))
    core.check_quorum()  # c was heard at the beginning, b just now
    core.step("b", HeartbeatResponse(1, 0))
    core.check_quorum()
    assert core.progress["b"].state is ProgressState.REPLICATE
    silent = core.progress["c"]
    assert (silent.state, silent.next_index, len(silent.inflights)) == (ProgressState.PROBE, 2, 0)
    assert len(outgoing(drain(core), AppendEntries, to="c")) == 1
    for _ in range(5):
        core.propose([b"more"])
        assert not outgoing(drain(core), AppendEntries, to="c")  # one question, not five
    core.step("c", AppendResponse(1, 4))  # late, and welcome
    assert silent.state is ProgressState.REPLICATE
    assert sum(len(message.batch) for message in outgoing(drain(core), AppendEntries, to="c")) == 5


def test_a_peer_that_comes_back_gets_no_more_than_one_append_before_it_answers() -> None:
    network = Network("abc", config=RaftConfig(max_append_entries=2))
    leader = network.elect("a")
    network.isolate("c")
    for _ in range(3):
        leader.propose([b"x"] * 10)
        network.settle()
        network.heartbeats()
        leader.check_quorum()
    sent_before = len(network.sent(AppendEntries, to="c"))
    for _ in range(4):
        leader.propose([b"y"])
        network.settle()
    assert len(network.sent(AppendEntries, to="c")) - sent_before <= 1
    network.heal()
    network.heartbeats(2)
    assert network["c"].commit_index == leader.commit_index == leader.last_index


def test_the_window_to_one_peer_does_not_bind_the_others() -> None:
    core = settled_leader(config=RaftConfig(max_inflight_messages=2))
    for index in range(2, 8):
        core.propose([b"x"])
        drain(core)
        core.step("b", AppendResponse(1, index))
    assert core.commit_index == 7
    assert core.progress["c"].next_index == 4 and len(core.progress["c"].inflights) == 2


def test_heartbeats_leave_before_the_entries_of_the_turn_and_need_no_window() -> None:
    core = settled_leader(config=RaftConfig(max_inflight_messages=1, max_inflight_bytes=100))
    core.propose([bytes(1000)])
    core.heartbeat()
    core.read_index(1)
    kinds = [type(message) for to, message in drain(core).messages if to == "b"]
    assert kinds[:2] == [Heartbeat, AppendEntries]
    core.propose([bytes(1000)])
    core.heartbeat()
    messages = [message for to, message in drain(core).messages if to == "b"]
    assert [type(message) for message in messages] == [Heartbeat]  # the window is closed, and it leaves


def test_uncommitted_bytes_are_bounded_and_refused_beyond() -> None:
    core = settled_leader(config=RaftConfig(max_uncommitted_bytes=1000))
    core.propose([bytes(900)])
    with pytest.raises(Overloaded) as refusal:
        core.propose([bytes(200)])
    assert refusal.value.amount > refusal.value.limit == 1000
    assert core.last_index == 2
    drain(core)
    core.step("b", AppendResponse(1, 2))
    core.propose([bytes(200)])
