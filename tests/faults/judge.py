"""What became of a node after a fault, in one word.

Starts it again on the real files, and compares what it knows with what it was told. A refusal has to name the
place and the way out, and must leave the directory as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from kvstore.cli import exits
from raft.storage import (
    CorruptLog,
    CorruptSnapshot,
    DamagedIdentity,
    StorageError,
    StorageFailed,
    WrongDirectory,
)
from tests.faults.hard_disk import HardDisk, Image, read_image
from tests.faults.scenes import IDENTITY, Told
from tests.faults.script import Known, Process, goes_on, knowledge

WHOLE = "whole"  # everything acknowledged is there, and the node serves
REFUSED = "refused"  # the start is refused: file, place, index and remedy; the directory stays as it was
ENDED = (
    "ended"  # the process ends at once, acknowledges nothing more, and a restart has everything acknowledged
)
CUT = "cut"  # the end of the log is gone without a trace, in the way that docs/disk.md says it may

EXIT_CODES = {CorruptLog: 12, CorruptSnapshot: 12, WrongDirectory: 11, DamagedIdentity: 11}
# Not part of what a refusal must leave alone: it says who is there.
LOCK = IDENTITY.with_name("lock")


class Wrong(AssertionError):
    """A promise is broken: something acknowledged is lost, or something is there that never was."""


class Start(NamedTuple):
    """How a start went."""

    known: Known | None  # None: refused
    error: StorageError | None


def start(disk: HardDisk) -> Start:
    """Start a node and end it as kill -9 would."""
    before = read_image(disk.root)
    try:
        process = Process(disk)
        found = knowledge(process)
    except StorageFailed:
        raise
    except StorageError as error:
        check_refusal(error)
        disk.kill_process()
        check_untouched(before, read_image(disk.root))
        return Start(None, error)
    except AssertionError as error:
        raise Wrong(f"the start broke a rule: {error}") from error
    disk.kill_process()
    return Start(found, None)


def check_refusal(error: StorageError) -> None:
    """The message tells an operator where and what to do, and the exit code is the documented one."""
    text, kind = str(error), type(error)
    if exits.code_of(error) != EXIT_CODES.get(kind):
        raise Wrong(f"exit code {exits.code_of(error)} for {kind.__name__}")
    if isinstance(error, DamagedIdentity) and not (str(error.file) in text and error.remedy in text):
        raise Wrong(f"a refusal does not say which file and what to do: {text}")
    if isinstance(error, CorruptLog | CorruptSnapshot):
        place = f"at byte {error.offset}, log index {error.index}"
        missing = [part for part in (str(error.file), place, error.reason, error.remedy) if part not in text]
        if missing or error.index < 1:
            raise Wrong(f"a refusal does not say {missing}: {text}")


def check_untouched(before: Image, after: Image) -> None:
    changed = {path for path in before.keys() | after.keys() if before.get(path, 0) != after.get(path, 0)}
    if changed - {LOCK}:
        raise Wrong(f"a refused start has changed {sorted(map(str, changed))}")


def after_restart(disk: HardDisk, told: Told, *, thoroughly: bool = False) -> str:
    """The word for a node that is started again, whose files nobody has harmed: whole, or an error."""
    known = start_whole(disk)
    position = told.position_of(known)
    if position is None:
        raise Wrong(f"never so: term {known.term}, vote {known.voted_for}, {len(known.past)} entries")
    if position < told.acknowledged:
        raise Wrong(f"{told.acknowledged} were acknowledged and {position} are there")
    if thoroughly:
        goes_on(disk, known)
    return WHOLE


def start_whole(disk: HardDisk) -> Known:
    found = start(disk)
    if found.known is None:
        raise Wrong(f"a sound directory is refused: {found.error}")
    return found.known


def after_damage(root: Path, told: Told, floor: int | None, *, kind: type[StorageError] | None = None) -> str:
    """The word for a start on harmed files; `floor`: the place in the history that may not be lost in a cut,
    and `kind` the error of a refusal, if only one will do."""
    disk = HardDisk(root)
    try:
        found = start(disk)
    except StorageFailed as error:
        raise Wrong(f"damage is taken for a failure of the disk: {error}") from error
    finally:
        disk.kill_process()
    if found.known is None:
        if kind is not None and type(found.error) is not kind:
            raise Wrong(f"refused as {found.error}, not {kind.__name__}")
        return REFUSED
    position = told.position_of(found.known)
    if position is None:
        raise Wrong(f"something corrupt is served: {len(found.known.past)} entries")
    if position >= told.acknowledged:
        return WHOLE
    if floor is not None and position >= floor:
        return CUT
    raise Wrong(f"{told.acknowledged} were acknowledged, {floor} may not be cut, {position} are there")
