"""The write-ahead log on a disk that loses power, fails, fills up and decays.

One scripted life of a node is broken at every single call of the disk. What was acknowledged must be there
afterwards, recovery must not fail, and nothing may be there that was never written.
"""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft.directory import DataDirectory
from raft.entries import Entry, EntryBatch, HardState
from raft.segment import SegmentWriter, decode_segment_header, segment_name
from raft.storage import CorruptLog, Recovered, StorageFailed
from raft.wal import WriteAheadLog
from tests.raft.disk import PowerLoss, SimulatedDisk

HOME = Path("/data")
WAL = HOME / "wal"
SEGMENT_BYTES = 2048
BIG = bytes(range(1, 251)) * 6


class Memory(NamedTuple):
    """What a node that recovers has to know. The commit index is only a hint, so it is looked at apart."""

    term: int
    voted_for: str | None
    entries: tuple[Entry, ...]


class Life:
    """What one node appended, in order, and how far it was told that this is durable."""

    def __init__(self) -> None:
        self.history = [Memory(0, None, ())]
        self.acknowledged = 0  # the place in the history that a sync has confirmed
        self.log: WriteAheadLog | None = None

    def live(self, disk: SimulatedDisk) -> None:
        """From the first start to a clean end: every kind of thing that happens to a log."""
        self.log = log = open_log(disk)
        log.load()
        self.turn((HardState(1, "n1", 0), batch(1, b"a", b"b")))
        self.turn((HardState(1, "n1", 2), batch(3, BIG)))
        self.turn((None, batch(4, bytes(2000))), (HardState(1, "n1", 3), batch(5, b"two records in a turn")))
        self.turn((HardState(1, "n1", 4), None))
        self.turn((HardState(2, None, 4), None))
        self.turn((HardState(2, "n2", 4), batch(5, b"instead", b"of it", term=2)))
        for index in range(7, 13):
            self.turn((None, batch(index, b"%d" % index * 300, term=2)))
        # Segments end in the middle of this turn, with records that are not written yet.
        self.turn(*((None, batch(index, b"%d" % index * 150, term=2)) for index in range(13, 25)))
        self.turn((HardState(3, "n3", 12), batch(25, b"last", term=3)))
        log.close()
        self.acknowledged = len(self.history) - 1

    def turn(self, *appended: tuple[HardState | None, EntryBatch | None]) -> None:
        assert self.log is not None
        for state, entries in appended:
            known = self.history[-1]
            if state is not None:
                self.history.append(known._replace(term=state.term, voted_for=state.voted_for))
            if entries is not None:
                kept = self.history[-1].entries[: entries.first_index - 1]
                self.history.append(self.history[-1]._replace(entries=(*kept, *entries.entries)))
            self.log.append(state, entries)
        self.log.sync()
        self.acknowledged = len(self.history) - 1

    def check(self, recovered: Recovered) -> None:
        """Everything acknowledged, perhaps more of what was appended, and nothing else."""
        found = memory_of(recovered)
        assert found in self.history[self.acknowledged :], (self.acknowledged, found)
        assert recovered.hard_state.commit_index <= min(12, len(found.entries))


def memory_of(recovered: Recovered) -> Memory:
    assert recovered.first_index == 1
    state = recovered.hard_state
    return Memory(state.term, state.voted_for, tuple(recovered.entries))


def batch(first_index: int, *bodies: bytes, term: int = 1) -> EntryBatch:
    return EntryBatch(first_index, [(term, 1, body) for body in bodies])


def open_log(disk: SimulatedDisk) -> WriteAheadLog:
    return DataDirectory(HOME, "cluster", "n1", disk).open_log(segment_bytes=SEGMENT_BYTES)


def recover(disk: SimulatedDisk) -> Recovered:
    return open_log(disk).load()


def undisturbed() -> tuple[Life, SimulatedDisk]:
    life, disk = Life(), SimulatedDisk()
    life.live(disk)
    return life, disk


CALLS = len(undisturbed()[1].calls)


def broken_off(number: int, failure: OSError | PowerLoss | int, only: str = "") -> tuple[Life, SimulatedDisk]:
    """A life in which the call of this number fails."""
    life, disk = Life(), SimulatedDisk()
    disk.fail_at(number, failure, only)
    with pytest.raises((PowerLoss, StorageFailed)):
        life.live(disk)
    return life, disk


def lived_through(disk: SimulatedDisk) -> tuple[Life, bool]:
    """A life that may end early for want of room, and whether it did."""
    life = Life()
    try:
        life.live(disk)
    except StorageFailed as error:
        assert any(word in error.cause for word in ("space", "bytes were written")), error
        return life, True
    return life, False


def goes_on(disk: SimulatedDisk, recovered: Recovered) -> None:
    """A node that has recovered writes less than it lost, and finds that and nothing else."""
    disk.kill_process()
    log = open_log(disk)
    assert log.load() == recovered
    term, next_index = recovered.hard_state.term + 1, recovered.last_index + 1
    log.append(HardState(term, "n9", 0), batch(next_index, b"!", term=term))
    log.sync()
    disk.lose_power(False)
    again = recover(disk)
    assert again.entries == [*recovered.entries, (term, 1, b"!")]
    assert again.hard_state == (term, "n9", 0)


def test_the_script_reaches_everything() -> None:
    life, disk = undisturbed()
    assert {segment_name(1), segment_name(2), segment_name(3)} <= set(disk.list_directory(WAL))
    for call in ("create", "rename", "fsync_directory", "pwrite", "fdatasync"):
        assert disk.calls.count(call) >= 2, call
    disk.kill_process()
    recovered = recover(disk)
    life.check(recovered)
    assert len(recovered.entries) == 25


@pytest.mark.parametrize("survives", ["nothing", "everything", "some 1", "some 2", "some 3", "some 4"])
def test_power_is_lost_before_every_call(survives: str) -> None:
    """Whatever part of the unsynced writes and names comes through."""
    for number in range(CALLS):
        life, disk = broken_off(number, PowerLoss())
        chance = Random(f"{survives} {number}") if survives.startswith("some") else survives == "everything"
        disk.lose_power(chance)
        recovered = recover(disk)
        life.check(recovered)
        goes_on(disk, recovered)


@pytest.mark.parametrize("seed", range(3))
def test_power_is_lost_again_during_recovery(seed: int) -> None:
    broken_recoveries = 0
    for number in range(CALLS):
        chance = Random(seed * 1000 + number)
        life, disk = broken_off(number, PowerLoss())
        disk.lose_power(chance)
        for _ in range(3):
            disk.fail_at(chance.randrange(20), PowerLoss())
            try:
                life.check(recover(disk))
            except PowerLoss:
                broken_recoveries += 1
            disk.lose_power(chance)
        recovered = recover(disk)
        life.check(recovered)
        goes_on(disk, recovered)
    assert broken_recoveries > CALLS


def test_the_process_is_killed_and_what_it_left_in_the_cache_is_made_durable() -> None:
    """A node must not act on what the next power loss takes away."""
    for number in range(CALLS):
        life, disk = broken_off(number, PowerLoss())
        disk.kill_process()
        recovered = recover(disk)
        life.check(recovered)
        disk.lose_power(False)
        assert recover(disk) == recovered
        goes_on(disk, recovered)


@pytest.mark.parametrize("then", ["restart", "power loss"])
def test_every_call_fails_once(then: str) -> None:
    """After a failure nothing is acknowledged, nothing more is asked of the disk, and a restart is sound.

    The disk reports a failed sync once and shows what it lost as though it were there, as real kernels do.
    """
    for number in range(CALLS):
        life, disk = broken_off(number, OSError(errno.EIO, "Input/output error"))
        calls = len(disk.calls)
        log = life.log
        if log is not None:
            for refused in (log.sync, lambda log=log: log.append(None, batch(14, b"x"))):
                with pytest.raises(StorageFailed, match="Input/output error"):
                    refused()
            log.close()
        assert len(disk.calls) == calls
        disk.kill_process()
        if then == "power loss":
            disk.lose_power(False)
        recovered = recover(disk)
        life.check(recovered)
        disk.lose_power(False)
        assert recover(disk) == recovered
        goes_on(disk, recovered)


def test_every_write_is_short_once() -> None:
    """The system may say that it wrote less than it was given."""
    writes = undisturbed()[1].calls.count("pwrite")
    assert writes > 20
    stopped = 0
    for number in range(writes):
        for written in (0, 3, 40):
            disk = SimulatedDisk()
            disk.fail_at(number, written, "pwrite")
            life, has_stopped = lived_through(disk)
            stopped += has_stopped
            disk.kill_process()
            recovered = recover(disk)
            life.check(recovered)
            goes_on(disk, recovered)
    # Of the log itself it is the end; of room that is made ready for it, it is not.
    assert writes < stopped < 3 * writes


def test_the_disk_is_full_at_any_size() -> None:
    """The node stops with nothing half done, and goes on when there is room again."""
    _, complete = undisturbed()
    enough = sum(len(content) for content in complete.contents().values())
    stopped = 0
    for capacity in range(100, enough, 150):
        disk = SimulatedDisk(capacity_bytes=capacity)
        life, has_stopped = lived_through(disk)
        stopped += has_stopped
        disk.kill_process()
        disk.capacity_bytes = 1 << 40
        recovered = recover(disk)
        life.check(recovered)
        goes_on(disk, recovered)
    assert stopped > 50


def test_a_full_disk_during_recovery_harms_nothing() -> None:
    life, disk = broken_off(CALLS - 8, PowerLoss())
    disk.lose_power(Random(5))
    for capacity in range(0, 20_000, 400):
        disk.capacity_bytes = capacity
        try:
            life.check(recover(disk))
        except StorageFailed:
            pass
        disk.lose_power(Random(capacity))
    disk.capacity_bytes = 1 << 40
    life.check(recover(disk))


# Decay: what is on the disk changes behind the node's back.


def after_crash() -> tuple[Recovered, dict[Path, bytes]]:
    """A log of three segments that was not closed: nothing but the last turn's own bytes vouch for it."""
    life, disk = Life(), SimulatedDisk()
    life.live(disk)
    disk.kill_process()
    log = open_log(disk)
    log.load()
    log.append(HardState(4, "n4", 0), batch(14, b"the last turn", bytes(700), term=4))
    log.sync()
    disk.lose_power(False)
    contents = {path: content for path, content in disk.contents().items() if path.suffix == ".wal"}
    return recover(disk), contents


def load(contents: dict[Path, bytes]) -> Recovered:
    return WriteAheadLog(WAL, SimulatedDisk(contents), WHO, segment_bytes=SEGMENT_BYTES).load()


WHO = DataDirectory(HOME, "cluster", "n1", SimulatedDisk()).identity


@pytest.mark.parametrize("sequence", [1, 2, 3])
def test_every_byte_decays(sequence: int) -> None:
    """A flipped bit anywhere is found, in the last record too; in unused space it may do no harm.

    Refused, with a place in the right file at or before the flipped bit, or recovered exactly. Never less.
    """
    whole, contents = after_crash()
    path = WAL / segment_name(sequence)
    good = contents[path]
    last = max(contents)
    used = len(good.rstrip(b"\0"))
    exact = 0
    for place in range(len(good)):
        bit = 1 << place % 8
        contents[path] = good[:place] + bytes([good[place] ^ bit]) + good[place + 1 :]
        try:
            assert load(contents) == whole, place
            exact += 1
            assert path == last and place >= used, place
        except CorruptLog as error:
            assert error.file.name in (path.name, segment_name(sequence + 1))
            assert error.file != path or error.offset <= place
            assert 1 <= error.index <= whole.last_index + 1
    assert (exact > 0) == (path == last)


def test_every_bit_of_the_last_turn_decays() -> None:
    _, contents = after_crash()
    path = max(contents)
    good = contents[path]
    used = len(good.rstrip(b"\0"))
    for place in range(used - 300, used):
        for bit in range(8):
            contents[path] = good[:place] + bytes([good[place] ^ 1 << bit]) + good[place + 1 :]
            with pytest.raises(CorruptLog):
                load(contents)


def test_the_last_records_are_cut_at_every_byte() -> None:
    """Zeros from there on: the prefix is recovered, never an error, never an extra entry."""
    disk = SimulatedDisk()
    log = open_log(disk)
    log.load()
    ends = []
    for index in range(1, 6):
        log.append(HardState(1, None, 0), batch(index, b"%d" % index * 99))
        log.sync()
        content = disk.contents()[WAL / segment_name(1)]
        ends.append(len(content.rstrip(b"\0")))
    contents = {path: content for path, content in disk.contents().items() if path.suffix == ".wal"}
    assert list(contents) == [WAL / segment_name(1)]
    whole = contents[WAL / segment_name(1)]
    for cut in range(ends[1], ends[4] + 1):
        kept = whole[:cut] + bytes(len(whole) - cut)
        recovered = load({WAL / segment_name(1): kept})
        expected = sum(1 for end in ends if end <= cut)
        assert [body for _, _, body in recovered.entries] == [
            b"%d" % index * 99 for index in range(1, expected + 1)
        ]


def test_the_last_turn_is_cut_after_its_first_record_was_lost_and_never_comes_back() -> None:
    """An intact record of an unfinished turn stands behind what is cut; a shorter write follows."""
    disk = SimulatedDisk()
    log = DataDirectory(HOME, "cluster", "n1", disk).open_log(segment_bytes=1 << 14)
    log.load()
    log.append(HardState(1, None, 0), batch(1, b"kept"))
    log.sync()
    log.append(None, batch(2, b"\1" * SEGMENT_BYTES))
    log.append(None, batch(3, b"stale " * 10))
    log.sync()
    path = WAL / segment_name(1)
    whole = disk.contents()[path]
    place = whole.index(b"\1" * 100)
    lost = place - place % 512 + 512  # the sector in the middle of the first record of the turn
    torn = whole[:lost] + bytes(512 - 200) + whole[lost + 512 - 200 :]
    with pytest.raises(CorruptLog):
        load({path: torn})  # half a sector is not what a disk leaves
    torn = whole[:lost] + bytes(512) + whole[lost + 512 :]
    assert b"stale stale" in torn
    after = SimulatedDisk({path: torn})
    log = WriteAheadLog(WAL, after, WHO, segment_bytes=SEGMENT_BYTES)
    assert [body for _, _, body in log.load().entries] == [b"kept"]
    log.append(None, batch(2, b"new"))
    log.sync()
    assert b"stale stale" not in after.contents()[path]
    after.lose_power(False)
    assert [body for _, _, body in load(after.contents()).entries] == [b"kept", b"new"]


def test_after_a_clean_end_the_last_turn_is_vouched_for() -> None:
    """A missing sector of it would be an unfinished write if the log had not been closed."""
    for is_closed in (True, False):
        disk = SimulatedDisk()
        log = open_log(disk)
        log.load()
        log.append(HardState(1, None, 0), batch(1, BIG))
        log.sync()
        if is_closed:
            log.close()
        path = WAL / segment_name(1)
        whole = disk.contents()[path]
        contents = {path: whole[:1024] + bytes(512) + whole[1536:]}
        if is_closed:
            with pytest.raises(CorruptLog, match="after its sync"):
                load(contents)
        else:
            assert load(contents).entries == []


def test_a_refusal_changes_nothing_on_the_disk() -> None:
    """Whoever repairs it needs what was there."""
    _, contents = after_crash()
    path = WAL / segment_name(2)
    contents[path] = contents[path][:600] + b"?" + contents[path][601:]
    # What was in the making is thrown away by a start that succeeds, and by no other.
    contents |= {WAL / "next.tmp": b"half a segment", WAL / "snapshot.tmp": b"half a snapshot"}
    disk = SimulatedDisk(contents)
    for _ in range(2):
        with pytest.raises(CorruptLog) as caught:
            WriteAheadLog(WAL, disk, WHO, segment_bytes=SEGMENT_BYTES).load()
        assert caught.value.file == path
        assert disk.contents() == contents
    header = decode_segment_header(contents[path])
    assert not isinstance(header, str)
    assert caught.value.index >= header.first_index


@given(st.binary(max_size=1200), st.sampled_from([0, 600, 100_000]), st.booleans())
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_no_log(junk: bytes, zeros: int, has_head: bool) -> None:
    """Whatever stands in the file, the log is refused or empty, and nothing else is raised."""
    _, head = SegmentWriter.begin(WHO, 1, 1, 0, HardState(3, "n1", 0), 512)
    data = (head if has_head else b"") + bytes(zeros) + junk
    try:
        recovered = load({WAL / segment_name(1): data})
    except CorruptLog:
        return
    assert has_head
    assert recovered == Recovered(HardState(3, "n1", 0), 1, [])


def test_random_damage_is_never_believed() -> None:
    """Runs of bytes replaced, moved and zeroed: a refusal, or a state that the log once had as a whole."""
    life, disk = undisturbed()
    disk.kill_process()
    whole, contents = after_crash()
    possible = {
        *life.history,
        memory_of(whole),
        memory_of(whole)._replace(entries=memory_of(recover(disk)).entries),
    }
    chance = Random(7)
    for _ in range(1500):
        path = chance.choice(sorted(contents))
        good = contents[path]
        start, length = chance.randrange(len(good)), chance.choice([1, 8, 32, 100, 512, 1024])
        kind = chance.choice(["random", "move", "zero"])
        source = chance.randrange(len(good))
        replacement = {
            "random": chance.randbytes(length),
            "move": good[source : source + length],
            "zero": bytes(length),
        }[kind]
        bad = (good[:start] + replacement + good[start + length :])[: len(good)]
        try:
            found = load({**contents, path: bad})
        except CorruptLog:
            continue
        assert memory_of(found) in possible, (path, start, length, kind)
        if path != max(contents):
            assert found == whole
