"""Snapshots taken, installed and compacted behind, on a disk that loses power or fails at any call.

One scripted life is broken at every single call of the disk. Whatever comes back, snapshot and log together
must tell the history that was acknowledged, perhaps more of what was appended, and nothing else.
"""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

import raft.snapshot
from raft.directory import DataDirectory
from raft.entries import EntryBatch, HardState
from raft.storage import CorruptSnapshot, Recovered, StorageFailed, snapshot_content
from raft.wal import WriteAheadLog
from tests.raft.disk import PowerLoss, SimulatedDisk, compact_wholly

HOME = Path("/data")
WAL = HOME / "wal"
SEGMENT_BYTES = 2048
COMMANDS = 30


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raft.snapshot, "CHUNK_BYTES", 700)


class Known(NamedTuple):
    """All that a node has to know: its term, its vote, and the terms and bodies of all entries ever."""

    term: int
    voted_for: str | None
    past: tuple[tuple[int, bytes], ...]


def body(index: int, term: int) -> bytes:
    return b"%d of %d;" % (index, term) * 12


def state_of(past: tuple[tuple[int, bytes], ...]) -> bytes:
    """What a state machine would put into its snapshot: here, everything."""
    return b"".join(b"%d:%d:%s" % (term, len(data), data) for term, data in past)


def past_of(content: bytes) -> tuple[tuple[int, bytes], ...]:
    past = []
    while content:
        term, length, content = content.split(b":", 2)
        past.append((int(term), content[: int(length)]))
        content = content[int(length) :]
    return tuple(past)


class Life:
    """What one node was to remember, in order, and how far it was told that this is durable."""

    def __init__(self) -> None:
        self.history = [Known(0, None, ())]
        self.acknowledged = 0
        self.log: WriteAheadLog | None = None

    def live(self, disk: SimulatedDisk) -> None:
        self.log = log = open_log(disk)
        log.load()
        self.turn(HardState(1, "n1", 0), 1, 8, 1)
        self.take(5)
        compact_wholly(log, 3)
        self.turn(HardState(1, "n1", 7), 9, 14, 1)
        log.begin_snapshot(9, 1, b"never finished")
        log.append_snapshot(bytes(range(250)) * 8)
        self.take(12)
        compact_wholly(log, 10, keep_snapshots=frozenset({5}))
        self.turn(HardState(3, None, 12), 13, 16, 2)
        self.install(19, 3, 12)
        self.turn(None, 20, 22, 3)
        compact_wholly(log, 19)
        self.turn(HardState(4, "n2", 20), 21, 23, 4)
        self.install(26, 4, 23)
        self.turn(None, 27, COMMANDS, 4)
        self.take(27)
        compact_wholly(log, 26)
        log.close()
        self.acknowledged = len(self.history) - 1

    def turn(self, state: HardState | None, first_index: int, last_index: int, term: int) -> None:
        log, known = self.log, self.history[-1]
        assert log is not None
        if state is not None:
            known = known._replace(term=state.term, voted_for=state.voted_for)
            self.history.append(known)
        for index in range(first_index, last_index + 1):
            # A torn write may leave any prefix of what one turn appended.
            past = (*known.past[: index - 1], (term, body(index, term)))
            self.history.append(known := known._replace(past=past))
            log.append(state, EntryBatch(index, [(term, 1, body(index, term))]))
            state = None
        log.sync()
        self.acknowledged = len(self.history) - 1

    def take(self, index: int) -> None:
        """Of the log as it is: nothing is remembered that was not before."""
        past = self.history[-1].past[:index]
        self._write(index, past[-1][0], state_of(past), replaces_log=False)

    def install(self, index: int, term: int, shared: int) -> None:
        """From a leader whose log differs from the entry after `shared` on: what this node had is void."""
        known = self.history[-1].past[:shared]
        past = (*known, *((term, body(at, term)) for at in range(shared + 1, index + 1)))
        self.history.append(self.history[-1]._replace(past=past))
        self._write(index, term, state_of(past), replaces_log=True)
        self.acknowledged = len(self.history) - 1

    def _write(self, index: int, term: int, content: bytes, *, replaces_log: bool) -> None:
        log = self.log
        assert log is not None
        log.begin_snapshot(index, term, b"configuration %d" % index)
        for start in range(0, len(content), 500):
            log.append_snapshot(content[start : start + 500])
        log.commit_snapshot(replaces_log=replaces_log)

    def check(self, found: Known) -> None:
        assert found in self.history[self.acknowledged :], (self.acknowledged, found)


def open_log(disk: SimulatedDisk) -> WriteAheadLog:
    return DataDirectory(HOME, "cluster", "n1", disk).open_log(segment_bytes=SEGMENT_BYTES)


def recover(disk: SimulatedDisk) -> tuple[Known, Recovered]:
    log = open_log(disk)
    recovered = log.load()
    past: tuple[tuple[int, bytes], ...] = ()
    snapshot = recovered.snapshot
    if snapshot is not None:
        past = past_of(b"".join(snapshot_content(log, snapshot, 333)))
        assert len(past) == snapshot.index and past[-1][0] == snapshot.term
        assert snapshot.configuration == b"configuration %d" % snapshot.index
        assert recovered.first_index - 1 <= snapshot.index <= recovered.last_index
    else:
        assert recovered.first_index == 1
    entries = tuple((term, data) for term, _, data in recovered.entries)
    overlap = len(past) - recovered.first_index + 1
    assert entries[:overlap] == past[recovered.first_index - 1 :], "log and snapshot differ"
    assert recovered.previous_term == (past[recovered.first_index - 2][0] if recovered.first_index > 1 else 0)
    state = recovered.hard_state
    return Known(state.term, state.voted_for, past + entries[overlap:]), recovered


def broken_off(number: int, failure: OSError | PowerLoss) -> tuple[Life, SimulatedDisk]:
    life, disk = Life(), SimulatedDisk()
    disk.fail_at(number, failure)
    with pytest.raises((PowerLoss, StorageFailed)):
        life.live(disk)
    return life, disk


def goes_on(disk: SimulatedDisk, known: Known) -> None:
    """A node that has recovered writes more, takes a snapshot of it, and finds all that again."""
    disk.kill_process()
    log = open_log(disk)
    recovered = log.load()
    term, index = known.term + 1, len(known.past) + 1
    log.append(HardState(term, "n9", 0), EntryBatch(index, [(term, 1, b"!")]))
    log.sync()
    disk.lose_power(False)
    expected = Known(term, "n9", (*known.past, (term, b"!")))
    assert recover(disk)[0] == expected
    disk.kill_process()
    log = open_log(disk)
    assert log.load().last_index == recovered.last_index + 1
    log.begin_snapshot(index, term, b"configuration %d" % index)
    log.append_snapshot(state_of(expected.past))
    log.commit_snapshot(replaces_log=False)
    compact_wholly(log, index)
    disk.lose_power(False)
    assert recover(disk)[0] == expected


def calls_of_a_life() -> int:
    disk = SimulatedDisk()
    Life().live(disk)
    return len(disk.calls)


def test_the_script_reaches_everything() -> None:
    life, disk = Life(), SimulatedDisk()
    life.live(disk)
    assert disk.calls.count("unlink") >= 6
    disk.kill_process()
    known, recovered = recover(disk)
    life.check(known)
    assert recovered.snapshot is not None and recovered.snapshot.index == 27
    assert recovered.last_index == COMMANDS and known.past[-1] == (4, body(COMMANDS, 4))
    names = disk.list_directory(WAL)
    assert len([name for name in names if name.startswith("snapshot-")]) == 1
    assert len([name for name in names if name.endswith(".wal")]) < 6


@pytest.mark.parametrize("survives", ["nothing", "everything", "some 1", "some 2", "some 3"])
def test_power_is_lost_before_every_call(survives: str) -> None:
    """While a snapshot is written, renamed or marked, installed, and while segments are released."""
    for number in range(calls_of_a_life()):
        life, disk = broken_off(number, PowerLoss())
        chance = Random(f"{survives} {number}") if survives.startswith("some") else survives == "everything"
        disk.lose_power(chance)
        known, _ = recover(disk)
        life.check(known)
        goes_on(disk, known)


def test_power_is_lost_again_during_recovery() -> None:
    for number in range(calls_of_a_life()):
        chance = Random(number)
        life, disk = broken_off(number, PowerLoss())
        disk.lose_power(chance)
        for _ in range(2):
            disk.fail_at(chance.randrange(40), PowerLoss())
            try:
                life.check(recover(disk)[0])
            except PowerLoss:
                pass
            disk.lose_power(chance)
        known, _ = recover(disk)
        life.check(known)
        goes_on(disk, known)


@pytest.mark.parametrize("then", ["restart", "power loss"])
def test_every_call_fails_once(then: str) -> None:
    """A failed call is the last one; a restart is sound."""
    for number in range(calls_of_a_life()):
        life, disk = broken_off(number, OSError(errno.EIO, "Input/output error"))
        calls = len(disk.calls)
        if life.log is not None:
            with pytest.raises(StorageFailed):
                life.log.sync()
            with pytest.raises(StorageFailed):
                life.log.begin_snapshot(1, 1, b"")
            life.log.close()
        assert len(disk.calls) == calls
        disk.kill_process()
        if then == "power loss":
            disk.lose_power(False)
        known, _ = recover(disk)
        life.check(known)
        goes_on(disk, known)


def test_any_flipped_byte_of_the_newest_snapshot_is_found_at_a_start() -> None:
    """It is refused, with the file and what to do, and never taken for an older or an empty state."""
    life, disk = Life(), SimulatedDisk()
    life.live(disk)
    good = disk.contents()
    path = next(path for path in good if path.name.startswith("snapshot-"))
    for at in range(0, len(good[path]), 7):
        content = bytearray(good[path])
        content[at] ^= 0x10
        hurt = SimulatedDisk(good | {path: bytes(content)})
        with pytest.raises(CorruptSnapshot) as caught:
            recover(hurt)
        assert caught.value.file == path
