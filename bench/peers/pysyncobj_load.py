"""One of three PySyncObj replicas, which makes puts when it is told to and leads.

Run by `bench.pysyncobj` alone, in an environment that has pysyncobj: nothing is imported here but that and
the standard library. Each line of standard input is "PUTS OUTSTANDING", and each has one line of JSON as its
answer: null of a replica that follows, figures of the one that leads. The end of standard input is the end of
the replica, so none outlives who started it.

By hand: `pysyncobj_load.py 127.0.0.1:25001 127.0.0.1:25002 127.0.0.1:25003`, three times, each its own first.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
from typing import Any

READY_SECONDS = 30.0
LOAD_SECONDS = 120.0
VALUE = "v" * 256
KEYS = [f"/bench/k{number:04d}" for number in range(1_000)]


def wait_until_ready(node: Any) -> None:
    """Until a leader is known; of the leader, until both others are connected."""
    give_up_at = time.monotonic() + READY_SECONDS
    while time.monotonic() < give_up_at:
        is_settled = node.isReady() and node._getLeader() is not None
        if is_settled and (not node._isLeader() or all(map(node.isNodeConnected, node.otherNodes))):
            return
        time.sleep(0.02)
    sys.exit(f"not ready after {READY_SECONDS} s")


def load(store: Any, puts: int, outstanding: int) -> dict[str, float]:
    """So many puts, always as many of them outstanding: with each answer the next one goes."""
    numbers = iter(range(puts))  # both threads draw from it: the one below, and that of the answers
    latencies: list[float] = []
    failures: list[int] = []
    over = threading.Event()

    def put() -> None:
        number = next(numbers, None)
        if number is not None:
            started = time.perf_counter()
            store.set(KEYS[number % len(KEYS)], VALUE, callback=lambda _, why: answered(started, why))

    def answered(started: float, why: int) -> None:
        latencies.append(time.perf_counter() - started)
        if why:
            failures.append(why)
        put()
        if len(latencies) == puts:
            over.set()

    begun = time.perf_counter()
    for _ in range(outstanding):
        put()
    over.wait(LOAD_SECONDS)
    seconds = time.perf_counter() - begun
    times = sorted(latencies) or [0.0]
    p50, p99, p999 = (times[min(len(times) - 1, int(len(times) * share))] for share in (0.5, 0.99, 0.999))
    return {
        "ops_per_second": (len(latencies) - len(failures)) / seconds,
        "p50_ms": 1e3 * p50,
        "p99_ms": 1e3 * p99,
        "p999_ms": 1e3 * p999,
        "errors": len(failures) + puts - len(latencies),
    }


def main(me: str, *others: str) -> None:
    pysyncobj = importlib.import_module("pysyncobj")
    store = importlib.import_module("pysyncobj.batteries").ReplDict()
    node = pysyncobj.SyncObj(me, list(others), consumers=[store])
    for line in sys.stdin:
        puts, outstanding = map(int, line.split())
        wait_until_ready(node)
        print(json.dumps(load(store, puts, outstanding) if node._isLeader() else None), flush=True)
    node.destroy()


if __name__ == "__main__":
    main(*sys.argv[1:])
