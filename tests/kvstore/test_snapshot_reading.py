"""A client of frames reads a snapshot of a whole cluster in memory: the moment, the bounds, and garbage."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import msgpack
import pytest

from kvstore import protocol
from kvstore.protocol import Refusal, Results
from kvstore.protocol_snapshot import (
    Close,
    Open,
    Opened,
    Read,
    SnapshotRequest,
    decode_opened,
    decode_slice,
    encode_snapshot_request,
)
from kvstore.state_machine import StoreMachine
from kvstore.watch_plane import WatchPlane
from raft.state_machine import restore_all
from tests.kvstore.memory_cluster import MemoryCluster

NONCE = bytes(16)


def ask(
    cluster: MemoryCluster, name: str, request: SnapshotRequest | bytes, seconds: float = 3.0
) -> list[Any] | Refusal:
    """The result of one SNAPSHOT request, or its refusal."""
    caller = cluster.client(name)
    body = request if isinstance(request, bytes) else encode_snapshot_request(request)
    caller.ask(protocol.SNAPSHOT, [body])
    until = cluster.clock.now() + seconds
    while cluster.clock.now() < until:
        cluster.run(0.005)
        for reply in caller.replies():
            if isinstance(reply, Results):
                return protocol.split_results(reply.blob, 1)[0]
            return reply
    raise AssertionError("no answer")


def open_at(cluster: MemoryCluster, name: str, nonce: bytes = NONCE) -> Opened:
    for _ in range(100):
        result = ask(cluster, name, Open(nonce))
        assert not isinstance(result, Refusal), result
        opened = decode_opened(result)
        if isinstance(opened, Opened):
            return opened
    raise AssertionError("never opened")


def read_all(cluster: MemoryCluster, name: str, opened: Opened, nonce: bytes = NONCE) -> bytes:
    content = b""
    while len(content) < opened.size_bytes:
        result = ask(cluster, name, Read(nonce, len(content)))
        assert not isinstance(result, Refusal), result
        piece = decode_slice(result)
        assert piece.offset == len(content) and piece.checksum == crc32(piece.data) and piece.data
        content += piece.data
    assert crc32(content) == opened.checksum
    return content


def put(cluster: MemoryCluster, leader: str, key: bytes, value: bytes) -> None:
    [result] = cluster.client(leader).call(protocol.WRITE, [protocol.put_body(0, 0, 0, key, value)])
    assert result[0] == protocol.OK, result


def keys_in(content: bytes) -> set[bytes]:
    machine = StoreMachine(WatchPlane(1))
    restore_all(machine, [content])
    [result] = machine.query([protocol.range_body(b"\0", b"\0")])
    return {record[0] for record in protocol.split_results(result, 1)[0][4]}


@pytest.mark.parametrize("place", ["leader", "follower"])
def test_what_was_acknowledged_before_is_in_it_on_any_member(place: str) -> None:
    """Again and again: the follower that is asked has heard of the last put only by way of the read index."""
    cluster = MemoryCluster(1)
    leader = cluster.leader()
    name = leader if place == "leader" else next(each for each in cluster.names if each != leader)
    for number in range(5):
        put(cluster, leader, b"key-%d" % number, b"v")
        nonce = bytes([number]) * 16
        opened = open_at(cluster, name, nonce)
        assert opened.node == name
        content = read_all(cluster, name, opened, nonce)
        assert keys_in(content) == {b"key-%d" % each for each in range(number + 1)}
        assert ask(cluster, name, Close(nonce)) == [protocol.OK]


def test_what_is_read_stays_as_it_is_while_newer_ones_are_taken() -> None:
    """Snapshots are taken every few entries, and the log is compacted; the reader sees nothing of it."""
    cluster = MemoryCluster(2, snapshot_interval_entries=5, trailing_entries=0)
    leader = cluster.leader()
    for number in range(300):
        put(cluster, leader, b"key-%03d" % number, bytes(2000))
    opened = open_at(cluster, leader)
    first = ask(cluster, leader, Read(NONCE, 0))
    before = cluster.status(leader)["snapshot_index"]
    for number in range(300, 700):
        put(cluster, leader, b"key-%03d" % number, bytes(2000))
    cluster.run(0.5)
    after = cluster.status(leader)["snapshot_index"]
    assert isinstance(before, int) and isinstance(after, int) and before == opened.log_index < after
    assert ask(cluster, leader, Read(NONCE, 0)) == first
    content = read_all(cluster, leader, opened)
    assert keys_in(content) == {b"key-%03d" % number for number in range(300)}
    ask(cluster, leader, Close(NONCE))
    gone = ask(cluster, leader, Read(NONCE, 0))
    assert not isinstance(gone, Refusal) and gone[0] == protocol.SNAPSHOT_GONE


def test_a_node_that_was_started_again_does_not_know_the_stream() -> None:
    cluster = MemoryCluster(3)
    leader = cluster.leader()
    open_at(cluster, leader)
    cluster.crash(leader)
    cluster.start(leader)
    cluster.leader()
    result = ask(cluster, leader, Read(NONCE, 0))
    assert not isinstance(result, Refusal) and result[0] == protocol.SNAPSHOT_GONE


def test_without_a_majority_there_is_no_moment_and_it_is_refused() -> None:
    cluster = MemoryCluster(4)
    leader = cluster.leader()
    for name in cluster.names:
        if name != leader:
            cluster.crash(name)
    cluster.run(1.0)
    result = ask(cluster, leader, Open(NONCE))
    assert isinstance(result, Refusal) and result.code == protocol.NO_LEADER


def test_more_than_two_at_a_time_are_refused_until_one_is_closed_or_forgotten() -> None:
    cluster = MemoryCluster(5)
    leader = cluster.leader()
    for number in (1, 2):
        open_at(cluster, leader, bytes([number]) * 16)
    result = ask(cluster, leader, Open(NONCE))
    assert isinstance(result, Refusal) and result.code == protocol.OVERLOADED
    ask(cluster, leader, Close(bytes([1]) * 16))
    open_at(cluster, leader)
    cluster.run(31.0)
    result = ask(cluster, leader, Read(NONCE, 0))
    assert not isinstance(result, Refusal) and result[0] == protocol.SNAPSHOT_GONE
    open_at(cluster, leader)


def test_garbage_is_answered_and_costs_nothing() -> None:
    cluster = MemoryCluster(6)
    leader = cluster.leader()
    for body in (b"", b"\xc1", msgpack.packb([9, NONCE]), msgpack.packb([2, NONCE, -1]), bytes(1000)):
        result = ask(cluster, leader, body)
        assert not isinstance(result, Refusal) and result[0] == protocol.BAD_REQUEST
    caller = cluster.client(leader)
    caller.ask(protocol.SNAPSHOT, [encode_snapshot_request(Open(NONCE))] * 2)
    cluster.run(0.05)
    [refusal] = caller.replies()
    assert isinstance(refusal, Refusal) and refusal.code == protocol.BAD_FRAME
    put(cluster, leader, b"/a", b"1")


def test_a_flood_of_reads_is_bounded_and_commands_go_on() -> None:
    cluster = MemoryCluster(7)
    leader = cluster.leader()
    put(cluster, leader, b"/a", bytes(500_000))
    open_at(cluster, leader)
    caller = cluster.client(leader)
    for _ in range(300):
        caller.ask(protocol.SNAPSHOT, [encode_snapshot_request(Read(NONCE, 0))])
    put(cluster, leader, b"/b", b"1")
    cluster.run(0.1)
    replies = caller.replies()
    answered = [reply for reply in replies if isinstance(reply, Results)]
    refused = [reply for reply in replies if isinstance(reply, Refusal)]
    assert len(replies) == 300 and {reply.code for reply in refused} == {protocol.OVERLOADED}
    assert 1 <= len(answered) <= 10


@pytest.mark.parametrize("by_leader", [True, False])
def test_a_node_that_is_asked_for_a_snapshot_gives_up_its_log_behind_it(by_leader: bool) -> None:
    """`assent compact --log`: nothing of the snapshot is read, and no policy would have taken one yet."""
    cluster = MemoryCluster(1, 3, trailing_entries=4)
    leader = cluster.leader()
    name = leader if by_leader else next(each for each in cluster.names if each != leader)
    for number in range(40):
        put(cluster, leader, b"k%d" % number, b"v")
    cluster.run(0.5)
    assert cluster.disks[name].load().first_index == 1
    opened = open_at(cluster, name)
    ask(cluster, name, Close(NONCE))
    cluster.run(0.5)
    found = cluster.disks[name].load()
    assert found.snapshot is not None and found.snapshot.index == opened.log_index >= 40
    assert found.first_index > opened.log_index - 10
    others = [other for other in cluster.names if other != name]
    assert [cluster.disks[other].load().first_index for other in others] == [1, 1]
