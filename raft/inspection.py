"""Looks at a node's log as a start of that node would, and leaves everything as it is.

Knows the log, its segments and snapshots, and where a data directory keeps them. What a start would refuse
is found by the very code of a start: it runs on files that take every write for done and do none.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from raft.directory import IDENTITY_NAME, LOCK_NAME, LOG_NAME, read_identity, read_owner
from raft.entries import CorruptEntries, Index, SnapshotMeta, decode_entries
from raft.fence import UNREADABLE, FenceMark, FileFence
from raft.files import Descriptor, FailStop, OsFiles
from raft.record import RecordType
from raft.segment import (
    FORMAT_VERSION,
    SEGMENT_HEADER_BYTES,
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
    NOTHING_LEFT,
    CorruptSnapshot,
    DirectoryInUse,
    Recovered,
    StorageError,
    StorageFailed,
    UnknownFormat,
    WrongDirectory,
)
from raft.wal import PAGE_BYTES, WriteAheadLog, names_in


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
    damage: StorageError | None


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
    fence: FenceMark | None
    segments: list[Segment] = field(default_factory=list)
    snapshots: list[SnapshotFile] = field(default_factory=list)  # oldest first
    torn: Torn | None = None
    # A last record says once more what was known. Without it nothing tells whether the last turn is there.
    has_witness: bool = False
    recovered: Recovered | None = None  # what a start would know; None if it would refuse
    refusal: Exception | None = None  # with which a start would end


class Inspection:
    """Holds the directory of a node that does not run, so that none starts meanwhile, until close()."""

    def __init__(self, path: Path, *, makes_do: bool = False) -> None:
        """A data directory, or the log in it, or one that was copied without the rest. If it `makes_do`, what
        else is there must make up for an identity that cannot be read."""
        self.identity_damage: StorageError | None = None  # that was made up for
        self._files = ReadOnlyFiles()
        self._disk = FailStop(self._files)
        self._lock: Descriptor | None = None
        self._makes_do = makes_do
        names = self._names(path)
        if IDENTITY_NAME in names or LOG_NAME in names:
            self._home, is_at_home = path, True
            self.directory = path / LOG_NAME
        elif any(sequence_of(name) is not None or place_of(name) is not None for name in names):
            self._home = path.resolve().parent
            is_at_home = IDENTITY_NAME in self._names(self._home)
            self.directory = path
        else:
            found = sorted(names)[:3]
            raise WrongDirectory(path, "content", expected="a node's data or its log", found=found)
        if is_at_home:
            self._take_lock()
        try:
            self.identity = self._identity_at_home() if is_at_home else self._own_identity()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            self._disk.close(descriptor)

    def report(self) -> Report:
        """Everything, whether or not a start would refuse it."""
        report = Report(self.directory, self.identity, self.fence())
        report.segments = [self._segment(path) for path in self._readable()]
        report.snapshots = self.snapshots()
        log = WriteAheadLog(self.directory, ReadOnlyFiles(), self.identity)
        try:
            report.recovered = log.load()
            report.torn = self._torn()
            report.has_witness = report.torn is None and self._has_witness()
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

    def fence(self) -> FenceMark | None:
        """Why the node had fenced itself, if it had. To make do, an unreadable mark is taken for one, too."""
        try:
            return FileFence(self._home, self._files).mark
        except StorageFailed:
            if not self._makes_do:
                raise
            return FenceMark(0, 0, 0, UNREADABLE, True)

    def snapshots(self) -> list[SnapshotFile]:
        """All that have a name, each read whole, oldest first."""
        found = []
        for path in self._snapshot_paths():
            try:
                with closing(self._snapshot(path, self.identity.cluster_id)) as reader:
                    reader.verify()
                found.append(SnapshotFile(path, reader.meta, None))
            except (CorruptSnapshot, UnknownFormat, StorageFailed) as error:
                found.append(SnapshotFile(path, None, error))
        return found

    def sequences(self) -> list[int]:
        """Of the segments that are there, in order."""
        names = self._names(self.directory)
        return sorted(sequence for name in names if (sequence := sequence_of(name)) is not None)

    def read(self, path: Path) -> bytes:
        """All of a file. One that cannot be read is no reason to read no other."""
        return FailStop(self._files).call(path, self._files.read, path)

    def read_what_comes(self, path: Path) -> tuple[bytes, StorageFailed | None]:
        """All of a file, and how the disk refused to give some of it. Zeros stand for that: where nothing had
        been written they are right, and else a checksum tells."""
        try:
            return self.read(path), None
        except StorageFailed as error:
            failure = error
        disk = FailStop(self._files)
        descriptor = disk.call(path, self._files.open, path)
        data = bytearray(disk.call(path, self._files.size_bytes, descriptor))
        missing: list[int] = []
        for place in range(0, len(data), PAGE_BYTES):
            try:
                page = self._files.pread(descriptor, PAGE_BYTES, place)
            except OSError:
                missing.append(place)
            else:
                data[place : place + len(page)] = page
        disk.close(descriptor)
        if not missing:
            return bytes(data), None  # this time it was all there
        cause = f"{failure.cause}: {len(missing)} times {PAGE_BYTES} bytes, the first at byte {missing[0]}"
        return bytes(data), StorageFailed(failure.action, path, cause)

    def _names(self, path: Path) -> list[str]:
        return names_in(self._disk, path)

    def _snapshot_paths(self) -> list[Path]:
        """Oldest first."""
        names = sorted(self._names(self.directory))
        return [self.directory / name for name in names if place_of(name) is not None]

    def _snapshot(self, path: Path, cluster_id: str | None) -> SnapshotReader:
        return SnapshotReader(path, FailStop(self._files), cluster_id)

    def _take_lock(self) -> None:
        path = self._home / LOCK_NAME
        try:
            self._lock = self._files.lock(path)
        except BlockingIOError:
            raise DirectoryInUse(self._home, read_owner(path, self._files)) from None
        except FileNotFoundError:
            pass  # a copy that nobody has started a node on

    def _identity_at_home(self) -> Identity:
        try:
            return read_identity(self._home, self._files)
        except (WrongDirectory, StorageFailed) as error:
            is_lost = isinstance(error, StorageFailed) or error.field == IDENTITY_NAME
            if not (self._makes_do and is_lost):
                raise
            self.identity_damage = error
        return self._own_identity()

    def _own_identity(self) -> Identity:
        """What the log says by itself: its first segment that can be read, or else a snapshot, which has the
        cluster's name and not the node's."""
        for sequence in self.sequences():
            with suppress(StorageFailed):
                header = decode_segment_header(self._beginning(self.directory / segment_name(sequence)))
                if not isinstance(header, str):
                    return header.identity
        for path in self._snapshot_paths():
            with suppress(StorageError), closing(self._snapshot(path, None)) as reader:
                return Identity(reader.header.cluster_id, "")
        raise WrongDirectory(
            self.directory,
            "identity",
            expected="a segment or a snapshot that can be read",
            found=None,
            remedy=NOTHING_LEFT,
        )

    def _beginning(self, path: Path) -> bytes:
        disk = FailStop(self._files)
        descriptor = disk.call(path, self._files.open, path)
        try:
            return disk.call(path, self._files.pread, descriptor, SEGMENT_HEADER_BYTES, 0)
        finally:
            disk.close(descriptor)

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

    def _has_witness(self) -> bool:
        """Whether the log ends as a clean end leaves it, with the hard state that stood there already."""
        state, record_type, is_repeated = b"", 0, False
        for _, _, record_type, payload in self.records():
            if record_type == RecordType.HARD_STATE:
                state, is_repeated = payload, payload == state
        return record_type == RecordType.HARD_STATE and is_repeated

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
