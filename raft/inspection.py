"""Looks at a node's log as a start of that node would, and leaves everything as it is.

Knows the log, its segments and snapshots, and where a data directory keeps them. What a start would refuse
is found by the very code of a start: it runs on files that take every write for done and do none.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from raft.directory import IDENTITY_NAME, LOCK_NAME, LOG_NAME, read_identity, read_owner
from raft.entries import CorruptEntries, Index, SnapshotMeta, decode_entries
from raft.files import Descriptor, FailStop, OsFiles
from raft.record import RecordType
from raft.segment import (
    FORMAT_VERSION,
    Ending,
    Identity,
    SegmentHeader,
    SegmentReader,
    decode_segment_header,
    segment_name,
    sequence_of,
)
from raft.snapshot import SnapshotReader, place_of
from raft.storage import (
    CorruptSnapshot,
    DirectoryInUse,
    Recovered,
    StorageError,
    UnknownFormat,
    WrongDirectory,
)
from raft.wal import WriteAheadLog, names_in


class ReadOnlyFiles(OsFiles):
    """The disk as it is: what is read is real, and what is written gets nowhere."""

    __slots__ = ()

    def make_directory(self, path: Path) -> None:
        pass

    def fsync_directory(self, path: Path) -> None:
        pass

    def rename(self, source: Path, target: Path) -> None:
        pass

    def unlink(self, path: Path) -> None:
        pass

    def create(self, path: Path) -> Descriptor:
        return os.open(os.devnull, os.O_RDONLY)

    def open(self, path: Path) -> Descriptor:
        return os.open(path, os.O_RDONLY)

    def pwrite(self, descriptor: Descriptor, data: bytes, offset: int) -> int:
        return len(data)

    def truncate(self, descriptor: Descriptor, length_bytes: int) -> None:
        pass

    def fdatasync(self, descriptor: Descriptor) -> None:
        pass

    def start_writeback(self, descriptor: Descriptor, offset: int, length_bytes: int) -> None:
        pass

    def lock(self, path: Path) -> Descriptor:
        """Keeps a node from starting meanwhile, and is refused while one runs; several may look at once."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


class LogRecord(NamedTuple):
    """One good record, where it stands."""

    file: Path
    offset: int
    record_type: int
    payload: bytes


class Segment(NamedTuple):
    """What one segment holds, up to the first place where nothing good stands."""

    file: Path
    header: SegmentHeader
    last_index: Index  # of the last entry written in it; without any, of the one before the first
    records: int
    used_bytes: int
    size_bytes: int
    is_sealed: bool


class SnapshotFile(NamedTuple):
    file: Path
    meta: SnapshotMeta | None  # None if it is damaged
    damage: Exception | None


class Torn(NamedTuple):
    """An unfinished write, which a start cuts off and keeps a copy of."""

    file: Path
    offset: int
    size_bytes: int
    reason: str


@dataclass(slots=True)
class Report:
    """All that there is to say about a log."""

    directory: Path
    identity: Identity
    segments: list[Segment] = field(default_factory=list)
    snapshots: list[SnapshotFile] = field(default_factory=list)  # oldest first
    torn: Torn | None = None
    recovered: Recovered | None = None  # what a start would know; None if it would refuse
    refusal: Exception | None = None  # with which a start would end


class Inspection:
    """Holds the directory of a node that does not run, so that none starts meanwhile, until close()."""

    def __init__(self, path: Path) -> None:
        """A data directory, or the log in it, or one that was copied without the rest."""
        self._files = ReadOnlyFiles()
        self._disk = FailStop(self._files)
        self._lock: Descriptor | None = None
        names = self._names(path)
        if IDENTITY_NAME in names or LOG_NAME in names:
            home: Path | None = path
            self.directory = path / LOG_NAME
        elif any(sequence_of(name) is not None or place_of(name) is not None for name in names):
            home = path.resolve().parent
            self.directory = path
            if IDENTITY_NAME not in self._names(home):
                home = None
        else:
            found = sorted(names)[:3]
            raise WrongDirectory(path, "content", expected="a node's data or its log", found=found)
        if home is not None:
            self._take_lock(home)
        try:
            self.identity = self._own_identity() if home is None else read_identity(home, self._files)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            self._disk.close(descriptor)

    def report(self) -> Report:
        """Everything, whether or not a start would refuse it."""
        report = Report(self.directory, self.identity)
        report.segments = [self._segment(path) for path in self._readable()]
        report.snapshots = self.snapshots()
        log = WriteAheadLog(self.directory, ReadOnlyFiles(), self.identity)
        try:
            report.recovered = log.load()
            report.torn = self._torn()
        except StorageError as error:
            report.refusal = error
        finally:
            log.close()
        return report

    def records(self) -> Iterator[LogRecord]:
        """All good records in the order in which they were written, up to the first bad place."""
        for path in self._readable():
            reader = self._reader(path)
            for offset, record_type, payload in reader.records():
                yield LogRecord(path, offset, record_type, payload)
            if reader.rest():
                return

    def snapshots(self) -> list[SnapshotFile]:
        """All that have a name, each read whole, oldest first."""
        found = []
        for name in sorted(name for name in self._names(self.directory) if place_of(name) is not None):
            path = self.directory / name
            try:
                reader = SnapshotReader(path, self._disk, self.identity.cluster_id)
            except (CorruptSnapshot, UnknownFormat) as error:
                found.append(SnapshotFile(path, None, error))
                continue
            try:
                reader.verify()
                found.append(SnapshotFile(path, reader.meta, None))
            except CorruptSnapshot as error:
                found.append(SnapshotFile(path, None, error))
            finally:
                reader.close()
        return found

    def sequences(self) -> list[int]:
        """Of the segments that are there, in order."""
        names = self._names(self.directory)
        return sorted(sequence for name in names if (sequence := sequence_of(name)) is not None)

    def read(self, path: Path) -> bytes:
        """All of a file."""
        return self._disk.call(path, self._files.read, path)

    def _names(self, path: Path) -> list[str]:
        return names_in(self._disk, path)

    def _take_lock(self, home: Path) -> None:
        path = home / LOCK_NAME
        try:
            self._lock = self._files.lock(path)
        except BlockingIOError:
            raise DirectoryInUse(home, read_owner(path, self._files)) from None
        except FileNotFoundError:
            pass  # a copy that nobody has started a node on

    def _own_identity(self) -> Identity:
        """Of a log that was taken out of its directory: what its first readable segment says."""
        for path in self._readable():
            return self._reader(path).header.identity
        raise WrongDirectory(self.directory, "identity", expected="a segment that can be read", found=None)

    def _readable(self) -> Iterator[Path]:
        """The segments in order, up to a gap, or one whose header says nothing."""
        sequences = self.sequences()
        for due, sequence in enumerate(sequences, sequences[0] if sequences else 1):
            path = self.directory / segment_name(sequence)
            header = decode_segment_header(self.read(path))
            if due != sequence or isinstance(header, str) or header.version > FORMAT_VERSION:
                return
            yield path

    def _reader(self, path: Path) -> SegmentReader:
        data = self.read(path)
        header = decode_segment_header(data)
        assert not isinstance(header, str), f"{path}: {header}"
        return SegmentReader(data, header)

    def _segment(self, path: Path) -> Segment:
        data = self.read(path)
        reader = self._reader(path)
        records, last_index = 0, reader.header.first_index - 1
        for _, record_type, payload in reader.records():
            records += 1
            if record_type == RecordType.ENTRIES:
                try:
                    first_index, entries = decode_entries(payload)
                except CorruptEntries:
                    break  # the refusal will tell
                last_index = first_index + len(entries) - 1
        is_sealed = reader.seal is not None
        return Segment(path, reader.header, last_index, records, reader.end, len(data), is_sealed)

    def _torn(self) -> Torn | None:
        """Where the last segment of a log that would be loaded ends in an unfinished write."""
        *_, path = self._readable()
        reader = self._reader(path)
        for _ in reader.records():
            pass
        tail = reader.tail(is_last=True)
        if tail.ending is not Ending.TORN:
            return None
        return Torn(path, reader.end, len(reader.rest()), tail.reason)
