"""A node with much in it is killed and started again: seconds until it serves, and the memory of a key.

`python -m bench.restart --keys 1000000`. One node, so nothing comes from anywhere but its own disk. It serves
when it answers a linearizable read of the last key that was written. Memory of a key is that of the process
with all keys, less that of an empty one, divided by the keys. Then the same directory is opened step by step
in a process of its own, to see what the time goes into. Exit code 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import msgpack

from bench.filling import fill, key_of
from bench.harness import Row, data_directory, end_orderly, exit_code, keep_bytecode, row, say, write_rows
from bench.machine import machine
from bench.processes import ROOT, ClusterFailed, ProcessCluster
from kvstore.client import Client
from kvstore.errors import AssentError
from kvstore.state_machine import StoreMachine
from kvstore.watch_plane import WatchPlane
from raft.directory import DataDirectory, read_founding
from raft.entries import EntryKind
from raft.storage import snapshot_content

KEYS = 1_000_000
VALUE_BYTES = 100
RESTARTS = 3
LIMIT_SECONDS = 10.0
LIMIT_BYTES_PER_KEY = 700.0
PATIENCE_SECONDS = 120.0
_TRY_SECONDS = 0.25
_BATCH_ENTRIES = 4096


def seconds_until_it_serves(cluster: ProcessCluster, name: str, key: bytes) -> float:
    """Kill the node, start it, and ask it for the key until it answers."""
    cluster.kill(name)
    begun = time.perf_counter()
    cluster.start(name)
    with Client([cluster.client_endpoints[name]], timeout_seconds=_TRY_SECONDS) as client:
        while time.perf_counter() - begun < PATIENCE_SECONDS:
            try:
                if client.get(key) is None:
                    raise ClusterFailed(f"{key!r} is lost")
                return time.perf_counter() - begun
            except AssentError:
                if not cluster.is_running(name):
                    raise ClusterFailed(f"{name} ended by itself: {cluster.log_tail(name)}") from None
    raise ClusterFailed(f"{name} does not serve after {PATIENCE_SECONDS} s")


def look(path: Path, name: str) -> dict[str, float]:
    """Seconds of each step of a recovery from this directory, which no process may have open, and sizes."""
    founding = read_founding(path)
    assert founding is not None, f"{path} is no data directory"
    data = DataDirectory(path, founding.cluster_id, name)
    clock = time.perf_counter
    begun = clock()
    storage = data.open_log()
    recovered = storage.load()
    loaded = clock()
    content = [] if recovered.snapshot is None else list(snapshot_content(storage, recovered.snapshot))
    read = clock()
    unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=1 << 30)
    for piece in content:
        unpacker.feed(piece)
        for _ in unpacker:
            pass
    decoded = clock()
    machine = StoreMachine(WatchPlane(1))
    if content:
        restorer = machine.restorer()
        for piece in content:
            restorer.feed(piece)
        restorer.finish()
    restored = clock()
    # All that is there: whether it is committed, a node knows only after its election.
    entries = recovered.entries[machine.applied_index + 1 - recovered.first_index :]
    for start in range(0, len(entries), _BATCH_ENTRIES):
        bodies = [
            body if kind == EntryKind.COMMAND else None
            for _, kind, body in entries[start : start + _BATCH_ENTRIES]
        ]
        machine.apply(machine.applied_index + 1, bodies)
    applied = clock()
    storage.close()
    data.close()
    return {
        "open and check log and snapshot": loaded - begun,
        "read the snapshot": read - loaded,
        "decode it": decoded - read,
        "build the state": max(0.0, restored - decoded - (decoded - read)),
        "apply the log": applied - restored,
        "snapshot_mib": sum(map(len, content)) / 2**20,
        "entries": len(entries),
    }


def look_from_outside(path: Path, name: str) -> dict[str, float]:
    """The same in a process of its own: this one has run a client, and its memory is used."""
    command = [sys.executable, "-m", "bench.restart", "--look", str(path), "--name", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def rows_of(seconds: Sequence[float], empty_bytes: int, full_bytes: Sequence[int], keys: int) -> list[Row]:
    """`full_bytes`: of the node that took the keys as puts, and of the one that was started with them."""
    as_put, as_restored = ((size - empty_bytes) / keys for size in full_bytes)
    return [
        row("restart", median(seconds), "s", limit=LIMIT_SECONDS),
        row("memory of a key that was put", as_put, "bytes", limit=LIMIT_BYTES_PER_KEY),
        row("memory of a key after a restart", as_restored, "bytes", limit=LIMIT_BYTES_PER_KEY),
    ]


def told(steps: Mapping[str, float]) -> str:
    """The steps, the longest first."""
    seconds = {name: value for name, value in steps.items() if name not in ("snapshot_mib", "entries")}
    lines = [
        f"  {value:6.2f} s  {name}" for name, value in sorted(seconds.items(), key=lambda item: -item[1])
    ]
    size = f"{steps['snapshot_mib']:.0f} MiB of snapshot, {steps['entries']:,.0f} entries of log after it"
    return "\n".join([f"what the time goes into ({size}):", *lines])


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.restart")
    parser.add_argument("--keys", type=int, default=KEYS)
    parser.add_argument("--value-size", type=int, default=VALUE_BYTES)
    parser.add_argument("--restarts", type=int, default=RESTARTS)
    parser.add_argument(
        "--directory", type=Path, help="where the node's data go while it runs (default: temporary)"
    )
    parser.add_argument("--look", type=Path, help="only take the steps apart, of this data directory")
    parser.add_argument("--name", default="n1", help="of the node that --look is about")
    chosen = parser.parse_args(arguments)
    if chosen.look is not None:
        gc.disable()  # as a node does while it starts
        print(json.dumps(look(chosen.look, chosen.name)))
        return 0
    end_orderly()
    keep_bytecode()
    with data_directory(chosen.directory) as directory, ProcessCluster(directory / "nodes", 1) as cluster:
        facts = machine(directory)
        [name] = cluster.names
        empty_bytes = cluster.resident_bytes(name)
        fill(cluster.endpoints, chosen.keys, chosen.value_size)
        full_bytes = [cluster.resident_bytes(name)]
        last = key_of(chosen.keys - 1, chosen.keys)
        seconds = []
        for number in range(chosen.restarts):
            seconds.append(seconds_until_it_serves(cluster, name, last))
            say(f"restart {number + 1}/{chosen.restarts}: {seconds[-1]:.2f} s")
        full_bytes.append(cluster.resident_bytes(name))
        cluster.kill(name)
        steps = look_from_outside(cluster.data_directory(name), name)
    rows = rows_of(seconds, empty_bytes, full_bytes, chosen.keys)
    write_rows(rows)
    print(f"{facts}\n{chosen.keys:,} keys of {chosen.value_size} bytes, {len(seconds)} restarts")
    for each in rows:
        print(f"{each.name:32} {each.value:10.2f} {each.unit:6} {each.goal}")
    print(told(steps))
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
