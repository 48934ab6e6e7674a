"""The log on a disk that fills up: what waits for room, what lives on the reserve, and what is the end.

Whatever was acknowledged is there after a restart, on the full disk too, and room that comes back is used.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path
from random import Random

import pytest

import raft.snapshot
from raft.directory import DataDirectory
from raft.entries import EntryBatch, HardState
from raft.files import FailStop, OsFiles
from raft.reserve import RESERVE_DRAFT_NAME, RESERVE_NAME, Reserve
from raft.segment import SEAL_BYTES, Identity, SegmentWriter, decode_segment_header, segment_name, sequence_of
from raft.snapshot import DRAFT_NAME
from raft.spare import SPARE_NAME
from raft.storage import DiskFull, Recovered, StorageFailed
from raft.supply import Supply
from raft.wal import WriteAheadLog
from tests.raft.disk import PowerLoss, SimulatedDisk

HOME = Path("/data")
WAL = HOME / "wal"
SEGMENT_BYTES = 4096
PLENTY = 1 << 40


class Node:
    """A log that is appended to, one entry a turn, and what it has acknowledged."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.disk = disk
        self.acknowledged = 0
        self.log = self._open()
        recovered = self.log.load()
        assert recovered.last_index == 0

    def _open(self) -> WriteAheadLog:
        return DataDirectory(HOME, "cluster", "n1", self.disk).open_log(segment_bytes=SEGMENT_BYTES)

    def turn(self, size: int = 200) -> None:
        index = self.acknowledged + 1
        self.log.append(HardState(1, "n1", 0), EntryBatch(index, [(1, 1, body(index, size))]))
        self.log.sync()
        self.acknowledged = index

    def live_until_the_end(self, most_turns: int = 1000) -> StorageFailed:
        for _ in range(most_turns):
            try:
                self.turn()
            except StorageFailed as failure:
                return failure
        raise AssertionError(f"{most_turns} turns on a full disk")

    def restart(self) -> Recovered:
        self.disk.kill_process()
        self.log = self._open()
        recovered = self.log.load()
        self.check(recovered)
        return recovered

    def check(self, recovered: Recovered) -> None:
        assert recovered.last_index in (self.acknowledged, self.acknowledged + 1)
        for index, (_, _, found) in enumerate(recovered.entries, recovered.first_index):
            assert found == body(index, len(found))
        self.acknowledged = recovered.last_index

    def names(self) -> list[str]:
        return self.disk.list_directory(WAL)

    def segments(self) -> int:
        return sum(sequence_of(name) is not None for name in self.names())


def body(index: int, size: int) -> bytes:
    return (b"%d;" % index * size)[:size]


def full_at(disk: SimulatedDisk, room_bytes: int = 0) -> None:
    disk.capacity_bytes = sum(len(inode.cached) for inode in disk.names.values()) + room_bytes


def ready_node(turns: int = 3) -> Node:
    """It has its reserve, and a spare that is begun."""
    node = Node(SimulatedDisk())
    for _ in range(turns):
        node.turn()
    assert not node.log.check_space().gave_up
    assert not node.log.check_space().gave_up
    assert RESERVE_NAME in node.names()
    return node


def test_the_reserve_is_made_and_kept_over_restarts() -> None:
    node = ready_node()
    [reserve] = [content for path, content in node.disk.contents().items() if path.name == RESERVE_NAME]
    assert reserve == bytes(SEGMENT_BYTES)
    node.disk.lose_power(False)
    node.restart()
    before = len(node.disk.calls)
    assert not node.log.check_space().gave_up
    assert len(node.disk.calls) == before  # and nothing is made anew
    assert RESERVE_NAME in node.names()


def test_a_full_disk_is_lived_through_as_long_as_the_reserve_lasts() -> None:
    node = ready_node()
    full_at(node.disk)
    before, segments = node.acknowledged, node.segments()
    failure = node.live_until_the_end()
    # The rest of this segment, what the spare had, and the reserve.
    assert node.segments() >= segments + 1
    assert RESERVE_NAME not in node.names()
    assert (node.acknowledged - before) * 200 > SEGMENT_BYTES
    assert "space" in str(failure) or "bytes were written" in str(failure)
    with pytest.raises(StorageFailed):
        node.log.sync()
    node.restart()  # on the full disk
    node.disk.capacity_bytes = PLENTY
    node.restart()
    node.turn()


@pytest.mark.parametrize("restarts", [False, True])
def test_room_that_comes_back_is_used(restarts: bool) -> None:
    node = ready_node()
    full_at(node.disk)
    while RESERVE_NAME in node.names():
        node.turn()
    assert node.log.check_space().gave_up
    if restarts:
        node.restart()
        node.log.check_space()
        assert RESERVE_NAME not in node.names()
    node.disk.capacity_bytes = PLENTY
    for _ in range(4):
        node.log.check_space()
    assert not node.log.check_space().gave_up
    assert RESERVE_NAME in node.names()
    for _ in range(200):
        node.turn()
    node.restart()


def test_a_full_disk_is_not_asked_again_before_the_next_check() -> None:
    """Nor told of in the log again and again."""
    node = ready_node()
    full_at(node.disk)
    while not node.log.check_space().gave_up:
        node.turn(100)
    before = node.disk.calls.count("pwrite")
    for _ in range(5):
        node.turn(10)
    assert node.disk.calls.count("pwrite") == before + 5


def test_power_is_lost_while_the_reserve_becomes_a_segment() -> None:
    """At every call of it, and whatever comes through. What a taken reserve holds is never believed."""
    for number in range(400):
        node = ready_node()
        full_at(node.disk)
        node.disk.fail_at(number, PowerLoss())
        try:
            node.live_until_the_end()
            reached_the_end = True
        except PowerLoss:
            reached_the_end = False
        node.disk.fault = None
        node.disk.lose_power(Random(number))
        node.restart()
        node.disk.capacity_bytes = PLENTY
        # With another vote than before the head is shorter: what lay behind it would show.
        node.log.append(HardState(2, None, 0), None)
        for _ in range(40):
            index = node.acknowledged + 1
            node.log.append(HardState(2, None, 0), EntryBatch(index, [(2, 1, body(index, 200))]))
            node.log.sync()
            node.acknowledged = index
        node.disk.lose_power(False)
        node.restart()
        if reached_the_end:
            assert number > 50
            return
    raise AssertionError("the script never came to its end")


def test_a_reserve_that_was_taken_once_is_thrown_away(tmp_path: Path) -> None:
    """The power went before it had the name of a segment: what is in it would be read as records."""
    whole = bytes(4096)
    for content, is_whole in ((whole, True), (b"head" + whole[4:], False), (whole[:100], False)):
        (tmp_path / RESERVE_NAME).write_bytes(content)
        reserve = Reserve(tmp_path, FailStop(OsFiles()), 4096, 4096)
        reserve.load()
        assert reserve.is_whole is is_whole
        assert (tmp_path / RESERVE_NAME).exists() is is_whole


def test_a_clean_end_on_a_full_disk_needs_no_segment_for_its_last_record() -> None:
    """Whatever room the last segment has left, and though the reserve is used up."""
    without = 0
    for size in range(1, 97, 32):
        node = ready_node()
        full_at(node.disk)
        while RESERVE_NAME in node.names():
            node.turn()
        node.turn(size)
        log, small = node.log, 96  # so long is the record of a turn with ten bytes
        assert log._writer is not None
        while log._capacity - log._writer.end >= small + SEAL_BYTES:
            node.turn(10)
        without += log._capacity - log._writer.end < 64 + SEAL_BYTES
        segments = node.segments()
        log.close()
        assert node.segments() == segments
        node.restart()
    assert without


def test_an_append_that_has_no_room_is_the_end() -> None:
    """One that is longer than what is made ready for it."""
    node = ready_node()
    full_at(node.disk)
    with pytest.raises(StorageFailed):
        node.turn(100_000)
    with pytest.raises(StorageFailed):
        node.turn()
    node.restart()


def test_a_start_on_a_full_disk_succeeds_and_goes_on_with_what_there_is() -> None:
    for turns in range(3, 40):
        node = ready_node(turns)
        node.disk.kill_process()
        full_at(node.disk)
        node.restart()
        node.turn()
        node.turn()
        node.restart()


def test_an_unfinished_write_is_cut_off_on_a_full_disk_though_no_copy_has_room() -> None:
    node = ready_node()
    node.disk.fail_at(0, 40, "pwrite")
    with pytest.raises(StorageFailed):
        node.turn()
    if SPARE_NAME in node.names():
        node.disk.unlink(WAL / SPARE_NAME)
    full_at(node.disk)
    acknowledged = node.acknowledged
    assert node.restart().last_index == acknowledged
    assert not [name for name in node.names() if name.endswith(".broken")]
    node.turn()


@pytest.mark.parametrize("room_bytes", [0, 10, 300, 700, 1200, 1500])
def test_a_snapshot_without_room_is_given_up_and_taken_later(
    room_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its draft takes no room afterwards, and the log goes on."""
    monkeypatch.setattr(raft.snapshot, "CHUNK_BYTES", 500)
    node = ready_node()
    full_at(node.disk, room_bytes)
    with pytest.raises(DiskFull):
        take_snapshot(node)
    assert DRAFT_NAME not in node.names()
    assert node.log.check_space().gave_up
    node.turn()
    node.disk.capacity_bytes = PLENTY
    take_snapshot(node)
    space = node.log.check_space()
    assert space.wanted_bytes == SEGMENT_BYTES + 1500
    recovered = node.restart()
    assert recovered.snapshot is not None and recovered.snapshot.index == 2


def test_a_snapshot_leaves_the_last_bytes_to_the_log_and_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would have fitted, to the last byte."""
    monkeypatch.setattr(raft.snapshot, "CHUNK_BYTES", 500)
    node = ready_node()
    full_at(node.disk, SEGMENT_BYTES + 1200)  # a slice is as long as a segment here
    node.log.begin_snapshot(2, 1, b"configuration")
    for _ in range(3):
        node.log.check_draft_room()
        node.log.append_snapshot(bytes(500))
    with pytest.raises(DiskFull):
        node.log.check_draft_room()
    assert DRAFT_NAME not in node.names() and node.log.check_space().gave_up
    node.turn()


@pytest.mark.parametrize("room_bytes", [0, 1, 100, 500, 1000, 1500, 2000, 3000, SEGMENT_BYTES - 1])
def test_a_snapshot_that_frees_room_has_all_of_it_but_the_reserve(
    room_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is left beside the spare, which takes what a full disk has. Such a snapshot was given up
    for too few bytes, and nothing else would ever have made more."""
    monkeypatch.setattr(raft.snapshot, "CHUNK_BYTES", 500)
    node = ready_node()
    assert SPARE_NAME in node.names()
    full_at(node.disk, room_bytes)
    with pytest.raises(DiskFull):
        take_snapshot(node)
    node.log.yield_room(True)
    assert SPARE_NAME not in node.names() and RESERVE_NAME in node.names()
    for _ in range(3):
        node.turn()  # fills no other one meanwhile
        assert node.log.check_space().gave_up
    take_snapshot(node)
    node.log.yield_room(False)
    for _ in range(10):
        node.turn()
    recovered = node.restart()
    assert recovered.snapshot is not None and recovered.snapshot.index == 2


def test_nothing_is_yielded_while_the_reserve_is_not_whole() -> None:
    """The spare is all that the log has then."""
    disk = SimulatedDisk()
    supply = Supply(HOME, FailStop(disk), reserve_bytes=4096, slice_bytes=1024)
    supply.fill(2048)
    supply.yield_room(True)
    assert disk.list_directory(HOME) == [SPARE_NAME] and not supply.yields
    assert supply.name(2, begin, 2048)[2] == 2048


def test_a_spare_that_was_given_up_is_filled_again_bit_by_bit() -> None:
    disk = SimulatedDisk()
    supply = Supply(HOME, FailStop(disk), reserve_bytes=4096, slice_bytes=1024)
    for _ in range(6):
        supply.check(PLENTY)
    supply.fill(32 << 10)
    supply.yield_room(True)
    supply.fill(32 << 10)
    assert SPARE_NAME not in disk.list_directory(HOME)
    supply.yield_room(False)
    sizes = []
    for _ in range(5):
        supply.fill(32 << 10)
        sizes.append(len(disk.contents()[HOME / SPARE_NAME]) >> 10)
    assert sizes == [8, 16, 24, 32, 32]


def take_snapshot(node: Node) -> None:
    node.log.begin_snapshot(2, 1, b"configuration")
    for _ in range(3):
        node.log.check_draft_room()
        node.log.append_snapshot(bytes(500))
    node.log.commit_snapshot(replaces_log=False)


@pytest.mark.parametrize("call", ["create", "pwrite", "fdatasync", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_only_want_of_room_is_survived(call: str, number: int) -> None:
    """A snapshot whose disk fails is no reason to go on, nor is one that merely does not fit one to stop."""
    node = ready_node()
    node.disk.fail_at(1 if call == "pwrite" else 0, OSError(number, os.strerror(number)), call)
    if call == "fdatasync":
        node.log.begin_snapshot(2, 1, b"configuration")  # the log has nothing to sync, so this is the draft
    with pytest.raises(StorageFailed if number == errno.EIO else DiskFull):
        take_snapshot(node)
    node.disk.fault = None
    if number == errno.EIO:
        with pytest.raises(StorageFailed):
            node.turn()
    else:
        node.turn()
        take_snapshot(node)
    node.restart()


begin = partial(SegmentWriter.begin, Identity("cluster", "n1"), 2, 1, 0, HardState())


@pytest.mark.parametrize("call", ["create", "pwrite", "fdatasync", "rename"])
def test_a_spare_without_room_at_any_of_its_calls_gives_way_to_the_reserve(call: str) -> None:
    disk = SimulatedDisk()
    supply = Supply(HOME, FailStop(disk), reserve_bytes=4096, slice_bytes=1024)
    for _ in range(5):
        supply.check(PLENTY)
    assert RESERVE_NAME in disk.list_directory(HOME)
    if call != "create":
        supply.fill(1024)
    disk.fail_at(0, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), call)
    _, descriptor, filled = supply.name(2, begin, 1024)
    head = begin(4096)[1]
    assert disk.list_directory(HOME) == [segment_name(2)]
    assert filled == 4096
    assert disk.pread(descriptor, 8192, 0) == head.ljust(4096, b"\0")
    disk.lose_power(False)
    assert disk.contents() == {HOME / segment_name(2): head.ljust(4096, b"\0")}
    assert supply.given_up == 1


def test_a_short_spare_has_to_do_where_nothing_else_is() -> None:
    disk = SimulatedDisk(capacity_bytes=2500)
    supply = Supply(HOME, FailStop(disk), reserve_bytes=4096, slice_bytes=1024)
    supply.fill(4096)
    assert supply.check(0)
    assert supply.name(2, begin, 4096)[2] == 2048
    header = decode_segment_header(disk.contents()[HOME / segment_name(2)])
    assert not isinstance(header, str) and header.filled_bytes == 2048


def test_a_spare_that_is_too_short_for_the_record_gives_way_to_the_reserve() -> None:
    """The record would have grown it beyond what is left of the disk, with a whole reserve beside it."""
    disk = SimulatedDisk()
    log = DataDirectory(HOME, "cluster", "n1", disk).open_log(segment_bytes=1 << 20)
    log.load()
    for _ in range(6):
        log.check_space()  # the reserve is filled
    index = 0

    def turn(size: int) -> None:
        nonlocal index
        index += 1
        log.append(HardState(1, "n1", 0), EntryBatch(index, [(1, 1, body(index, size))]))
        log.sync()

    turn(300 << 10)
    sizes = {path.name: len(content) >> 10 for path, content in disk.contents().items()}
    assert (sizes[SPARE_NAME], sizes[RESERVE_NAME]) == (512, 1024)
    full_at(disk)
    turn(800 << 10)
    assert not {SPARE_NAME, RESERVE_NAME} & set(disk.list_directory(WAL))
    disk.kill_process()
    recovered = DataDirectory(HOME, "cluster", "n1", disk).open_log(segment_bytes=1 << 20).load()
    assert [len(entry[2]) >> 10 for entry in recovered.entries] == [300, 800]


def test_drafts_of_a_reserve_are_thrown_away() -> None:
    node = ready_node()
    node.log.close()
    node.disk.unlink(WAL / RESERVE_NAME)
    node.disk.close(node.disk.create(WAL / RESERVE_DRAFT_NAME))
    node.restart()
    assert RESERVE_DRAFT_NAME not in node.names()


def test_free_bytes_is_what_this_process_may_write(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    assert abs(OsFiles().free_bytes(tmp_path) - found.f_bavail * found.f_frsize) < 1 << 30
