"""A record that was written to a wrong place of its own segment, on real files: what is missed, and where.

Zeros stand where it should be, as though it had never been written; that it was, it says itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from raft.record import displaced_headers
from raft.segment import decode_segment_header
from raft.storage import CorruptLog
from tests.raft.test_filled_length import killed_after, open_log

SECTOR_BYTES = 512


def with_last_turn_moved(home: Path, size: int, shift: int) -> tuple[Path, int]:
    """Its segment, and where it should be: the disk has written it so many bytes further on."""
    path = killed_after(home, 60, 60)[-1]
    start = len(path.read_bytes().rstrip(b"\0"))
    assert killed_after(home, size)[-1] == path
    whole = path.read_bytes()
    turn = whole[start:].rstrip(b"\0")
    moved = whole[:start] + bytes(shift) + turn
    path.write_bytes(moved.ljust(len(whole), b"\0"))
    return path, start


@pytest.mark.parametrize("size", [20, 700, 2000])
@pytest.mark.parametrize("sectors", [1, 2, 3])
def test_a_tail_that_went_astray_in_its_segment_is_not_taken_for_a_torn_end(
    tmp_path: Path, size: int, sectors: int
) -> None:
    """The last turn, acknowledged: nothing was written after it that could vouch for it."""
    path, start = with_last_turn_moved(tmp_path / "d", size, sectors * SECTOR_BYTES)
    damaged = path.read_bytes()
    with pytest.raises(CorruptLog) as caught:
        open_log(tmp_path / "d")
    error = caught.value
    assert (error.file, error.offset, error.index) == (path, start, 3)
    assert f"yet the record of byte {start} stands at byte {start + sectors * SECTOR_BYTES}" in str(error)
    assert path.read_bytes() == damaged


def test_only_records_of_a_place_behind_the_end_are_missed_there(tmp_path: Path) -> None:
    """A copy of a record that is in its place, as a value may hold one, says nothing."""
    path = killed_after(tmp_path / "d", 60, 60)[-1]
    whole = path.read_bytes()
    header = decode_segment_header(whole)
    assert not isinstance(header, str)
    used = len(whole.rstrip(b"\0"))
    copied = whole[:used] + bytes(512) + whole[512:used]
    assert displaced_headers(copied, used, header.sequence, header.crc) == []
    moved = whole[:512] + bytes(512) + whole[512:used]
    places = displaced_headers(moved, 512, header.sequence, header.crc)
    assert len(places) >= 3 and all(at == place + 512 for at, place in places)
    assert displaced_headers(moved, 512, header.sequence + 1, header.crc) == []
    assert displaced_headers(moved, len(moved), header.sequence, header.crc) == []
