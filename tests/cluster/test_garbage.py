"""Garbage to every socket while a load runs: no exit, no growth of memory, no wrong answer."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from bench.processes import ProcessCluster
from kvstore.client import Client
from kvstore.client.load import LoadResult, LoadSettings, run_load
from tests.cluster.garbage import Thrower

# `make garbage` throws for a minute.
SECONDS = float(os.environ.get("ASSENT_GARBAGE_SECONDS", "6"))
WARM_UP_SECONDS = 2.0
# Reads leave nothing behind: what a node grows by is the garbage's, but for the allocators' own unrest.
MAX_GROWTH_BYTES = 48 << 20
BATCH = 4_000
KEYS = 200


def load(cluster: ProcessCluster, kind: str, total: int) -> LoadResult:
    settings = LoadSettings(
        kind=kind,  # type: ignore[arg-type]
        endpoints=cluster.endpoints,
        connections=4,
        in_flight=8,
        total=total,
        keys=KEYS,
        timeout_seconds=60,
    )
    return run_load(settings)


class Loader(threading.Thread):
    """Reads without end, each answer checked by the load generator, with a few writes between."""

    def __init__(self, cluster: ProcessCluster) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self.stopping = False
        self.results: list[LoadResult] = []

    def run(self) -> None:
        while not self.stopping:
            self.results.append(load(self._cluster, "get", BATCH))
            self.results.append(load(self._cluster, "put", 100))


def test_garbage_ends_no_node_grows_no_memory_and_falsifies_no_answer(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path) as cluster:
        status = cluster.status("n1")
        assert status is not None
        load(cluster, "get", BATCH)
        pids = {name: cluster.pid(name) for name in cluster.names}
        thrower = Thrower(
            list(cluster.client_endpoints.values()),
            list(cluster.peer_endpoints.values()),
            list(cluster.watch_endpoints.values()),
            int(status["cluster_id"], 16),
        )
        loader = Loader(cluster)
        loader.start()
        try:
            throw_for(thrower, WARM_UP_SECONDS)
            before = {name: cluster.resident_bytes(name) for name in cluster.names}
            throw_for(thrower, SECONDS)
            after = {name: cluster.resident_bytes(name) for name in cluster.names}
        finally:
            loader.stopping = True
            thrower.close()
            loader.join(60)
        assert {name: cluster.pid(name) for name in cluster.names if cluster.is_running(name)} == pids
        assert thrower.thrown > 100
        assert loader.results and not loader.is_alive()
        assert [result.failures for result in loader.results if result.errors] == []
        growth = {name: after[name] - before[name] for name in cluster.names}
        assert max(growth.values()) < MAX_GROWTH_BYTES, growth
        with Client(cluster.endpoints) as client:
            assert client.put("/after", "garbage").revision > 1


def throw_for(thrower: Thrower, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        thrower.throw()
        time.sleep(0.002)  # the load shall have its turns
