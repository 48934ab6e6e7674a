"""A network of cores that take, send and install snapshots; each node's state is the list of what it applied.

The disks are the storage that works in memory. Snapshots and restoring happen when the test says so, or at
once; chunks are mail like any other.
"""

from __future__ import annotations

from collections.abc import Iterable

from raft.config import RaftConfig
from raft.core import Core
from raft.entries import Entry, EntryBatch, HardState, NodeId, SnapshotMeta
from raft.membership import Configuration
from raft.messages import InstallSnapshot, Message
from raft.progress import ProgressState
from raft.ready import Ready, Role, SnapshotWork
from raft.storage import MemoryStorage, Recovered, snapshot_content
from tests.raft.network import Disk, Mail, Network, drain, entries_of

SMALL = RaftConfig(snapshot_chunk_bytes=20, trailing_entries=0, max_inflight_snapshot_chunks=3)


class SnapshotDisk(Disk):
    """A disk as the network of the core's tests knows it, on top of a real storage."""

    def __init__(self) -> None:
        super().__init__()
        self.storage = MemoryStorage()

    def append(self, hard_state: HardState | None, new: EntryBatch | None) -> None:
        self.storage.append(hard_state, new)

    def sync(self) -> None:
        self.storage.sync()

    def crash(self, survivors: int) -> None:
        assert survivors == 0, "nothing that is unsynced survives here"
        self.storage.load()

    def load(self) -> Recovered:
        return self.storage.load()


class SnapshotNetwork(Network):
    """Owned by one test."""

    def __init__(
        self,
        voters: Iterable[NodeId] = "abc",
        *,
        learners: Iterable[NodeId] = (),
        config: RaftConfig = SMALL,
    ) -> None:
        names = [*voters, *learners]
        self.slow_restore: set[NodeId] = set()  # their state machines are not done until restore() is called
        self.are_chunks_lost = False
        self.storages: dict[NodeId, MemoryStorage] = {}
        disks: dict[NodeId, Disk] = {name: SnapshotDisk() for name in names}
        super().__init__(voters, learners=learners, disks=disks, config=config)

    def start(self, name: NodeId) -> None:  # type: ignore[override]  # nobody here needs the core
        disk = self.disks[name]
        assert isinstance(disk, SnapshotDisk), f"{name} has no such disk"
        self.storages[name] = disk.storage
        super().start(name)
        snapshot = self.cores[name].snapshots.newest
        if snapshot is not None:
            self.applied[name] = self._content(name, snapshot)

    def _content(self, name: NodeId, snapshot: SnapshotMeta) -> list[Entry]:
        data = b"".join(snapshot_content(self.storages[name], snapshot, 7))
        return EntryBatch.decode(data).entries

    def snapshot(self, name: NodeId) -> SnapshotMeta:
        """The node takes one of all that it has applied, and compacts its log."""
        core, storage, applied = self.cores[name], self.storages[name], self.applied[name]
        index = len(applied)
        configuration = core.configurations.at(index).encode()
        storage.begin_snapshot(index, applied[-1][0], configuration)
        data = EntryBatch(1, list(applied)).encode()
        for at in range(0, len(data), 50):
            storage.append_snapshot(data[at : at + 50])
        meta = storage.commit_snapshot(replaces_log=False)
        core.snapshots.note_taken(meta)
        core.compact(core.snapshots.compaction_index(core.progress))
        storage.compact(core.log.snapshot_index, core.snapshots.in_use(core.progress))
        return meta

    def turn(self, name: NodeId) -> Ready:
        core, storage = self.cores[name], self.storages[name]
        ready = core.ready()
        self.post(name, ready.messages)
        storage.append(ready.hard_state, None)
        if ready.snapshots is not None:
            self._carry_out(name, ready.snapshots)
        storage.append(None, ready.batch)
        storage.sync()
        self.post(name, ready.messages_after_sync)
        core.advance()
        self.take(name, ready)
        return ready

    def _carry_out(self, name: NodeId, work: SnapshotWork) -> None:
        storage = self.storages[name]
        for meta, offset, data in work.received:
            if offset == 0:
                storage.begin_snapshot(meta.index, meta.term, meta.configuration)
            storage.append_snapshot(data)
        if work.installed is not None:
            assert storage.commit_snapshot(replaces_log=True) == work.installed
            storage.compact(work.installed.index)
            if name not in self.slow_restore:
                self.restore(name)
        for receiver, message in work.chunks:
            data = storage.read_snapshot(message.index, message.offset, self.config.snapshot_chunk_bytes)
            chunks: list[tuple[NodeId, Message]] = [(receiver, message.with_data(data))]
            self.post(name, chunks)

    def restore(self, name: NodeId) -> None:
        """The state machine has taken in the snapshot that was installed last."""
        newest = self.cores[name].snapshots.newest
        assert newest is not None, f"{name} has no snapshot"
        self.applied[name] = self._content(name, newest)
        self.cores[name].snapshots.note_restored(newest.index)

    def propose(self, name: NodeId, *bodies: bytes) -> None:
        self.cores[name].propose(list(bodies))
        self.settle()

    def pump(self, rounds: int = 1) -> None:
        """So many rounds of turns and deliveries, and no more."""
        for _ in range(rounds):
            for name, core in self.cores.items():
                while core.has_ready():
                    self.turn(name)
            mail, self.mail = self.mail, []
            for each in mail:
                self.deliver(each)

    def deliver(self, mail: Mail) -> None:
        if not (self.are_chunks_lost and isinstance(mail[2], InstallSnapshot)):
            super().deliver(mail)

    def beat(self, name: NodeId) -> None:
        self.cores[name].heartbeat()
        self.settle()


BODIES = [b"%02d" % number for number in range(10)]


def behind(config: RaftConfig = SMALL) -> SnapshotNetwork:
    """a leads; c missed ten entries, and a has compacted them."""
    network = SnapshotNetwork(config=config)
    network.elect("a")
    network.isolate("c")
    network.propose("a", *BODIES)
    fall_silent(network)
    network.snapshot("a")
    network.heal()
    return network


def fall_silent(network: SnapshotNetwork) -> None:
    """For two election timeouts the leader a does not hear c."""
    for _ in range(2):
        network["a"].check_quorum()
        network.beat("a")


def find_out(network: SnapshotNetwork) -> None:
    """c hears of the leader, and the leader of what c needs."""
    for _ in range(3):
        network.cores["a"].heartbeat()
        network.pump(2)
        if network["a"].progress["c"].state is ProgressState.SNAPSHOT:
            return
    raise AssertionError("c needs no snapshot")


def converge(network: SnapshotNetwork) -> None:
    leaders = [name for name, core in network.cores.items() if core.role is Role.LEADER]
    leader = max(leaders, key=lambda name: network[name].term)
    for _ in range(30):
        network.beat(leader)
    states = {name: tuple(network.applied[name]) for name in network.cores}
    assert len(set(states.values())) == 1, {name: len(state) for name, state in states.items()}


WHO = Configuration("abc").encode()


def snapshot_of(terms: list[int]) -> tuple[SnapshotMeta, bytes]:
    storage = MemoryStorage(Recovered(HardState(terms[-1], None, 0), 1, entries_of(terms)))
    data = EntryBatch(1, entries_of(terms)).encode()
    storage.begin_snapshot(len(terms), terms[-1], WHO)
    storage.append_snapshot(data)
    return storage.commit_snapshot(replaces_log=False), data


def chunks_of(terms: list[int], term: int, size: int = 30) -> list[InstallSnapshot]:
    meta, data = snapshot_of(terms)
    return [
        InstallSnapshot(
            term,
            meta.index,
            meta.term,
            meta.configuration if not at else b"",
            at,
            meta.size_bytes,
            meta.checksum,
            b"",
            0,
        ).with_data(data[at : at + size])
        for at in range(0, len(data), size)
    ]


def install(core: Core, chunks: list[InstallSnapshot]) -> Ready:
    """All chunks from b, in one turn."""
    for chunk in chunks:
        core.step("b", chunk)
    return drain(core)
