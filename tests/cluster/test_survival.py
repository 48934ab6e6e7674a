"""Real processes: any node serves, and nothing that was acknowledged is lost to kill -9."""

from __future__ import annotations

import time
from pathlib import Path

from bench.processes import ProcessCluster
from kvstore.client import Client


def test_put_get_and_watch_work_on_each_node(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path) as cluster:
        for name, endpoint in cluster.client_endpoints.items():
            with Client([endpoint], timeout_seconds=10) as client:
                watch = client.watch("/app/", prefix=True)
                key = f"/app/{name}"
                put = client.put(key, name)
                batch = next(iter(watch))
                assert [(event.key, event.value) for event in batch.events] == [(key.encode(), name.encode())]
                assert batch.revision == put.revision
                found = client.get(key)
                assert found is not None and found.value == name.encode()
                watch.cancel()
        with Client(cluster.endpoints) as client:
            assert client.prefix("/app/").count == 3


def test_all_nodes_killed_and_started_again_have_every_acknowledged_put(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path) as cluster:
        for life in range(3):
            with Client(cluster.endpoints, timeout_seconds=10) as client:
                for number in range(100):
                    client.put(f"/life/{life}/{number}", str(number))
            for name in cluster.names:
                cluster.kill(name)
            for name in cluster.names:
                cluster.start(name)
            cluster.wait_for_leader()
            with Client(cluster.endpoints, timeout_seconds=10) as client:
                for earlier in range(life + 1):
                    found = client.prefix(f"/life/{earlier}/")
                    values = {int(item.key.rpartition(b"/")[2]): int(item.value) for item in found.items}
                    assert values == {number: number for number in range(100)}, f"life {earlier} after {life}"


def test_writes_go_on_after_the_leader_is_killed_and_it_catches_up_when_it_is_back(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path) as cluster, Client(cluster.endpoints, timeout_seconds=10) as client:
        for round_number in range(3):
            leader = cluster.wait_for_leader()
            client.put("/counter", str(round_number))
            cluster.kill(leader)
            killed_at = time.monotonic()
            client.put(f"/after/{round_number}", leader)
            assert time.monotonic() - killed_at < 5
            cluster.restart(leader)
            cluster.wait_until_caught_up(leader)
        found = client.get("/counter")
        assert found is not None and (found.value, found.version) == (b"2", 3)
        assert client.prefix("/after/").count == 3


def test_a_minority_answers_no_linearizable_read_and_takes_no_write(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path) as cluster:
        with Client(cluster.endpoints) as client:
            client.put("/key", "1")
        leader = cluster.wait_for_leader()
        for name in cluster.names:
            if name != leader:
                cluster.kill(name)
        with Client([cluster.client_endpoints[leader]], timeout_seconds=1.5) as client:
            local = client.get("/key", consistency="local")
            assert local is not None and local.value == b"1"
            for attempt in (lambda: client.get("/key"), lambda: client.put("/key", "2")):
                started = time.monotonic()
                try:
                    attempt()
                except Exception as error:
                    assert time.monotonic() - started < 4, error
                else:
                    raise AssertionError("a single node of three went on as if it were a quorum")
