"""A disk that can lose power: what was not synced vanishes, in part or wholly, sector by sector.

Stands in for raft.files.Files. Keeps for each file what programs see and what is on the platter, with the
writes between them in order. Any call can be made to fail, and a failed sync forgets what it should have
written, while the cache still shows it, as real kernels do.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from raft.storage import Storage

SECTOR_BYTES = 512


class PowerLoss(Exception):
    """The machine is off. Nothing may catch this but a test."""


class Inode:
    """One file: what is seen, what is durable, and the operations that are the difference."""

    def __init__(self, content: bytes = b"") -> None:
        self.cached = bytearray(content)
        self.durable = bytearray(content)
        self.unsynced: list[
            tuple[int, bytes | None]
        ] = []  # (offset, data), or (length, None) for a truncation

    def do(self, operation: tuple[int, bytes | None]) -> None:
        _apply(self.cached, operation)
        self.unsynced.append(operation)

    def sync(self) -> None:
        for operation in self.unsynced:
            _apply(self.durable, operation)
        self.unsynced.clear()

    def lose_power(self, keep: Callable[[], bool]) -> None:
        """Some sectors of each unsynced write come through; in one sector never a later write alone."""
        lost: set[int] = set()
        for place, data in self.unsynced:
            if data is None:
                if keep():
                    _apply(self.durable, (place, None))
                continue
            for sector in range(place // SECTOR_BYTES, (place + len(data) - 1) // SECTOR_BYTES + 1):
                start = max(place, sector * SECTOR_BYTES)
                stop = min(place + len(data), (sector + 1) * SECTOR_BYTES)
                if sector in lost or not keep():
                    lost.add(sector)
                else:
                    _apply(self.durable, (start, data[start - place : stop - place]))
        self.cached = bytearray(self.durable)
        self.unsynced.clear()


def _apply(content: bytearray, operation: tuple[int, bytes | None]) -> None:
    place, data = operation
    if data is None:
        del content[place:]
        return
    content.extend(bytes(max(0, place - len(content))))
    content[place : place + len(data)] = data


Names = dict[Path, Inode]


class SimulatedDisk:
    """One disk for as many process lives as a test needs. Owned by the test."""

    def __init__(self, contents: dict[Path, bytes] | None = None, capacity_bytes: int = 1 << 40) -> None:
        self.names: Names = {path: Inode(content) for path, content in (contents or {}).items()}
        self.durable_names: Names = dict(self.names)
        self.unsynced_names: list[tuple[Path, Callable[[Names], object]]] = []  # (directory, what to do)
        self.capacity_bytes = capacity_bytes
        self.calls: list[str] = []  # every call so far that may fail
        self.fault: Callable[[str], OSError | int | None] | None = None  # asked before each such call
        self.directories: set[Path] = set()  # all that were ever made here; they have names as files have
        self._open: dict[int, tuple[Path, Inode]] = {}
        self._locked: dict[Path, int] = {}
        self._next_descriptor = 3

    # What tests do to it.

    def fail_at(self, number: int, failure: OSError | PowerLoss | int, only: str = "") -> None:
        """Fail the call of this number, counted from now; of this name `only`. An int is a short write."""
        left = number

        def fault(name: str) -> OSError | int | None:
            nonlocal left
            if only not in ("", name):
                return None
            left -= 1
            if left != -1:
                return None
            if isinstance(failure, PowerLoss):
                raise failure
            return failure

        self.fault = fault

    def kill_process(self) -> None:
        """kill -9: the kernel goes on, so whatever was written is still in its cache."""
        self.fault = None
        self._open.clear()
        self._locked.clear()

    def lose_power(self, chance: Random | bool, keep_probability: float = 0.5) -> None:
        """Keep all that is unsynced (True), nothing (False), or what chance decides."""

        def keep() -> bool:
            return chance if isinstance(chance, bool) else chance.random() < keep_probability

        self.kill_process()
        inodes = {id(inode): inode for inode in (*self.names.values(), *self.durable_names.values())}
        for inode in inodes.values():
            inode.lose_power(keep)
        # Of the changes to names the first ones come through where a file system writes its journal in order,
        # and any of them where it does not.
        is_ordered = isinstance(chance, bool) or chance.random() < 0.5
        for _, change in self.unsynced_names:
            if keep():
                change(self.durable_names)
            elif is_ordered:
                break
        self.unsynced_names.clear()
        unreachable = [path for path in self.durable_names if not self._is_reachable(path)]
        for path in unreachable:
            del self.durable_names[path]
        self.names = dict(self.durable_names)

    def contents(self) -> dict[Path, bytes]:
        return {
            path: bytes(inode.cached) for path, inode in self.names.items() if path not in self.directories
        }

    # What programs do with it.

    def make_directory(self, path: Path) -> None:
        self._step("make_directory")
        if path not in self.names:
            self.directories.add(path)
            inode = Inode()
            self._rename(path.parent, lambda names: names.__setitem__(path, inode))

    def list_directory(self, path: Path) -> list[str]:
        self._step("list_directory")
        return sorted(found.name for found in self.names if found.parent == path)

    def fsync_directory(self, path: Path) -> None:
        self._step("fsync_directory")
        for directory, change in self.unsynced_names:
            if directory == path:
                change(self.durable_names)
        self.unsynced_names = [entry for entry in self.unsynced_names if entry[0] != path]

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename")
        assert source.parent == target.parent, "only within one directory"

        inode = self.names[source]

        def change(names: Names) -> None:
            names.pop(source, None)
            names[target] = inode

        self._rename(source.parent, change)

    def unlink(self, path: Path) -> None:
        self._step("unlink")
        assert path in self.names, f"{path} is not there"
        self._rename(path.parent, lambda names: names.pop(path, None))

    def create(self, path: Path) -> int:
        self._step("create")
        if path in self.names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        inode = Inode()
        self._rename(path.parent, lambda names: names.__setitem__(path, inode))
        return self._describe(path)

    def open(self, path: Path) -> int:
        self._step("open")
        return self._describe(path)

    def close(self, descriptor: int) -> None:
        path, _ = self._open.pop(descriptor)
        if self._locked.get(path) == descriptor:
            del self._locked[path]

    def read(self, path: Path) -> bytes:
        self._step("read")
        return bytes(self._inode(path).cached)

    def pread(self, descriptor: int, length_bytes: int, offset: int) -> bytes:
        self._step("pread")
        return bytes(self._open[descriptor][1].cached[offset : offset + length_bytes])

    def size_bytes(self, descriptor: int) -> int:
        return len(self._open[descriptor][1].cached)

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        short = self._step("pwrite")
        inode = self._open[descriptor][1]
        used = sum(len(other.cached) for other in self.names.values()) - len(inode.cached)
        room = max(0, self.capacity_bytes - used - offset)
        written = min(len(data), room) if short is None else min(len(data) - 1, room, short)
        if data and not written and short is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        inode.do((offset, data[:written]))
        return written

    def truncate(self, descriptor: int, length_bytes: int) -> None:
        self._step("truncate")
        self._open[descriptor][1].do((length_bytes, None))

    def fdatasync(self, descriptor: int) -> None:
        inode = self._open[descriptor][1]
        try:
            self._step("fdatasync")
        except OSError:
            inode.unsynced.clear()  # The pages are marked clean though they were never written.
            raise
        inode.sync()

    def start_writeback(self, descriptor: int, offset: int, length_bytes: int) -> None:
        pass

    def forget_cached(self, descriptor: int) -> None:
        inode = self._open[descriptor][1]
        if not inode.unsynced:  # Dirty pages are never dropped.
            inode.cached = bytearray(inode.durable)

    def lock(self, path: Path) -> int:
        self._step("lock")
        if path in self._locked:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if path not in self.names:
            inode = Inode()
            self._rename(path.parent, lambda names: names.__setitem__(path, inode))
        self._locked[path] = descriptor = self._describe(path)
        return descriptor

    def free_bytes(self, path: Path) -> int:
        return max(0, self.capacity_bytes - sum(len(inode.cached) for inode in self.names.values()))

    def _step(self, name: str) -> int | None:
        self.calls.append(name)
        outcome = self.fault(name) if self.fault is not None else None
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    def _is_reachable(self, path: Path) -> bool:
        """A directory that was lost takes along what was in it."""
        made = [parent for parent in path.parents if parent in self.directories]
        return all(parent in self.durable_names for parent in made)

    def _rename(self, directory: Path, change: Callable[[Names], object]) -> None:
        change(self.names)
        self.unsynced_names.append((directory, change))

    def _inode(self, path: Path) -> Inode:
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return self.names[path]

    def _describe(self, path: Path) -> int:
        inode = self._inode(path)
        self._next_descriptor += 1
        self._open[self._next_descriptor] = (path, inode)
        return self._next_descriptor


def compact_wholly(log: Storage, index: int, keep_snapshots: frozenset[int] = frozenset()) -> None:
    """All the steps of it."""
    while log.compact(index, keep_snapshots):
        pass
