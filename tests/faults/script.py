"""One scripted life of a log on real files, which passes every point of the write path.

Remembers what was appended, in order, and how far that was acknowledged: what a sync has returned from. So it
can say of anything that is read back whether it is whole, cut, or was never there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import NamedTuple
from unittest import mock

import raft.discarded
import raft.snapshot
from raft.directory import DataDirectory
from raft.entries import EntryBatch, EntryKind, HardState
from raft.storage import DiskFull, Recovered, snapshot_content
from raft.wal import WriteAheadLog
from tests.faults.hard_disk import HardDisk, ScriptedCut

SEGMENT_BYTES = 8192
CHUNK_BYTES = 5000
STEP_BYTES = 6000
CLUSTER, NODE = "cluster", "n1"
STORAGE_ID = "00ff12a9077e31cd"
MEMBERS = {f"n{number}": f"tcp://127.0.0.1:{7000 + number}" for number in (1, 2, 3)}


class Known(NamedTuple):
    """All that a node has to know: its term, its vote, and the terms and bodies of all entries ever."""

    term: int
    voted_for: str | None
    past: tuple[tuple[int, bytes], ...]


class Acknowledged(NamedTuple):
    """What a sync has returned from."""

    segment: str
    stop: int  # where its write ended
    position: int  # in the history


def body(index: int, term: int) -> bytes:
    return b"%d of %d;" % (index, term) * 26


def kind(index: int) -> int:
    """Each record of three entries has one that is a configuration."""
    return EntryKind.COMMAND if index % 3 else EntryKind.CONFIGURATION


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


@contextmanager
def small_chunks() -> Iterator[None]:
    """Files of a few kilobytes are written, and given back, in several steps."""
    with (
        mock.patch.object(raft.snapshot, "CHUNK_BYTES", CHUNK_BYTES),
        mock.patch.object(raft.discarded, "STEP_BYTES", STEP_BYTES),
    ):
        yield


class Stalled(Exception):
    """There is no room for the snapshot that a leader sends: the process is ended from outside."""


class OneSectorOfTwo(Random):
    """What a loss of power leaves: the first, the third, … of all that it is asked about."""

    def __init__(self) -> None:
        super().__init__(0)
        self._keeps = False

    def random(self) -> float:
        self._keeps = not self._keeps
        return 0.0 if self._keeps else 0.9


class Process:
    """One life of the process: its data directory and its log."""

    def __init__(self, disk: HardDisk) -> None:
        self.directory = DataDirectory(
            data_of(disk), CLUSTER, NODE, disk, storage_id=STORAGE_ID, members=MEMBERS
        )
        if self.directory.founding != (CLUSTER, STORAGE_ID, MEMBERS):
            raise AssertionError(f"the identity says {self.directory.founding}")
        self.log = self.directory.open_log(segment_bytes=SEGMENT_BYTES)
        self.recovered = self.log.load()

    def close(self) -> None:
        self.log.close()
        self.directory.close()


def data_of(disk: HardDisk) -> Path:
    return disk.root / "data"


class Life:
    """What one node was to remember. Owned by one cell of the matrix."""

    def __init__(self, disk: HardDisk) -> None:
        self.disk = disk
        self.history = [Known(0, None, ())]
        self.acknowledged = 0  # the place in the history that a sync has confirmed
        self.turns: list[Acknowledged] = []
        self.process: Process | None = None

    @property
    def log(self) -> WriteAheadLog:
        assert self.process is not None, "the log is not open"
        return self.process.log

    def live(self) -> None:
        """From the first start, over a loss of power that tears a turn, to a clean end."""
        self.open()
        self.turn(HardState(1, NODE, 0), 1, 6, 1)
        self.turn(HardState(2, None, 0), 7, 6, 1)
        self.turn(HardState(2, "n2", 5), 7, 18, 2)
        self.turn(None, 19, 40, 2)
        self.take(18, release=6)
        self.turn(HardState(3, "n3", 30), 35, 52, 3)  # replaces the tail
        self.turn(None, 53, 70, 3)
        self.draft(60)
        self.take(67, release=64)
        self.turn(HardState(4, None, 66), 71, 88, 3)
        self.install(95, 4, 80)
        self.turn(None, 96, 110, 4)
        self.release(94)
        self.tear(111, 124, 4)
        self.open()
        self.turn(HardState(5, NODE, 100), 111, 130, 5)
        self.turn(None, 131, 140, 5)
        self.fill_the_reserve()
        self.disk.is_full = data_of(self.disk) / "wal" / "reserve" in self.disk.names
        for first in (142, 162):  # beyond the segment that was in the making
            self.turn(None, first, first + 19, 5)
        self.disk.is_full = False
        self.turn(None, 182, 201, 5)
        self.turn(None, 202, 210, 5)
        self.take(207, release=206)
        for first in (211, 231):  # a segment is switched, for what may follow upon the last compaction
            self.turn(None, first, first + 19, 5)
        assert self.process is not None
        self.process.close()
        self._acknowledge()

    def fill_the_reserve(self) -> None:
        """Turns of little, until there is room set aside; the last entry is 141."""
        for term in range(6, 12):
            self.turn(HardState(term, None, 100), 141, 141, 5)

    def open(self) -> None:
        self.process = None
        self.process = Process(self.disk)

    def turn(self, state: HardState | None, first_index: int, last_index: int, term: int) -> None:
        """Entries in records of three; a torn write may leave any prefix of the records."""
        self._append(state, first_index, last_index, term)
        self.log.sync()
        self._acknowledge()
        self.log.check_space()  # as once a second

    def tear(self, first_index: int, last_index: int, term: int) -> None:
        """The power fails while a turn is written; of its sectors every second one is there."""
        self._append(None, first_index, last_index, term)
        self.disk.cuts_next_write = True
        try:
            self.log.sync()
        except ScriptedCut:
            trap = self.disk.trap
            self.disk.lose_power(OneSectorOfTwo())
            self.disk.trap = trap
        else:
            raise AssertionError("the power did not fail")
        # Who starts again knows what it finds, whatever else there was.
        self.history.append(self.history[self.acknowledged])

    def draft(self, index: int) -> None:
        """A snapshot that is begun, and never finished."""
        with suppress(DiskFull):
            self.log.begin_snapshot(index, 3, b"never finished")
            self.log.append_snapshot(bytes(range(250)) * 40)

    def take(self, index: int, *, release: int) -> None:
        """Of the log as it is: nothing is remembered that was not before. Then the log may be released."""
        past = self.history[-1].past[:index]
        with suppress(DiskFull):  # then it is given up
            self._write_snapshot(index, past[-1][0], state_of(past), replaces_log=False)
            self.release(release)

    def release(self, index: int) -> None:
        while self.log.compact(index):
            pass

    def install(self, index: int, term: int, shared: int) -> None:
        """From a leader whose log differs from the entry after `shared` on: what this node had is void."""
        known = self.history[-1].past[:shared]
        past = (*known, *((term, body(at, term)) for at in range(shared + 1, index + 1)))
        self.history.append(self.history[-1]._replace(past=past))
        for _ in range(2):  # the leader sends it again
            try:
                self._write_snapshot(index, term, state_of(past), replaces_log=True)
            except DiskFull:
                self.log.check_space()
                continue
            self._acknowledge()
            return
        raise Stalled

    def _append(self, state: HardState | None, first_index: int, last_index: int, term: int) -> None:
        known = self.history[-1]
        if state is not None:
            known = known._replace(term=state.term, voted_for=state.voted_for)
            self.history.append(known)
            if last_index < first_index:
                self.log.append(state, None)
        for first in range(first_index, last_index + 1, 3):
            entries = [
                (term, kind(at), body(at, term)) for at in range(first, min(first + 3, last_index + 1))
            ]
            past = (*known.past[: first - 1], *((term, data) for term, _, data in entries))
            self.history.append(known := known._replace(past=past))
            self.log.append(state, EntryBatch(first, entries))
            state = None

    def _write_snapshot(self, index: int, term: int, content: bytes, *, replaces_log: bool) -> None:
        log = self.log
        log.begin_snapshot(index, term, b"configuration %d" % index)
        for start in range(0, len(content), 3000):
            log.append_snapshot(content[start : start + 3000])
        log.commit_snapshot(replaces_log=replaces_log)

    def _acknowledge(self) -> None:
        self.acknowledged = len(self.history) - 1
        self.turns.append(Acknowledged(*self.disk.written_to, self.acknowledged))


def knowledge(process: Process) -> Known:
    """What a process has recovered: snapshot and log must join to one history."""
    recovered = process.recovered
    past: tuple[tuple[int, bytes], ...] = ()
    snapshot = recovered.snapshot
    if snapshot is None:
        assert recovered.first_index == 1
    else:
        past = past_of(b"".join(snapshot_content(process.log, snapshot, 7001)))
        assert len(past) == snapshot.index and past[-1][0] == snapshot.term
        assert snapshot.configuration == b"configuration %d" % snapshot.index
        assert recovered.first_index - 1 <= snapshot.index <= recovered.last_index
    return Known(
        recovered.hard_state.term, recovered.hard_state.voted_for, past + rest_of_the_log(recovered, past)
    )


def rest_of_the_log(
    recovered: Recovered, past: tuple[tuple[int, bytes], ...]
) -> tuple[tuple[int, bytes], ...]:
    entries = tuple((term, data) for term, _, data in recovered.entries)
    kinds = [found for _, found, _ in recovered.entries]
    assert kinds == [kind(at) for at in range(recovered.first_index, recovered.last_index + 1)]
    overlap = len(past) - recovered.first_index + 1
    assert entries[:overlap] == past[recovered.first_index - 1 :], "log and snapshot differ"
    before = past[recovered.first_index - 2][0] if recovered.first_index > 1 else 0
    assert recovered.previous_term == before, "the term before the first entry is another"
    return entries[overlap:]


def goes_on(disk: HardDisk, known: Known) -> None:
    """A node that has recovered writes more, is without power, and finds that and nothing else."""
    term, index = known.term + 1, len(known.past) + 1
    process = Process(disk)
    assert knowledge(process) == known, "another start finds something else"
    process.log.append(HardState(term, "n9", 0), EntryBatch(index, [(term, kind(index), b"!")]))
    process.log.sync()
    disk.lose_power(False)
    process = Process(disk)
    assert knowledge(process) == Known(term, "n9", (*known.past, (term, b"!")))
    process.close()
