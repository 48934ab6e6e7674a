"""The order of things in a turn of replication: what leaves before the disk has it, and what must not.

The core is real and leads or follows in a cluster of three; the disk writes down when it was called.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from actors import Address
from actors.transport import TransportLimits
from raft import Configuration, Core, RaftConfig
from raft.actor_messages import (
    Campaign,
    CheckQuorumDue,
    HeartbeatDue,
    LeaderContact,
    LeaderSilent,
    Propose,
    Read,
    ReadReady,
    Refused,
    RoleChanged,
)
from raft.entries import EntryBatch, HardState
from raft.messages import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    PreVoteResponse,
    RequestPreVote,
    RequestVote,
    VoteResponse,
)
from raft.ready import Role
from raft.replication_actor import READ_PATIENCE_SECONDS, ReplicationActor
from raft.storage import MemoryStorage, StorageFailed
from tests.raft.lone_actor import Surroundings
from tests.raft.network import batch


class Disk(MemoryStorage):
    """Tells the surroundings what was asked of it, among all that leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.diary: list[Any] = []
        self.is_broken = False

    def append(self, hard_state: HardState | None, batch: EntryBatch | None) -> None:
        self.diary.append("append")
        super().append(hard_state, batch)

    def sync(self) -> None:
        if self.is_broken:
            raise StorageFailed("fdatasync", "log", "a test broke it")
        self.diary.append("sync")
        super().sync()


class Node:
    """A replication actor with its disk; peers and neighbours are played by the test."""

    def __init__(self, voters: Iterable[str] = "abc", config: RaftConfig | None = None) -> None:
        self.disk = Disk()
        self.core = Core("a", Configuration(voters), self.disk.load(), config)
        self.world = Surroundings(ReplicationActor(self.core, self.disk))
        self.world.happened = self.disk.diary
        self.world.start()

    def hear(self, node: str, *messages: object) -> None:
        self.world.tell(*messages, node=node)

    def diary(self) -> list[str]:
        """What happened since the last call: disk calls, and kinds of message that left for peers."""
        diary = [
            each if isinstance(each, str) else type(each[1]).__name__
            for each in self.disk.diary
            if isinstance(each, str) or each[0].node != "a"
        ]
        self.disk.diary.clear()
        return diary

    def told(self, kind: type) -> list[object]:
        return list(self.world.take(kind))

    def lead(self) -> Node:
        self.hear("a", Campaign(self.core.term))
        self.hear("b", PreVoteResponse(self.core.term + 1, True))
        self.hear("b", VoteResponse(self.core.term, True))
        for peer in "bc":
            self.hear(peer, AppendResponse(self.core.term, self.core.last_index))
        assert self.core.role is Role.LEADER and self.core.commit_index == self.core.last_index
        self.disk.diary.clear()
        return self


def append(term: int, *terms: int, prev: tuple[int, int] = (0, 0), commit_index: int = 0) -> AppendEntries:
    return AppendEntries(term, *prev, commit_index, batch(prev[0] + 1, terms))


def test_a_leaders_appends_leave_before_its_own_sync() -> None:
    """Dissertation 10.2.1: the peers write while this node writes."""
    node = Node().lead()
    node.hear("a", Propose([1], [2], [b"x", b"y"]))
    assert node.diary() == ["AppendEntries", "AppendEntries", "append", "sync"]


def test_an_acknowledgement_leaves_after_the_sync() -> None:
    node = Node()
    node.hear("b", append(1, 1, 1))
    assert node.diary() == ["append", "sync", "AppendResponse"]


def test_a_vote_leaves_after_the_sync() -> None:
    """Raft §5.2, figure 2: stored before the answer."""
    node = Node()
    node.hear("b", RequestVote(1, 0, 0))
    assert node.diary() == ["append", "sync", "VoteResponse"]


def test_votes_are_asked_for_after_the_own_vote_is_stored() -> None:
    node = Node()
    node.hear("a", Campaign(0))
    assert node.diary() == ["RequestPreVote", "RequestPreVote"]
    node.hear("b", PreVoteResponse(1, True))
    assert node.diary() == ["append", "sync", "RequestVote", "RequestVote"]


def test_a_commit_index_alone_costs_no_sync() -> None:
    node = Node()
    node.hear("b", append(1, 1))
    node.diary()
    node.hear("b", Heartbeat(1, 1, 1))
    assert node.diary() == ["HeartbeatResponse"]
    assert node.core.commit_index == 1


def test_a_failed_sync_lets_no_answer_leave_and_ends_the_actor() -> None:
    """What is not on the disk is not promised, and who cannot promise must not go on."""
    node = Node()
    node.disk.is_broken = True
    with pytest.raises(StorageFailed):
        node.hear("b", append(1, 1))
    node.world.flush(node.world.actor)
    assert node.diary() == ["append"]


@pytest.mark.parametrize("order", [Campaign, LeaderSilent, HeartbeatDue, CheckQuorumDue])
def test_an_order_of_election_for_another_term_is_not_carried_out(
    order: type[Campaign | LeaderSilent | HeartbeatDue | CheckQuorumDue],
) -> None:
    """It was given in view of a term that is over by the time it is read."""
    node = Node()
    if order in (HeartbeatDue, CheckQuorumDue):
        node.lead()
    else:
        node.hear("b", append(1, 1))
    node.diary()
    node.hear("a", order(node.core.term - 1))
    node.hear("c", RequestPreVote(node.core.term + 1, 9, 9))
    assert node.diary() == ["PreVoteResponse"]
    assert node.core.role is (Role.LEADER if order in (HeartbeatDue, CheckQuorumDue) else Role.FOLLOWER)
    assert not node.core.is_gate_open


def test_orders_of_election_are_carried_out_in_their_term() -> None:
    node = Node().lead()
    node.hear("a", HeartbeatDue(1))
    assert node.diary() == ["Heartbeat", "Heartbeat"]
    node.hear("a", CheckQuorumDue(1))
    assert node.world.take(RoleChanged) == []
    node.hear("a", CheckQuorumDue(1))
    assert node.world.take(RoleChanged) == [RoleChanged("follower", 1, None, 1)] * 3


def test_a_leader_heard_in_the_same_turn_is_not_stood_against() -> None:
    node = Node()
    node.hear("b", append(1, 1))
    sender = node.world.actor
    node.world.happened.clear()
    beat = (Address("b", "replication"), Heartbeat(1, 0, 1))
    order = (Address("a", "election"), Campaign(1))
    sender.receive([order, beat])
    node.world.flush(sender)
    assert node.core.role is Role.FOLLOWER
    assert node.diary() == ["HeartbeatResponse"]


def test_election_hears_of_the_leader_at_a_coarse_grain() -> None:
    node = Node()
    node.hear("b", append(1, 1))
    node.told(LeaderContact)
    for _ in range(10):
        node.world.seconds += 0.002
        node.hear("b", Heartbeat(1, 0, 1))
    assert 1 <= len(node.told(LeaderContact)) <= 3


def test_a_chunk_of_a_snapshot_is_contact_with_the_leader() -> None:
    """On a slow link it is all that comes for a while: a heartbeat waits behind the chunks."""
    node = Node()
    node.hear("b", append(1, 1))
    node.told(LeaderContact)
    chunk = InstallSnapshot(1, 9, 1, Configuration("abc").encode(), 0, 20, 0, b"", 0).with_data(b"0123456789")
    for offset, sender, contacts in [(0, "b", 1), (10, "b", 1), (10, "c", 0)]:
        node.world.seconds += 0.2
        part = replace(chunk, offset=offset, configuration=b"" if offset else chunk.configuration)
        node.hear(sender, part.with_data(chunk.data))
        assert node.told(LeaderContact) == [LeaderContact(1, "b")] * contacts
    assert node.core.role is Role.FOLLOWER


def test_a_chunk_heard_in_the_same_turn_keeps_the_follower_from_campaigning() -> None:
    node = Node()
    node.hear("b", append(1, 1))
    chunk = InstallSnapshot(1, 9, 1, Configuration("abc").encode(), 0, 20, 0, b"", 0).with_data(b"0123456789")
    sender = node.world.actor
    sender.receive([(Address("a", "election"), Campaign(1)), (Address("b", "replication"), chunk)])
    node.world.flush(sender)
    assert node.core.role is Role.FOLLOWER


def test_a_heartbeat_behind_a_full_window_confirms_reads_in_time_at_100_megabits() -> None:
    """And yet a peer has what keeps it busy: as much is on its way as it takes in a turn, and writes."""
    config = RaftConfig()
    bits = 8 * (config.max_inflight_bytes + config.max_append_bytes)  # the last append may pass the window
    assert bits / 100_000_000 < READ_PATIENCE_SECONDS
    assert config.max_inflight_bytes >= 2 * TransportLimits().drain_bytes


def test_a_read_is_released_with_its_index_when_the_round_is_confirmed() -> None:
    node = Node().lead()
    node.hear("a", Read([4], [1], [b"key"]))
    node.disk.diary.clear()
    node.hear("c", HeartbeatResponse(1, 1))
    [ready] = node.world.take(ReadReady)
    assert (ready.read_index, ready.tickets) == (1, [4])


def test_a_read_that_nobody_confirms_is_refused_after_a_while() -> None:
    node = Node().lead()
    node.hear("a", Read([4], [1], [b"key"]))
    while node.world.seconds < READ_PATIENCE_SECONDS:
        node.world.wait()
    assert [each.tickets for each in node.world.take(Refused)] == [[4]]
    node.hear("c", HeartbeatResponse(1, 1))
    assert node.told(ReadReady) == []


def test_reads_beyond_the_bounds_are_refused_as_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the core, and of this actor: each read that waits is remembered, so there is a most of them."""
    node = Node(config=RaftConfig(max_waiting_reads=1)).lead()
    node.hear("a", *(Read([ticket], [1], [b"key"]) for ticket in (1, 2)))
    assert [(each.tickets, each.reason) for each in node.world.take(Refused)] == [([2], "overloaded")]
    monkeypatch.setattr("raft.replication_actor.MAX_WAITING_READS", 1)
    node.hear("a", Read([3], [1], [b"key"]))
    assert [(each.tickets, each.reason) for each in node.world.take(Refused)] == [([3], "overloaded")]


def test_reads_and_proposals_are_refused_where_nobody_leads() -> None:
    node = Node()
    node.hear("a", Read([1], [1], [b"key"]), Propose([2], [1], [b"x"]))
    refused = node.world.take(Refused)
    assert [(each.tickets, each.reason, each.leader_id) for each in refused] == [
        ([1], "no_leader", None),
        ([2], "no_leader", None),
    ]


def test_a_follower_names_its_leader() -> None:
    node = Node()
    node.hear("b", append(1, 1))
    node.world.take(Refused)
    node.hear("a", Propose([2], [1], [b"x"]))
    [refused] = node.world.take(Refused)
    assert (refused.reason, refused.leader_id) == ("not_leader", "b")


def test_a_change_of_role_is_told_to_all_neighbours() -> None:
    node = Node(voters="a")
    node.hear("a", Campaign(0))
    told = [each for each in node.disk.diary if not isinstance(each, str)]
    to = {address.actor for address, message in told if message == RoleChanged("leader", 1, "a", 1)}
    assert to == {"election", "applier", "gateway"}
