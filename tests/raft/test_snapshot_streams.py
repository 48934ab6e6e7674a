"""Snapshots read from outside: no older than asked for, kept while they are read, bounded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from raft.actor_messages import (
    CloseSnapshot,
    OpenSnapshot,
    ReadSnapshot,
    Refused,
    SnapshotClosed,
    SnapshotData,
    SnapshotGone,
    SnapshotOpened,
    SnapshotPending,
    SnapshotRestored,
    SnapshotSlice,
    TakeSnapshot,
)
from raft.entries import EntryBatch
from raft.messages import AppendEntries
from raft.snapshot_keeper import PAUSE_SECONDS
from raft.snapshot_streams import (
    IDLE_SECONDS,
    MAX_STREAMS,
    MAX_WAITING_READS,
    PATIENCE_SECONDS,
    REST_SECONDS,
    SLICE_PAUSE_SECONDS,
    STREAM_SLICE_BYTES,
)
from raft.storage import DiskFull, MemoryStorage
from tests.raft.network import entries_of
from tests.raft.snapshot_network import chunks_of
from tests.raft.test_snapshot_keeper import Bench, install

STREAM = b"mine"


class Desk:
    """A keeper whose gateway is the test. Entries up to 10 are handed out; no snapshot is due by itself."""

    def __init__(self) -> None:
        self.bench = Bench(count=10, interval=1_000_000)
        self.streams = self.bench.keeper.streams

    def open(self, moment: int, stream: bytes = STREAM, ticket: int = 1) -> None:
        if self.streams.open(OpenSnapshot(ticket, stream), self.bench.now):
            self.streams.set_moment(stream, moment)
            self.bench.keeper.consider()

    def read(self, offset: int, stream: bytes = STREAM) -> None:
        self.streams.read(ReadSnapshot(2, stream, offset), self.bench.now)

    def close(self, stream: bytes = STREAM) -> None:
        self.streams.close(CloseSnapshot(3, stream))

    def heard(self) -> list[object]:
        """What the gateway was told since the last call."""
        sent, self.bench.sent = self.bench.sent, []
        self.asked = [what for to, what in sent if to == "applier"]
        return [what for to, what in sent if to == "gateway"]

    def take(self, index: int, content: bytes) -> None:
        """The applier's snapshot, in one slice."""
        self.bench.keeper.take_slice(SnapshotSlice(index, 0, content, True), self.bench.now)

    def commit_more(self, count: int) -> None:
        core = self.bench.core
        first = core.last_index + 1
        batch = EntryBatch(first, entries_of([1] * count))
        core.step("b", AppendEntries(1, first - 1, 1, first + count - 1, batch))
        while core.has_ready():
            ready = core.ready()
            self.bench.storage.append(ready.hard_state, ready.batch)
            self.bench.storage.sync()
            core.advance()

    def pass_time(self, seconds: float) -> None:
        self.bench.now += seconds
        self.bench.keeper.on_time(self.bench.now)
        if self.streams.on_time(self.bench.now):
            self.bench.keeper.consider()


def test_a_snapshot_is_taken_for_who_asks_and_read_by_offset() -> None:
    desk = Desk()
    desk.open(moment=10)
    assert desk.heard() == [] and desk.asked == [TakeSnapshot()]
    desk.take(10, b"abcdef")
    [opened] = desk.heard()
    meta = desk.bench.storage.load().snapshot
    assert meta is not None and opened == SnapshotOpened(1, *meta) and meta.index == 10
    for offset, data in ((0, b"abcdef"), (2, b"cdef"), (6, b""), (2**63 - 1, b"")):
        desk.read(offset)
        desk.pass_time(SLICE_PAUSE_SECONDS)
        assert desk.heard() == [SnapshotData(2, offset, data)]
    desk.close()
    desk.close()
    assert desk.heard() == [SnapshotClosed(3)] * 2
    desk.read(0)
    assert desk.heard() == [SnapshotGone(2)]
    assert desk.streams.due_at() is None


def test_a_snapshot_that_is_new_enough_is_used_and_an_older_one_is_not() -> None:
    desk = Desk()
    desk.open(moment=10)
    desk.take(10, b"at 10")
    desk.commit_more(5)
    desk.heard()
    desk.open(moment=10, stream=b"other")
    assert [type(each) for each in desk.heard()] == [SnapshotOpened] and desk.asked == []
    desk.close(b"other")
    desk.pass_time(REST_SECONDS)
    desk.open(moment=15, stream=b"third")
    assert desk.heard() == [SnapshotClosed(3)] and desk.asked == [TakeSnapshot()]
    desk.take(15, b"at 15")
    [opened] = desk.heard()
    assert isinstance(opened, SnapshotOpened) and opened.index == 15


def test_one_that_was_begun_before_the_moment_is_not_used() -> None:
    """A put that was acknowledged after it was begun is not in it."""
    desk = Desk()
    desk.open(moment=10)
    desk.bench.keeper.take_slice(SnapshotSlice(10, 0, b"at 10", False), 0.0)
    desk.commit_more(5)
    desk.open(moment=15, stream=b"late")
    desk.heard()
    desk.bench.keeper.take_slice(SnapshotSlice(10, 5, b"!", True), 0.0)
    [opened] = desk.heard()
    assert isinstance(opened, SnapshotOpened) and opened.index == 10
    desk.pass_time(REST_SECONDS)
    assert [type(each) for each in desk.heard()] == [SnapshotPending] and desk.asked == [TakeSnapshot()]
    desk.open(moment=15, stream=b"late")
    desk.take(15, b"at 15")
    [opened] = desk.heard()
    assert isinstance(opened, SnapshotOpened) and opened.index == 15


def test_whoever_asks_a_snapshot_is_taken_once_in_a_while() -> None:
    """Who writes, and asks for one, again and again keeps no node at it all the time."""
    desk = Desk()
    begun = 0
    for number in range(50):
        moment = desk.bench.core.delivered_index
        stream = b"%d" % number
        desk.open(moment, stream)
        desk.heard()
        if TakeSnapshot() in desk.asked:
            begun += 1
            desk.take(moment, b"state")
        desk.pass_time(0.2)
        desk.heard()
        if TakeSnapshot() in desk.asked:
            begun += 1
            desk.take(moment, b"state")
        desk.close(stream)
        desk.commit_more(1)
    assert 3 <= begun <= 1 + 50 * 0.2 / REST_SECONDS


def test_it_waits_until_the_moment_is_handed_out_to_be_applied() -> None:
    """A follower learns the leader's index before it has the entries."""
    desk = Desk()
    desk.open(moment=12)
    assert desk.heard() == [] and desk.asked == []
    desk.commit_more(2)
    desk.bench.keeper.consider()
    assert desk.heard() == [] and desk.asked == [TakeSnapshot()]


def test_what_is_read_is_kept_while_newer_ones_are_taken_and_goes_with_its_last_reader() -> None:
    desk = Desk()
    desk.open(moment=10)
    desk.take(10, b"at 10")
    desk.open(moment=10, stream=b"other")
    for index in (15, 20):
        desk.commit_more(5)
        desk.open(moment=index, stream=b"newer")  # refused: two are open
        desk.bench.core.snapshots.log_bytes = desk.bench.core.config.max_log_bytes
        desk.bench.keeper.consider()
        desk.take(index, b"at %d" % index)
        desk.pass_time(PAUSE_SECONDS)
    desk.heard()
    assert desk.bench.core.log.first_index == 21  # compacted meanwhile
    for stream in (STREAM, b"other"):
        desk.read(0, stream)
        desk.pass_time(SLICE_PAUSE_SECONDS)
        assert desk.heard() == [SnapshotData(2, 0, b"at 10")]
        desk.close(stream)
        desk.pass_time(PAUSE_SECONDS)
        desk.heard()
    with pytest.raises(KeyError):
        desk.bench.storage.read_snapshot(10, 0, 1)
    assert desk.bench.storage.read_snapshot(20, 0, 9) == b"at 20"


def test_what_is_read_outlasts_a_snapshot_of_the_leader() -> None:
    desk = Desk()
    desk.open(moment=10)
    desk.take(10, b"at 10")
    desk.heard()
    install(desk.bench, [1] * 10 + [2] * 20, term=3)
    desk.read(0)
    assert desk.heard() == [SnapshotData(2, 0, b"at 10")]
    desk.close()
    desk.pass_time(PAUSE_SECONDS)
    with pytest.raises(KeyError):
        desk.bench.storage.read_snapshot(10, 0, 1)


def test_who_waits_while_a_leaders_snapshot_comes_in_gets_that_one() -> None:
    desk = Desk()
    chunks = chunks_of([1] * 10 + [2] * 20, 3)
    desk.bench.core.step("b", chunks[0])
    ready = desk.bench.core.ready()
    desk.bench.keeper.write(ready)
    desk.bench.core.advance()
    desk.open(moment=25)
    install(desk.bench, [1] * 10 + [2] * 20, term=3)
    desk.bench.keeper.note_restored(SnapshotRestored(30))
    [opened] = desk.heard()
    assert isinstance(opened, SnapshotOpened) and opened.index == 30
    assert not any(isinstance(each, TakeSnapshot) for each in desk.asked)


def test_who_waits_hears_how_far_it_is_and_may_ask_again() -> None:
    desk = Desk()
    desk.open(moment=10)
    desk.bench.keeper.take_slice(SnapshotSlice(10, 0, b"abc", False), 0.0)
    desk.pass_time(PATIENCE_SECONDS)
    assert desk.heard() == [SnapshotPending(1, 3)]
    desk.open(moment=0, ticket=7)
    desk.open(moment=0, ticket=8)
    assert desk.heard() == [SnapshotPending(7, 3)]
    desk.bench.keeper.take_slice(SnapshotSlice(10, 3, b"", True), desk.bench.now)
    [opened] = desk.heard()
    assert isinstance(opened, SnapshotOpened) and opened.ticket == 8
    desk.open(moment=0, ticket=9)
    assert desk.heard() == [replace(opened, ticket=9)]


def test_streams_and_waiting_reads_are_bounded() -> None:
    desk = Desk()
    desk.open(moment=10)
    desk.take(10, b"abc")
    for number in range(MAX_STREAMS - 1):
        desk.open(moment=10, stream=b"%d" % number)
    desk.heard()
    desk.open(moment=10, stream=b"one too many")
    [refusal] = desk.heard()
    assert isinstance(refusal, Refused) and refusal.reason == "overloaded"
    for _ in range(MAX_WAITING_READS + 2):
        desk.read(0)
    kinds = [type(each) for each in desk.heard()]
    assert kinds == [SnapshotData, Refused]
    for _ in range(MAX_WAITING_READS):
        assert desk.heard() == []
        desk.pass_time(SLICE_PAUSE_SECONDS)
        assert [type(each) for each in desk.heard()] == [SnapshotData]


def test_a_slice_has_a_bounded_size() -> None:
    desk = Desk()
    desk.open(moment=10)
    desk.take(10, bytes(3 * STREAM_SLICE_BYTES))
    desk.heard()
    desk.read(1)
    [data] = desk.heard()
    assert isinstance(data, SnapshotData) and len(data.data) == STREAM_SLICE_BYTES


def test_a_stream_that_nobody_reads_is_closed() -> None:
    desk = Desk()
    desk.open(moment=10)
    desk.take(10, b"abc")
    desk.pass_time(IDLE_SECONDS / 2)
    desk.read(0)
    desk.heard()
    desk.pass_time(IDLE_SECONDS / 2)
    desk.read(0)
    assert [type(each) for each in desk.heard()] == [SnapshotData]
    assert desk.streams.in_use() == {10}
    desk.pass_time(IDLE_SECONDS)
    assert desk.streams.in_use() == frozenset() and desk.streams.due_at() is None
    desk.read(0)
    assert desk.heard() == [SnapshotGone(2)]


def test_who_asks_again_is_told_too_if_the_moment_cannot_be_found() -> None:
    desk = Desk()
    first = OpenSnapshot(1, STREAM)
    assert desk.streams.open(first, 0.0)
    assert not desk.streams.open(OpenSnapshot(2, STREAM), 0.0)
    desk.streams.refuse_moment(first)
    assert desk.heard() == [SnapshotPending(1, 0), Refused([2], "no_leader", None)]
    assert desk.streams.due_at() is None


def test_a_stream_closed_while_its_moment_is_looked_for_takes_no_snapshot() -> None:
    desk = Desk()
    desk.streams.open(OpenSnapshot(1, STREAM), 0.0)
    desk.close()
    desk.streams.set_moment(STREAM, 10)
    desk.bench.keeper.consider()
    assert desk.heard() == [SnapshotGone(1), SnapshotClosed(3)] and desk.asked == []


def test_who_waits_on_a_full_disk_is_told_so_and_who_reads_goes_on() -> None:
    desk = Desk()
    desk.open(moment=10)
    desk.take(10, b"at 10")
    desk.commit_more(5)
    desk.pass_time(REST_SECONDS)
    desk.open(moment=15, stream=b"late", ticket=5)
    desk.heard()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryStorage, "begin_snapshot", _no_room)
        desk.take(15, b"at 15")
    assert desk.heard() == [SnapshotGone(5, is_for_want_of_room=True)]
    desk.bench.keeper.check_room(False, 1 << 40, 0, 0.0)
    desk.read(0)
    assert desk.heard() == [SnapshotData(2, 0, b"at 10")] and desk.asked == []


def _no_room(*_: object) -> None:
    raise DiskFull(Path("snapshot.tmp"), "no room")
