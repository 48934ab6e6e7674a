"""Whole nodes on real files: production actors and store, a network of memory, and a fault at one of them.

Clients put keys one by one, and what was acknowledged to them is what has to be there when the node serves
again; what a read gives must have been put.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from kvstore import protocol
from kvstore.protocol import Results
from raft.directory import DataDirectory
from raft.space_watch import MISGIVING_CHECKS
from raft.storage import StorageFailed
from tests.faults.hard_disk import HardDisk, Step, Trap, write_image
from tests.faults.judge import ENDED, WHOLE, Wrong
from tests.faults.moments import (
    NOT_REACHED,
    SYNCS,
    WRITES,
    Ambush,
    Fails,
    IsShort,
    NoRoom,
    Stop,
    StopHere,
    fail_here,
)
from tests.kvstore.memory_cluster import Caller, MemoryCluster
from tests.raft.disk import PowerLoss

SEGMENT_BYTES = 16 << 10
PUTS = 48  # of a life
KEYS = 17
VALUE_BYTES = 1200
NO_ANSWER = -1


class RealCluster(MemoryCluster):
    """Nodes whose logs are on real files below `root`."""

    def __init__(self, root: Path, size: int, trap: Callable[[HardDisk], Trap] | None = None) -> None:
        names = [f"n{number}" for number in range(1, size + 1)]
        for name in names:
            (root / name).mkdir()
        self.hard_disks = {name: HardDisk(root / name) for name in names}
        if trap is not None:
            self.hard_disks["n1"].trap = trap(self.hard_disks["n1"])
        self.death: BaseException | None = None  # of n1
        super().__init__(1, size, priorities={"n1": 100}, snapshot_interval_entries=20, trailing_entries=4)

    def start(self, name: str) -> None:
        disk = self.hard_disks[name]
        try:
            directory = DataDirectory(disk.root / "data", "cluster", name, disk)
            log = directory.open_log(segment_bytes=SEGMENT_BYTES)
            self.disks[name] = log  # type: ignore[assignment]  # a storage like another
            super().start(name)
        except (PowerLoss, StorageFailed) as death:
            self._died(name, death)

    def turn_all(self) -> None:
        for name, system in list(self.systems.items()):
            try:
                system.turn(0.0)
            except (PowerLoss, StorageFailed) as death:
                self._died(name, death)

    def _died(self, name: str, death: BaseException) -> None:
        if name != "n1":
            raise Wrong(f"{name} died, whom nobody has harmed: {death}") from death
        self.death = death
        if name in self.systems:
            self.crash(name)

    def restart(self, rng: Random, *, power: bool) -> None:
        """n1 ends, if it has not, and starts again as a supervisor would start it."""
        disk = self.hard_disks["n1"]
        if "n1" in self.systems:
            self.crash("n1")
        if power:
            disk.lose_power(rng)
        else:
            disk.kill_process()
        self.death = None
        self.start("n1")
        if self.death is not None:
            raise Wrong(f"a sound node does not start: {self.death}")


class Putter:
    """A client that puts, and remembers what it was told. Goes from node to node until it is."""

    def __init__(self, cluster: RealCluster) -> None:
        self._cluster = cluster
        self.acknowledged: dict[bytes, int] = {}  # by key: the number of the last put that was acknowledged
        self.attempted = -1
        self.is_refused = False  # the last put, for want of room, for longer than a passing want lasts

    def put_all(self) -> bool:
        """False if nobody takes a put any more."""
        for number in range(PUTS):
            if not self._put(number):
                return False
            if number % 10 == 9:
                self._cluster.run(0.04)  # snapshots and compaction go on between commands
        return True

    def _put(self, number: int) -> bool:
        body = protocol.put_body(0, 0, 0, key_of(number), value_of(number))
        self.attempted = number
        answer = None
        for _ in range(40):
            answer = self._ask_all(body)
            if answer != NO_ANSWER or not self._cluster.systems:
                break
            self._cluster.run(0.05)
        if answer == protocol.SPACE_EXCEEDED:
            answer = self._ask_while_refused(body)
        if answer == protocol.OK:
            self.acknowledged[key_of(number)] = number
        return answer == protocol.OK

    def _ask_while_refused(self, body: bytes) -> int:
        """Once a second, for as long as one want of room may have growth refused, and an election."""
        for _ in range(MISGIVING_CHECKS + 5):
            self._cluster.run(1.0)
            answer = self._ask_all(body)
            if answer == protocol.OK:
                return answer
        self.is_refused = answer == protocol.SPACE_EXCEEDED
        return answer

    def _ask_all(self, body: bytes) -> int:
        """What the first node says that answers: OK or SPACE_EXCEEDED."""
        for name in list(self._cluster.systems):
            answer = self._ask(name, body)
            if answer in (protocol.OK, protocol.SPACE_EXCEEDED):
                return answer
        return NO_ANSWER

    def _ask(self, name: str, body: bytes) -> int:
        client = self._cluster.client(name)
        client.ask(protocol.WRITE, [body], timeout_ms=300)
        for _ in range(60):
            self._cluster.turn_all()
            for reply in client.replies():
                return code_of(reply) if isinstance(reply, Results) else NO_ANSWER
            if name not in self._cluster.systems:
                break
            self._cluster.clock.advance(0.002)
        return NO_ANSWER

    def check(self, name: str) -> None:
        """Everything acknowledged is there, and nothing else than what was put."""
        found = read_all(self._cluster, name)
        for key, number in self.acknowledged.items():
            got = found.get(key)
            allowed = {value_of(n) for n in range(number, self.attempted + 1) if key_of(n) == key}
            if got not in allowed:
                raise Wrong(f"put {number} of {key!r} was acknowledged, and {str(got)[:30]} is there")
        for key, value in found.items():
            if value not in {value_of(n) for n in range(self.attempted + 1) if key_of(n) == key}:
                raise Wrong(f"{key!r} has a value that nobody put")


def code_of(reply: Results) -> int:
    """Of the only result: a node without room refuses, and that is an answer too."""
    [result] = protocol.split_results(reply.blob, reply.request_count)
    code: int = result[0]
    return code


def key_of(number: int) -> bytes:
    return b"/key/%02d" % (number % KEYS)


def value_of(number: int) -> bytes:
    return (b"%d." % number * VALUE_BYTES)[:VALUE_BYTES]


def read_all(cluster: RealCluster, name: str) -> dict[bytes, bytes]:
    """Linearizable, by this node."""
    for _ in range(60):
        client: Caller = cluster.client(name)
        client.ask(protocol.READ, [protocol.range_body(b"/key/", range_end=b"/key0")], timeout_ms=300)
        cluster.run(0.05)
        for reply in client.replies():
            if isinstance(reply, Results):
                result: list[Any] = protocol.split_results(reply.blob, reply.request_count)[0]
                return {item[0]: item[1] for item in result[4]}
    raise Wrong(f"{name} does not serve")


Arm = Callable[[HardDisk, Stop], Trap]
NODE_FAULTS: dict[str, Arm] = {
    "crash": StopHere,
    "unsynced data lost": StopHere,
    "torn write": StopHere,
    "EIO on the call": lambda disk, stop: fail_here(stop),
    "EIO on write": lambda disk, stop: Fails(stop, WRITES),
    "EIO on sync": lambda disk, stop: Fails(stop, SYNCS),
    "short write": lambda disk, stop: IsShort(stop, WRITES),
    "ENOSPC": lambda disk, stop: NoRoom(stop, once=True),
    "disk full": lambda disk, stop: NoRoom(stop, once=False),
}


def run_node(fault: str, root: Path, stop: Stop, rng: Random, *, size: int = 1) -> str:
    """One life of a node into a fault, and its next one. With three nodes, the others go on meanwhile."""
    write_image(root, {})
    traps: list[Trap] = []

    def arm(disk: HardDisk) -> Trap:
        traps.append(NODE_FAULTS[fault](disk, stop))
        return traps[0]

    cluster = RealCluster(root, size, arm)
    try:
        putter = Putter(cluster)
        served = putter.put_all()
        death = cluster.death
        if size > 1 and not served:
            check_refusal(cluster, putter, fault)
        if death is None and (not isinstance(traps[0], Ambush) or traps[0].struck is None):
            return NOT_REACHED
        power = fault in ("unsynced data lost", "torn write") or (
            isinstance(traps[0], Ambush) and rng.random() < 0.5
        )
        if isinstance(death, StorageFailed):
            check_silence(cluster)
        cluster.restart(Lost() if fault == "unsynced data lost" else rng, power=power)
        for name in cluster.names:
            putter.check(name)
    finally:
        for disk in cluster.hard_disks.values():
            disk.kill_process()
    return ENDED if isinstance(death, StorageFailed) else WHOLE


def check_refusal(cluster: RealCluster, putter: Putter, fault: str) -> None:
    """Two of three nodes take puts. Only while the third one's disk is full nothing may grow, and that is
    said; reads go on then."""
    if fault != "disk full" or not putter.is_refused:
        raise Wrong("two of three nodes do not serve")
    for name in cluster.systems:
        putter.check(name)


def check_silence(cluster: RealCluster) -> None:
    """The process of n1 is gone; nothing of it may have gone on behind its failure."""
    disk = cluster.hard_disks["n1"]
    made = len(disk.steps)
    cluster.disks["n1"].close()
    if len(disk.steps) != made:
        raise Wrong(f"{disk.steps[made:]} came after a failure")


class Lost(Random):
    """Nothing survives."""

    def random(self) -> float:
        return 1.0


def node_steps(root: Path, size: int = 1) -> list[Step]:
    """The calls of a life that nothing happens to."""
    write_image(root, {})
    cluster = RealCluster(root, size)
    putter = Putter(cluster)
    if not putter.put_all():
        raise Wrong("a sound node does not serve")
    disk = cluster.hard_disks["n1"]
    for other in cluster.hard_disks.values():
        other.kill_process()
    return disk.steps
