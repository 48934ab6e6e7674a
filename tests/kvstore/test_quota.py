"""The quota of a store: what it counts, when it refuses, what goes on, and that it clears itself."""

from __future__ import annotations

import random

import pytest

from kvstore import protocol, settings
from kvstore.compactor import Compactor, HistoryPolicy
from kvstore.protocol import delete_body, prefix_range, put_body
from kvstore.quota import Quota
from kvstore.space_gate import SpaceGate
from kvstore.versions import VERSION_OVERHEAD_BYTES
from raft.actor_messages import StateSize
from tests.kvstore.machine_log import Log
from tests.kvstore.memory_cluster import MemoryCluster

UNBOUND = HistoryPolicy(revisions=0, size_bytes=0)


def test_the_alarm_begins_above_the_quota_and_ends_well_below_it() -> None:
    quota = Quota(1000)
    sizes = [900, 1000, 1001, 1000, 950, 949, 1000, 1001]
    assert [quota.judge(size) for size in sizes] == [False, False, True, True, True, False, False, True]
    assert not any(map(Quota(0).judge, sizes))


def test_keys_values_and_the_past_count() -> None:
    log = Log()
    store = log.machine._store
    log.put(b"key", b"value")
    assert store.data_bytes == 8
    log.put(b"key", b"longer value")
    assert store.data_bytes == 15
    assert log.machine.size_bytes() == 15 + store.history_bytes > 15 + VERSION_OVERHEAD_BYTES
    log.delete(b"key")
    assert store.data_bytes == 0 and log.machine.size_bytes() == store.history_bytes
    assert log.machine.status()["store_bytes"] == log.machine.size_bytes()


def test_what_counts_is_the_same_whichever_way_the_store_came_about() -> None:
    """Puts, deletes of each kind, restored snapshots: the sum is that over the current records."""
    chance, log, restored = random.Random(5), Log(), Log()
    for _ in range(300):
        key = b"/%d" % chance.randrange(20)
        if chance.random() < 0.7:
            log.put(key, bytes(chance.randrange(50)))
        elif chance.random() < 0.5:
            log.delete(key)
        else:
            log.delete(*prefix_range(key))
        store = log.machine._store
        assert store.data_bytes == sum(len(name) + len(record[1]) for name, record in store._records.items())
    restorer = restored.machine.restorer()
    for piece in log.machine.snapshot():
        restorer.feed(piece)
    restorer.finish()
    assert restored.machine._store.data_bytes == log.machine._store.data_bytes
    assert restored.machine._store._versions.size_bytes == log.machine._store._versions.size_bytes


def test_the_gate_is_closed_while_the_store_is_too_large_and_says_why() -> None:
    gate = SpaceGate("n1", 64 << 20)
    assert not gate.is_closed and gate.status() == {
        "space_low": [], "quota_bytes": 64 << 20, "quota_exceeded": False
    }  # fmt: skip
    gate.weigh(StateSize((64 << 20) + 1))
    assert gate.is_closed and gate.status()["quota_exceeded"]
    [[code, text]] = protocol.split_results(gate.refusal(), 1)
    assert code == protocol.SPACE_EXCEEDED and "quota of 64 MiB" in text
    gate.sweep({"n1"}, 100.0)
    assert gate.is_closed
    gate.weigh(StateSize(60 << 20))
    assert not gate.is_closed
    SpaceGate("n1").weigh(StateSize(1 << 50))


def test_the_past_is_given_up_once_that_is_enough_and_not_before() -> None:
    log = Log()
    compactor = Compactor(UNBOUND._replace(quota_bytes=20_000), log.machine.kept_history)

    def tick(at: float) -> None:
        for body in compactor.due_commands(at):
            assert log.apply(body) == [[0, log.machine.revision]]
        log.machine.tidy()

    for number in range(30):
        log.put(b"%02d" % number, bytes(600))
        tick(number)
    assert log.machine.size_bytes() < 20_000 and log.machine.status()["compact_revision"] == 0
    for number in range(30):
        log.put(b"%02d" % number, bytes(630))
    assert log.machine.size_bytes() > 30_000
    tick(100.0)
    assert log.machine.status()["compact_revision"] == 31 + 30, "18 960 bytes are below 95 %"
    tick(101.0)
    assert log.machine.size_bytes() == 30 * 632
    for number in range(30, 36):
        log.put(b"%02d" % number, bytes(600))
    tick(102.0)
    assert log.machine.status()["compact_revision"] == 61, "no past is in the way: keys have to go"
    log.delete(b"00", b"06")
    tick(103.0)
    assert log.machine.status()["compact_revision"] == log.machine.revision == 68
    assert log.machine.size_bytes() == 24 * 632 + 6 * 602, "what was just deleted is told of, and free"


@pytest.fixture
def small_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MEBIBYTE", 1)
    monkeypatch.setattr("kvstore.node.MEBIBYTE", 1)


def test_a_cluster_refuses_puts_above_its_quota_and_clears_itself(small_quota: None) -> None:
    """Deletes go on, and are what clears it: the past that they leave is given up at once."""
    cluster = MemoryCluster(7, quota_mib=50_000, history_mib=1 << 30)
    client = cluster.client(cluster.leader())

    def write(*bodies: bytes) -> list[int]:
        return [int(result[0]) for result in client.call(protocol.WRITE, list(bodies))]  # type: ignore[call-overload]

    puts = [put_body(0, 0, 0, b"/%02d" % number, bytes(1000)) for number in range(60)]
    assert set(write(*puts)) == {protocol.OK}
    cluster.run(0.6)
    status = cluster.status(cluster.leader())
    assert status["quota_exceeded"] is True and int(str(status["store_bytes"])) > 60_000
    assert write(puts[0]) == [protocol.SPACE_EXCEEDED]
    assert write(delete_body(0, 0, 0, b"/00")) == [protocol.OK]
    cluster.run(1.0)
    assert write(puts[0]) == [protocol.SPACE_EXCEEDED]
    assert cluster.status(cluster.leader())["compact_revision"] == 0
    write(delete_body(0, 0, 0, b"/10", b"/30"))
    cluster.run(2.0)
    status = cluster.status(cluster.leader())
    assert status["quota_exceeded"] is False and status["compact_revision"] == status["revision"]
    assert write(puts[0]) == [protocol.OK]
