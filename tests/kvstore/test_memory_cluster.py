"""Production actors, unchanged, on a clock, a network and disks that are not real."""

from __future__ import annotations

from actors import Address
from kvstore import protocol
from kvstore.neighbours import Announce
from kvstore.protocol import Refusal
from tests.kvstore.memory_cluster import MemoryCluster


def put(key: bytes, value: bytes) -> bytes:
    return protocol.put_body(0, 0, 0, key, value)


def test_three_nodes_in_one_thread_elect_commit_and_read() -> None:
    cluster = MemoryCluster(seed=1)
    leader = cluster.client(cluster.leader())
    assert leader.call(protocol.WRITE, [put(b"/a", b"1"), put(b"/b", b"2")]) == [[0, 2, None], [0, 3, None]]
    for name in cluster.names:  # a follower's read is as fresh as the leader's
        code, revision, count, _, records = cluster.client(name).call(
            protocol.READ, [protocol.range_body(b"/a", b"/c")]
        )[0]
        assert (code, revision, count) == (0, 3, 2), name
        assert records == [[b"/a", b"1", 2, 2, 1, 0], [b"/b", b"2", 3, 3, 1, 0]]


def test_the_same_seed_is_the_same_history() -> None:
    def history(seed: int) -> list[object]:
        cluster = MemoryCluster(seed)
        leader = cluster.leader()
        cluster.client(leader).call(protocol.WRITE, [put(b"/a", b"1")])
        cluster.run(1.0)
        told = ("role", "term", "commit_index", "applied_index", "revision")
        return [
            leader,
            cluster.clock.now(),
            [[cluster.status(name)[key] for key in told] for name in cluster.names],
        ]

    assert history(5) == history(5)
    assert len({str(history(seed)) for seed in range(8)}) > 1


def test_a_crashed_leader_is_replaced_and_what_it_acknowledged_is_there() -> None:
    cluster = MemoryCluster(seed=2)
    first = cluster.leader()
    cluster.client(first).call(protocol.WRITE, [put(b"/a", b"1")])
    cluster.crash(first)
    second = cluster.leader()
    assert second != first
    [[_, _, count, _, _]] = cluster.client(second).call(protocol.READ, [protocol.range_body(b"/a")])
    assert count == 1
    cluster.start(first)
    cluster.run(1.0)
    assert cluster.status(first)["applied_index"] == cluster.status(second)["applied_index"]


def test_a_lone_survivor_neither_writes_nor_reads_but_answers_local_reads() -> None:
    cluster = MemoryCluster(seed=3)
    leader = cluster.leader()
    survivor = cluster.client(leader)
    survivor.call(protocol.WRITE, [put(b"/a", b"1")])
    for name in cluster.names:
        if name != leader:
            cluster.crash(name)
    survivor.ask(protocol.READ, [protocol.range_body(b"/a")])
    survivor.ask(protocol.WRITE, [put(b"/a", b"2")])
    cluster.run(3.0)
    replies = survivor.replies()
    assert len(replies) == 2 and all(isinstance(reply, Refusal) for reply in replies)
    codes = sorted(reply.code for reply in replies if isinstance(reply, Refusal))
    assert codes == [protocol.NO_LEADER, protocol.OUTCOME_UNKNOWN]
    [[code, _, _, _, records]] = survivor.call(protocol.STALE_READ, [protocol.range_body(b"/a")])
    assert code == protocol.OK and records == [[b"/a", b"1", 2, 2, 1, 0]]


def test_a_follower_names_the_leader_and_its_endpoint() -> None:
    cluster = MemoryCluster(seed=4)
    leader = cluster.leader()
    cluster.run(1.5)  # nodes tell each other their client endpoints once a second
    [follower, _] = [name for name in cluster.names if name != leader]
    caller = cluster.client(follower)
    caller.ask(protocol.WRITE, [put(b"/a", b"1")])
    cluster.run(0.05)
    [refusal] = caller.replies()
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.leader_name) == (protocol.NOT_LEADER, leader)
    assert refusal.leader_endpoint == f"ipc:///memory/{leader}/client"


def test_a_reader_that_never_confirms_is_refused_and_one_that_does_is_served() -> None:
    """What waits for a client that does not read is bounded in bytes, not only in frames."""
    cluster = MemoryCluster(seed=6, size=1)
    name = cluster.leader()
    caller = cluster.client(name)
    for number in range(8):
        caller.call(protocol.WRITE, [put(b"/large/%d" % number, bytes(1 << 20))])
    everything = protocol.range_body(b"/large/", b"/large0")  # 8 MiB
    for _ in range(6):
        caller.ask(protocol.STALE_READ, [everything])
    cluster.run(0.1)
    replies = caller.replies()
    refused = [reply for reply in replies if isinstance(reply, Refusal)]
    assert (len(replies), len(refused)) == (6, 3)  # three of a little more than 8 MiB fit into 32
    assert {reply.code for reply in refused} == {protocol.OVERLOADED}
    caller.ask(protocol.STALE_READ, [everything], confirming=True)
    cluster.run(0.1)
    [reply] = caller.replies()
    assert not isinstance(reply, Refusal)


def test_a_node_that_stops_answers_whoever_still_waits() -> None:
    cluster = MemoryCluster(seed=7)
    name = cluster.leader()
    caller = cluster.client(name)
    for other in cluster.names:
        if other != name:
            cluster.crash(other)
    caller.ask(protocol.WRITE, [put(b"/a", b"1")])
    caller.ask(protocol.READ, [protocol.range_body(b"/a")])
    cluster.turn_all()
    assert caller.replies() == []
    cluster.systems[name].close()
    codes = [reply.code for reply in caller.replies() if isinstance(reply, Refusal)]
    assert codes == [protocol.OUTCOME_UNKNOWN, protocol.SHUTTING_DOWN]


def test_an_announcement_of_no_endpoint_is_not_passed_on_to_clients() -> None:
    """A member's empty endpoint once made every node's status unreadable, and so took all clients offline."""
    cluster = MemoryCluster(seed=8)
    cluster.leader()
    cluster.run(1.2)
    gateway = cluster.systems["n1"]._by_name["gateway"].actor
    good = cluster.status("n1")["peers"]
    assert good == {name: f"ipc:///memory/{name}/client" for name in ("n2", "n3")}
    for nonsense in ("", "?", "tcp://", "tcp://x" * 1000):
        gateway.receive(
            [(Address("n2", "gateway"), Announce(nonsense, "tcp://127.0.0.1:1", "tcp://127.0.0.1:2", 7))]
        )
        gateway.receive(
            [(Address("n2", "gateway"), Announce("tcp://127.0.0.1:1", nonsense, "tcp://127.0.0.1:2", 7))]
        )
    assert cluster.status("n1")["peers"] == good
