"""A watcher that stops reading costs a real node no more than its bound, whatever is published meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from actors.transport import TransportLimits
from bench.processes import ROOT, ProcessCluster
from kvstore.client import BlockingWatch, Client
from kvstore.protocol import MAX_PUBLISHED_BYTES

MIB = 1 << 20
KEY = "/watched/by/many"  # each of its prefixes is watched: each put is published as often
VALUE = bytes(60_000)
PUTS = 320
AT_ONCE = 8
LAST = "the end"
PUBLISHED_BYTES = PUTS * len(KEY) * len(VALUE)
QUEUE_BYTES = TransportLimits().publisher_frames * MAX_PUBLISHED_BYTES
# Each put stays as a version in the store and as an entry in the log; the rest is what processes breathe.
BOUND_BYTES = QUEUE_BYTES + 2 * PUTS * len(VALUE) + 32 * MIB
WAIT_SECONDS = 30.0


class Stopped:
    """A process of its own with a watch of each prefix. Owned by the test."""

    def __init__(self, endpoint: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.stopped_watcher", endpoint, KEY, LAST],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "watching\n"

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> list[list[int]]:
        """The revisions that each of its watches was told of, in order."""
        self._process.send_signal(signal.SIGCONT)
        told, _ = self._process.communicate(timeout=WAIT_SECONDS)
        revisions: list[list[int]] = json.loads(told)
        return revisions

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def stopped_watcher(endpoint: str) -> Iterator[Stopped]:
    watcher = Stopped(endpoint)
    try:
        yield watcher
    finally:
        watcher.end()


def follow(watch: BlockingWatch) -> list[int]:
    revisions: list[int] = []
    while True:
        batch = watch.next(WAIT_SECONDS)
        assert batch is not None, f"nothing more after {len(revisions)} revisions"
        revisions.append(batch.revision)
        if batch.events[-1].value == LAST.encode():
            return revisions


def test_h4_a_watcher_that_is_stopped_costs_its_bound_and_misses_nothing(tmp_path: Path) -> None:
    """Its queue would take 290 MiB without a bound; 64 MiB is what may wait for it."""
    with ProcessCluster(tmp_path, size=1) as cluster, ThreadPoolExecutor(AT_ONCE + 2) as threads:
        [name] = cluster.names
        with (
            Client(cluster.endpoints, timeout_seconds=WAIT_SECONDS) as client,
            Client(cluster.endpoints, timeout_seconds=WAIT_SECONDS) as reader,
            Client(cluster.endpoints, timeout_seconds=WAIT_SECONDS) as other_reader,
            stopped_watcher(cluster.client_endpoints[name]) as stopped,
        ):
            live = [reader.watch(KEY[:1], prefix=True), other_reader.watch(KEY)]
            following = [threads.submit(follow, watch) for watch in live]

            def put(_: int) -> int:
                return client.put(KEY, VALUE).revision

            written = [put(number) for number in range(AT_ONCE)]
            before = cluster.resident_bytes(name)
            stopped.stop()
            most = 0
            for _ in range(PUTS // AT_ONCE):
                written += threads.map(put, range(AT_ONCE))
                most = max(most, cluster.resident_bytes(name) - before)
            written.append(client.put(KEY, LAST).revision)
            for followed in following:
                assert followed.result(WAIT_SECONDS) == sorted(written), "who reads gets everything"
            most = max(most, cluster.resident_bytes(name) - before)
            print(f"{PUBLISHED_BYTES / MIB:.0f} MiB published, the node grew by {most / MIB:.0f} MiB")
            assert PUBLISHED_BYTES > BOUND_BYTES + 100 * MIB, "a queue without a bound must show"
            assert most < BOUND_BYTES, f"{most / MIB:.0f} MiB"
            assert stopped.go_on() == [sorted(written)] * len(KEY), "it goes on where it was, without loss"
