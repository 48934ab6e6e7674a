"""`assent snapshot salvage` where the disk does not give back wrong bytes but none: the usual way to die."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore.cli import exits
from kvstore.salvage import salvage
from raft.files import OsFiles
from raft.inspection import ReadOnlyFiles
from tests.kvstore.damaged import ENTRIES, flip, make_directory, segments_in
from tests.kvstore.test_salvage import check, contents, first_index_of, run

MEMBERS = {"n1": "tcp://127.0.0.1:1"}
PAGE_BYTES = 4096
Harm = Callable[[Path, int, int], None]


@pytest.fixture
def harm(monkeypatch: pytest.MonkeyPatch) -> Harm:
    """Makes the bytes of a file from one place up to another unreadable."""
    bad: list[tuple[Path, int, int]] = []

    def reject(found: os.stat_result, start: int, stop: int) -> None:
        for file, first, end in bad:
            if os.path.samestat(found, file.stat()) and first < stop and start < end:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    def read(files: ReadOnlyFiles, path: Path) -> bytes:
        reject(path.stat(), 0, path.stat().st_size)
        return OsFiles.read(files, path)

    def pread(files: ReadOnlyFiles, descriptor: int, length_bytes: int, offset: int) -> bytes:
        reject(os.fstat(descriptor), offset, offset + length_bytes)
        return OsFiles.pread(files, descriptor, length_bytes, offset)

    monkeypatch.setattr(ReadOnlyFiles, "read", read)
    monkeypatch.setattr(ReadOnlyFiles, "pread", pread)
    return lambda path, start, stop: bad.append((path, start, stop))


def test_an_unreadable_snapshot_is_made_up_for_by_the_log(tmp_path: Path, harm: Harm) -> None:
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS, snapshot_at=9)
    [snapshot] = (home / "wal").glob("snapshot-*")
    harm(snapshot, 300, 800)
    found = salvage(home, file)
    check(found, file, ENTRIES)
    [damage] = found.damages
    assert str(snapshot) in damage and damage.endswith("Input/output error")


def test_an_unreadable_segment_that_a_snapshot_covers_costs_nothing(tmp_path: Path, harm: Harm) -> None:
    """One file that fails is no reason to read no other one."""
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS, snapshot_at=14)
    _, second, third, *_ = segments_in(home)
    assert first_index_of(third) < 14
    harm(second, 0, second.stat().st_size)
    before = contents(home)
    found = salvage(home, file)
    assert contents(home) == before
    check(found, file, ENTRIES)
    assert all(str(second) in damage for damage in found.damages)
    assert "Input/output error" in found.damages[0]


def test_what_stands_before_an_unreadable_sector_is_found(tmp_path: Path, harm: Harm) -> None:
    """And what is behind it would be found if a snapshot covered the sector."""
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS, segment_bytes=1 << 20)
    _, last = segments_in(home)
    harm(last, PAGE_BYTES + 700, PAGE_BYTES + 1212)
    found = salvage(home, file)
    assert first_index_of(last) + 3 < found.log_index < ENTRIES - 6
    check(found, file, found.log_index)
    failure, damage = found.damages
    assert (
        f"{last} failed: [Errno 5] Input/output error: 1 times 4096 bytes, the first at byte 4096" in failure
    )
    assert f"{last} at byte " in damage and f"log index {found.log_index + 1}: " in damage


def test_an_unreadable_sector_where_nothing_was_written_costs_nothing(tmp_path: Path, harm: Harm) -> None:
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS, segment_bytes=1 << 16)
    *_, last = segments_in(home)
    used_bytes = len(last.read_bytes().rstrip(b"\0"))
    assert used_bytes < last.stat().st_size - 2 * PAGE_BYTES
    harm(last, last.stat().st_size - 512, last.stat().st_size)
    found = salvage(home, file)
    check(found, file, ENTRIES)
    [damage] = found.damages
    assert str(last) in damage and "Input/output error" in damage


def test_an_unreadable_identity_or_mark_is_a_damaged_one(tmp_path: Path, harm: Harm) -> None:
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS)
    (home / "fenced").write_bytes(bytes(100))
    harm(home / "identity", 0, 512)
    harm(home / "fenced", 0, 512)
    found = salvage(home, file)
    check(found, file, ENTRIES)
    [damage] = found.damages
    assert damage.startswith(f"read of {home}/identity failed: ")
    assert found.fenced is not None and "the mark cannot be read" in found.fenced


def test_where_nothing_can_be_read_that_is_what_is_said(tmp_path: Path, harm: Harm) -> None:
    home, file = tmp_path / "data", tmp_path / "file"
    make_directory(home, MEMBERS)
    for path in segments_in(home):
        harm(path, 0, path.stat().st_size)
    result = run("snapshot", "salvage", home, file, expect=exits.DISK_FAILED)
    assert "Input/output error" in result.stderr and not file.exists()
    assert "See whether there is room, and what the kernel's log says of this disk" in result.stderr


def test_a_node_does_not_start_on_what_cannot_be_read(tmp_path: Path, harm: Harm) -> None:
    """To make do with what comes is for a salvage only."""
    home = tmp_path / "data"
    make_directory(home, MEMBERS, snapshot_at=14)
    harm(segments_in(home)[1], 0, 512)
    said = run("wal", "check", home, expect=exits.DISK_FAILED).stderr
    assert "Input/output error. See whether there is room" in said and "replace the member" in said
    flip(home / "identity", 40)
    run("wal", "check", home, expect=exits.DATA_DIRECTORY)
