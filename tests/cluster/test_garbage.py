"""Garbage to every socket while a load runs: no exit, no growth of memory, no wrong answer."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.processes import ProcessCluster
from kvstore.client import Client
from kvstore.client.load import LoadResult, LoadSettings, run_load
from raft.messages import (
    AppendRejected,
    HeartbeatResponse,
    PreVoteResponse,
    ReadIndexRefused,
    ReadIndexResponse,
)
from tests.cluster.forgery import Forger
from tests.cluster.garbage import Thrower

# `make garbage` throws for a minute.
SECONDS = float(os.environ.get("ASSENT_GARBAGE_SECONDS", "6"))
WARM_UP_SECONDS = 2.0
# A machine that is busy with the load and with 100 MiB frames shall not be taken for a dead leader: here an
# election is to have no cause but garbage.
PATIENT = ["--election-timeout-ms", "1333"]
# Reads leave nothing behind: what a node grows by is the garbage's, but for the allocators' own unrest.
MAX_GROWTH_BYTES = 48 << 20
# A client that asks the first node and never reads: all of its answers are twice what that node may grow by.
# What it keeps for one connection is far less, but glibc holds on to the room of answers that are long gone
# as long as one that waits lies above them: about 100 MiB here.
LARGE_VALUES, LARGE_VALUE_BYTES = 2, 1 << 20
LARGE_RANGES = 200
MAX_ASKED_GROWTH_BYTES = LARGE_RANGES * LARGE_VALUES * LARGE_VALUE_BYTES // 2
ANSWER_SECONDS = 20.0
# What the nodes must answer to the forged messages that are well-formed, if those are let in.
ANSWERS = {AppendRejected, HeartbeatResponse, PreVoteResponse, ReadIndexResponse, ReadIndexRefused}
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
    # A member that never starts leaves a name to be forged; three of four are a quorum.
    with ProcessCluster(tmp_path, absent=1, arguments=PATIENT) as cluster:
        status = cluster.status(cluster.wait_for_leader())
        assert status is not None
        with Client(cluster.endpoints) as client:
            for number in range(LARGE_VALUES):
                client.put(b"/large/%d" % number, bytes(LARGE_VALUE_BYTES))
        load(cluster, "get", BATCH)
        pids = {name: cluster.pid(name) for name in cluster.names}
        terms = cluster.terms()
        peers = [cluster.peer_endpoints[name] for name in cluster.names]
        watches = list(cluster.watch_endpoints.values())
        thrower = Thrower(cluster.endpoints, peers, watches, int(status["cluster_id"], 16))
        [absent] = cluster.absent
        forger = Forger(absent, cluster.peer_endpoints, int(status["cluster_id"], 16), status["term"])
        loader = Loader(cluster)
        loader.start()
        try:
            throw_for(WARM_UP_SECONDS, thrower.throw, forger.throw)
            before = {name: cluster.resident_bytes(name) for name in cluster.names}
            thrower.throw_giants()
            for _ in range(LARGE_RANGES):
                thrower.ask_and_never_read(b"/large/", b"/large0")
                throw_for(0.0, thrower.throw, forger.throw)
            throw_for(SECONDS, thrower.throw, forger.throw)
            after = {name: cluster.resident_bytes(name) for name in cluster.names}
            deadline = time.monotonic() + ANSWER_SECONDS
            while not set(forger.heard) >= ANSWERS and time.monotonic() < deadline:
                throw_for(0.1, forger.throw)
        finally:
            loader.stopping = True
            thrower.close()
            forger.close()
            loader.join(60)
        assert {name: cluster.pid(name) for name in cluster.names if cluster.is_running(name)} == pids
        assert thrower.thrown > 100 and forger.thrown > 100
        assert loader.results and not loader.is_alive()
        assert [result.failures for result in loader.results if result.errors] == []
        growth = {name: after[name] - before[name] for name in cluster.names}
        assert growth.pop(cluster.names[0]) < MAX_ASKED_GROWTH_BYTES
        assert max(growth.values()) < MAX_GROWTH_BYTES, growth
        with Client(cluster.endpoints) as client:
            assert client.put("/after", "garbage").revision > 1
        check_forgery(cluster, forger, terms)


def check_forgery(cluster: ProcessCluster, forger: Forger, terms: dict[str, int]) -> None:
    """What was forged got in, right or wrong as it was, and moved nobody."""
    assert set(forger.heard) >= ANSWERS, forger.heard
    for name in cluster.names:
        assert "event=peer_malformed_frame" in cluster.log(name).read_text(), name
    assert forger.votes == 0
    assert cluster.terms() == terms and len(terms) == len(cluster.names)


def throw_for(seconds: float, *throws: Callable[[], None]) -> None:
    """At least once."""
    deadline = time.monotonic() + seconds
    while True:
        for throw in throws:
            throw()
        time.sleep(0.002)  # the load shall have its turns
        if time.monotonic() >= deadline:
            return
