"""What a swarm makes of the bounds of a core: tiny windows, small snapshots."""

from __future__ import annotations

from dataclasses import replace

from raft.config import RaftConfig
from tests.simulator.swarm import Swarm


def bounds_of(config: RaftConfig, swarm: Swarm) -> RaftConfig:
    """What the swarm makes of the bounds of a core. The core reads them whenever it needs them."""
    if swarm.tiny_windows:
        config = replace(
            config,
            max_append_bytes=200,
            max_append_entries=2,
            max_inflight_messages=2,
            max_inflight_bytes=300,
            max_uncommitted_bytes=2000,
            max_committed_bytes_per_ready=200,
            max_committed_entries_per_ready=3,
            max_waiting_reads=2,
        )
    if swarm.snapshot_interval:
        config = replace(
            config,
            snapshot_interval_entries=swarm.snapshot_interval,
            trailing_entries=swarm.trailing_entries,
            snapshot_chunk_bytes=swarm.chunk_bytes,
            max_inflight_snapshot_chunks=2,
        )
    return config
