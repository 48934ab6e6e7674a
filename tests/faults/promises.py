"""The matrix: every fault at every point of the write path, and the word that is promised for it.

The words are in tests/faults/judge.py. Each cell is run at one or more moments of a life, before and after
the calls of its point; what must come of it is derived from what is on the disk then.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.faults.astray import misdirect
from tests.faults.damage import DAMAGES, Column, Hurt
from tests.faults.hard_disk import write_image
from tests.faults.judge import CUT, ENDED, REFUSED, WHOLE, Wrong, after_damage
from tests.faults.moments import (
    NOT_REACHED,
    SYNCS,
    WRITES,
    Fails,
    IsShort,
    NoRoom,
    Stop,
    crash,
    fail_here,
    failing,
    lose_all,
    tear,
)
from tests.faults.scenes import Scene


class Fault(NamedTuple):
    """One kind of fault at work: what it is called, what may come of it, and how a life runs into it."""

    name: str
    words: tuple[str, ...]
    run: Callable[[Path, Stop, Random], str]


FAULTS = (
    Fault("crash", (WHOLE,), crash),
    Fault("unsynced data lost", (WHOLE,), lose_all),
    Fault("torn write", (WHOLE,), tear),
    Fault("EIO on the call", (ENDED,), failing(fail_here)),
    Fault("EIO on write", (ENDED,), failing(lambda stop: Fails(stop, WRITES))),
    Fault("EIO on sync", (ENDED,), failing(lambda stop: Fails(stop, SYNCS))),
    Fault("short write", (ENDED, WHOLE), failing(lambda stop: IsShort(stop, WRITES))),
    Fault("ENOSPC", (ENDED, WHOLE), failing(lambda stop: NoRoom(stop, once=True))),
    Fault("disk full", (ENDED, WHOLE), failing(lambda stop: NoRoom(stop, once=False))),
    # Of the end of the log nothing else tells; whatever else went astray is missed, or found in its place.
    Fault("misdirected: offset", (REFUSED, CUT, WHOLE), misdirect(to_other_file=False)),
    Fault("misdirected: file", (REFUSED, CUT, WHOLE), misdirect(to_other_file=True)),
)


def run_fault(fault: Fault, root: Path, stop: Stop, seed: int) -> str:
    word = fault.run(root, stop, Random(f"{fault.name} {stop} {seed}"))
    if word not in (*fault.words, NOT_REACHED):
        raise Wrong(f"{word}, and not {' or '.join(fault.words)}")
    return word


def harm(column: Column, scene: Scene, seed: int) -> Hurt | None:
    return column.damage(scene, Random(f"{column.name} {scene.step.number} {scene.moment} {seed}"))


def run_damage(column: Column, root: Path, scene: Scene, seed: int) -> str:
    hurt = harm(column, scene, seed)
    if hurt is None:
        return column.absent
    write_image(root, hurt.image)
    try:
        word = after_damage(root, scene.told, hurt.floor, kind=hurt.error)
    except Wrong as wrong:
        raise Wrong(f"{hurt.what}: {wrong}") from wrong
    if word not in hurt.promise and (hurt.promise, word) != (CUT, WHOLE):
        raise Wrong(f"{hurt.what}: {word}, and not {hurt.promise}")
    return word


__all__ = ["DAMAGES", "FAULTS", "run_damage", "run_fault"]
