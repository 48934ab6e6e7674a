"""A node whose state is wrong, among whole nodes: what its clients, its watchers and the others see."""

from __future__ import annotations

from zlib import crc32

import pytest

import kvstore.node
import tests.kvstore.memory_cluster
from kvstore import protocol, watch_frames
from kvstore.protocol import Refusal, Results
from kvstore.protocol_admin import ListMembers, Member, ReplaceMember, encode_admin
from kvstore.protocol_snapshot import Open, encode_snapshot_request
from kvstore.state_machine import StoreMachine
from raft.divergence import CHECK_EVERY
from raft.fence import FenceMark
from raft.storage import MemoryStorage, Space
from tests.kvstore.memory_cluster import MemoryCluster, peer_of


class Bendable(StoreMachine):
    """A store whose fingerprint can be made that of another state."""

    bend = 0

    def fingerprint(self) -> int:
        return crc32(self.digest()) ^ self.bend


class FencedCluster(MemoryCluster):
    """One of its nodes is to be bent."""

    def write(self, count: int) -> None:
        caller = self.client(self.leader())
        for number in range(0, count, 64):
            bodies = [put(b"/k/%d" % each) for each in range(number, min(number + 64, count))]
            assert {code for code, *_ in caller.call(protocol.WRITE, bodies)} == {protocol.OK}

    def bend(self, name: str) -> None:
        machine = self.systems[name]._by_name["applier"].actor._machine  # type: ignore[attr-defined]
        assert isinstance(machine, Bendable)
        machine.bend = 1

    def is_fenced(self, name: str) -> bool:
        return self.status(name)["fenced"] is not None

    def fence(self, name: str) -> None:
        self.bend(name)
        self.write(CHECK_EVERY)
        self.run(1.0)
        assert {each: self.is_fenced(each) for each in self.names} == {
            each: each == name for each in self.names
        }

    def answer(self, name: str, kind: int, body: bytes) -> Results | Refusal:
        caller = self.client(name)
        caller.ask(kind, [body])
        self.run(0.2)
        [reply] = caller.replies()
        return reply


def put(key: bytes) -> bytes:
    return protocol.put_body(0, 0, 0, key, b"v")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FencedCluster:
    monkeypatch.setattr(kvstore.node, "StoreMachine", Bendable)
    made = FencedCluster(seed=40)
    made.leader()
    made.run(1.5)  # all have heard of all
    return made


def follower_of(cluster: MemoryCluster) -> str:
    leader = cluster.leader()
    return next(name for name in cluster.names if name != leader)


def test_a_fenced_node_answers_nothing_but_its_status(cluster: FencedCluster) -> None:
    bent = follower_of(cluster)
    cluster.fence(bent)
    for kind, body in (
        (protocol.WRITE, put(b"/a")),
        (protocol.READ, protocol.range_body(b"/a")),
        (protocol.STALE_READ, protocol.range_body(b"/a")),
        (protocol.STALE_READ, protocol.watch_history_body(b"/a")),
        (protocol.SNAPSHOT, encode_snapshot_request(Open(b"s" * 16))),
        (protocol.ADMIN, encode_admin(ReplaceMember(bent, "n9", peer_of("n9")))),
    ):
        refusal = cluster.answer(bent, kind, body)
        assert isinstance(refusal, Refusal) and refusal.code == protocol.FENCED, kind
        assert refusal.leader_name == cluster.leader()
    status = cluster.status(bent)
    assert status["role"] == "follower" and status["priority"] == 0
    fenced = status["fenced"]
    assert isinstance(fenced, dict) and fenced.keys() == {"index", "own", "theirs", "reason"}
    assert int(fenced["own"], 16) ^ int(fenced["theirs"], 16) == 1


def test_the_members_can_be_listed_by_way_of_a_fenced_node(cluster: FencedCluster) -> None:
    """Which sends on to the leader, as any follower does."""
    bent = follower_of(cluster)
    cluster.fence(bent)
    refusal = cluster.answer(bent, protocol.ADMIN, encode_admin(ListMembers()))
    assert isinstance(refusal, Refusal) and refusal.code == protocol.NOT_LEADER
    assert refusal.leader_endpoint is not None


def test_the_others_say_who_differs(cluster: FencedCluster) -> None:
    bent = follower_of(cluster)
    cluster.fence(bent)
    for name in cluster.names:
        if name != bent:
            divergence = cluster.status(name)["divergence"]
            assert isinstance(divergence, dict) and divergence.keys() == {bent}


def test_who_waits_for_an_answer_of_a_leader_that_is_fenced_is_told(cluster: FencedCluster) -> None:
    """A write may have been applied, for its entry is in the log; a read was not answered."""
    leader = cluster.leader()
    cluster.write(CHECK_EVERY - 40)
    cluster.bend(leader)
    writer, reader = cluster.client(leader), cluster.client(leader)
    for number in range(100):
        writer.ask(protocol.WRITE, [put(b"/w/%d" % number)])
        reader.ask(protocol.READ, [protocol.range_body(b"/w/%d" % number)])
        cluster.run(0.005)
    cluster.run(1.0)
    assert cluster.is_fenced(leader) and cluster.leader() != leader
    written, read = writer.replies(), reader.replies()
    assert len(written) == len(read) == 100, "nobody is left without an answer"
    refused = {reply.code for reply in written if isinstance(reply, Refusal)}
    assert refused and refused <= {protocol.FENCED, protocol.OUTCOME_UNKNOWN}
    refused = {reply.code for reply in read if isinstance(reply, Refusal)}
    assert refused <= {protocol.FENCED, protocol.NO_LEADER, protocol.NOT_LEADER}


def test_watchers_of_a_fenced_node_are_cut_off_at_once(cluster: FencedCluster) -> None:
    """A new epoch, which sends them to the history, and no word more."""
    bent = follower_of(cluster)
    topic = watch_frames.stream_topic(b"/k/", b"/k0")
    subscriber = cluster.network.connect_subscriber(f"ipc:///memory/{bent}/watch")
    subscriber.subscribe(topic)
    cluster.run(0.5)
    [(epoch, *_), *_] = [watch_frames.decode_stream_message(*parts[1:])[0] for parts in subscriber.receive()]
    cluster.fence(bent)
    heard = [watch_frames.decode_stream_message(*parts[1:]) for parts in subscriber.receive()]
    assert heard[-1][0].epoch > epoch and heard[-1][1] == []
    assert all(header.epoch == epoch for header, _ in heard[:-1])
    cluster.write(10)
    cluster.run(2.0)
    assert subscriber.receive() == []


def test_a_fenced_node_is_replaced_with_one_command(cluster: FencedCluster) -> None:
    bent = follower_of(cluster)
    cluster.fence(bent)
    cluster.start_waiting("n4")
    membership = cluster.change(ReplaceMember(bent, "n4", peer_of("n4")), seconds=10.0)
    assert [(member.name, member.role) for member in membership.members] == [
        (name, "voter") for name in sorted({*cluster.names} - {bent})
    ]
    assert isinstance(membership.members[0], Member)
    cluster.run(2.0)
    assert cluster.status(bent)["member"] == "removed"
    assert cluster.status(bent)["is_joint"] is False, "it is out of it, though its log ends with a joint step"
    cluster.write(CHECK_EVERY)
    cluster.run(1.0)
    for name in set(cluster.names) - {bent}:
        assert (cluster.status(name)["divergence"], cluster.is_fenced(name)) == ({}, False)


def test_a_fenced_node_starts_fenced(cluster: FencedCluster) -> None:
    bent = follower_of(cluster)
    cluster.fence(bent)
    cluster.crash(bent)
    cluster.write(10)
    cluster.start(bent)
    cluster.run(1.0)
    refusal = cluster.answer(bent, protocol.STALE_READ, protocol.range_body(b"/k/1"))
    assert isinstance(refusal, Refusal) and refusal.code == protocol.FENCED
    leader = cluster.leader()
    assert cluster.status(bent)["last_index"] == cluster.status(leader)["last_index"], "its log goes on"


class Bounded(MemoryStorage):
    """A disk that can be nearly full."""

    is_full = False

    def check_space(self) -> Space:
        return Space(free_bytes=0 if self.is_full else 1 << 40, wanted_bytes=1, gave_up=False)


@pytest.fixture
def bounded_cluster(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> FencedCluster:
    monkeypatch.setattr(tests.kvstore.memory_cluster, "MemoryStorage", Bounded)
    made: FencedCluster = request.getfixturevalue("cluster")
    return made


def fill_disk(cluster: MemoryCluster, name: str) -> None:
    disk = cluster.disks[name]
    assert isinstance(disk, Bounded)
    disk.is_full = True
    cluster.run(2.5)
    assert cluster.status(name)["space"] == "low"


def low_at_leader(cluster: MemoryCluster) -> object:
    return cluster.status(cluster.leader())["space_low"]


def test_a_fenced_node_without_room_stops_nobody(bounded_cluster: FencedCluster) -> None:
    """It can release nothing of its log, so its disk must run low one day: the leader refused all puts then,
    for as long as the fenced node ran."""
    cluster = bounded_cluster
    bent = follower_of(cluster)
    cluster.fence(bent)
    fill_disk(cluster, bent)
    assert low_at_leader(cluster) == []
    cluster.write(10)


def test_a_node_without_room_that_is_fenced_stops_nobody_any_more(bounded_cluster: FencedCluster) -> None:
    """What it had said before is taken back at once, and not when it is forgotten."""
    cluster = bounded_cluster
    bent = follower_of(cluster)
    fill_disk(cluster, bent)
    assert low_at_leader(cluster) == [bent]
    cluster.bend(bent)
    caller = cluster.client(cluster.leader())
    for _ in range(CHECK_EVERY):
        assert caller.call(protocol.WRITE, [protocol.delete_body(0, 0, 0, b"/a")])[0][0] == protocol.OK
    cluster.run(2.0)
    assert cluster.is_fenced(bent)
    assert low_at_leader(cluster) == []
    cluster.write(10)


def test_a_node_that_has_forgotten_and_has_no_room_stops_nobody(bounded_cluster: FencedCluster) -> None:
    """The cluster does without it as though it were down."""
    cluster = bounded_cluster
    forgetful = follower_of(cluster)
    cluster.crash(forgetful)
    cluster.fences[forgetful].put_up(FenceMark(5, 0, 0, "an old copy", has_forgotten=True))
    cluster.start(forgetful)
    fill_disk(cluster, forgetful)
    assert low_at_leader(cluster) == []
    cluster.write(10)


def test_two_nodes_that_differ_say_so_and_both_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvstore.node, "StoreMachine", Bendable)
    cluster = FencedCluster(seed=41, size=2)
    cluster.leader()
    cluster.bend("n1")
    cluster.write(CHECK_EVERY)
    cluster.run(1.0)
    assert [cluster.is_fenced(name) for name in cluster.names] == [False, False]
    for name, other in (("n1", "n2"), ("n2", "n1")):
        divergence = cluster.status(name)["divergence"]
        assert isinstance(divergence, dict) and divergence.keys() == {other}
    cluster.write(10)
