"""Clusters with much in them: keys that are written once, puts in large numbers, and what nodes take up."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from bench.harness import say
from bench.processes import ClusterFailed, ProcessCluster
from kvstore.client.load import LoadResult, LoadSettings, run_load
from raft.directory import LOG_NAME
from raft.lull import LULL_SECONDS
from raft.snapshot import DRAFT_NAME

FILL_CONNECTIONS = 4
FILL_IN_FLIGHT = 256
_CHUNK_KEYS = 100_000
_CHUNK_SECONDS = 120.0
# A node begins a snapshot in a lull a second or so after it began to be one.
QUIET_SECONDS = LULL_SECONDS + 2.0
_SETTLE_SECONDS = 300.0
_LOOK_SECONDS = 0.1
_BLOCK_BYTES = 512  # what st_blocks counts in, whatever the file system


def key_of(number: int, keys: int) -> bytes:
    """The key that a load of so many keys gives this number."""
    return b"/bench/k%0*d" % (max(4, len(str(keys - 1))), number)


def fill(endpoints: Sequence[str], keys: int, value_bytes: int) -> None:
    """Write every key once, in order. Raises ClusterFailed unless all puts are acknowledged."""
    result = puts(endpoints, total=keys, keys=keys, value_bytes=value_bytes, in_order=True)
    say(f"{keys:,} keys of {value_bytes} bytes written, {result.ops_per_second:,.0f}/s")


def puts(
    endpoints: Sequence[str],
    *,
    total: int,
    keys: int,
    value_bytes: int,
    in_order: bool = False,
    seed: int = 1,
    connections: int = FILL_CONNECTIONS,
    in_flight: int = FILL_IN_FLIGHT,
) -> LoadResult:
    """So many puts, as fast as they go. Raises ClusterFailed if any was not acknowledged."""
    settings = LoadSettings(
        kind="put",
        endpoints=list(endpoints),
        connections=connections,
        in_flight=in_flight,
        value_bytes=value_bytes,
        total=total,
        keys=keys,
        in_order=in_order,
        seed=seed,
        timeout_seconds=_CHUNK_SECONDS * (1 + total // _CHUNK_KEYS),
    )
    result = run_load(settings)
    if result.errors:
        raise ClusterFailed(f"{result.errors} of {total} puts failed: {result.failures}")
    return result


def settle(cluster: ProcessCluster, quiet_seconds: float | None = None) -> None:
    """Until no node had a snapshot in the making for so long: what was written has no more consequences."""
    quiet_seconds = QUIET_SECONDS if quiet_seconds is None else quiet_seconds
    drafts = [cluster.data_directory(name) / LOG_NAME / DRAFT_NAME for name in cluster.names]
    quiet_since = begun = time.monotonic()
    while (now := time.monotonic()) - quiet_since < quiet_seconds:
        if now - begun > _SETTLE_SECONDS:
            raise ClusterFailed(f"snapshots are still being taken after {_SETTLE_SECONDS} s")
        if any(map(os.path.exists, drafts)):
            quiet_since = now
        time.sleep(_LOOK_SECONDS)


def disk_bytes(directory: Path) -> int:
    """What the files below it take of the disk: preallocated parts too, holes not."""
    total = 0
    for path, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.stat(os.path.join(path, name)).st_blocks * _BLOCK_BYTES
            except FileNotFoundError:
                continue  # a node took it away between the listing and the look
    return total


def resident_bytes(cluster: ProcessCluster) -> list[int]:
    """Of each node, in the order of their names."""
    return [cluster.resident_bytes(name) for name in cluster.names]
