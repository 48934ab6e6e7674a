"""Snapshots of a machine of one's own: its log is cut, and whoever is behind gets the state instead."""

from __future__ import annotations

from pathlib import Path

from examples.sqlite_storage import SqliteStorage
from raft.config import RaftConfig
from raft.replica import Replica, ReplicaSettings
from tests.raft.replicas import Adder, HandCluster

SETTINGS = ReplicaSettings(
    raft=RaftConfig(snapshot_interval_entries=50, trailing_entries=10, snapshot_chunk_bytes=4096)
)
PATIENCE_SECONDS = 10.0


def add_up(cluster: HandCluster, count: int) -> None:
    commands = [cluster.leader().propose(b"1") for _ in range(count)]
    for command in commands:
        cluster.finish(command)
    cluster.run(0.3)


def first_index(cluster: HandCluster, name: str) -> int:
    return cluster.disks[name].load().first_index


def test_a_restart_begins_with_the_snapshot_and_goes_on_with_the_log() -> None:
    cluster = HandCluster(settings=SETTINGS)
    for _ in range(5):
        add_up(cluster, 60)
    for name in cluster.members:
        cluster.crash(name)
    assert min(first_index(cluster, name) for name in cluster.members) > 100
    for name in cluster.members:
        cluster.start(name)
    assert cluster.finish(cluster.leader().propose(b"1")) == b"301"
    assert cluster.run_until(lambda: {machine.total for machine in cluster.machines.values()} == {301})


def test_who_was_away_for_long_gets_the_state_and_then_the_log() -> None:
    cluster = HandCluster(settings=SETTINGS)
    leader = cluster.leader()
    away = next(name for name in cluster.members if name != leader.node_id)
    cluster.crash(away)
    for _ in range(5):
        add_up(cluster, 60)
    cluster.start(away)
    assert cluster.run_until(lambda: cluster.machines[away].total == 300)
    assert cluster.finish(cluster.replicas[away].ask(b"")) == b"300"
    assert first_index(cluster, leader.node_id) > 100


def test_a_storage_of_ones_own_keeps_snapshots_too(tmp_path: Path) -> None:
    members = {"n1": f"ipc://{tmp_path}/n1"}
    for round_number in range(1, 4):
        storage = SqliteStorage(tmp_path / "n1.sqlite")
        with Replica("n1", Adder(), members=members, storage=storage, settings=SETTINGS) as replica:
            replica.wait_for_leader(PATIENCE_SECONDS)
            for _ in range(120):
                result = replica.apply(b"1", timeout_seconds=PATIENCE_SECONDS)
            assert result == b"%d" % (120 * round_number)
    recovered = SqliteStorage(tmp_path / "n1.sqlite").load()
    assert recovered.snapshot is not None and recovered.first_index > 100
