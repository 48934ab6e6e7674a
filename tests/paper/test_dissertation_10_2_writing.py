"""Dissertation 10.2: writing to disk in parallel, batching and pipelining."""

from __future__ import annotations

from raft.config import RaftConfig
from raft.messages import (
    AppendEntries,
    AppendResponse,
)
from raft.progress import ProgressState
from tests.raft.cores import leader_with_peer_at, replicating
from tests.raft.network import (
    Network,
    drain,
    make_leader,
    outgoing,
)


def test_a_majority_of_others_is_enough_before_the_own_sync() -> None:
    """Dissertation 10.2.1: an entry may commit before the leader's own disk has it."""
    core = make_leader()
    for peer in "bc":
        core.step(peer, AppendResponse(1, 1))
    drain(core)
    core.propose([b"x"])
    core.ready()
    for peer in "bc":
        core.step(peer, AppendResponse(1, 2))
    assert (core.commit_index, core.stable_index) == (2, 1)
    core.advance()


def test_the_leaders_own_entries_count_when_they_are_on_its_disk() -> None:
    """Dissertation 10.2.1: a leader counts itself only once its own disk has the entry."""
    core = make_leader()
    core.step("b", AppendResponse(1, 1))
    drain(core)
    core.propose([b"x"])
    ready = core.ready()
    assert outgoing(ready, AppendEntries, to="b")
    core.step("b", AppendResponse(1, 2))  # faster than the own disk
    assert core.commit_index == 1
    core.advance()
    assert core.commit_index == 2
    committed = drain(core).committed
    assert committed is not None and committed.last_index == 2


def test_replication_is_optimistic_within_the_window() -> None:
    """Dissertation 10.2.2: next_index moves on as soon as an append is sent, not when it is acknowledged."""
    progress = replicating(5, 6)
    for index in (6, 7, 8):
        assert progress.wants_append(99, 0)
        progress.note_sent(index, 10, 0)
    assert progress.next_index == 9
    assert not progress.wants_append(99, 99)
    progress.acknowledge(6)
    assert progress.wants_append(99, 0)


def test_appends_are_pipelined_up_to_the_window() -> None:
    """Dissertation 10.2.2: appends are sent without waiting for answers, and only so many at once."""
    core = leader_with_peer_at(1, max_inflight_messages=3)
    sent = []
    for _ in range(5):
        core.propose([b"y"])
        sent += outgoing(drain(core), AppendEntries)
    assert [message.prev_index for message in sent] == [1, 2, 3]
    core.step("b", AppendResponse(1, 3))
    assert [(m.prev_index, len(m.batch)) for m in outgoing(drain(core), AppendEntries)] == [(4, 2)]


def test_a_window_full_of_lost_appends_recovers_after_a_heartbeat() -> None:
    """Dissertation 10.2.2: a pipeline whose messages were lost falls back to asking, and then goes on."""
    network = Network("abc", config=RaftConfig(max_inflight_messages=4))
    leader = network.elect("a")
    network.cut_links = {("a", "b"), ("a", "c")}
    for _ in range(10):
        leader.propose([b"lost"])
        network.settle()
    assert leader.commit_index == 1
    network.heal()
    leader.heartbeat()
    network.settle()
    assert [core.commit_index for core in network.cores.values()] == [11, 11, 11]
    assert leader.progress["b"].state is ProgressState.REPLICATE
