"""Snapshots at work in one node: slices from the applier to the disk, parts from the disk to the applier."""

from __future__ import annotations

import pytest

from raft.actor_messages import (
    NextSlice,
    PartWanted,
    RestoreSnapshot,
    SnapshotGivenUp,
    SnapshotPart,
    SnapshotRestored,
    SnapshotSlice,
    TakeSnapshot,
)
from raft.config import RaftConfig
from raft.core import Core
from raft.entries import EntryBatch, EntryKind, HardState
from raft.lull import FEW_ENTRIES_PER_SECOND, LULL_SECONDS, Lull
from raft.membership import Configuration
from raft.messages import AppendEntries
from raft.slices import SLICE_BYTES, Slices
from raft.snapshot_keeper import (
    COMPACTION_STEP_ENTRIES,
    MOST_SLICES,
    PART_PAUSE_SECONDS,
    PAUSE_SECONDS,
    SLICES_SHARE,
    SnapshotKeeper,
)
from raft.storage import MemoryStorage, Recovered
from tests.raft.network import drain, entries_of
from tests.raft.snapshot_network import chunks_of


class Bench:
    """A follower of b with entries up to `count`, all committed and handed out, and its keeper."""

    def __init__(self, count: int = 10, interval: int = 10, trailing_entries: int = 0) -> None:
        self.storage = MemoryStorage(Recovered(HardState(1, None, count), 1, entries_of([1] * count)))
        config = RaftConfig(snapshot_interval_entries=interval, trailing_entries=trailing_entries)
        self.core = Core("a", Configuration("abc"), self.storage.load(), config)
        while self.core.has_ready():
            drain(self.core)
        self.sent: list[tuple[str, object]] = []
        self.keeper = SnapshotKeeper(self.core, self.storage, lambda to, what: self.sent.append((to, what)))
        self.now = 0.0

    def take(self) -> list[object]:
        sent, self.sent = self.sent, []
        assert all(to == "applier" for to, _ in sent)
        return [what for _, what in sent]

    def wait(self) -> None:
        self.now += PAUSE_SECONDS
        self.keeper.on_time(self.now)


def test_a_snapshot_is_taken_slice_by_slice_with_a_pause_between() -> None:
    bench = Bench()
    keeper = bench.keeper
    keeper.consider()
    keeper.consider()
    assert bench.take() == [TakeSnapshot()]
    keeper.take_slice(SnapshotSlice(10, 0, b"ab", False), bench.now)
    keeper.on_time(bench.now)
    assert bench.take() == []
    bench.wait()
    assert bench.take() == [NextSlice(10, 1, PAUSE_SECONDS * SLICES_SHARE)]
    keeper.take_slice(SnapshotSlice(10, 2, b"c", True), bench.now)
    assert bench.core.snapshots.index == 10 and bench.core.log.first_index == 1
    bench.wait()
    assert bench.core.log.first_index == 11 and bench.storage.load().first_index == 11
    snapshot = bench.storage.load().snapshot
    assert snapshot is not None and snapshot.configuration == Configuration("abc").encode()
    assert bench.storage.read_snapshot(10, 0, 9) == b"abc"
    keeper.consider()
    assert bench.take() == [] and keeper.due_at is None


def test_a_long_log_is_compacted_in_steps() -> None:
    """No turn frees more than a bounded number of entries."""
    bench = Bench(count=2 * COMPACTION_STEP_ENTRIES + 5)
    bench.keeper.consider()
    last = bench.core.last_index
    bench.keeper.take_slice(SnapshotSlice(last, 0, b"x", True), bench.now)
    starts = []
    while bench.keeper.due_at is not None:
        bench.wait()
        starts.append(bench.core.log.snapshot_index)
    assert starts == [COMPACTION_STEP_ENTRIES, 2 * COMPACTION_STEP_ENTRIES, last]


def install(bench: Bench, terms: list[int], term: int) -> None:
    for chunk in chunks_of(terms, term):
        bench.core.step("b", chunk)
    ready = bench.core.ready()
    bench.keeper.write(ready)
    bench.storage.append(ready.hard_state, ready.batch)
    bench.storage.sync()
    bench.core.advance()


def test_the_log_that_an_installed_snapshot_replaced_is_given_up_in_steps() -> None:
    bench = Bench(count=2 * COMPACTION_STEP_ENTRIES + 5)
    install(bench, [1] * (2 * COMPACTION_STEP_ENTRIES + 30), term=3)
    left = []
    while bench.keeper.due_at is not None:
        bench.wait()
        left.append(len(bench.core.log._replaced))
    assert left[:3] == [COMPACTION_STEP_ENTRIES + 5, 5, 0]


def test_what_came_damaged_is_received_again_after_the_next_check() -> None:
    bench = Bench()
    terms = [1] * 10 + [2] * 20
    *_, last = chunks_of(terms, term=3)
    for chunk in chunks_of(terms, term=3):
        bench.core.step("b", chunk.with_data(b"?" * len(chunk.data)) if chunk == last else chunk)
    bench.keeper.write(bench.core.ready())
    bench.core.advance()
    assert bench.core.snapshots.installation.is_suspended
    bench.keeper.check_room(False, 1 << 40, 0, bench.now)
    install(bench, terms, term=3)
    assert bench.core.snapshots.index == 30


@pytest.mark.parametrize("has_slice", [True, False])
def test_the_applier_hears_that_its_snapshot_is_given_up_for_one_that_then_breaks_off(
    has_slice: bool,
) -> None:
    """It keeps the state as it was for as long as it believes that somebody wants the rest: nothing of the
    past is swept away meanwhile."""
    bench = Bench()
    keeper = bench.keeper
    keeper.consider()
    if has_slice:
        keeper.take_slice(SnapshotSlice(10, 0, b"own", False), bench.now)
    bench.take()
    first, *_ = chunks_of([1] * 10 + [2] * 20, term=3)
    bench.core.step("b", first)
    bench.keeper.write(bench.core.ready())
    bench.core.advance()
    if not has_slice:  # it was on its way
        keeper.take_slice(SnapshotSlice(10, 0, b"own", False), bench.now)
    assert SnapshotGivenUp(10) in bench.take()


def test_a_leaders_snapshot_is_given_to_the_applier_in_parts_and_ends_the_own_one() -> None:
    bench = Bench()
    keeper = bench.keeper
    keeper.consider()
    keeper.take_slice(SnapshotSlice(10, 0, b"own", False), bench.now)
    bench.take()
    install(bench, [1] * 10 + [2] * 20, term=3)
    meta = bench.core.snapshots.newest
    assert meta is not None and meta.index == 30
    assert bench.take() == [SnapshotGivenUp(10), RestoreSnapshot(30, meta.size_bytes, meta.term)]
    keeper.take_slice(SnapshotSlice(10, 3, b"own, late", True), bench.now)
    assert bench.take() == [SnapshotGivenUp(10)]
    assert bench.core.snapshots.index == 30
    bench.wait()
    assert bench.take() == []
    keeper.want_part(PartWanted(10, 0), bench.now)
    bench.wait()
    assert bench.take() == []
    keeper.want_part(PartWanted(30, 0), bench.now)
    keeper.on_time(bench.now)
    assert bench.take() == []  # whatever else has come is heard before a part takes its time
    bench.now += PART_PAUSE_SECONDS
    keeper.on_time(bench.now)
    [part] = bench.take()
    assert isinstance(part, SnapshotPart) and len(part.data) == meta.size_bytes
    assert bench.core.snapshots.is_restoring
    keeper.note_restored(SnapshotRestored(30))
    assert not bench.core.snapshots.is_restoring
    assert bench.storage.load().hard_state.term == 3


def test_a_late_slice_of_a_snapshot_that_was_given_up_is_not_written() -> None:
    bench = Bench(interval=2)
    keeper = bench.keeper
    keeper.consider()
    keeper.take_slice(SnapshotSlice(10, 0, b"a", False), bench.now)
    keeper.take_slice(SnapshotSlice(9, 5, b"late", True), bench.now)
    keeper.take_slice(SnapshotSlice(10, 1, b"b", True), bench.now)
    assert bench.storage.read_snapshot(10, 0, 9) == b"ab"


def busy_snapshot(turn_seconds: float, log_bytes_per_second: int) -> tuple[float, int, int]:
    """Of a snapshot of 20 MB, while no turn is shorter: seconds, the log since then, the longest slice."""
    bench = Bench()
    slices, longest = Slices(iter([bytes(1000)] * 20_000)), 0
    bench.keeper.consider()
    for _ in range(100_000):
        for message in bench.take():  # the applier's part of the turn before
            count = message.count if isinstance(message, NextSlice) else 1
            offset = slices.offset
            parts = [slices.next_slice() for _ in range(count)]
            data, is_last = b"".join(part for part, _ in parts), parts[-1][1]
            longest = max(longest, len(data))
            bench.keeper.take_slice(SnapshotSlice(10, offset, data, is_last), bench.now)
        if bench.core.snapshots.index == 10:
            return bench.now, bench.core.snapshots.log_bytes, longest
        bench.now += turn_seconds
        bench.core.snapshots.log_bytes += int(turn_seconds * log_bytes_per_second)
        bench.keeper.on_time(bench.now)
    raise AssertionError("the snapshot was never finished")


@pytest.mark.parametrize("turn_seconds", [0.001, 0.010, 0.030, 0.060, 0.096])
def test_a_busy_node_finishes_its_snapshot_before_the_log_outgrows_it(turn_seconds: float) -> None:
    """Its turns are long. With one slice a turn the log would grow many times as large as the state."""
    seconds, log_bytes, longest = busy_snapshot(turn_seconds, 9_000_000)
    assert seconds < 3.2
    assert log_bytes < 29_000_000  # the snapshot has 20
    assert longest <= MOST_SLICES * SLICE_BYTES
    assert busy_snapshot(turn_seconds, 4_000_000)[1] < 13_000_000


def test_a_turn_has_one_slice_as_long_as_the_log_does_not_outgrow_the_snapshot() -> None:
    """Turns are long as well where others have the processor: to do more in them would make them longer."""
    assert busy_snapshot(0.030, 500_000)[2] == SLICE_BYTES
    assert busy_snapshot(0.001, 9_000_000)[2] == SLICE_BYTES  # and where there are turns enough
    assert busy_snapshot(5.0, 100_000_000)[2] == MOST_SLICES * SLICE_BYTES


def test_what_was_handed_out_while_a_snapshot_was_written_counts_for_the_next_one() -> None:
    """Under load that is more than the snapshot. Not counted, it would lie in the log for ever so long."""
    bench = Bench()
    snapshots = bench.core.snapshots
    before = snapshots.log_bytes
    bench.keeper.consider()
    snapshots.log_bytes += 5000
    bench.keeper.take_slice(SnapshotSlice(10, 0, b"abc", True), bench.now)
    assert before > 0 and (snapshots.index, snapshots.log_bytes) == (10, 5000)


def test_slices_have_one_size_and_nothing_is_read_ahead() -> None:
    asked: list[int] = []

    def pieces() -> object:
        for number in range(4):
            asked.append(number)
            yield bytes([number]) * 5

    slices = Slices(pieces(), 8)  # type: ignore[arg-type]
    assert slices.next_slice() == (bytes([0] * 5 + [1] * 3), False)
    assert asked == [0, 1] and slices.offset == 8
    assert slices.next_slice() == (bytes([1] * 2 + [2] * 5 + [3]), False)
    assert slices.next_slice() == (bytes([3] * 4), True)
    assert Slices(iter([])).next_slice() == (b"", True)
    assert Slices(iter([b"12345678"]), 8).next_slice() in ((b"12345678", True), (b"12345678", False))


def test_a_slice_ends_where_the_machine_has_worked_long_enough() -> None:
    slices = Slices(iter([b"", b"ab", b"", b"", b"cdefgh", b"i", b""]), 4)
    found = [(slices.offset, *slices.next_slice()) for _ in range(6)]
    assert found == [
        (0, b"ab", False),
        (2, b"", False),
        (2, b"cdef", False),
        (6, b"ghi", False),
        (9, b"", True),
        (9, b"", True),
    ]


def test_a_fenced_node_begins_no_snapshot() -> None:
    """It would give its log up for a state that is wrong."""
    bench = Bench()
    bench.keeper.fence()
    bench.keeper.consider()
    assert bench.take() == []


def test_a_node_that_comes_to_rest_takes_a_snapshot_sooner_so_that_a_restart_is_short() -> None:
    """Under load it is due when the log is half as large as the last one; in a lull, an eighth."""
    bench = Bench()
    snapshots, keeper = bench.core.snapshots, bench.keeper

    def rest(seconds: int) -> list[object]:
        for _ in range(seconds):
            bench.now += 1.0
            keeper.check_room(False, 1 << 40, 0, bench.now)
        return bench.take()

    keeper.consider()
    bench.take()
    keeper.take_slice(SnapshotSlice(10, 0, bytes(80_000), True), bench.now)
    hand_out(bench, 10, size_bytes=1500)
    assert 80_000 / 8 < snapshots.log_bytes < 80_000 / 2
    assert rest(int(LULL_SECONDS) - 1) == []
    assert rest(2) == [TakeSnapshot()]


def test_the_few_entries_of_a_cluster_at_rest_end_no_lull() -> None:
    lull = Lull()
    assert not any(lull.lasts(1000 * second, float(second)) for second in range(1, 20))
    assert lull.lasts(20_000 + FEW_ENTRIES_PER_SECOND, 20.0) is False
    quiet = [lull.lasts(20_000 + FEW_ENTRIES_PER_SECOND * second, 20.0 + second) for second in range(1, 8)]
    assert quiet == [False] * 4 + [True] * 3
    assert not lull.lasts(40_000, 28.0)


def hand_out(bench: Bench, count: int, size_bytes: int) -> None:
    """So many more entries, committed and handed out."""
    core = bench.core
    first = core.last_index + 1
    batch = EntryBatch(first, [(1, EntryKind.COMMAND, bytes(size_bytes))] * count)
    core.step("b", AppendEntries(1, first - 1, 1, first + count - 1, batch))
    while core.has_ready():
        ready = core.ready()
        bench.storage.append(ready.hard_state, ready.batch)
        bench.storage.sync()
        core.advance()
