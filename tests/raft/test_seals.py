"""What ends a segment once the next one is begun, so that the loss of the newest ones is noticed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random
from zlib import crc32

import pytest

from raft.directory import DataDirectory
from raft.entries import HardState
from raft.record import RecordType, stored_payload
from raft.segment import (
    SEAL_BYTES,
    SegmentReader,
    SegmentWriter,
    decode_seal,
    decode_segment_header,
)
from raft.storage import CorruptLog, Recovered
from raft.wal import WriteAheadLog
from tests.raft.disk import PowerLoss, SimulatedDisk
from tests.raft.test_wal_faults import (
    CALLS,
    HOME,
    SEGMENT_BYTES,
    WAL,
    WHO,
    Memory,
    batch,
    broken_off,
    load,
    memory_of,
    recover,
    undisturbed,
)

Contents = dict[Path, bytes]


def reader_of(data: bytes) -> SegmentReader:
    """Read to its end."""
    header = decode_segment_header(data)
    assert not isinstance(header, str)
    reader = SegmentReader(data, header)
    for _ in reader.records():
        pass
    return reader


def segments_of(disk: SimulatedDisk) -> Contents:
    return {path: data for path, data in sorted(disk.contents().items()) if path.suffix == ".wal"}


def old_header(data: bytes) -> bytes:
    """The header block of this segment in version 1."""
    block = data[:8] + (1).to_bytes(4, "little") + data[12:508]
    return block + crc32(block).to_bytes(4, "little")


def of_version_1(contents: Contents) -> Contents:
    """The same log as programs wrote it that knew no seals."""
    old: Contents = {}
    last_crc = 0
    for path, data in contents.items():
        reader = reader_of(data)
        header = reader.header
        _, head = SegmentWriter.begin(WHO, header.sequence, header.first_index, last_crc, HardState(), 512)
        written = old_header(head)
        writer = reader_of(written).writer()
        for _, record_type, payload in SegmentReader(data, header).records():
            if record_type != RecordType.SEAL:
                written += b"".join(writer.encode(record_type, stored_payload(payload)))
                writer.durable = writer.end
        last_crc = writer.last_crc
        old[path] = written.ljust(len(data), b"\0")
    return old


def test_every_segment_but_the_last_is_sealed_for_the_one_that_follows() -> None:
    contents = segments_of(undisturbed()[1])
    readers = [reader_of(data) for data in contents.values()]
    assert len(readers) > 3
    for before, after in pairwise(readers):
        assert before.seal is not None
        assert decode_seal(before.seal) == (after.header.sequence, after.header.crc)
    assert readers[-1].seal is None


def test_a_seal_has_room_in_its_segment() -> None:
    """No file grows by it, so its sync need not wait for the file system's journal."""
    disk = SimulatedDisk()
    log = DataDirectory(WAL.parent, "cluster", "n1", disk).open_log(segment_bytes=SEGMENT_BYTES)
    log.load()
    for index in range(1, 60):
        log.append(HardState(1, None, 0), batch(index, b"%d" % index * (10 + index)))
        log.sync()
    sizes = [len(data) for data in segments_of(disk).values()]
    assert len(sizes) > 3 and set(sizes[1:]) == {SEGMENT_BYTES}


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_the_loss_of_the_newest_segments_is_noticed(missing: int) -> None:
    contents = segments_of(undisturbed()[1])
    lost = sorted(contents)[-missing:]
    header = decode_segment_header(contents[lost[0]])
    assert not isinstance(header, str)
    for path in lost:
        del contents[path]
    with pytest.raises(CorruptLog, match="this segment is missing: the one before it was sealed") as caught:
        load(contents)
    assert (caught.value.file, caught.value.offset) == (lost[0], 0)
    assert caught.value.index == header.first_index


@pytest.mark.parametrize("survives", [False, True, 1, 2])
def test_no_segment_is_lost_unnoticed_wherever_the_power_went(survives: bool | int) -> None:
    """Crash at every call, several switches among them: without its newest segment the log is refused, or
    has everything that was acknowledged."""
    refused = complete = 0
    for number in range(CALLS):
        life, disk = broken_off(number, PowerLoss())
        disk.lose_power(survives if isinstance(survives, bool) else Random(survives * 1000 + number))
        for step in ("before recovery", "after recovery"):
            contents = segments_of(disk)
            if len(contents) > 1:
                del contents[max(contents)]
                try:
                    assert memory_of(load(contents)) in life.history[life.acknowledged :], (number, step)
                    complete += 1
                except CorruptLog:
                    refused += 1
            recover(disk)
            disk.lose_power(False)
    assert refused > 50 and complete > 3


def switched_only() -> tuple[Memory, Contents]:
    """A log that was broken off when the next segment had its name: there is nothing in that but its head."""
    for number in range(CALLS):
        life, disk = broken_off(number, PowerLoss())
        disk.lose_power(False)
        contents = segments_of(disk)
        readers = [reader_of(data) for data in contents.values()]
        if len(readers) > 1 and readers[-1].is_only_a_head() and readers[-2].seal is None:
            return life.history[life.acknowledged], contents
    raise AssertionError("never broken off there")


def test_a_switch_that_broke_off_is_finished_at_the_next_start() -> None:
    known, contents = switched_only()
    disk = SimulatedDisk(contents)
    recovered = WriteAheadLog(WAL, disk, WHO, segment_bytes=SEGMENT_BYTES).load()
    assert memory_of(recovered) == known
    disk.lose_power(False)
    before, last = [reader_of(data) for data in segments_of(disk).values()][-2:]
    assert before.seal is not None and decode_seal(before.seal) == (last.header.sequence, last.header.crc)
    assert load(segments_of(disk)) == recovered


def test_a_seal_that_broke_off_at_any_byte_is_written_once_more() -> None:
    """As long as nothing follows the head of the next segment; otherwise it is damage."""
    _, contents = switched_only()
    disk = SimulatedDisk(contents)
    expected = WriteAheadLog(WAL, disk, WHO, segment_bytes=SEGMENT_BYTES).load()
    disk.lose_power(False)
    sealed = segments_of(disk)
    path = sorted(sealed)[-2]
    end = reader_of(sealed[path]).end
    for stop in range(end, end + SEAL_BYTES):
        torn = {**sealed, path: sealed[path][:stop].ljust(len(sealed[path]), b"\0")}
        again = SimulatedDisk(torn)
        assert WriteAheadLog(WAL, again, WHO, segment_bytes=SEGMENT_BYTES).load() == expected
        again.lose_power(False)
        assert segments_of(again)[path] == sealed[path]


@pytest.mark.parametrize("change", ["zeroed", "cut", "flipped"])
def test_a_seal_that_vanished_behind_the_nodes_back_is_damage(change: str) -> None:
    contents = segments_of(undisturbed()[1])
    path = sorted(contents)[1]
    good = contents[path]
    end = reader_of(good).end
    for place in range(SEAL_BYTES):
        at = end + place
        contents[path] = {
            "zeroed": good[:at] + bytes(len(good) - at),
            "cut": good[:at],
            "flipped": good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :],
        }[change]
        with pytest.raises(CorruptLog) as caught:
            load(contents)
        assert (caught.value.file, caught.value.offset) == (path, end)


def test_a_segment_that_takes_the_place_of_its_successor_is_seen() -> None:
    """It continues the same record, and is not the one for which the segment was sealed."""
    contents = segments_of(undisturbed()[1])
    path = max(contents)
    contents[path] = old_header(contents[path]) + contents[path][512:]
    with pytest.raises(CorruptLog, match="the segment before was sealed for") as caught:
        load(contents)
    assert (caught.value.file, caught.value.offset) == (path, 0)


def test_nothing_may_stand_behind_a_seal() -> None:
    contents = segments_of(undisturbed()[1])
    path = sorted(contents)[0]
    contents[path] = contents[path][:-1] + b"x"
    with pytest.raises(CorruptLog, match="something stands behind its seal"):
        load(contents)


def test_a_log_of_before_there_were_seals_is_read_and_gets_them() -> None:
    """It is gone on with in the segment where it ended; the next switch seals that one."""
    contents = segments_of(undisturbed()[1])
    old = of_version_1(contents)
    expected = load(contents)
    disk = SimulatedDisk(old)
    log = WriteAheadLog(WAL, disk, WHO, segment_bytes=SEGMENT_BYTES)
    assert log.load() == expected
    for index in range(14, 24):
        log.append(HardState(4, None, 0), batch(index, b"new %d" % index * 90, term=4))
        log.sync()
    disk.lose_power(False)
    after = segments_of(disk)
    versions = [reader_of(data).header.version for data in after.values()]
    assert versions == [1] * len(old) + [3] * (len(after) - len(old)) and len(after) > len(old) + 1
    is_sealed = [reader_of(data).seal is not None for data in after.values()]
    assert is_sealed == [False] * (len(old) - 1) + [True] * (len(after) - len(old)) + [False]
    recovered: Recovered = load(after)
    assert len(recovered.entries) == 23
    for path in sorted(after)[len(old) :]:
        lost = {other: data for other, data in after.items() if other < path}
        with pytest.raises(CorruptLog, match="missing"):
            load(lost)


def test_an_old_log_still_ends_where_its_last_segment_does() -> None:
    """Programs that knew no seals could not tell; what they wrote does not say more."""
    contents = of_version_1(segments_of(undisturbed()[1]))
    whole = len(load(contents).entries)
    del contents[max(contents)]
    assert len(load(contents).entries) < whole


def syncs(disk: SimulatedDisk) -> int:
    """Of files and directories, since the last time."""
    count = disk.calls.count("fdatasync") + disk.calls.count("fsync_directory")
    disk.calls.clear()
    return count


def test_the_turn_that_begins_a_segment_costs_four_syncs_more_and_a_snapshot_four() -> None:
    """docs/disk.md reckons with it: five in one turn, one after the other."""
    disk = SimulatedDisk()
    log = DataDirectory(HOME, "cluster", "n1", disk).open_log(segment_bytes=SEGMENT_BYTES)
    log.load()
    costs = {False: set[int](), True: set[int]()}
    for index in range(1, 40):
        if index == 6:  # the reserve is made by now
            costs = {False: set(), True: set()}
        segments = len(segments_of(disk))
        log.append(HardState(1, None, index - 1), batch(index, bytes(300)))
        log.sync()
        costs[len(segments_of(disk)) > segments].add(syncs(disk))
    assert costs[False] == {1} and max(costs[True]) == 5
    log.append(None, batch(40, b"x"))
    log.begin_snapshot(30, 1, b"who")
    log.append_snapshot(bytes(100))
    syncs(disk)
    log.commit_snapshot(replaces_log=False)
    assert syncs(disk) == 4
