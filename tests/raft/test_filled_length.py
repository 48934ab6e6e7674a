"""A segment is never shorter than it was when it got its name: on real files, whatever shortens one is found.

Segments are filled with zeros and synced before they get their name, and their head says how far. So no loss
of power makes one shorter, and one that is shorter has lost what it had.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from raft.directory import DataDirectory
from raft.entries import EntryBatch, HardState
from raft.files import OsFiles
from raft.inspection import Inspection
from raft.segment import decode_segment_header
from raft.storage import CorruptLog, Recovered
from raft.wal import WriteAheadLog

TERM = HardState(1, "n1", 0)


def open_log(home: Path, *, segment_bytes: int = 1 << 16) -> tuple[DataDirectory, WriteAheadLog, Recovered]:
    directory = DataDirectory(home, "cluster", "n1", OsFiles())
    log = directory.open_log(segment_bytes=segment_bytes)
    try:
        return directory, log, log.load()
    except CorruptLog:
        log.close()
        directory.close()
        raise


def killed_after(home: Path, *sizes: int, segment_bytes: int = 1 << 16) -> list[Path]:
    """The segments of a process that was killed when it had acknowledged entries of these sizes."""
    directory, log, recovered = open_log(home, segment_bytes=segment_bytes)
    for index, size in enumerate(sizes, recovered.last_index + 1):
        log.append(TERM, EntryBatch(index, [(1, 1, b"%d " % index * (size // 2))]))
        log.sync()
    directory.close()
    return sorted((home / "wal").glob("*.wal"))


def filled_bytes(path: Path) -> int:
    header = decode_segment_header(path.read_bytes())
    assert not isinstance(header, str)
    return header.filled_bytes


def cut(path: Path, size_bytes: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size_bytes)


def test_a_newest_segment_that_a_file_system_has_cut_short_is_not_taken_for_a_torn_end(
    tmp_path: Path,
) -> None:
    """At a third of its size, and at every other place behind its head: what was acknowledged is missed."""
    newest = killed_after(tmp_path / "d", *[400] * 40)[-1]
    whole = newest.read_bytes()
    assert len(whole) > 3 * 4096 and filled_bytes(newest) == len(whole)
    used = len(whole.rstrip(b"\0"))
    for size_bytes in (len(whole) // 3, len(whole) - 1, used, used - 1, used - 700, 1024):
        newest.write_bytes(whole)
        cut(newest, size_bytes)
        with pytest.raises(CorruptLog) as caught:
            open_log(tmp_path / "d")
        error = caught.value
        assert error.file == newest and error.offset <= size_bytes and 1 < error.index <= 41
        assert f"the file has {size_bytes} bytes, and had {len(whole)} when it was begun" in str(error)
        assert "add a new member under a new node id" in str(error)
        assert newest.stat().st_size == size_bytes, "a refusal changes nothing"
        inspection = Inspection(tmp_path / "d")
        report = inspection.report()
        inspection.close()
        assert str(report.refusal) == str(error) and report.recovered is None


def test_an_older_segment_may_not_be_shorter_either(tmp_path: Path) -> None:
    """Though its records and its seal are there."""
    oldest = killed_after(tmp_path / "d", *[400] * 40)[0]
    cut(oldest, oldest.stat().st_size - 1)
    with pytest.raises(CorruptLog, match="when it was begun"):
        open_log(tmp_path / "d")


def test_an_unfinished_write_is_overwritten_and_the_file_keeps_its_length(tmp_path: Path) -> None:
    """A start that cuts it off must not leave a file that the next start refuses."""
    newest = killed_after(tmp_path / "d", 400, 1500)[-1]
    whole = newest.read_bytes()
    used = len(whole.rstrip(b"\0"))
    newest.write_bytes(whole[: used - 1000].ljust(len(whole), b"\0"))
    for _ in range(2):
        directory, _, recovered = open_log(tmp_path / "d")
        assert recovered.last_index == 1
        assert newest.stat().st_size == len(whole) == filled_bytes(newest)
        directory.close()
    assert [path.suffix for path in newest.parent.glob("*.broken")] == [".broken"]


def test_nothing_is_written_behind_what_the_head_vouches_for(tmp_path: Path) -> None:
    """Not by a start with little room left, nor by a record that is longer than a segment."""
    for round_ in range(6):
        segments = killed_after(tmp_path / "d", 700, 900, 9000 if round_ % 2 else 100, segment_bytes=4096)
        for path in segments:
            assert len(path.read_bytes().rstrip(b"\0")) <= filled_bytes(path) <= path.stat().st_size
    directory, log, recovered = open_log(tmp_path / "d", segment_bytes=4096)
    assert recovered.last_index == 18 and len(segments) > 6
    log.close()
    directory.close()
