"""Real processes: compacted logs, a node that comes back too late for them, and kill -9 meanwhile."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

from bench.processes import ProcessCluster
from kvstore.client import Client

INTERVAL = 200
LARGE_BYTES = 9_000_000
KILLS = int(os.environ.get("ASSENT_KILLS", "8"))
ARGUMENTS = ["--snapshot-interval-entries", str(INTERVAL), "--trailing-entries", "20"]


def load(client: Client, count: int, size: int = 200) -> None:
    for start in range(0, count, 100):
        for number in range(start, start + 100):
            client.put(f"/load/{number % 300}", f"{number:06d}" * (size // 6))


def test_a_node_that_was_away_catches_up_by_snapshot_under_load_without_an_election(tmp_path: Path) -> None:
    """It missed more than twice the interval, and the leader has compacted what it needs."""
    with (
        ProcessCluster(tmp_path, arguments=ARGUMENTS) as cluster,
        Client(cluster.endpoints, timeout_seconds=10) as client,
    ):
        leader = cluster.wait_for_leader()
        load(client, 100)
        away = next(name for name in cluster.names if name != leader)
        cluster.kill(away)
        load(client, 3 * INTERVAL)
        before = cluster.status(leader)
        assert before is not None
        cluster.start(away)
        load(client, 2 * INTERVAL)
        cluster.wait_until_caught_up(away)
        after = cluster.status(leader)
        assert after is not None
        assert (after["role"], after["term"]) == ("leader", before["term"])
        status = cluster.status(away)
        assert status is not None
        assert status["log_first_index"] > 2 * INTERVAL, status  # it came by snapshot
        with Client([cluster.client_endpoints[away]], timeout_seconds=10) as reader:
            assert reader.prefix("/load/", consistency="local").count == 300
        for name in cluster.names:
            cluster.kill(name)
        for name in cluster.names:
            cluster.start(name)
        cluster.wait_for_leader()
        assert client.prefix("/load/").count == 300


def bytes_received(draft: Path) -> int:
    """Of the snapshot that a node is being sent."""
    try:
        return draft.stat().st_size
    except FileNotFoundError:
        return 0


def kill_while_it_receives(cluster: ProcessCluster, name: str, share: float) -> bool:
    """Once it has about this share of a snapshot; False if it came to its end before."""
    wal = cluster.data_directory(name) / "wal"
    cluster.start(name)
    deadline = time.monotonic() + 20.0
    while bytes_received(wal / "snapshot.tmp") < share * LARGE_BYTES and not any(wal.glob("snapshot-*")):
        assert time.monotonic() < deadline, "no snapshot came"
        time.sleep(0.001)
    cluster.kill(name)
    return (wal / "snapshot.tmp").exists()


def test_e6_a_receiver_is_killed_many_times_while_it_installs(tmp_path: Path) -> None:
    """At any chunk. Wherever the kill strikes, the next start is sound."""
    chance = Random(1)
    with (
        ProcessCluster(tmp_path, arguments=ARGUMENTS) as cluster,
        Client(cluster.endpoints, timeout_seconds=10) as client,
    ):
        leader = cluster.wait_for_leader()
        away = next(name for name in cluster.names if name != leader)
        cluster.kill(away)
        for number in range(300):
            client.put(f"/large/{number}", "x" * (LARGE_BYTES // 300))
        load(client, 2 * INTERVAL)
        # The newest snapshot has two thirds of them.
        struck = [kill_while_it_receives(cluster, away, 0.02 + 0.5 * chance.random()) for _ in range(KILLS)]
        assert struck.count(True) >= KILLS // 2, struck
        load(client, 100)
        cluster.start(away)
        cluster.wait_until_caught_up(away)
        with Client([cluster.client_endpoints[away]], timeout_seconds=10) as reader:
            found = reader.prefix("/large/", consistency="local")
            assert found.count == 300
