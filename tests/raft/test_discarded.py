"""Files that are of no use any more: their names go one by one and durably, their space in small steps."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random

import pytest

from raft import discarded
from raft.actor_messages import SnapshotSlice
from raft.directory import DataDirectory
from raft.discarded import Discarded
from raft.entries import EntryBatch, HardState
from raft.files import FailStop, OsFiles
from raft.snapshot_keeper import PAUSE_SECONDS
from raft.storage import MemoryStorage, Recovered
from raft.wal import WriteAheadLog
from tests.raft.disk import PowerLoss, SimulatedDisk
from tests.raft.network import entries_of
from tests.raft.test_snapshot_keeper import Bench, install

HOME = Path("/data")
SEGMENT_BYTES = 4096
NAME_CALLS = frozenset({"unlink", "fsync_directory"})
CALLS = frozenset({"open", "pread", "unlink", "fsync_directory", "truncate"})


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discarded, "STEP_BYTES", 1000)


def test_a_step_gives_back_no_more_than_its_share() -> None:
    disk = SimulatedDisk({HOME / "a": bytes(2500), HOME / "b": bytes(900), HOME / "c": bytes(999)})
    bin_ = Discarded(HOME, FailStop(disk))
    bin_.add(HOME / "a", 3600)  # and so is this one
    bin_.add(HOME / "b", 900)
    bin_.add(HOME / "c", 5000)  # it is smaller than it might have been
    assert disk.contents() == {} and len(disk._open) == 1
    assert [call for call in disk.calls if call in ("unlink", "fsync_directory")] == [
        "unlink",
        "fsync_directory",
        "unlink",
        "fsync_directory",
        "unlink",
    ]
    before = len(disk.calls)
    left = []
    while bin_.step():
        left += [len(inode.cached) for _, inode in disk._open.values()]
    assert left == [2500, 2000, 1000] and not disk._open
    assert disk.calls[before:] == ["fsync_directory", "truncate", "truncate", "truncate"]
    assert not bin_.step()


def test_what_is_left_at_the_end_is_left_to_the_system(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(10_000))
    bin_ = Discarded(tmp_path, FailStop(OsFiles()))
    bin_.add(tmp_path / "a", 10_000)
    assert bin_.step() and list(tmp_path.iterdir()) == []
    bin_.close()
    assert not bin_.step()


def test_a_bad_sector_in_what_nobody_needs_any_more_ends_nothing() -> None:
    """It was read for its length only."""

    class BadSectors(SimulatedDisk):
        def pread(self, descriptor: int, length_bytes: int, offset: int) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk = BadSectors({HOME / "a": bytes(2500), HOME / "b": bytes(900)})
    bin_ = Discarded(HOME, FailStop(disk))
    bin_.add(HOME / "a", 2500)
    bin_.add(HOME / "b", 5000)
    while bin_.step():
        pass
    assert disk.contents() == {} and not disk._open


def life(disk: SimulatedDisk) -> None:
    """A log with segments and snapshots that are larger than a step, compacted twice."""
    data = DataDirectory(HOME, "c1", "n1", disk)
    log = data.open_log(segment_bytes=SEGMENT_BYTES)
    recovered = log.load()
    for index in range(recovered.last_index + 1, 61):
        log.append(HardState(1, None, index - 1), EntryBatch(index, [(1, 1, b"%d" % index * 150)]))
        log.sync()
        if index in (20, 40, 60):
            log.begin_snapshot(index, 1, b"{}")
            log.append_snapshot(b"%d" % index * 2500)
            log.commit_snapshot(replaces_log=False)
            while log.compact(index):
                pass
    log.close()
    data.close()


def test_power_is_lost_at_any_moment_and_the_log_is_whole() -> None:
    """A file that comes back under its name has all its bytes, or the log would be taken for damaged."""
    whole = SimulatedDisk()
    life(whole)
    assert whole.calls.count("truncate") > 10
    first = whole.calls.index("truncate") - 8
    moments = [number for number, call in enumerate(whole.calls) if number > first and call in CALLS]
    for number in moments:
        disk = SimulatedDisk()
        disk.fail_at(number, PowerLoss())
        with pytest.raises(PowerLoss):
            life(disk)
        disk.lose_power(Random(number))
        data = DataDirectory(HOME, "c1", "n1", disk)
        recovered = data.open_log(segment_bytes=SEGMENT_BYTES).load()
        for index, (_, _, body) in enumerate(recovered.entries, recovered.first_index):
            assert body == b"%d" % index * 150
        data.close()


class AnyNames(SimulatedDisk):
    """Its file system has no journal: any change to names may come through without the others."""

    def lose_power(self, chance: Random | bool, keep_probability: float = 0.5) -> None:
        assert isinstance(chance, Random)
        kept = [change for change in self.unsynced_names if chance.random() < keep_probability]
        for _, change in kept:
            change(self.durable_names)
        self.unsynced_names.clear()
        super().lose_power(chance, keep_probability)


def with_many_segments(segment_bytes: int) -> dict[Path, bytes]:
    """A log of which a snapshot covers everything, and nothing was released yet."""
    disk = SimulatedDisk()
    data = DataDirectory(HOME, "c1", "n1", disk)
    log = data.open_log(segment_bytes=segment_bytes)
    log.load()
    for index in range(1, 41):
        log.append(HardState(1, None, index - 1), EntryBatch(index, [(1, 1, b"%d" % index * 200)]))
        log.sync()
    log.begin_snapshot(40, 1, b"{}")
    log.append_snapshot(b"40" * 2500)
    log.commit_snapshot(replaces_log=False)
    log.close()
    data.close()
    return disk.contents()


def compacted(disk: SimulatedDisk, segment_bytes: int) -> None:
    """Many segments go at once."""
    log = DataDirectory(HOME, "c1", "n1", disk).open_log(segment_bytes=segment_bytes)
    assert log.load().last_index == 40
    while log.compact(40):
        pass


@pytest.mark.parametrize("segment_bytes", [900, 3000])
def test_no_name_in_the_middle_goes_before_an_older_one_is_gone_durably(segment_bytes: int) -> None:
    """A log with a gap is refused. Of segments that are given back in steps, and of smaller ones."""
    contents = with_many_segments(segment_bytes)
    whole = AnyNames(contents)
    compacted(whole, segment_bytes)
    unlinks = [number for number, call in enumerate(whole.calls) if call == "unlink"]
    assert len(unlinks) > 4
    for number in [at for at in range(unlinks[0], len(whole.calls)) if whole.calls[at] in NAME_CALLS]:
        for seed in range(3):
            disk = AnyNames(contents)
            disk.fail_at(number, PowerLoss())
            with pytest.raises(PowerLoss):
                compacted(disk, segment_bytes)
            disk.lose_power(Random(f"{number} {seed}"))
            log = DataDirectory(HOME, "c1", "n1", disk).open_log(segment_bytes=segment_bytes)
            assert log.load().last_index == 40


@pytest.mark.parametrize("segment_bytes", [900, 3000])
def test_a_step_of_a_compaction_takes_one_name_and_one_sync_at_most(segment_bytes: int) -> None:
    """A sync of the directory may take 30 ms: those of all segments in one turn are an election timeout."""
    disk = SimulatedDisk(with_many_segments(segment_bytes))
    log = DataDirectory(HOME, "c1", "n1", disk).open_log(segment_bytes=segment_bytes)
    log.load()
    for index in (39, 40):  # so that older snapshots go, too
        log.begin_snapshot(index, 1, b"{}")
        log.append_snapshot(b"another")
        log.commit_snapshot(replaces_log=False)
    steps, begin = 0, len(disk.calls)
    while log.compact(40):
        done, begin = disk.calls[begin:], len(disk.calls)
        assert done.count("unlink") + done.count("fsync_directory") <= 1, done
        steps += done.count("unlink")
    assert steps > 5 and disk.calls[begin:].count("fsync_directory") == 0
    assert len([path for path in disk.names if path.name.startswith("0000")]) == 1
    assert len([path for path in disk.names if path.name.startswith("snapshot-")]) == 1


class Slow(MemoryStorage):
    """Is asked three times before all is gone."""

    def __init__(self, recovered: Recovered) -> None:
        super().__init__(recovered)
        self.asked: list[int] = []

    def compact(self, index: int, keep_snapshots: frozenset[int] = frozenset()) -> bool:
        self.asked.append(index)
        return super().compact(index, keep_snapshots) or len(self.asked) % 3 != 0


def test_the_keeper_goes_on_until_all_is_given_back() -> None:
    """With a pause between two steps, after a snapshot of this node and after one of a leader; then, too, not
    before that is acknowledged."""
    bench = Bench()
    storage = bench.storage = bench.keeper._storage = Slow(bench.storage.load())
    bench.keeper.consider()
    bench.keeper.take_slice(SnapshotSlice(10, 0, b"x", True), bench.now)
    bench.wait()
    assert storage.asked == [10] and bench.keeper.due_at == bench.now + PAUSE_SECONDS
    bench.wait()
    bench.wait()
    assert storage.asked == [10] * 3 and bench.keeper.due_at is None
    install(bench, [1] * 10 + [2] * 20, term=3)
    assert storage.asked == [10] * 3
    while bench.keeper.due_at is not None:
        bench.wait()
    assert storage.asked == [10] * 3 + [30] * 3


def test_a_log_that_is_closed_in_the_middle_gives_its_descriptors_back() -> None:
    disk = SimulatedDisk()
    data = DataDirectory(HOME, "c1", "n1", disk)
    log: WriteAheadLog = data.open_log(segment_bytes=SEGMENT_BYTES)
    log.load()
    log.append(HardState(1, None, 0), EntryBatch(1, entries_of([1] * 40)))
    log.sync()
    for index in (10, 20):
        log.begin_snapshot(index, 1, b"{}")
        log.append_snapshot(bytes(5000))
        log.commit_snapshot(replaces_log=False)
    assert log.compact(20)
    log.close()
    data.close()
    assert not disk._open
