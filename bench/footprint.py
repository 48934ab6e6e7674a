"""What a node with 1 000 000 keys of 100 bytes takes, beside etcd with the same: memory, disk, a restart.

`python -m bench.footprint`. A node by itself on each side, in turns, each round on new directories:
- the keys are written, each once: Assent by its load, etcd by transactions of 128 puts by its JSON front;
- memory is the resident set, once nothing is going on any more, and again after the restart;
- restart is from the start after a `kill -9` until a linearizable read of the last key is answered;
- disk is what the files take, first as they were written, then after a compaction at the newest revision,
  and on Assent's side a snapshot behind that, on etcd's a defragmentation: what nobody needs is given up.
etcd takes a snapshot of its log for each 100 000 entries, and keeps those behind it in memory. A transaction
of 128 puts is one entry, so entries that change nothing follow until there was such a snapshot, which single
puts would have brought about.

A ratio is Assent's figure divided by etcd's: at most 0.9 for memory, 2.0 for the restart, and 0.7 for the
disk after a compaction. Exit code 1 if one is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.filling import disk_bytes, fill, key_of, settle
from bench.harness import (
    LATEST,
    Row,
    data_directory,
    end_orderly,
    exit_code,
    keep_bytecode,
    row,
    say,
    write_rows,
)
from bench.machine import machine
from bench.peers.etcd_cluster import EtcdCluster, EtcdFailed, call, encoded, etcd_version, find_etcd
from bench.peers.etcd_load import lengthen_log
from bench.processes import ProcessCluster
from bench.restart import PATIENCE_SECONDS, seconds_until_it_serves
from kvstore.client import Client

KEYS = 1_000_000
VALUE_BYTES = 100
ROUNDS = 3
PUTS_IN_TRANSACTION = 128  # of etcd: more are refused, with its defaults
ETCD_SNAPSHOT_ENTRIES = 100_000  # by default
ETCD_KEPT_ENTRIES = 5_000  # before a snapshot
_VALUES = 64  # that are written in turn, as Assent's load does it
_TRY_SECONDS = 0.25
_POLL_SECONDS = 0.005
_LONG_SECONDS = 300.0  # for a compaction, a defragmentation, a snapshot


@dataclass(slots=True)
class Footprint:
    """Of one node, in one round."""

    memory: int  # bytes, of the process that took the puts
    memory_restarted: int  # and of the one that was started with all of it
    restart_seconds: float
    disk: int  # bytes
    disk_compacted: int

    def __str__(self) -> str:
        memory, restarted, disk, compacted = (
            f"{size / 2**20:,.0f}"
            for size in (self.memory, self.memory_restarted, self.disk, self.disk_compacted)
        )
        return (
            f"memory {memory} MiB ({restarted} after a restart of {self.restart_seconds:.2f} s), "
            f"disk {disk} MiB ({compacted} after a compaction)"
        )


# ---------------------------------------------------------------- Assent


def assent_footprint(directory: Path, keys: int, value_bytes: int) -> Footprint:
    with ProcessCluster(directory / "nodes", 1) as cluster:
        [name] = cluster.names
        fill(cluster.endpoints, keys, value_bytes)
        settle(cluster)
        memory, disk = cluster.resident_bytes(name), disk_bytes(cluster.data_directory(name))
        seconds = seconds_until_it_serves(cluster, name, key_of(keys - 1, keys))
        settle(cluster)
        restarted = cluster.resident_bytes(name)
        compact(cluster)
        return Footprint(memory, restarted, seconds, disk, disk_bytes(cluster.data_directory(name)))


def compact(cluster: ProcessCluster) -> None:
    """The history goes, and then the log behind a snapshot: `assent compact REV --log`."""
    [name] = cluster.names
    status = cluster.wait_for("the node's status", lambda: cluster.status(name))
    with Client(cluster.endpoints, timeout_seconds=_LONG_SECONDS) as client:
        client.compact(status["revision"])
        client.cluster.take_snapshot(cluster.endpoints[0], timeout_seconds=_LONG_SECONDS)
    settle(cluster)


# ---------------------------------------------------------------- etcd


def transactions(keys: int, value_bytes: int) -> Iterator[dict[str, object]]:
    """All keys in order, as its JSON front wants them."""
    source = random.Random(1)
    values = [encoded(source.randbytes(value_bytes)) for _ in range(_VALUES)]
    for first in range(0, keys, PUTS_IN_TRANSACTION):
        numbers = range(first, min(keys, first + PUTS_IN_TRANSACTION))
        puts = [
            {"requestPut": {"key": encoded(key_of(number, keys)), "value": values[number % _VALUES]}}
            for number in numbers
        ]
        yield {"success": puts}


def etcd_footprint(binary: Path, directory: Path, keys: int, value_bytes: int) -> Footprint:
    with EtcdCluster(binary, directory / "etcd", 1) as cluster:
        [name] = cluster.names
        url, path = cluster.urls[name], cluster.data_directory(name)
        begun = time.perf_counter()
        for transaction in transactions(keys, value_bytes):
            call(url, "kv/txn", transaction)
        say(f"{keys:,} keys written to etcd, {keys / (time.perf_counter() - begun):,.0f}/s")
        lengthen_log(ETCD_SNAPSHOT_ENTRIES + 2 * ETCD_KEPT_ENTRIES, url)
        memory, disk = cluster.resident_bytes(name), disk_bytes(path)
        seconds = etcd_seconds_until_it_serves(cluster, name, key_of(keys - 1, keys))
        counted = call(url, "kv/range", {"key": "AA==", "range_end": "AA==", "count_only": True})
        if int(counted["count"]) != keys:
            raise EtcdFailed(f"{counted['count']} keys are there, not {keys}")
        restarted = cluster.resident_bytes(name)
        compaction = {"revision": str(cluster.revision(url)), "physical": True}
        call(url, "kv/compaction", compaction, _LONG_SECONDS)
        call(url, "maintenance/defragment", {}, _LONG_SECONDS)
        return Footprint(memory, restarted, seconds, disk, disk_bytes(path))


def etcd_seconds_until_it_serves(cluster: EtcdCluster, name: str, key: bytes) -> float:
    """Kill the node, start it, and ask it for the key until it is there.

    A node by itself may answer before it has applied the last of its log, and then without the key.
    """
    cluster.kill(name)
    begun = time.perf_counter()
    cluster.start(name)
    while time.perf_counter() - begun < PATIENCE_SECONDS:
        with contextlib.suppress(OSError, ValueError):
            answer = call(cluster.urls[name], "kv/range", {"key": encoded(key)}, _TRY_SECONDS)
            if int(answer.get("count", 0)) == 1:
                return time.perf_counter() - begun
        time.sleep(_POLL_SECONDS)
    raise EtcdFailed(f"etcd does not serve {key!r} after {PATIENCE_SECONDS} s")


# ---------------------------------------------------------------- both


def rows_of(ours: Sequence[Footprint], theirs: Sequence[Footprint], peer: str | None) -> list[Row]:
    """Medians of the rounds; `theirs` is empty where there is no etcd."""
    rows = []
    for name, figure, unit, scale, target in (
        ("memory", "memory", "MiB", 2**20, 0.9),
        ("memory after a restart", "memory_restarted", "MiB", 2**20, 0.9),
        ("restart", "restart_seconds", "s", 1, 2.0),
        ("disk", "disk", "MiB", 2**20, None),
        ("disk after a compaction", "disk_compacted", "MiB", 2**20, 0.7),
    ):
        value, peer_value = (
            median(getattr(each, figure) for each in side) / scale if side else None
            for side in (ours, theirs)
        )
        assert value is not None, "no round was run"
        rows.append(row(f"footprint {name}", value, unit, peer=peer, peer_value=peer_value, target=target))
    return rows


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.footprint")
    parser.add_argument("--keys", type=int, default=KEYS)
    parser.add_argument("--value-size", type=int, default=VALUE_BYTES)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each side; the medians count")
    parser.add_argument("--without-etcd", action="store_true", help="Assent alone")
    parser.add_argument(
        "--directory", type=Path, help="where the nodes' data go while it runs (default: temporary)"
    )
    parser.add_argument("--output", type=Path, default=LATEST, help="rows as JSON")
    chosen = parser.parse_args(arguments)
    end_orderly()
    keep_bytecode()
    binary = None if chosen.without_etcd else find_etcd()
    if binary is None and not chosen.without_etcd:
        say("etcd was not found, so there is nothing beside Assent: see bench/README.md")
    ours: list[Footprint] = []
    theirs: list[Footprint] = []
    with data_directory(chosen.directory) as directory:
        facts = machine(directory)
        for number in range(1, chosen.rounds + 1):
            with data_directory(directory) as data:
                ours.append(assent_footprint(data, chosen.keys, chosen.value_size))
            say(f"round {number}/{chosen.rounds} Assent: {ours[-1]}")
            if binary is not None:
                with data_directory(directory) as data:
                    theirs.append(etcd_footprint(binary, data, chosen.keys, chosen.value_size))
                say(f"round {number}/{chosen.rounds} etcd: {theirs[-1]}")
    rows = rows_of(ours, theirs, etcd_version(binary) if binary else None)
    write_rows(rows, chosen.output)
    print(f"{facts}\n{chosen.keys:,} keys of {chosen.value_size} bytes, medians of {chosen.rounds} rounds")
    for each in rows:
        peer = f"{each.peer_value:,.2f}" if each.peer_value is not None else "-"
        ratio = f"{each.ratio:.2f}" if each.ratio is not None else "-"
        print(f"{each.name:32} {each.value:10,.2f} {peer:>10} {each.unit:4} {ratio:>6}  {each.goal}".rstrip())
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
