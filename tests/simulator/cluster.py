"""Whole production nodes in one thread: actors, codec, write-ahead log and store, on a simulated world.

Decides when a node takes a turn and what it costs; a node's crash, pause and restart. What troubles come, and
what must hold, is decided elsewhere: a cluster tells its `Watcher` what nodes do, and is told what befalls
them. Nothing here depends on the machine's clock, on chance beyond the seed, or on the order of a set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import cast

from actors import System
from actors.memory import MemoryFrame
from kvstore.founding import Origin
from kvstore.gateway_actor import GatewayActor
from kvstore.node import LIMITS, build_system
from kvstore.protocol_admin import join_address
from kvstore.settings import NodeSettings
from kvstore.state_machine import StoreMachine
from raft.applier_actor import ApplierActor
from raft.core import Core, Role
from raft.directory import DataDirectory
from raft.guard import Guard
from raft.replication_actor import ReplicationActor
from raft.storage import Storage, StorageFailed
from tests.raft.disk import PowerLoss
from tests.simulator.bounds import bound_store, bounds_of
from tests.simulator.clocks import NodeClock, Schedule
from tests.simulator.disk import HostileDisk, directory_of
from tests.simulator.network import FaultyNetwork
from tests.simulator.swarm import Swarm
from tests.simulator.tracing import Trace, Violation, summary
from tests.simulator.watched import WatchedMachine, WatchedStorage, Watcher

CLUSTER_ID = 7
CHECK_EVERY = 16  # entries between two fingerprints: runs are short
TURN_SECONDS = 0.001  # what a turn costs at least; what arrives meanwhile is the next turn's batch


class Killed(Exception):
    """The process ends here, in the middle of its turn. Nothing may catch this but the cluster."""


class SimulatedNode:
    """One member: its disk and clock, and its process while it lives. Owned by the cluster."""

    def __init__(self, name: str, rng: Random) -> None:
        self.name = name
        self.disk = HostileDisk(Random(rng.getrandbits(64)))
        self.storage_id = rng.getrandbits(63)  # of the disk
        self.is_founder = True  # False: it waits to be added
        self.rng = rng
        self.life = 0  # counts the starts of the process
        self.died_at = -1.0
        self.paused = False
        self.busy_until = 0.0
        self.wake_at: float | None = None  # when its next turn is scheduled
        self.slow_apply = 0.0  # so often the time of a turn of the applier is up when it is asked for
        self.applied_seconds = 0.0  # that commands have taken in the present turn
        self.is_bent = False  # its memory went bad, and it was not started anew since
        self.is_fenced = False
        self.copy_of_term = 0  # an old copy of its disk was put back while this term's leader led
        self.sends_left = -1  # until it is killed behind a frame; negative: it is not
        # Of the living process:
        self.system: System | None = None
        self.clock: NodeClock
        self.core: Core
        self.applier: ApplierActor
        self.machine: WatchedMachine

    @property
    def alive(self) -> bool:
        return self.system is not None

    @property
    def leads(self) -> bool:
        return self.system is not None and self.core.role is Role.LEADER

    @property
    def runs(self) -> bool:
        return self.system is not None and not self.paused


class Cluster:
    """Owns its nodes and the network between them."""

    def __init__(self, schedule: Schedule, rng: Random, swarm: Swarm, trace: Trace, watcher: Watcher) -> None:
        self.schedule = schedule
        self.swarm = swarm
        self.trace = trace
        self._rng = Random(rng.getrandbits(64))
        self._watcher = watcher
        self.slow_sync = swarm.slow_sync
        self.network = FaultyNetwork(
            schedule,
            Random(rng.getrandbits(64)),
            swarm,
            trace,
            departure=self._departure,
            was_sent=self._was_sent,
            landed=self._landed,
        )
        self.nodes: dict[str, SimulatedNode] = {}
        self._by_endpoint: dict[str, SimulatedNode] = {}
        self._founders: dict[str, str] = {}
        for _ in range(swarm.size):
            node = self._make_node()
            self._founders[node.name] = peer_endpoint(node.name)
        # By the name of a client or subscriber: called when a frame has landed there.
        self.listeners: dict[str, Callable[[], None]] = {}
        self.died: Callable[[SimulatedNode], None] = _nobody  # told of a node that died of itself

    def _make_node(self) -> SimulatedNode:
        name = f"n{len(self.nodes) + 1}"
        node = self.nodes[name] = SimulatedNode(name, Random(self._rng.getrandbits(64)))
        for endpoint in (peer_endpoint(name), client_endpoint(name), watch_endpoint(name)):
            self._by_endpoint[endpoint] = node
        return node

    def recruit(self) -> SimulatedNode:
        """A node more, that waits to be added."""
        node = self._make_node()
        node.is_founder = False
        self.start(node)
        return node

    def addresses_of(self, names: Iterable[str]) -> dict[str, str]:
        """Where they are found, as configurations have it."""
        return {name: join_address(peer_endpoint(name), self.nodes[name].storage_id) for name in names}

    def node_at(self, endpoint: str) -> SimulatedNode | None:
        return self._by_endpoint.get(endpoint)

    def living(self) -> list[SimulatedNode]:
        return [node for node in self.nodes.values() if node.alive]

    def leader(self) -> SimulatedNode | None:
        """Of those who lead, the one of the latest term: the others do not know better yet."""
        leaders = [node for node in self.nodes.values() if node.leads]
        return max(leaders, key=lambda node: node.core.term, default=None)

    def now(self) -> float:
        """The true time, also within a turn: only the node that has one is busy."""
        return self.schedule.now + sum(node.clock.busy_seconds for node in self.nodes.values())

    # -- lives -----------------------------------------------------------------------------------------

    def start(self, node: SimulatedNode) -> None:
        """Start the process, as a supervisor would; it may die of its disk at once."""
        assert not node.alive, f"{node.name} was started twice"
        node.life += 1
        node.is_bent = node.paused = False
        node.sends_left = -1
        drift = self.swarm.drift
        node.clock = NodeClock(
            self.schedule, node.rng.uniform(0, 1000), 1.0 + node.rng.uniform(-drift, drift)
        )
        node.disk.on_sync = lambda: self._sync_takes_time(node)
        self.trace.say(node.name, "start", f"life={node.life}")
        try:
            self._build(node)
        except (PowerLoss, Killed, StorageFailed) as death:
            self.trace.counts["death during start"] += 1
            self._died(node, death)
            return
        except Violation:
            raise
        except Exception as error:
            raise Violation(f"{node.name} could not start: {type(error).__name__}: {error}") from error
        self._take_turn_at(node, self.schedule.now + node.clock.busy_seconds)

    def _build(self, node: SimulatedNode) -> None:
        swarm = self.swarm
        directory = DataDirectory(directory_of(node.name), f"{CLUSTER_ID:016x}", node.name, files=node.disk)
        storage = directory.open_log(segment_bytes=swarm.segment_bytes)
        limits = replace(LIMITS, peer_frames=8, drain_frames=4) if swarm.tiny_queues else LIMITS
        node.system = build_system(
            settings_of(node.name, self._founders, swarm),
            cast(Storage, WatchedStorage(storage, node, self._watcher)),
            transport=self.network.memory.transport(limits),
            clock=node.clock,
            rng=Random(node.rng.getrandbits(64)),
            origin=Origin(CLUSTER_ID, node.storage_id, self._founders if node.is_founder else {}),
            fence=directory.fence(),
        )
        actors = {name: cell.actor for name, cell in node.system._by_name.items()}
        gateway, replication, applier = actors["gateway"], actors["replication"], actors["applier"]
        assert isinstance(gateway, GatewayActor) and isinstance(applier, ApplierActor)
        assert isinstance(replication, ReplicationActor)
        node.core, node.applier = replication._core, applier
        node.core.config = bounds_of(node.core.config, swarm)
        machine = cast(StoreMachine, applier._machine)
        bound_store(machine, applier, gateway, swarm)
        if swarm.slow_apply:
            node.slow_apply = swarm.slow_apply * node.rng.choice([0.0, 1.0])
        node.machine = WatchedMachine(machine, node, self._watcher, swarm.busy_apply)
        applier._machine = cast(StoreMachine, node.machine)
        applier._guard = Guard(node.machine, applier._guard.fence, check_every=CHECK_EVERY)
        if machine.applied_index:
            self._watcher.restored(node)

    def kill(self, node: SimulatedNode, *, power: bool = False) -> None:
        """From outside, between two turns."""
        self._died(node, PowerLoss() if power else Killed())

    def _died(self, node: SimulatedNode, death: Exception) -> None:
        if isinstance(death, StorageFailed) and not node.disk.injected:
            raise Violation(f"{node.name} says that its disk failed, and it did not: {death}") from death
        what = {PowerLoss: "power loss", Killed: "killed"}.get(type(death), "disk failed")
        self.trace.say(node.name, what, str(death))
        if node.system is not None:
            node.system._transport.close()
        node.system = None
        node.died_at = self.schedule.now
        node.wake_at = None
        node.busy_until = self.schedule.now
        if isinstance(death, PowerLoss):
            node.disk.lose_power(node.rng, self.swarm.keep)
        else:
            node.disk.kill_process()

    def pause(self, node: SimulatedNode) -> None:
        node.paused = True
        self.trace.say(node.name, "pause")

    def resume(self, node: SimulatedNode) -> None:
        if node.paused:
            node.paused = False
            self.trace.say(node.name, "resume")
            self._take_turn_at(node, self.schedule.now)

    # -- turns -----------------------------------------------------------------------------------------

    def _take_turn_at(self, node: SimulatedNode, time: float) -> None:
        """Let the node have a turn then, or earlier if that is arranged already."""
        if node.system is None or node.paused:
            return
        time = max(time, node.busy_until, self.schedule.now)
        if node.wake_at is not None and node.wake_at <= time:
            return
        node.wake_at = time
        self.schedule.at(time, lambda: self._turn(node, time))

    def _turn(self, node: SimulatedNode, time: float) -> None:
        if node.wake_at != time or node.system is None:
            return  # another arrangement was made since
        node.wake_at = None
        if node.paused:
            return
        node.clock.busy_seconds = node.applied_seconds = 0.0
        try:
            node.system.turn(0.0)
        except (PowerLoss, Killed, StorageFailed) as death:
            node.clock.busy_seconds = 0.0
            self._watcher.died(node)
            self._died(node, death)
            self.died(node)
            return
        except Violation:
            raise
        except Exception as error:
            raise Violation(f"{node.name} died of {type(error).__name__}: {error}") from error
        busy_seconds, node.clock.busy_seconds = node.clock.busy_seconds, 0.0
        node.busy_until = time + busy_seconds + TURN_SECONDS
        self._watcher.turned(node)
        if not node.is_fenced and node.applier._guard.fence.mark is not None:
            node.is_fenced = True
            self.trace.say(node.name, "fenced", str(node.applier._guard.fence.mark))
            self._watcher.fenced(node)
        self._arrange(node)

    def _arrange(self, node: SimulatedNode) -> None:
        system = node.system
        assert system is not None
        transport = system._transport
        if transport.peers_waiting() or transport.local_waiting():
            self._take_turn_at(node, node.busy_until)
            return
        deadline = system.next_deadline()
        if deadline is not None:
            self._take_turn_at(node, node.clock.true_time(deadline) + 1e-6)

    def bend(self, node: SimulatedNode) -> bool:
        """Its memory goes bad: a value is another one. False if it holds nothing yet."""
        records = node.machine.inner._store._records
        if not records:
            return False
        key = node.rng.choice(sorted(records))
        name, value, *rest = records[key]
        records[key] = (name, value + b"?", *rest)  # type: ignore[assignment]  # as it was, but for the value
        node.is_bent = True
        self.network.gagged.add(node.name)  # until it is found out, its answers may be wrong
        self.trace.say(node.name, "bent", repr(key))
        return True

    def jump_clock(self, node: SimulatedNode, seconds: float) -> None:
        self.trace.say(node.name, "clock jump", f"seconds={seconds:.3f}")
        node.clock.change(jump_seconds=seconds)
        self._arrange(node)

    def _sync_takes_time(self, node: SimulatedNode) -> None:
        node.clock.busy_seconds += 0.0002
        if self.slow_sync and node.rng.random() < 0.3:
            self.trace.counts["slow sync"] += 1
            node.clock.busy_seconds += min(2.0, node.rng.expovariate(1.0 / self.slow_sync))

    def post(self, node: SimulatedNode, actor: str, message: object) -> None:
        """Somebody outside asks an actor for something."""
        assert node.system is not None
        node.system.post(actor, message)
        self._take_turn_at(node, self.schedule.now)

    # -- frames ----------------------------------------------------------------------------------------

    def _departure(self, frame: MemoryFrame) -> float:
        node = self.nodes.get(frame.source)
        if node is None:
            return self.schedule.now
        if frame.plane == "peer":
            self._look_at(node, frame)
        elif frame.plane == "reply" and node.is_fenced:
            self._watcher.answered(node, frame.parts[0])
        if node.sends_left >= 0:
            node.sends_left -= 1
            if node.sends_left < 0:
                self.trace.counts["killed behind a frame"] += 1
                raise Killed("behind a frame")
        return self.schedule.now + node.clock.busy_seconds

    def _look_at(self, node: SimulatedNode, frame: MemoryFrame) -> None:
        assert node.system is not None
        for message in node.system._codec.decode_remote(frame.parts[1]):
            self.trace.counts[f"sent {type(message).__name__}"] += 1
            if self.trace.keep and type(message).__name__ != "Announce":
                self.trace.line(node.name, f"to {frame.destination}", summary(message))
            self._watcher.sent(node, frame.destination, message)

    def _was_sent(self, source: str, turn: float, departs: float) -> bool:
        node = self.nodes.get(source)
        return node is None or not turn <= node.died_at < departs

    def _landed(self, frame: MemoryFrame) -> None:
        node = self._by_endpoint.get(frame.endpoint)
        if node is not None:
            self._take_turn_at(node, self.schedule.now)
        else:
            listener = self.listeners.get(frame.destination)
            if listener is not None:
                listener()


def peer_endpoint(name: str) -> str:
    return f"ipc:///simulated/{name}/peer"


def client_endpoint(name: str) -> str:
    return f"ipc:///simulated/{name}/client"


def watch_endpoint(name: str) -> str:
    return f"ipc:///simulated/{name}/watch"


def settings_of(name: str, endpoints: dict[str, str], swarm: Swarm) -> NodeSettings:
    return NodeSettings(
        name=name,
        data_dir=Path("unused"),
        peer=peer_endpoint(name),
        client=client_endpoint(name),
        watch=watch_endpoint(name),
        cluster=endpoints,
        cluster_id=CLUSTER_ID,
        heartbeat_interval_ms=swarm.heartbeat_ms,
        election_timeout_ms=swarm.election_ms,
        history_revisions=swarm.history_revisions,
    )


def _nobody(node: SimulatedNode) -> None:
    """Nobody restarts it."""


def names_of(nodes: Iterable[SimulatedNode]) -> str:
    return ",".join(node.name for node in nodes)
