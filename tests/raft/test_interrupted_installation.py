"""The power goes between the name of an installed snapshot and its mark, however full the segment is."""

from __future__ import annotations

from pathlib import Path

import pytest

from raft.entries import EntryBatch, HardState
from raft.segment import Identity
from raft.wal import WriteAheadLog
from tests.raft.disk import SimulatedDisk

WAL = Path("/wal")
IDENTITY = Identity("cluster", "n1")
# The first segment of a new log is 4 KiB long, so about so many entries leave no room for a mark in it.
MOST_ENTRIES = 64


def started(disk: SimulatedDisk) -> WriteAheadLog:
    return WriteAheadLog(WAL, disk, IDENTITY)


def interrupted(disk: SimulatedDisk, entries: int, *, conflicting: bool) -> int:
    """Leaves a log of `entries`, and a durable snapshot that it does not reach; returns the index of that."""
    WriteAheadLog.create(WAL, disk, IDENTITY)
    log = started(disk)
    log.load()
    log.append(HardState(2, None, 0), None)
    for index in range(1, entries + 1):
        log.append(None, EntryBatch(index, [(1, 1, b"")]))
        log.sync()
    snapshot_index = max(1, entries - 2) if conflicting else entries + 3
    log.begin_snapshot(snapshot_index, 2, b"")
    log.append_snapshot(b"state")
    log._snapshots.commit()
    disk.lose_power(False)
    return snapshot_index


@pytest.mark.parametrize("conflicting", [False, True], ids=["log-too-short", "log-differs"])
@pytest.mark.parametrize("entries", range(1, MOST_ENTRIES))
def test_a_mark_in_a_segment_of_its_own_does_not_vouch_for_the_entries_that_it_voids(
    entries: int, *, conflicting: bool
) -> None:
    """The second start refused a sound directory: the head of that segment counted on from the snapshot."""
    disk = SimulatedDisk()
    snapshot_index = interrupted(disk, entries, conflicting=conflicting)
    for appended in range(3):
        log = started(disk)
        recovered = log.load()
        assert recovered.snapshot is not None and recovered.snapshot.index == snapshot_index
        assert recovered.last_index == snapshot_index + appended
        log.append(None, EntryBatch(recovered.last_index + 1, [(2, 1, b"later")]))
        log.sync()
        disk.lose_power(False)
