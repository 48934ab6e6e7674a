"""Snapshot files that stand by themselves: whole under their name or not there, every byte checked."""

from __future__ import annotations

import os
from pathlib import Path
from zlib import crc32

import pytest

from kvstore.backup_file import BackupFile, BackupRefused, DamagedBackup, reading
from raft.entries import SnapshotMeta
from raft.snapshot import SnapshotHeader, encode_chunk
from raft.storage import StorageFailed

CONTENT = bytes(range(256)) * 8


def file_bytes(content: bytes = CONTENT, chunk_bytes: int = 700) -> bytes:
    meta = SnapshotMeta(7, 2, b"{}", len(content), crc32(content))
    chunks = [content[start : start + chunk_bytes] for start in range(0, len(content), chunk_bytes)]
    encoded = [encode_chunk(meta, number, data) for number, data in enumerate(chunks)]
    return SnapshotHeader("old", chunk_bytes, meta).encode() + b"".join(encoded)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    file = BackupFile(path)
    for start in range(0, len(file_bytes()), 100):
        file.write(file_bytes()[start : start + 100])
        assert names(tmp_path) == ["f.partial"]
    file.commit()
    file.abandon()
    assert names(tmp_path) == ["f"] and path.read_bytes() == file_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    with reading(path) as reader:
        assert reader.header.cluster_id == "old" and reader.read(0, 1 << 20) == CONTENT


@pytest.mark.parametrize("spoilt", [file_bytes()[:-1], file_bytes() + b"!", b"", b"x" * 2000], ids=len)
def test_what_is_no_whole_snapshot_gets_no_name(tmp_path: Path, spoilt: bytes) -> None:
    file = BackupFile(tmp_path / "f")
    file.write(spoilt)
    with pytest.raises(DamagedBackup):
        file.commit()
    file.abandon()
    assert names(tmp_path) == []


def test_a_file_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    file = BackupFile(tmp_path / "f")
    file.write(b"x")
    file.abandon()
    file.abandon()
    assert names(tmp_path) == []


def test_a_file_that_is_there_is_replaced_only_if_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"precious")
    with pytest.raises(BackupRefused, match="--force"):
        BackupFile(path)
    file = BackupFile(path, overwrite=True)
    file.write(b"no snapshot")
    with pytest.raises(DamagedBackup):
        file.commit()
    file.abandon()
    assert path.read_bytes() == b"precious" and names(tmp_path) == ["f"]


def test_a_save_that_cannot_be_read_back_is_not_advised_to_use_another_backup(tmp_path: Path) -> None:
    """It was this one that was to be made."""
    path = tmp_path / "f"
    file = BackupFile(path)
    file.write(file_bytes())
    flipped = bytearray((tmp_path / "f.partial").read_bytes())
    flipped[-10] ^= 1
    (tmp_path / "f.partial").write_bytes(flipped)
    with pytest.raises(DamagedBackup, match="Save it elsewhere: this disk") as caught:
        file.commit()
    assert "another backup" not in str(caught.value)
    file.abandon()
    assert names(tmp_path) == []


def test_a_file_that_is_replaced_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"precious")
    file = BackupFile(path, overwrite=True)
    file.write(file_bytes())
    file.commit()
    assert path.read_bytes() == file_bytes()


def test_a_file_that_appeared_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "f"
    file = BackupFile(path)
    file.write(file_bytes())
    path.write_bytes(b"of another one")
    with pytest.raises(BackupRefused):
        file.commit()
    file.abandon()
    assert path.read_bytes() == b"of another one" and names(tmp_path) == ["f"]


def test_two_do_not_write_the_same_file(tmp_path: Path) -> None:
    first = BackupFile(tmp_path / "f")
    with pytest.raises(BackupRefused, match="another process"):
        BackupFile(tmp_path / "f")
    first.write(file_bytes())
    first.commit()
    assert (tmp_path / "f").read_bytes() == file_bytes()


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "f.partial").write_bytes(bytes(1 << 20))
    file = BackupFile(tmp_path / "f")
    file.write(file_bytes())
    file.commit()
    assert (tmp_path / "f").read_bytes() == file_bytes() and names(tmp_path) == ["f"]


def test_a_directory_or_a_place_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackupRefused, match="directory"):
        BackupFile(tmp_path, overwrite=True)
    with pytest.raises(StorageFailed):
        BackupFile(tmp_path / "nowhere" / "f")


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    whole = bytearray(file_bytes(CONTENT[:1500]))
    path = tmp_path / "f"
    for place in range(len(whole)):
        whole[place] ^= 0x20
        path.write_bytes(whole)
        whole[place] ^= 0x20
        with pytest.raises(DamagedBackup, match="Use another backup"), reading(path):
            pass
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedBackup), reading(path):
            pass


def test_a_file_is_read_where_nobody_may_write(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(file_bytes())
    path.chmod(0o400)
    opened: list[int] = []
    original = os.open

    def noting(name: object, flags: int, *rest: int) -> int:
        opened.append(flags)
        return original(name, flags, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", noting)
        with reading(path) as reader:
            assert reader.meta.index == 7
    assert opened == [os.O_RDONLY]  # root may write anywhere, so the flags have to tell
