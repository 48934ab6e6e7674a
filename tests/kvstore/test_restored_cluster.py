"""A cluster that begins with a snapshot: its log has nothing before it, and who joins is sent it whole."""

from __future__ import annotations

from kvstore import protocol
from kvstore.protocol_admin import AddMember
from raft.entries import HardState
from raft.membership import Configuration
from raft.storage import MemoryStorage
from tests.kvstore.memory_cluster import MemoryCluster, peer_of
from tests.kvstore.test_snapshot_reading import open_at, put, read_all


def test_one_node_begins_with_the_snapshot_of_three_and_others_join_it() -> None:
    old = MemoryCluster(11)
    leader = old.leader()
    put(old, leader, b"/a", b"1")
    opened = open_at(old, leader)
    content = read_all(old, leader, opened)

    disk = MemoryStorage()
    disk.append(HardState(opened.term, None, opened.log_index), None)
    alone = Configuration({"n1"}, addresses={"n1": peer_of("n1")})
    disk.begin_snapshot(opened.log_index, opened.term, alone.encode())
    disk.append_snapshot(content)
    disk.commit_snapshot(replaces_log=True)

    new = MemoryCluster(12, 1)
    new.crash("n1")
    new._waiting.add("n1")  # its log has the members
    new.disks["n1"] = disk
    new.start("n1")
    assert new.leader() == "n1"
    new.start_waiting("n2")
    membership = new.change(AddMember("n2", peer_of("n2"), False), seconds=5.0)
    assert {one.name: one.role for one in membership.members} == {"n1": "voter", "n2": "voter"}
    put(new, "n1", b"/b", b"2")
    new.run(0.5)
    [result] = new.client("n2").call(protocol.STALE_READ, [protocol.range_body(b"\0", b"\0")])
    assert isinstance(result[4], list) and [record[0] for record in result[4]] == [b"/a", b"/b"]
    assert new.status("n2")["snapshot_index"] == opened.log_index
