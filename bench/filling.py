"""Clusters with much in them: keys that are written once, puts in large numbers, and what nodes take up."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bench.harness import say
from bench.processes import ClusterFailed, ProcessCluster
from kvstore.client.load import LoadResult, LoadSettings, run_load

FILL_CONNECTIONS = 4
FILL_IN_FLIGHT = 256
_CHUNK_KEYS = 100_000
_CHUNK_SECONDS = 120.0
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
