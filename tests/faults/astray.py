"""Writes that the disk puts elsewhere, and reports as done: right data at a wrong offset, or in another file.

The node cannot see it while it is at work. It is seen at the next start, by what should be in one place and
by what was in the other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.faults.hard_disk import Astray, HardDisk, Step, Trap, read_image
from tests.faults.judge import CUT, REFUSED, WHOLE, Wrong, after_damage
from tests.faults.moments import NOT_REACHED, Stop, live
from tests.faults.points import SEGMENT_HEAD_BYTES, kind_of, records_in
from tests.faults.scenes import Scene, Told

SECTOR_BYTES = 512
LOG_POINTS = (
    "write entries",
    "write hard state",
    "snapshot: write mark",
    "segment switch: write seal",
    "segment switch: write head",
)
SNAPSHOT_POINTS = ("snapshot: write chunk", "snapshot: write header")


class Diverter(Trap):
    """Sends one write elsewhere, lets a few more writes of the log be acknowledged, and ends the process."""

    def __init__(self, disk: HardDisk, stop: Stop, rng: Random, *, to_other_file: bool) -> None:
        self._disk = disk
        self._first = stop.number + (stop.moment == "after")
        self._rng = rng
        self._to_other_file = to_other_file
        self._writes_left = rng.choice([1, 1, 2, 4])  # of the log, until the end
        self.lost: Step | None = None  # the write that went astray
        self.target: Astray | None = None

    def before(self, step: Step) -> Astray | None:
        if step.number < self._first or step.point not in LOG_POINTS + SNAPSHOT_POINTS:
            return None
        if self._disk.cuts_next_write and self.lost is None:
            return None  # the script's own loss of power comes first
        if self._disk.cuts_next_write:
            self._disk.stop_here()
        if self.lost is None:
            self.target = self._choose(step)
            self.lost = step if self.target else None
            return self.target
        if step.point in LOG_POINTS:
            self._writes_left -= 1
            if not self._writes_left:
                self._disk.stop_here()
        return None

    def _choose(self, step: Step) -> Astray | None:
        if not self._to_other_file:
            shifts = [
                s * SECTOR_BYTES for s in (-3, -2, -1, 1, 2, 5, 8) if step.offset + s * SECTOR_BYTES >= 0
            ]
            return Astray(step.path, step.offset + self._rng.choice(shifts))
        there = [path for path in self._disk.names if kind_of(path) in ("segment", "snapshot")]
        others = sorted(path for path in there if path != step.path)
        return Astray(self._rng.choice(others), step.offset) if others else None


def misdirect(*, to_other_file: bool) -> Callable[[Path, Stop, Random], str]:
    def run(root: Path, stop: Stop, rng: Random) -> str:
        traps: list[Diverter] = []

        def arm(disk: HardDisk) -> Trap:
            traps.append(Diverter(disk, stop, rng, to_other_file=to_other_file))
            return traps[0]

        life, end = live(root, arm)
        lost, target = traps[0].lost, traps[0].target
        life.disk.kill_process()
        if lost is None or target is None or end is None:
            return NOT_REACHED
        told = Told.of(life)
        scene = Scene(lost, "after", read_image(root), told)
        words = promise(scene, life.disk.steps, lost, target)
        floor = told.acknowledged_before(lost.path.name, lost.offset) if lost.point in LOG_POINTS else None
        word = after_damage(root, told, floor)
        if word not in words:
            raise Wrong(f"{word} and not {words}: {lost} went to {target}")
        return word

    return run


def promise(scene: Scene, steps: list[Step], lost: Step, target: Astray) -> set[str]:
    """What may come of it: of the hole that it left, and of what it has destroyed."""
    hole = (
        of_lost_chunk(scene, steps, lost, target)
        if lost.point in SNAPSHOT_POINTS
        else of_lost_record(scene, steps, lost, target)
    )
    stain = of_stain(scene, lost, target)
    if {REFUSED} in (hole, stain):
        return {REFUSED}
    return hole | stain


def of_lost_chunk(scene: Scene, steps: list[Step], lost: Step, target: Astray) -> set[str]:
    """Nobody reads a draft, nor an older snapshot, unless the newest is hurt: and then the one that was
    written over makes up for nothing."""
    renames = [step.path.name for step in steps[lost.number :] if step.point == "snapshot: rename"]
    if not renames or scene.snapshots[-1:] != renames[:1]:
        return {WHOLE}
    if scene.is_made_up_for(renames[0], without=target.path.name):
        return {WHOLE}
    return {REFUSED}


def of_lost_record(scene: Scene, steps: list[Step], lost: Step, target: Astray) -> set[str]:
    """Cut, if it was the end of the log, and of no effect if the process ended before that counted; if it
    stands further on in its own file, it is found there."""
    name = lost.path.name
    if lost.point == "segment switch: write head":
        renames = [step.path.name for step in steps[lost.number :] if step.point == "segment switch: rename"]
        return {REFUSED} if renames and renames[0] in scene.segments else {WHOLE}
    if name not in scene.segments:
        return {WHOLE}
    if lost.point == "segment switch: write seal" and scene.is_switching:
        return {WHOLE}
    if name != scene.segments[-1]:
        return {REFUSED}
    if target.path == lost.path and target.offset > lost.offset:
        return {REFUSED}
    later = records_in(scene.content(name), lost.offset + lost.length_bytes)
    if any(record.turn > lost.offset for record in later):
        return {REFUSED}
    # A snapshot that was made since may be of a term of which nothing tells any more.
    is_told = any(step.point == "snapshot: rename" for step in steps[lost.number :])
    return {CUT, WHOLE, REFUSED} if is_told else {CUT, WHOLE}


def of_stain(scene: Scene, lost: Step, target: Astray) -> set[str]:
    name, start = target.path.name, target.offset
    if target.path == lost.path:
        is_seen = start < lost.offset or name != scene.segments[-1]
        return {REFUSED} if is_seen and name in scene.segments else {WHOLE}
    if kind_of(target.path) == "snapshot":
        is_read = scene.snapshots[-1:] == [name] and not scene.is_made_up_for(name)
        return {REFUSED} if is_read else {WHOLE}
    if name not in scene.segments:
        return {WHOLE}
    used = max((record.stop for record in scene.records(name)), default=SEGMENT_HEAD_BYTES)
    if name != scene.segments[-1] or start < used:
        return {REFUSED}
    return {WHOLE, REFUSED}  # in space that was never written
