"""Faults that strike while a log is at work, at one point of the write path: lives that run into them.

Each life is started again and judged. What is promised stands in tests/faults/promises.py.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from raft.entries import EntryBatch
from raft.storage import CorruptSnapshot, StorageFailed
from tests.faults import points
from tests.faults.hard_disk import HardDisk, Step, Trap, no_space, write_image
from tests.faults.judge import ENDED, WHOLE, Wrong, after_restart
from tests.faults.scenes import Told
from tests.faults.script import Life, Stalled
from tests.raft.disk import PowerLoss

WRITES = frozenset({"pwrite"})
SYNCS = frozenset({"fdatasync", "fsync_directory"})
# What may fail for want of room without harm to the log: it can be given up, and is tried again later.
CAN_WAIT = (
    "segment switch: create next",
    "segment switch: fill next",
    "segment switch: write head",
    "reserve: create draft",
    "reserve: fill",
    "snapshot: create draft",
    "snapshot: write chunk",
    "snapshot: write header",
    points.TORN + "create copy",
    points.TORN + "write copy",
    points.START + "fill segment",
    points.START + "write lock",
)
NOT_REACHED = "n/a: no such call follows"


class Stop(NamedTuple):
    """A moment in a life: before or after the step of that number."""

    number: int
    moment: str
    point: str


class Ambush(Trap):
    """Waits for the first call of some kinds from a moment on, and remembers where it struck."""

    def __init__(self, stop: Stop, calls: frozenset[str]) -> None:
        self.first = stop.number + (stop.moment == "after")
        self.calls = calls
        self.struck: Step | None = None

    def promise(self) -> set[str]:
        """A call that failed is the last one."""
        return {ENDED}

    def is_due(self, step: Step) -> bool:
        return (
            self.struck is None and step.number >= self.first and (not self.calls or step.call in self.calls)
        )


class StopHere(Trap):
    """The process, or the machine, goes."""

    def __init__(self, disk: HardDisk, stop: Stop) -> None:
        self._disk, self._stop = disk, stop

    def before(self, step: Step) -> None:
        if (step.number, "before") == self._stop[:2]:
            self._disk.stop_here()

    def after(self, step: Step) -> None:
        if (step.number, "after") == self._stop[:2]:
            self._disk.stop_here()


class Fails(Ambush):
    """One call fails, with nothing of it done."""

    def before(self, step: Step) -> None:
        if self.is_due(step):
            self.struck = step
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class Wanting(Ambush):
    """Want of room. What can wait is given up: everything but the log's own writes."""

    has_reserve = False  # when it struck

    def promise(self) -> set[str]:
        assert self.struck is not None, "nothing was wanting"
        if not self.struck.point.startswith(CAN_WAIT):
            return {ENDED}
        is_switch = self.struck.point.startswith("segment switch")
        return {WHOLE} if self.has_reserve or not is_switch else {WHOLE, ENDED}

    def strike(self, step: Step) -> None:
        self.struck = step
        self.has_reserve = (step.path.parent / "reserve").exists()


class IsShort(Wanting):
    """One write is cut short, and says so; the rest of it would find room."""

    def promise(self) -> set[str]:
        assert self.struck is not None, "nothing was cut short"
        tries_again = (*CAN_WAIT, f"{points.FIRST}write segment", f"{points.TORN}overwrite")
        return {WHOLE} if self.struck.point.startswith(tries_again) else {ENDED}

    def before(self, step: Step) -> int | None:
        if not self.is_due(step):
            return None
        self.strike(step)
        return 3


class NoRoom(Wanting):
    """A call that needs room fails, once or from then on. What was filled before can be written to."""

    def __init__(self, stop: Stop, *, once: bool) -> None:
        super().__init__(stop, frozenset())
        self._once = once

    def before(self, step: Step) -> None:
        if step.call == "create" and self._strikes(step):
            raise no_space()

    def grow(self, step: Step, room_bytes: int, wanted_bytes: int) -> int:
        return room_bytes if self._strikes(step) else wanted_bytes

    def _strikes(self, step: Step) -> bool:
        if step.number < self.first or (self._once and self.struck is not None):
            return False
        if self.struck is None:
            self.strike(step)
        return True

    def promise(self) -> set[str]:
        """A disk that stays full is the end in the long run."""
        return super().promise() if self._once else {WHOLE, ENDED}


# -- one life --------------------------------------------------------------------------------------------


def live(root: Path, arm: Callable[[HardDisk], Trap]) -> tuple[Life, BaseException | None]:
    """A life from an empty directory into a trap: what it was told, and what ended it."""
    write_image(root, {})
    disk = HardDisk(root)
    disk.trap = arm(disk)
    life = Life(disk)
    try:
        life.live()
    except (PowerLoss, StorageFailed, CorruptSnapshot, Stalled) as end:
        return life, end  # a snapshot that was just written is looked at, and may be found damaged
    return life, None


def check_ended(life: Life) -> None:
    """After a failed call no other one is made, whatever is asked of the log."""
    if life.process is None:
        return
    log, made = life.process.log, len(life.disk.steps)
    for refused in (
        log.sync,
        lambda: log.append(None, EntryBatch(1, [(9, 1, b"x")])),
        lambda: log.begin_snapshot(1, 1, b""),
    ):
        try:
            refused()
        except StorageFailed:
            continue
        raise Wrong("the log goes on after a failure")
    log.close()
    if len(life.disk.steps) != made:
        raise Wrong(f"{life.disk.steps[made:]} came after a failure")


def finish(disk: HardDisk, rng: Random) -> None:
    """Kill the process; half of the times the power goes, too."""
    if rng.random() < 0.5:
        disk.kill_process()
    else:
        disk.lose_power(rng)


def crash(root: Path, stop: Stop, rng: Random) -> str:
    """kill -9: what was written is in the cache, and stays."""
    life, _ = live(root, lambda disk: StopHere(disk, stop))
    life.disk.kill_process()
    return after_restart(life.disk, Told.of(life), thoroughly=True)


def lose_all(root: Path, stop: Stop, rng: Random) -> str:
    """Nothing that was not synced survives, neither content nor names."""
    life, _ = live(root, lambda disk: StopHere(disk, stop))
    life.disk.lose_power(False)
    return after_restart(life.disk, Told.of(life), thoroughly=True)


def tear(root: Path, stop: Stop, rng: Random) -> str:
    """Any sectors of what was not synced survive, in any order."""
    life, _ = live(root, lambda disk: StopHere(disk, stop))
    life.disk.lose_power(rng, rng.choice([0.2, 0.5, 0.8, 0.95]))
    return after_restart(life.disk, Told.of(life), thoroughly=True)


def failing(make: Callable[[Stop], Ambush]) -> Callable[[Path, Stop, Random], str]:
    """A call fails, and the life ends, or goes on because nothing depends on that call."""

    def run(root: Path, stop: Stop, rng: Random) -> str:
        trap = make(stop)
        life, end = live(root, lambda disk: trap)
        if trap.struck is None:
            return NOT_REACHED
        if isinstance(end, PowerLoss | CorruptSnapshot):
            raise Wrong(f"a failed call is taken for something else: {end}")
        if isinstance(end, StorageFailed):
            check_ended(life)
        finish(life.disk, rng)
        after_restart(life.disk, Told.of(life), thoroughly=True)
        word = ENDED if isinstance(end, StorageFailed) else WHOLE
        if word not in trap.promise():
            raise Wrong(f"{word}, and not {trap.promise()}: {trap.struck}")
        return word

    return run


def fail_here(stop: Stop) -> Ambush:
    return Fails(stop._replace(moment="before"), frozenset())
