"""The mark of a fenced node on its disk: whole or not there, and there once put_up() has returned."""

from __future__ import annotations

from pathlib import Path

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
