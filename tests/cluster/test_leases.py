"""Real processes: a lease outlives the leader that granted it, and ends by itself, neither early nor late."""

from __future__ import annotations

import time
from pathlib import Path

from bench.processes import ProcessCluster
from kvstore.client import Client

TTL_SECONDS = 4
# A tenth of a second, and what a machine may take that does other things, too.
LATE_SECONDS = 2.0


def ends_at(client: Client, key: str, deadline: float) -> float:
    """When it was told first that it is not there."""
    while time.monotonic() < deadline:
        if client.get(key) is None:
            return time.monotonic()
        time.sleep(0.02)
    raise AssertionError(f"{key} is still there")


def test_g9_a_lease_ends_in_time_though_its_leader_was_killed(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path) as cluster:
        leader = cluster.wait_for_leader()
        with Client(cluster.endpoints, timeout_seconds=10) as client, client.lease(TTL_SECONDS) as kept:
            client.put("/kept", "1", lease=kept)
            granted = client.grant_lease(TTL_SECONDS)
            client.put("/left", "1", lease=granted.id)
            sent_at = time.monotonic()
            assert client.keep_alive(granted.id).ttls == [TTL_SECONDS]
            time.sleep(0.5)
            cluster.kill(leader)
            deadline = sent_at + TTL_SECONDS + LATE_SECONDS
            gone_at = ends_at(client, "/left", deadline)
            assert gone_at - sent_at >= TTL_SECONDS, "it ended early"
            assert client.get("/kept") is not None and not kept.lost.is_set()
            assert client.leases().ids == [kept.id]
        with Client(cluster.endpoints, timeout_seconds=10) as client:
            assert client.get("/kept") is None
