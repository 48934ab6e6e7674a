"""One node: the only file where everything meets.

Reads downwards: the directory is locked, the log recovered, the core made from it, the four actors added in
the order of the ring, the sockets opened, the loop run. Whatever goes wrong from then on ends the process.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import secrets
import signal
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

import psutil

from actors import (
    Clock,
    Codec,
    System,
    SystemClock,
    Transport,
    TransportLimits,
    ZeroMqTransport,
    library_version,
)
from kvstore import logs, protocol
from kvstore.applier import StoreApplier
from kvstore.compactor import Compactor
from kvstore.founding import Origin, open_directory, origin_of
from kvstore.gateway_actor import CLIENT_PORT, GatewayActor
from kvstore.lease_keeper import Household, LeaseKeeper
from kvstore.neighbours import Announce, StorageRefused
from kvstore.settings import NodeSettings
from kvstore.space_gate import SpaceNotice
from kvstore.state_machine import StoreMachine
from kvstore.unusable import Judged
from kvstore.watch_plane import MAX_INCARNATION, WatchPlane
from raft import Configuration, Core
from raft.applier_actor import WATCH_PORT
from raft.config import MEBIBYTE
from raft.directory import LOG_NAME
from raft.election_actor import ElectionActor
from raft.fence import Fence, MemoryFence, restored_unless_fenced, withdraw_behind
from raft.replication_actor import ReplicationActor
from raft.snapshot import snapshot_name
from raft.storage import Recovered, Storage
from raft.wire import FIRST_FREE_TAG, register_messages

log = logging.getLogger("assent.node")

# Peers' and clients' frames, the watch plane's topics: no larger than the protocol says.
LIMITS = TransportLimits(client_frame_bytes=protocol.MAX_FRAME_BYTES, topic_bytes=protocol.MAX_TOPIC_BYTES)
# A collection looks at every object that may be part of a cycle; what a command leaves behind never is. So
# the young generation may grow larger than Python's default before anybody looks.
YOUNG_OBJECTS = 50_000


def run_node(settings: NodeSettings) -> None:
    """Run the node that `settings` describe until SIGTERM or SIGINT; returns after a clean stop.

    Raises StorageError if the data directory cannot be used, EndpointUnusable if a port cannot be bound, and
    whatever ends an actor.
    """
    logs.configure(settings.name, settings.log_level, settings.log_format)
    stopping = _Stopping(settings.election_timeout_ms / 1000)
    directory = open_directory(settings, lambda: stopping.is_asked)
    if directory is None:
        log.info("stopped")
        return
    with closing(directory):
        # What is read from the disk now, millions of objects in a large state, stays and is part of no cycle:
        # collections would look at all of it again and again while it grows.
        gc.disable()
        system = build_system(
            settings,
            directory.open_log(),
            fence=directory.fence(),
            transport=ZeroMqTransport(LIMITS),
            clock=SystemClock(),
            rng=random.Random(secrets.randbits(64)),
            origin=origin_of(directory, settings),
        )
        stopping.watch_over(system)
        log.info(
            "started pid=%d client=%s watch=%s peer=%s",
            os.getpid(),
            *map(system.endpoint, ("client", "watch", "peer")),
        )
        if settings.insecure:
            log.warning("insecure=true anybody who reaches these addresses can read and write everything")
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS, 20, 100)
        gc.enable()
        system.run()
        log.info("stopped")


class _Stopping:
    """SIGTERM and SIGINT: the first asks, and a leader may take an election timeout to hand over; the second
    does not wait. Owned by run_node."""

    def __init__(self, grace_seconds: float) -> None:
        self.is_asked = False
        self._grace_seconds = grace_seconds
        self._system: System | None = None
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signal_number, self._on_signal)

    def watch_over(self, system: System) -> None:
        self._system = system
        if self.is_asked:
            system.stop()

    def _on_signal(self, *_: object) -> None:
        grace_seconds = 0.0 if self.is_asked else self._grace_seconds
        self.is_asked = True
        if self._system is not None:
            self._system.stop(grace_seconds)


def build_system(
    settings: NodeSettings,
    storage: Storage,
    *,
    transport: Transport,
    clock: Clock,
    rng: random.Random,
    origin: Origin | None = None,
    fence: Fence | None = None,
) -> System:
    """The actors and ports of one node, ready to run.

    What a node knows of the world comes in here: its disk, its network, its clock and its luck. So a
    simulator gives it others, and the actors run unchanged. Without an `origin` it is that of the settings;
    without a `fence`, one that no restart remembers.
    """
    if origin is None:
        origin = Origin(settings.cluster_id, 0, settings.cluster)
    codec = Codec()
    register_messages(codec)
    for tag, message in enumerate((Announce, StorageRefused, SpaceNotice), FIRST_FREE_TAG):
        codec.register(tag, message, remote=True)
    system = System(
        settings.name,
        transport,
        clock,
        codec,
        cluster_id=origin.cluster_id,
        incarnation=rng.getrandbits(63),
        storage_id=origin.storage_id,
        # A node whose membership is news to this one must be heard all the same (dissertation 4.1).
        welcomes_strangers=True,
    )

    # The ring: gateway, replication, applier, and back. Election comes last in every turn.
    gateway = _make_gateway(settings, origin, transport)
    recovered = storage.load()
    fence = fence if fence is not None else MemoryFence()
    replication = _make_replication(settings, origin, storage, recovered, rng, fence)
    applier = _make_applier(settings, storage, recovered, rng, fence)
    election = _make_election(settings, rng)
    for actor in (gateway, replication, applier, election):
        system.add(actor)

    system.open_peer_port(settings.peer)
    system.open_client_port(gateway, CLIENT_PORT, settings.client)
    system.open_publisher(applier, WATCH_PORT, settings.watch)
    return system


def _make_gateway(settings: NodeSettings, origin: Origin, transport: Transport) -> GatewayActor:
    process = process_vitals()

    def vitals() -> dict[str, object]:
        return {**process(), "watchers": transport.connections(WATCH_PORT)}

    return GatewayActor(
        announce=Announce(
            settings.advertised_client, settings.advertised_watch, settings.peer, origin.cluster_id
        ),
        storage_id=origin.storage_id,
        about={
            "cluster_id": f"{origin.cluster_id:016x}",
            "version": package_version(),
            "libzmq": library_version(),
            "insecure": settings.insecure,
        },
        quota_bytes=settings.quota_mib * MEBIBYTE,
        vitals=vitals,
    )


def _make_replication(
    settings: NodeSettings,
    origin: Origin,
    storage: Storage,
    recovered: Recovered,
    rng: random.Random,
    fence: Fence,
) -> ReplicationActor:
    log.info(
        "recovered term=%d last_index=%d commit_index=%d",
        recovered.hard_state.term,
        recovered.last_index,
        recovered.hard_state.commit_index,
    )
    config = replace(settings.raft_config, incarnation=rng.getrandbits(31))
    members = origin.members or {}
    founding = Configuration(members, addresses=members)
    core = Core(settings.name, founding, recovered, config)
    withdraw_behind(fence, core)
    return ReplicationActor(core, storage, disk_reserve_bytes=settings.disk_reserve_mib * MEBIBYTE)


def _make_applier(
    settings: NodeSettings, storage: Storage, recovered: Recovered, rng: random.Random, fence: Fence
) -> StoreApplier:
    machine = StoreMachine(WatchPlane(rng.randint(1, MAX_INCARNATION)))
    applied_index = _restore(settings, machine, storage, recovered, fence)
    compactor = Compactor(settings.history_policy, machine.kept_history)
    household = Household(LeaseKeeper(machine.leases_seen), compactor)
    return StoreApplier(
        machine,
        snapshots=settings.data_dir / LOG_NAME,
        housekeeper=household,
        applied_index=applied_index,
        fence=fence,
        heartbeat_interval_seconds=settings.heartbeat_interval_ms / 1000,
    )


def _restore(
    settings: NodeSettings, machine: StoreMachine, storage: Storage, recovered: Recovered, fence: Fence
) -> int:
    """Up to which index the machine has applied. A snapshot that it cannot take is said to be which one."""
    snapshot = recovered.snapshot
    if snapshot is None:
        return restored_unless_fenced(fence, machine, storage, recovered)
    file = settings.data_dir / LOG_NAME / snapshot_name(snapshot.index, snapshot.term)
    return restored_unless_fenced(fence, Judged(machine, file, snapshot.index), storage, recovered)


def _make_election(settings: NodeSettings, rng: random.Random) -> ElectionActor:
    return ElectionActor(
        election_timeout_seconds=settings.election_timeout_ms / 1000,
        heartbeat_interval_seconds=settings.heartbeat_interval_ms / 1000,
        rng=rng,
        priority=settings.priority,
    )


def process_vitals() -> Callable[[], dict[str, object]]:
    """How this process does, for its status: resident memory, CPU time and open files."""
    process = psutil.Process()

    def vitals() -> dict[str, object]:
        with process.oneshot():
            times = process.cpu_times()
            return {
                "pid": process.pid,
                "memory_bytes": process.memory_info().rss,
                "cpu_seconds": times.user + times.system,
                "open_files": process.num_fds(),
                "started_at": process.create_time(),
            }

    return vitals


def package_version() -> str:
    """The installed version, or "unknown" in a tree that was never installed."""
    try:
        return version("assent")
    except PackageNotFoundError:
        return "unknown"
