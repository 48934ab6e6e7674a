"""The mark of a fenced node on its disk: whole or not there, and there once put_up() has returned."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from raft.directory import DataDirectory
from raft.fence import FENCE_DRAFT_NAME, FENCE_NAME, UNREADABLE, FenceMark, FileFence
from raft.files import OsFiles
from raft.storage import StorageFailed
from tests.raft.disk import PowerLoss, SimulatedDisk

MARK = FenceMark(512, 2**64 - 1, 7, "another state")


def test_a_mark_is_found_again(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "n1", "c", "n1")
    assert directory.fence().mark is None
    directory.fence().put_up(MARK)
    directory.close()
    again = DataDirectory(tmp_path / "n1", "c", "n1")
    assert again.fence().mark == MARK
    again.close()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"index": "x"}', b"\xff\xfe"])
def test_a_mark_that_cannot_be_read_is_a_mark(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FENCE_NAME).write_bytes(content)
    assert FileFence(tmp_path, OsFiles()).mark == FenceMark(0, 0, 0, UNREADABLE, True)


@pytest.mark.parametrize("mark", [MARK, MARK._replace(has_forgotten=True)])
def test_a_mark_says_whether_the_node_may_vote(tmp_path: Path, mark: FenceMark) -> None:
    FileFence(tmp_path, OsFiles()).put_up(MARK._replace(reason="another one"))
    FileFence(tmp_path, OsFiles()).put_up(mark)
    assert FileFence(tmp_path, OsFiles()).mark == mark


def test_a_draft_is_no_mark_and_stands_in_nobody_s_way(tmp_path: Path) -> None:
    (tmp_path / FENCE_DRAFT_NAME).write_bytes(b"half")
    fence = FileFence(tmp_path, OsFiles())
    assert fence.mark is None
    fence.put_up(MARK)
    assert FileFence(tmp_path, OsFiles()).mark == MARK


def full_disk(*, has_room: bool) -> SimulatedDisk:
    disk = fenced_disk()
    if has_room:
        FileFence(Path("/d"), disk).keep_room()
    disk.capacity_bytes = sum(map(len, disk.contents().values()))
    return disk


@pytest.mark.parametrize("loses_power", [False, True])
def test_a_mark_is_durable_on_a_full_disk(loses_power: bool) -> None:
    """Its room is kept while there is some: else a node that is wrong would serve again after a restart."""
    disk = full_disk(has_room=True)
    if loses_power:  # the room itself is durable
        disk.lose_power(True)
    fence = FileFence(Path("/d"), disk)
    fence.keep_room()
    fence.put_up(MARK)
    disk.lose_power(False)
    assert FileFence(Path("/d"), disk).mark == MARK
    assert FENCE_DRAFT_NAME not in disk.list_directory(Path("/d"))


def test_a_disk_without_room_for_a_mark_is_no_reason_not_to_start() -> None:
    disk = full_disk(has_room=False)
    fence = FileFence(Path("/d"), disk)
    fence.keep_room()
    with pytest.raises(StorageFailed):
        fence.put_up(MARK)
    disk.capacity_bytes = 1 << 40
    again = FileFence(Path("/d"), disk)
    again.keep_room()
    disk.capacity_bytes = sum(map(len, disk.contents().values()))
    again.put_up(MARK)
    assert FileFence(Path("/d"), disk).mark == MARK


def full_behind_a_fence() -> SimulatedDisk:
    disk = full_disk(has_room=True)
    FileFence(Path("/d"), disk).put_up(MARK)
    disk.capacity_bytes = sum(map(len, disk.contents().values()))
    return disk


def test_a_node_with_a_wrong_state_that_has_forgotten_too_says_so_on_a_full_disk() -> None:
    """Else it would end at each start, and until then it might vote. The mark that it has gives the room."""
    forgetful = MARK._replace(has_forgotten=True)
    disk = full_behind_a_fence()
    before = len(disk.calls)
    FileFence(Path("/d"), disk).put_up(forgetful)
    count = len(disk.calls) - before
    disk.lose_power(False)
    assert FileFence(Path("/d"), disk).mark == forgetful
    for number in range(count):
        for seed in range(4):
            disk = full_behind_a_fence()
            disk.fail_at(number, PowerLoss())
            with pytest.raises(PowerLoss):
                FileFence(Path("/d"), disk).put_up(forgetful)
            disk.lose_power(Random(f"{number} {seed}"))
            mark = FileFence(Path("/d"), disk).mark
            assert mark is not None and (mark == MARK or mark.has_forgotten)


def test_power_is_lost_while_a_mark_takes_its_room() -> None:
    """Whatever is left of the draft has room again at the next start."""
    for number in range(8):
        disk = fenced_disk()
        FileFence(Path("/d"), disk).keep_room()
        disk.fail_at(number, PowerLoss())
        try:
            FileFence(Path("/d"), disk).put_up(MARK)
        except PowerLoss:
            pass
        disk.lose_power(Random(number))
        fence = FileFence(Path("/d"), disk)
        assert fence.mark in (None, MARK)
        if fence.mark is None:
            fence.keep_room()
            disk.capacity_bytes = sum(map(len, disk.contents().values()))
            fence.put_up(MARK)
            assert FileFence(Path("/d"), disk).mark == MARK


def fenced_disk() -> SimulatedDisk:
    disk = SimulatedDisk()
    DataDirectory(Path("/d"), "c", "n1", files=disk).close()
    return disk


def calls_of_a_fence() -> int:
    disk = fenced_disk()
    before = len(disk.calls)
    FileFence(Path("/d"), disk).put_up(MARK)
    return len(disk.calls) - before


@pytest.mark.parametrize("survives", [True, False])
def test_power_is_lost_before_every_call(survives: bool) -> None:
    """Whole or not there; and there, once put_up() has returned."""
    for number in range(calls_of_a_fence() + 1):
        disk = fenced_disk()
        disk.fail_at(number, PowerLoss())
        is_up = False
        try:
            FileFence(Path("/d"), disk).put_up(MARK)
            is_up = True
        except PowerLoss:
            pass
        disk.lose_power(survives)
        directory = DataDirectory(Path("/d"), "c", "n1", files=disk)
        fence = directory.fence()
        assert fence.mark == MARK or (fence.mark is None and not is_up), f"before call {number}"
        if fence.mark is None:
            fence.put_up(MARK)
            assert directory.fence().mark == MARK


def test_a_mark_that_cannot_be_written_ends_the_process() -> None:
    """A node that only believes itself fenced would serve again after its next start."""
    for number in range(1, calls_of_a_fence()):
        disk = fenced_disk()
        disk.fail_at(number, OSError(28, "no space left"))
        fence = FileFence(Path("/d"), disk)
        with pytest.raises(StorageFailed):
            fence.put_up(MARK)
        assert fence.mark is None
