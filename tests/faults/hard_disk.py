"""Real files, and a ledger of what of them has reached the platter.

Every call is made for real, by `OsFiles`, in a directory of the test's; the ledger is the simulated disk of
tests/raft/disk.py, which does the same beside it. When the power is cut, the real files are rewritten to what
the ledger says a disk may hold. Only what asks the hardware to hurry is left out: the ledger is the hardware.
Each call is numbered and has a name, and a trap may lie in wait for it.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from random import Random
from typing import NamedTuple

from raft.files import OsFiles
from tests.faults import points
from tests.raft.disk import Inode, PowerLoss, SimulatedDisk

Image = dict[Path, bytes | None]  # what is in a directory, by relative path; None: a directory


class Step(NamedTuple):
    """One call of the disk. Numbers count from 0 over all lives of the process."""

    number: int
    call: str
    point: str
    path: Path  # of a rename, the new name
    offset: int = 0  # of a write
    length_bytes: int = 0


class Astray(NamedTuple):
    """Where a write goes instead."""

    path: Path
    offset: int


class Trap:
    """Lies in wait for calls; this one for none. Raises, or says what is to become of a write."""

    def before(self, step: Step) -> int | Astray | None:
        """None: nothing happens. A number: so many bytes are written."""

    def grow(self, step: Step, room_bytes: int, wanted_bytes: int) -> int:
        """A write of which only `room_bytes` need no new space; how many bytes there is space for."""
        return wanted_bytes

    def after(self, step: Step) -> None:
        """The call has been made."""


class ScriptedCut(PowerLoss):
    """The power fails where the script says so, in every run."""


class HardDisk(SimulatedDisk):
    """Owned by the test that owns the directory `root`. Survives the lives of processes."""

    def __init__(self, root: Path, trap: Trap | None = None) -> None:
        super().__init__()
        self.root = root
        self.trap = trap or Trap()
        self.steps: list[Step] = []
        self.written_to: tuple[str, int] = ("", 0)  # the segment written to last, and where the write ended
        self.is_full = False  # the script says so: nothing can be made, and no file can grow
        self.cuts_next_write = False  # in a segment: the script's own loss of power
        self._files = OsFiles()
        self._real: dict[int, int] = {}  # by the ledger's descriptor
        self._is_dead = False
        self._last_write: dict[int, str] = {}  # by inode: the point of a write that is not synced
        self._last_change: dict[Path, str] = {}  # by directory: of a change of names
        self._is_first = True  # no segment has a name yet
        self._adopt()

    # What tests do to it.

    def kill_process(self) -> None:
        super().kill_process()
        for descriptor in self._real.values():
            os.close(descriptor)
        self._real.clear()
        self._is_dead = self.cuts_next_write = self.is_full = False
        self.trap = Trap()

    def lose_power(self, chance: Random | bool, keep_probability: float = 0.5) -> None:
        super().lose_power(chance, keep_probability)
        self._last_write.clear()
        self._last_change.clear()
        image: Image = {}
        for path, inode in self.names.items():
            image[path.relative_to(self.root)] = None if path in self.directories else bytes(inode.durable)
        write_image(self.root, image)

    def _adopt(self) -> None:
        """Everything that is in the directory now is durable."""
        for name, content in read_image(self.root).items():
            path = self.root / name
            self.names[path] = Inode(content or b"")
            if content is None:
                self.directories.add(path)
            self._is_first = self._is_first and points.kind_of(path) != "segment"
        self.durable_names = dict(self.names)

    # What programs do with it.

    def make_directory(self, path: Path) -> None:
        step = self._arrive("make_directory", points.START + "make directory", path)
        if path not in self.names:
            self._last_change[path.parent] = step.point
        super().make_directory(path)
        self._files.make_directory(path)
        self.trap.after(step)

    def list_directory(self, path: Path) -> list[str]:
        self._arrive("list_directory", points.START + "read", path)
        return self._files.list_directory(path)

    def fsync_directory(self, path: Path) -> None:
        point = points.point_of_directory_sync(self._last_change.get(path, ""))
        step = self._arrive("fsync_directory", point, path)
        self._last_change.pop(path, None)
        super().fsync_directory(path)
        self.trap.after(step)

    def rename(self, source: Path, target: Path) -> None:
        step = self._arrive("rename", points.point_of_rename(target, is_first=self._is_first), target)
        super().rename(source, target)
        self._last_change[target.parent] = step.point
        self._is_first = self._is_first and points.kind_of(target) != "segment"
        self._files.rename(source, target)
        self.trap.after(step)

    def unlink(self, path: Path) -> None:
        step = self._arrive("unlink", points.point_of_unlink(path), path)
        super().unlink(path)
        self._last_change[path.parent] = step.point
        self._files.unlink(path)
        self.trap.after(step)

    def create(self, path: Path) -> int:
        step = self._arrive("create", points.point_of_create(path, is_first=self._is_first), path)
        if self.is_full:
            raise no_space()
        real = self._files.create(path)
        self._last_change.setdefault(path.parent, "")
        descriptor = self._keep(super().create(path), real)
        self.trap.after(step)
        return descriptor

    def open(self, path: Path) -> int:
        self._arrive("open", points.START + "read", path)
        real = self._files.open(path)
        return self._keep(super().open(path), real)

    def close(self, descriptor: int) -> None:
        if descriptor in self._real:  # else its process is dead
            super().close(descriptor)
            self._files.close(self._real.pop(descriptor))

    def read(self, path: Path) -> bytes:
        self._arrive("read", points.START + "read", path)
        return self._files.read(path)

    def pread(self, descriptor: int, length_bytes: int, offset: int) -> bytes:
        self._arrive("pread", points.START + "read", self._path_of(descriptor))
        return self._files.pread(self._real[descriptor], length_bytes, offset)

    def size_bytes(self, descriptor: int) -> int:
        return self._files.size_bytes(self._real[descriptor])

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        path, inode = self._open_file(descriptor)
        point = points.point_of_write(path, data, offset, is_first=self._is_first)
        step = Step(len(self.steps), "pwrite", point, path, offset, len(data))
        fate = self._take(step)
        written = fate if isinstance(fate, int) else len(data)
        room = max(0, len(inode.cached) - offset)
        if room < written:
            written = room if self.is_full else self.trap.grow(step, room, written)
            if not written:
                raise no_space()
        if points.kind_of(path) == "segment":
            self.written_to = path.name, offset + written
        if isinstance(fate, Astray):
            self._write_astray(fate, data)
        else:
            inode.do((offset, data[:written]))
            self._last_write[id(inode)] = step.point
            self._files.pwrite(self._real[descriptor], data[:written], offset)
        self.trap.after(step)
        if self.cuts_next_write and fate is None and points.kind_of(path) == "segment":
            self.cuts_next_write = False
            raise ScriptedCut
        return written

    def truncate(self, descriptor: int, length_bytes: int) -> None:
        path, inode = self._open_file(descriptor)
        point = points.START + "write lock"
        if points.kind_of(path) in ("segment", "snapshot"):
            assert all(named is not inode for named in self.names.values()), f"{path} is still in use"
            point = "compaction: give back space"
        step = self._arrive("truncate", point, path)
        inode.do((length_bytes, None))
        self._files.truncate(self._real[descriptor], length_bytes)
        self.trap.after(step)

    def fdatasync(self, descriptor: int) -> None:
        path, inode = self._open_file(descriptor)
        last = self._last_write.pop(id(inode), "")
        try:
            step = self._arrive("fdatasync", points.point_of_sync(path, last, is_first=self._is_first), path)
        except OSError:
            inode.unsynced.clear()  # The pages are marked clean though they were never written.
            raise
        inode.sync()
        self.trap.after(step)

    def forget_cached(self, descriptor: int) -> None:
        super().forget_cached(descriptor)
        content, real = bytes(self._open[descriptor][1].cached), self._real[descriptor]
        if os.pread(real, len(content) + 1, 0) != content:
            os.ftruncate(real, 0)
            os.pwrite(real, content, 0)

    def lock(self, path: Path) -> int:
        self._arrive("lock", points.START + "write lock", path)
        real = self._files.lock(path)
        self._locked.clear()  # the real lock decides
        return self._keep(super().lock(path), real)

    # How it is done.

    def _step(self, name: str) -> int | None:
        return None  # the numbering here is another

    def _arrive(self, call: str, point: str, path: Path) -> Step:
        step = Step(len(self.steps), call, point, path)
        self._take(step)
        return step

    def _take(self, step: Step) -> int | Astray | None:
        if self._is_dead:
            raise PowerLoss
        self.steps.append(step)
        return self.trap.before(step)

    def stop_here(self) -> None:
        """The process is gone in the middle of what it does: no call of it has an effect any more."""
        self._is_dead = True
        raise PowerLoss

    def _keep(self, descriptor: int, real: int) -> int:
        self._real[descriptor] = real
        return descriptor

    def _open_file(self, descriptor: int) -> tuple[Path, Inode]:
        if self._is_dead:
            raise PowerLoss
        old, inode = self._open[descriptor]
        for path, named in self.names.items():
            if named is inode:
                return path, inode
        return old, inode

    def _path_of(self, descriptor: int) -> Path:
        return self._open_file(descriptor)[0]

    def _write_astray(self, astray: Astray, data: bytes) -> None:
        """The disk puts it elsewhere, at once and for good, and reports success."""
        inode = self.names[astray.path]
        inode.do((astray.offset, data))
        inode.sync()
        real = os.open(astray.path, os.O_WRONLY)
        os.pwrite(real, data, astray.offset)
        os.close(real)


def no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_image(root: Path) -> Image:
    """Everything below a directory."""
    image: Image = {}
    for path in sorted(root.rglob("*")):
        image[path.relative_to(root)] = None if path.is_dir() else path.read_bytes()
    return image


def write_image(root: Path, image: Image) -> None:
    """Have just that below a directory."""
    for path in root.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for name, content in sorted(image.items()):
        if content is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(content)
