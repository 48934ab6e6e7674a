"""What a swarm makes of the bounds of a core and a store: tiny windows, small snapshots, little room."""

from __future__ import annotations

from dataclasses import replace

from kvstore.compactor import Compactor
from kvstore.gateway_actor import GatewayActor
from kvstore.lease_keeper import Household
from kvstore.quota import Quota
from kvstore.state_machine import StoreMachine
from raft.applier_actor import ApplierActor
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


FEW_VERSIONS = 5  # looked at for one page of the history, in runs with tiny windows


def bound_store(machine: StoreMachine, applier: ApplierActor, gateway: GatewayActor, swarm: Swarm) -> None:
    """Before the node has its first turn."""
    if swarm.tiny_windows:
        machine._max_scanned_versions = FEW_VERSIONS
    if swarm.max_sessions:
        machine._sessions._max_sessions = swarm.max_sessions
    if swarm.quota_bytes:
        assert applier._housekeeping is not None
        household = applier._housekeeping._housekeeper
        assert isinstance(household, Household)
        [compactor] = [each for each in household._members if isinstance(each, Compactor)]
        compactor._quota = Quota(swarm.quota_bytes)
        gateway._quota_bytes = swarm.quota_bytes
