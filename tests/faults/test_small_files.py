"""The mark of a fenced node and the room that is kept for it, under every fault at every call.

They are written outside of the log's life, so the matrix has no points for them. That of a restored directory
is in tests/raft/test_restoration.py, and decay of these files in tests/raft/test_decayed_files.py.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from raft.directory import DataDirectory
from raft.fence import FenceMark, FileFence
from raft.storage import StorageFailed
from tests.raft.disk import PowerLoss, SimulatedDisk

HOME = Path("/d")
DIFFERS = FenceMark(512, 2**64 - 1, 7, "another state")
FORGOT = FenceMark(9, 0, 0, "it has forgotten", True)


def keep_room(fence: FileFence) -> None:
    fence.keep_room()


def mark(fence: FileFence) -> None:
    fence.put_up(DIFFERS)


def mark_anew(fence: FileFence) -> None:
    fence.put_up(FORGOT)


# What was done before, and what is done.
STEPS: dict[str, tuple[list[Callable[[FileFence], None]], Callable[[FileFence], None]]] = {
    "keep room": ([], keep_room),
    "mark, without room": ([], mark),
    "mark, with room": ([keep_room], mark),
    "mark anew": ([keep_room, mark], mark_anew),
    "mark anew, with room": ([keep_room, mark, keep_room], mark_anew),
}
FAULTS: dict[str, OSError | PowerLoss | int] = {
    "crash": PowerLoss(),
    "power": PowerLoss(),
    "EIO": OSError(errno.EIO, os.strerror(errno.EIO)),
    "ENOSPC": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "short write": 10,
}


def prepared(step: str) -> SimulatedDisk:
    disk = SimulatedDisk()
    DataDirectory(HOME, "c", "n1", files=disk).close()
    for before in STEPS[step][0]:
        before(FileFence(HOME, disk))
    return disk


def opened(disk: SimulatedDisk) -> FileFence:
    """As a start finds it: nothing of this keeps a node from starting."""
    directory = DataDirectory(HOME, "c", "n1", files=disk)
    fence = directory.fence()
    directory.close()
    return fence


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("is_full", [False, True])
def test_a_mark_is_there_or_not_and_there_once_it_was_said(step: str, fault: str, is_full: bool) -> None:
    """A node whose fence is up stays behind it, whatever breaks off, and one without ends."""
    for number in range(100):
        disk = prepared(step)
        old = FileFence(HOME, disk).mark
        if is_full:
            disk.capacity_bytes = sum(map(len, disk.contents().values()))
        fence = FileFence(HOME, disk)
        disk.fail_at(number, FAULTS[fault])
        begin, returned = len(disk.calls), False
        try:
            STEPS[step][1](fence)
            returned = True
        except (PowerLoss, StorageFailed) as end:
            assert is_full or isinstance(end, PowerLoss) is (fault in ("crash", "power"))
        reached = len(disk.calls) - begin > number
        if fault == "EIO" and reached:
            assert not returned and len(disk.calls) - begin <= number + 2  # a close at most
        disk.kill_process()
        if fault == "power":
            disk.lose_power(Random(number))
        judge(opened(disk).mark, fence.mark if returned else None, old, step)
        disk.capacity_bytes = 1 << 40
        opened(disk).put_up(FORGOT)
        assert opened(disk).mark == FORGOT
        if not reached:
            return
    raise AssertionError("it never came to its end")


def judge(found: FenceMark | None, said: FenceMark | None, old: FenceMark | None, step: str) -> None:
    """One that cannot be read counts as that of a node that has forgotten, and only where one was before."""
    if said is not None:
        assert found == said
    elif old is not None:
        assert found is not None and (found == old or found.has_forgotten)
    else:
        assert found is None or (found == DIFFERS and step != "keep room")
