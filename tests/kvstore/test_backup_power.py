"""A backup outlives a loss of power, since it is relied on once all else is lost.

The file is a real one; beside it a ledger keeps what the platter has of it, so that a test can take the power
away before any call, let a call fail, or have the platter keep something else than what was written.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random

import pytest

from kvstore.backup_file import BackupFile, DamagedBackup
from raft.files import Descriptor, OsFiles
from raft.storage import StorageFailed
from tests.kvstore.test_backup_file import file_bytes
from tests.raft.disk import PowerLoss, SimulatedDisk

OLD = b"of last week"


class LedgerFiles(OsFiles):
    """Does everything twice: to the real file, and to a disk that knows what was synced."""

    __slots__ = ("_twins", "disk")

    def __init__(self, contents: dict[Path, bytes]) -> None:
        self.disk = SimulatedDisk(contents)
        self._twins: dict[Descriptor, int] = {}

    def lock(self, path: Path) -> Descriptor:
        twin = self.disk.lock(path)
        descriptor = super().lock(path)
        self._twins[descriptor] = twin
        return descriptor

    def close(self, descriptor: Descriptor) -> None:
        super().close(descriptor)
        self.disk.close(self._twins.pop(descriptor))

    def pwrite(self, descriptor: Descriptor, data: bytes, offset: int) -> int:
        written = self.disk.pwrite(self._twins[descriptor], data, offset)
        return super().pwrite(descriptor, data[:written], offset)

    def truncate(self, descriptor: Descriptor, length_bytes: int) -> None:
        self.disk.truncate(self._twins[descriptor], length_bytes)
        super().truncate(descriptor, length_bytes)

    def fdatasync(self, descriptor: Descriptor) -> None:
        self.disk.fdatasync(self._twins[descriptor])

    def fsync_directory(self, path: Path) -> None:
        self.disk.fsync_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        self.disk.rename(source, target)
        super().rename(source, target)

    def forget_cached(self, descriptor: Descriptor) -> None:
        """From here on the real file shows what the platter has."""
        twin = self._twins[descriptor]
        self.disk.forget_cached(twin)
        os.pwrite(descriptor, self.disk.pread(twin, 1 << 20, 0), 0)

    def lose_power(self, directory: Path, chance: Random | bool) -> None:
        for descriptor in self._twins:
            os.close(descriptor)
        self._twins.clear()
        self.disk.lose_power(chance)
        for path in directory.iterdir():
            path.unlink()
        for path, content in self.disk.contents().items():
            path.write_bytes(content)


def prepared(path: Path, old: bytes | None) -> LedgerFiles:
    path.unlink(missing_ok=True)
    if old is not None:
        path.write_bytes(old)
    return LedgerFiles({} if old is None else {path: old})


def save(path: Path, files: LedgerFiles) -> None:
    """As a client or a salvage does it."""
    file = BackupFile(path, overwrite=True, files=files)
    for start in range(0, len(file_bytes()), 700):
        file.write(file_bytes()[start : start + 700])
    file.commit()


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


@pytest.mark.parametrize("old", [None, OLD], ids=["new", "replaced"])
@pytest.mark.parametrize("luck", [False, True, 1, 2, 3, 4])
def test_without_power_a_backup_is_whole_or_was_never_there(
    tmp_path: Path, old: bytes | None, luck: bool | int
) -> None:
    """Before every call; and what was said to be saved is there whatever happens then."""
    path = tmp_path / "f"
    for number in range(100):
        files = prepared(path, old)
        files.disk.fail_at(number, PowerLoss())
        is_saved = False
        try:
            save(path, files)
            is_saved = True
        except PowerLoss:
            pass
        files.lose_power(tmp_path, luck if isinstance(luck, bool) else Random(f"{luck} {number}"))
        assert content(path) in ((file_bytes(),) if is_saved else (file_bytes(), old))
        if is_saved:
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("old", [None, OLD], ids=["new", "replaced"])
def test_a_backup_of_which_a_call_failed_is_not_said_to_be_saved(tmp_path: Path, old: bytes | None) -> None:
    """Whichever call it is, a sync above all."""
    path = tmp_path / "f"
    for number in range(100):
        files = prepared(path, old)
        files.disk.fail_at(number, OSError(errno.EIO, os.strerror(errno.EIO)))
        begun = len(files.disk.calls)
        try:
            save(path, files)
        except (StorageFailed, OSError):
            assert content(path) in (file_bytes(), old)
        else:
            assert len(files.disk.calls) - begun <= number, "a call failed, and nobody heard of it"
            return
        files.lose_power(tmp_path, False)
        assert content(path) == old
    raise AssertionError("it never came to its end")


def test_a_backup_that_the_platter_has_otherwise_gets_no_name(tmp_path: Path) -> None:
    """What is read back comes from the disk: the cache would show what was written."""
    path = tmp_path / "f"
    files = prepared(path, None)
    file = BackupFile(path, files=files)
    file.write(file_bytes())
    [inode] = files.disk.names.values()
    inode.sync()
    inode.durable[1000] ^= 1
    with pytest.raises(DamagedBackup):
        file.commit()
    file.abandon()
    assert list(tmp_path.iterdir()) == []
