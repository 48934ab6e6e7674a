"""The keeper of snapshots, alone: slices with pauses between them, and what is given up when it must be."""

from __future__ import annotations

from raft.actor_messages import NextSlice, SnapshotSlice, TakeSnapshot
from raft.config import RaftConfig
from raft.core import Core
from raft.entries import SnapshotMeta
from raft.membership import Configuration
from raft.ready import ReceivedChunk, SnapshotWork
from raft.snapshot_keeper import PAUSE_SECONDS, SnapshotKeeper
from raft.storage import MemoryStorage, snapshot_content

CONFIG = RaftConfig(snapshot_interval_entries=4, trailing_entries=1)


class Desk:
    """A lone voter with ten entries applied, its keeper, and what the keeper said."""

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        self.core = Core("a", Configuration("a"), self.storage.load(), CONFIG)
        self.said: list[object] = []
        self.keeper = SnapshotKeeper(
            self.core, self.storage, lambda actor, message: self.said.append(message)
        )
        self.core.campaign()
        self.turn()
        self.core.propose([b"x"] * 9)
        self.turn()

    def turn(self) -> None:
        while self.core.has_ready():
            ready = self.core.ready()
            self.storage.append(ready.hard_state, ready.batch)
            self.storage.sync()
            self.core.advance()

    def take(self) -> list[object]:
        said, self.said[:] = list(self.said), []
        return said


def test_a_snapshot_is_written_slice_by_slice_and_the_log_goes_after_it() -> None:
    desk = Desk()
    desk.keeper.consider()
    desk.keeper.consider()  # one at a time
    assert desk.take() == [TakeSnapshot()]
    desk.keeper.take_slice(SnapshotSlice(10, 0, b"one ", False), 1.0)
    desk.keeper.on_time(1.0 + PAUSE_SECONDS / 2)
    assert desk.take() == []
    desk.keeper.on_time(1.0 + PAUSE_SECONDS)
    assert desk.take() == [NextSlice(10)]
    desk.keeper.take_slice(SnapshotSlice(9, 4, b"other", False), 2.0)  # of one that was given up
    desk.keeper.take_slice(SnapshotSlice(10, 4, b"two", True), 2.0)
    newest = desk.core.snapshots.newest
    assert newest is not None and (newest.index, newest.term) == (10, 1)
    assert b"".join(snapshot_content(desk.storage, newest)) == b"one two"
    desk.keeper.on_time(3.0)
    assert desk.core.log.snapshot_index == 9 and desk.storage.load().first_index == 10
    desk.keeper.on_time(4.0)
    assert desk.take() == [] and desk.keeper.due_at is None


def test_slices_that_nobody_waits_for_are_not_written() -> None:
    desk = Desk()
    desk.keeper.take_slice(SnapshotSlice(10, 0, b"x", True), 1.0)
    assert desk.core.snapshots.newest is None and desk.storage.load().snapshot is None


def test_the_own_snapshot_is_given_up_for_that_of_a_leader() -> None:
    desk = Desk()
    desk.keeper.consider()
    desk.keeper.take_slice(SnapshotSlice(10, 0, b"own", False), 1.0)
    desk.take()
    desk.core.propose([b"y"])
    ready = desk.core.ready()
    meta = SnapshotMeta(20, 1, Configuration("a").encode(), 6, 0)
    ready.snapshots = SnapshotWork([ReceivedChunk(meta, 0, b"theirs")], None, [])
    desk.keeper.write(ready)
    desk.keeper.on_time(2.0)
    assert desk.take() == []
    desk.keeper.take_slice(SnapshotSlice(10, 3, b" more", True), 2.0)
    assert desk.core.snapshots.newest is None
