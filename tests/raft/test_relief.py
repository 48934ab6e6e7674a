"""A node with too little room on its disk: when it takes a snapshot to make some, and when it does not."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from raft.actor_messages import SnapshotGivenUp, SnapshotSlice, TakeSnapshot
from raft.relief import FIRST_PAUSE_SECONDS, LONGEST_DOUBTFUL_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from raft.snapshot_keeper import SnapshotKeeper
from raft.storage import DiskFull, MemoryStorage
from tests.raft.test_snapshot_keeper import Bench

ROOM_BYTES = 1000
FAR = 10**9  # entries: by the rules of every day no snapshot falls due


def finish(bench: Bench) -> None:
    last = bench.core.delivered_index
    bench.keeper.take_slice(SnapshotSlice(last, 0, b"abc", True), bench.now)


def begun(
    bench: Bench, *, is_low: bool = True, free_bytes: int = ROOM_BYTES, spent_segments: int = 1
) -> bool:
    """Was a snapshot begun at this check? They come once a second."""
    bench.now += 1.0
    bench.keeper.check_room(is_low, free_bytes, spent_segments, bench.now)
    return TakeSnapshot() in bench.take()


def test_a_full_disk_makes_a_snapshot_due_and_no_entries_are_kept_behind_it() -> None:
    """Deletes alone do not make the log grow: by its length no snapshot would ever be due."""
    bench = Bench(interval=FAR, trailing_entries=4)
    assert not begun(bench, is_low=False)
    assert begun(bench)
    finish(bench)
    bench.wait()
    assert bench.core.snapshots.index == 10 and bench.core.log.first_index == 11


def test_what_was_kept_behind_the_newest_snapshot_goes_first() -> None:
    bench = Bench(trailing_entries=4)
    bench.keeper.consider()
    finish(bench)
    bench.wait()
    assert bench.core.log.first_index == 7
    bench.take()
    assert not begun(bench)  # nothing has come since
    bench.wait()
    assert bench.core.log.first_index == 11


def test_no_snapshot_is_taken_that_could_free_nothing() -> None:
    bench = Bench(interval=FAR)
    assert not begun(bench, spent_segments=0)
    assert begun(bench)
    finish(bench)
    for _ in range(100):
        assert not begun(bench)  # nothing was handed out since


def test_attempts_that_do_not_help_come_ever_more_rarely() -> None:
    """Each writes the whole state."""
    bench = Bench(interval=FAR)
    times = []
    for _ in range(400):
        if begun(bench):
            times.append(bench.now)
            finish(bench)
        bench.core.snapshots.index = 5  # as if more had come since
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[:4] == [FIRST_PAUSE_SECONDS * 2**number for number in range(4)]
    assert gaps[-1] == LONGEST_PAUSE_SECONDS
    begun(bench, is_low=False)
    assert begun(bench)  # and what was learnt is forgotten once there was room


def test_a_pause_begins_when_a_snapshot_ends() -> None:
    bench = Bench(interval=FAR)
    assert begun(bench)
    for _ in range(20):
        assert not begun(bench)
    finish(bench)
    bench.core.snapshots.index = 5
    assert not begun(bench)
    assert begun(bench) or begun(bench) or begun(bench)


def given_up(bench: Bench, index: int = 10) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryStorage, "begin_snapshot", _no_room)
        bench.keeper.take_slice(SnapshotSlice(index, 0, b"abc", False), bench.now)
    assert bench.take() == [SnapshotGivenUp(index)]


@pytest.mark.parametrize("interval", [FAR, 1])
def test_a_snapshot_for_which_there_is_no_room_is_not_tried_again_and_again(interval: int) -> None:
    """While nothing is applied the state is the same, and so is the room that it needs; whatever makes the
    next one due."""
    bench = Bench(interval=interval)
    assert begun(bench)
    given_up(bench)
    for _ in range(200):
        assert not begun(bench, free_bytes=ROOM_BYTES * 6 // 5)
    assert begun(bench, free_bytes=ROOM_BYTES * 5 // 4)


def test_what_is_applied_after_a_snapshot_without_room_is_a_reason_to_try_again() -> None:
    """It may have been a delete of nearly everything."""
    bench = Bench(interval=FAR)
    assert begun(bench)
    given_up(bench, 9)  # and the tenth entry came while it was written
    assert [begun(bench) for _ in range(2)] == [False, True]


def test_attempts_come_more_rarely_still_while_less_is_free_than_the_newest_snapshot_takes() -> None:
    bench = Bench(interval=FAR)
    assert begun(bench)
    finish(bench)
    times = []
    for _ in range(2000):
        bench.core.snapshots.index = 5  # as if more had come since
        if begun(bench, free_bytes=2):
            times.append(bench.now)
            finish(bench)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[-1] == LONGEST_DOUBTFUL_PAUSE_SECONDS


class Yielding(MemoryStorage):
    """Remembers what it was told about the room."""

    said: list[bool]

    def yield_room(self, is_wanted: bool) -> None:
        self.said.append(is_wanted)


def yielding_bench(interval: int) -> tuple[Bench, list[bool]]:
    bench = Bench(interval=interval)
    storage = Yielding(bench.storage.load())
    storage.said = []
    bench.keeper = SnapshotKeeper(bench.core, storage, lambda to, what: bench.sent.append((to, what)))
    return bench, storage.said


def test_the_room_is_for_the_snapshot_until_it_has_ended() -> None:
    bench, said = yielding_bench(FAR)
    assert begun(bench) and said == [True]
    given_up(bench)
    assert said == [True, False]
    assert begun(bench, free_bytes=2 * ROOM_BYTES) or begun(bench, free_bytes=2 * ROOM_BYTES)
    assert said == [True, False, True]
    finish(bench)
    assert said == [True, False, True, False]


def test_a_snapshot_of_every_day_takes_no_room_from_the_log() -> None:
    bench, said = yielding_bench(1)
    bench.keeper.consider()
    assert TakeSnapshot() in bench.take()
    assert True not in said


class LastBytes(MemoryStorage):
    """Has room for one slice."""

    checks = 0

    def check_draft_room(self) -> None:
        self.checks += 1
        if self.checks > 1:
            _no_room()


def test_a_snapshot_is_given_up_before_it_takes_the_last_bytes() -> None:
    bench = Bench()
    storage = LastBytes(bench.storage.load())
    keeper = bench.keeper = SnapshotKeeper(
        bench.core, storage, lambda to, what: bench.sent.append((to, what))
    )
    keeper.consider()
    keeper.take_slice(SnapshotSlice(10, 0, b"abc", False), bench.now)
    assert TakeSnapshot() in bench.take()
    keeper.take_slice(SnapshotSlice(10, 3, b"def", False), bench.now)
    assert bench.take() == [SnapshotGivenUp(10)]


def _no_room(*_: object) -> None:
    raise DiskFull(Path("snapshot.tmp"), "no room")


def test_a_fenced_node_gives_nothing_up_for_room() -> None:
    """What its log has may be all that tells what went wrong."""
    bench = Bench(interval=FAR, trailing_entries=4)
    bench.keeper.fence()
    assert not begun(bench)
    bench.wait()
    assert bench.core.log.first_index == 1
