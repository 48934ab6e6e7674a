"""What is on the disk at one moment of a life, and what the node was told by then.

Reads segments and snapshots by docs/disk.md, from bytes that nobody has harmed yet, so that a promise can be
derived from what is there without asking the code that is to keep it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.faults.hard_disk import HardDisk, Image, Step, Trap
from tests.faults.points import MARK, SEAL, SEGMENT_HEAD_BYTES, Record, kind_of, records_in
from tests.faults.script import Acknowledged, Known, Life

DATA = Path("data")
WAL = DATA / "wal"
IDENTITY = DATA / "identity"


@dataclass(slots=True)
class Told:
    """What a node was to remember at a moment, and how far it was acknowledged."""

    history: list[Known]
    acknowledged: int
    turns: list[Acknowledged]

    @classmethod
    def of(cls, life: Life) -> Told:
        return cls(life.history.copy(), life.acknowledged, life.turns.copy())

    def position_of(self, known: Known) -> int | None:
        """Its last place in the history, None if this was never so."""
        for position in range(len(self.history) - 1, -1, -1):
            if self.history[position] == known:
                return position
        return None

    def acknowledged_before(self, segment: str, place: int) -> int:
        """The position up to which all was acknowledged that stands before a place in the log."""
        positions = [turn.position for turn in self.turns if (turn.segment, turn.stop) <= (segment, place)]
        return max(positions, default=0)


@dataclass
class Scene:
    """A killed process's disk: every call before, or with, one step has had its effect."""

    step: Step
    moment: str  # "before" or "after" it
    image: Image
    told: Told

    @cached_property
    def segments(self) -> list[str]:
        """Names, oldest first."""
        return sorted(path.name for path in self.image if kind_of(path) == "segment")

    @cached_property
    def snapshots(self) -> list[str]:
        return sorted(path.name for path in self.image if kind_of(path) == "snapshot")

    def content(self, name: str) -> bytes:
        return self.image[WAL / name] or b""

    def records(self, name: str) -> list[Record]:
        return records_in(self.content(name), SEGMENT_HEAD_BYTES)

    def first_index(self, name: str) -> int:
        """Of the entry that was to be written first in a segment."""
        first: int = struct.unpack_from("<Q", self.content(name), 16)[0]
        return first

    def filled_bytes(self, name: str) -> int:
        """How long the file of a segment was when it got its name."""
        filled: int = struct.unpack_from("<I", self.content(name), 504)[0]
        return filled

    def is_sealed(self, name: str) -> bool:
        return any(record.kind == SEAL for record in self.records(name))

    @cached_property
    def is_switching(self) -> bool:
        """The newest segment has nothing but its head: nobody relies on the seal before it yet."""
        newest = self.segments[-1]
        return len(self.records(newest)) == 1 and not any(
            self.content(newest)[self.records(newest)[0].stop :]
        )

    def is_spare_seal(self, name: str, start: int) -> bool:
        """Whether nothing but a seal stands from here on that the next start would write once more."""
        last = self.records(name)[-1]
        before = self.segments[-2:-1]
        return self.is_switching and [name] == before and last.kind == SEAL and start >= last.start

    @cached_property
    def base_index(self) -> int:
        """Up to this entry the log alone has nothing: segments were released, or a snapshot replaced them."""
        base = self.first_index(self.segments[0]) - 1
        for name in self.segments:
            for record in self.records(name):
                if record.kind == MARK:
                    index, _, replaces = struct.unpack_from("<QQ?", self.content(name), record.start + 32)
                    base = index if replaces else base
        return base

    def is_made_up_for(self, snapshot: str, *, without: str = "") -> bool:
        """Whether, without this snapshot, an older one and the log tell everything; also `without` that."""
        older = [index_of(name) for name in self.snapshots if name < snapshot and name != without]
        return self.base_index == 0 or any(index >= self.base_index for index in older)

    def is_vouched_for(self, name: str, start: int, stop: int) -> bool:
        """Whether something tells that what stood here was durable, once it is gone without a trace.

        A later segment does, the head that a segment gets before its name, and a record of a later turn.
        """
        if name != self.segments[-1]:
            return not self.is_spare_seal(name, start)
        hurt = [record for record in self.records(name) if record.start < stop and record.stop > start]
        content = self.content(name)
        hurt = [record for record in hurt if any(content[max(start, record.start) : min(stop, record.stop)])]
        if start < SEGMENT_HEAD_BYTES or not hurt or hurt[0].start == SEGMENT_HEAD_BYTES:
            return True
        later = records_in(content, hurt[-1].stop)
        return any(record.turn > hurt[0].start for record in later)


class Recorder(Trap):
    """Takes a picture of the disk at chosen moments of one undisturbed life."""

    def __init__(self, disk: HardDisk, wanted: set[tuple[int, str]]) -> None:
        self.scenes: list[Scene] = []
        self.life: Life | None = None
        self._disk = disk
        self._wanted = wanted

    def before(self, step: Step) -> None:
        self._take(step, "before")

    def after(self, step: Step) -> None:
        self._take(step, "after")

    def _take(self, step: Step, moment: str) -> None:
        if (step.number, moment) not in self._wanted:
            return
        assert self.life is not None, "nobody lives"
        disk, root = self._disk, self._disk.root
        image: Image = {
            path.relative_to(root): None if path in disk.directories else bytes(inode.cached)
            for path, inode in disk.names.items()
        }
        self.scenes.append(Scene(step, moment, image, Told.of(self.life)))


def record_life(root: Path, wanted: set[tuple[int, str]]) -> tuple[list[Step], list[Scene]]:
    """One undisturbed life: all its steps, and the scenes at those that are wanted."""
    disk = HardDisk(root)
    disk.trap = recorder = Recorder(disk, wanted)
    recorder.life = life = Life(disk)
    life.live()
    disk.kill_process()
    return disk.steps, recorder.scenes


def index_of(snapshot: str) -> int:
    """Up to which entry a snapshot stands for the log, by its name."""
    return int(snapshot.split("-")[1])
