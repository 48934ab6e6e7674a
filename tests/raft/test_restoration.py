"""Data directories made of a snapshot: complete, or refused and made again, wherever the power is lost."""

from __future__ import annotations

import errno
from pathlib import Path
from zlib import crc32

import pytest

from raft.config import RaftConfig
from raft.core import Core
from raft.directory import RESTORING_NAME, DataDirectory, read_identity
from raft.entries import HardState, SnapshotMeta
from raft.membership import Configuration
from raft.restoration import restore_directory
from raft.storage import (
    RESTORE_AGAIN,
    CorruptSnapshot,
    DirectoryInUse,
    StorageFailed,
    WrongDirectory,
    snapshot_content,
)
from tests.raft.disk import PowerLoss, SimulatedDisk

HOME = Path("/data")
CONTENT = b"all that there is. " * 100
MEMBERS = Configuration({"n1", "n2"}, addresses={"n1": "tcp://a:1", "n2": "tcp://b:1"})
META = SnapshotMeta(70, 5, MEMBERS.encode(), len(CONTENT), crc32(CONTENT))


def restore(disk: SimulatedDisk, content: bytes = CONTENT, node: str = "n1") -> None:
    pieces = [content[:1000], content[1000:]]
    restore_directory(HOME, "new", node, "00ff", META, pieces, disk)


def opened(disk: SimulatedDisk) -> DataDirectory:
    """As a node opens it that is started with other members than the snapshot's: they do not count."""
    return DataDirectory(HOME, "new", "n1", disk, storage_id="0aaa", members={"n1": "tcp://a:1"})


def check_whole(disk: SimulatedDisk) -> None:
    """What a node finds that starts in it, and what its core makes of it."""
    directory = opened(disk)
    assert directory.founding == ("new", "00ff", {})
    log = directory.open_log()
    recovered = log.load()
    assert recovered.hard_state == HardState(5, None, 70)
    assert (recovered.first_index, recovered.entries, recovered.previous_term) == (71, [], 5)
    assert recovered.snapshot == META
    assert b"".join(snapshot_content(log, META)) == CONTENT
    core = Core("n1", Configuration(), recovered, RaftConfig())
    assert core.configuration == core.committed_configuration == MEMBERS
    assert core.last_index == core.commit_index == 70
    log.close()
    directory.close()


def test_a_node_begins_right_after_the_snapshot_with_the_new_members_and_no_old_ones() -> None:
    disk = SimulatedDisk()
    restore(disk)
    disk.lose_power(False)
    check_whole(disk)
    assert HOME / RESTORING_NAME not in disk.names


def test_two_nodes_that_are_restored_alike_differ_in_their_names_only() -> None:
    snapshots = []
    for node in ("n1", "n2"):
        disk = SimulatedDisk()
        restore(disk, node=node)
        [snapshot] = [data for path, data in disk.contents().items() if path.name.startswith("snapshot-")]
        snapshots.append(snapshot)
    assert snapshots[0] == snapshots[1]


@pytest.mark.parametrize("then", ["all unsynced is lost", "all unsynced is kept", "killed"])
def test_the_power_is_lost_before_every_call(then: str) -> None:
    """What is left is refused by a node, unless nothing was begun or nothing is missing; and as long as
    something is missing, it can be made again."""
    whole = SimulatedDisk()
    restore(whole)
    refused = 0
    for number in range(len(whole.calls)):
        disk = SimulatedDisk()
        disk.fail_at(number, PowerLoss())
        with pytest.raises(PowerLoss):
            restore(disk)
        if then == "killed":
            disk.kill_process()
        else:
            disk.lose_power(then == "all unsynced is kept")
        names = set(disk.list_directory(HOME))
        if "identity" in names:
            check_whole(disk)
            with pytest.raises(WrongDirectory):
                restore(disk)
            continue
        if names - {"lock"}:
            refused += 1
            for look in (opened, lambda disk: read_identity(HOME, disk)):
                with pytest.raises(WrongDirectory, match="restoring") as caught:
                    look(disk)
                assert caught.value.remedy == RESTORE_AGAIN
            disk.kill_process()
        restore(disk)
        disk.lose_power(False)
        check_whole(disk)
    assert refused > 10


def test_every_call_fails_once() -> None:
    whole = SimulatedDisk()
    restore(whole)
    for number in range(len(whole.calls)):
        disk = SimulatedDisk()
        disk.fail_at(number, OSError(errno.EIO, "no"))
        with pytest.raises(StorageFailed):
            restore(disk)
        disk.lose_power(False)
        if "identity" not in disk.list_directory(HOME):
            restore(disk)
        disk.lose_power(False)
        check_whole(disk)


@pytest.mark.parametrize("name", ["identity", "wal", "holiday.jpg", "identity.tmp", "fenced"])
def test_a_directory_with_anything_in_it_is_refused_and_left_as_it_is(name: str) -> None:
    disk = SimulatedDisk()
    disk.make_directory(HOME)
    disk.close(disk.create(HOME / name))
    for _ in range(2):
        before = disk.contents()
        with pytest.raises(WrongDirectory, match="Nothing was changed"):
            restore(disk)
        assert disk.contents() == before
        lock = disk.create(HOME / "lock") if HOME / "lock" not in disk.names else disk.open(HOME / "lock")
        disk.pwrite(lock, b"somebody else's", 0)
        disk.close(lock)


def test_a_node_that_was_restored_is_not_restored_again() -> None:
    disk = SimulatedDisk()
    restore(disk)
    before = disk.contents()
    with pytest.raises(WrongDirectory):
        restore(disk)
    assert disk.contents() == before


def test_a_directory_that_another_process_has_is_left_to_it() -> None:
    disk = SimulatedDisk()
    disk.make_directory(HOME)
    disk.lock(HOME / "lock")
    with pytest.raises(DirectoryInUse):
        restore(disk)


def test_content_that_is_not_what_its_header_says_makes_no_directory() -> None:
    disk = SimulatedDisk()
    with pytest.raises(CorruptSnapshot):
        restore(disk, CONTENT[:-1] + b"!")
    disk.kill_process()
    with pytest.raises(WrongDirectory):
        opened(disk)
    disk.kill_process()
    restore(disk)
    check_whole(disk)
