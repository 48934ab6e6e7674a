"""Snapshot files: what stands for the part of the log that is given up.

Knows the layout of docs/disk.md and Files; nothing of Raft, and nothing of what is in a snapshot. A file gets
its name only after all of it is durable, so a named one that is not whole is damaged. Each chunk has a
checksum that also covers whose chunk it is and where it belongs; the whole has another one.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from raft.discarded import Discarded
from raft.entries import LIMIT, MAX_CONFIGURATION_BYTES, Index, SnapshotMeta, Term
from raft.files import Descriptor, FailStop
from raft.storage import (
    A_LATER_VERSION,
    READ_WITH_A_LATER_VERSION,
    REPLACE_THE_MEMBER,
    TAKE_ANOTHER_COPY,
    CorruptSnapshot,
    UnknownFormat,
)

log = logging.getLogger("assent.snapshot")

FORMAT_VERSION = 1
CHUNK_BYTES = 256 << 10  # of every chunk in a file but the last; about 0.2 ms of a turn
DRAFT_NAME = "snapshot.tmp"

_MAGIC = b"ASSENT\x1aS"
# magic, version, chunk bytes, index, term, size, checksum, lengths of cluster id and configuration
_FIXED = struct.Struct("<8sIIQQQIII")
_CRC = struct.Struct("<I")
_CHUNK = struct.Struct("<II")  # length, checksum
_PLACE = struct.Struct("<QQQI")  # what the checksum of a chunk is seeded by: index, term, number, length
_PREFIX = "snapshot-"


class SnapshotHeader(NamedTuple):
    """What a snapshot file says of itself."""

    cluster_id: str
    chunk_bytes: int
    meta: SnapshotMeta
    version: int = FORMAT_VERSION  # as read; nothing is known of what follows in a later one

    def encode(self) -> bytes:
        meta, cluster_id = self.meta, self.cluster_id.encode()
        fixed = _FIXED.pack(
            _MAGIC,
            FORMAT_VERSION,
            self.chunk_bytes,
            meta.index,
            meta.term,
            meta.size_bytes,
            meta.checksum,
            len(cluster_id),
            len(meta.configuration),
        )
        block = fixed + cluster_id + meta.configuration
        return block + _CRC.pack(crc32(block))


def snapshot_name(index: Index, term: Term) -> str:
    return f"{_PREFIX}{index:020d}-{term:020d}"


def place_of(name: str) -> tuple[Index, Term] | None:
    """Index and term in a snapshot's file name, None for any other file."""
    index, dash, term = name.removeprefix(_PREFIX).partition("-")
    if not (dash and index.isdecimal() and term.isdecimal()):
        return None
    place = int(index), int(term)
    return place if snapshot_name(*place) == name else None


class SnapshotWriter:
    """Writes one snapshot file, slice by slice. Owned by the log, until commit() or abandon().

    The header is written last, though it comes first in the file: it has the size and the checksum.
    """

    __slots__ = (
        "_buffer",
        "_chunks",
        "_configuration",
        "_descriptor",
        "_directory",
        "_disk",
        "_end",
        "_header",
        "_path",
        "checksum",
        "index",
        "size_bytes",
        "term",
    )

    def __init__(
        self,
        directory: Path,
        disk: FailStop,
        cluster_id: str,
        index: Index,
        term: Term,
        configuration: bytes,
        chunk_bytes: int,
    ) -> None:
        assert index >= 1 and term >= 1, f"a snapshot at index {index} of term {term}"
        assert len(configuration) <= MAX_CONFIGURATION_BYTES, f"{len(configuration)} bytes of configuration"
        self.index = index
        self.term = term
        self.size_bytes = 0  # of all that was appended
        self.checksum = 0  # CRC-32 of it
        self._header = SnapshotHeader(cluster_id, chunk_bytes, SnapshotMeta(index, term, configuration, 0, 0))
        self._disk = disk
        self._directory = directory
        self._path = directory / DRAFT_NAME
        self._buffer = bytearray()  # shorter than a chunk
        self._chunks = 0  # written
        self._end = len(self._header.encode())  # of what is written
        self._descriptor: Descriptor = disk.attempt(self._path, disk.files.create, self._path)

    def append(self, data: bytes) -> None:
        """Take over the next bytes; whole chunks are written, not synced."""
        chunk_bytes = self._header.chunk_bytes
        self.size_bytes += len(data)
        self.checksum = crc32(data, self.checksum)
        if not self._buffer and len(data) == chunk_bytes:
            self._write_chunk(data)
            return
        self._buffer += data
        while len(self._buffer) >= chunk_bytes:
            self._write_chunk(bytes(self._buffer[:chunk_bytes]))
            del self._buffer[:chunk_bytes]

    def commit(self) -> SnapshotMeta:
        """Make it durable under its name: synced, renamed, and the directory synced."""
        disk, path = self._disk, self._path
        if self._buffer:
            self._write_chunk(bytes(self._buffer))
            self._buffer.clear()
        meta = self._header.meta._replace(size_bytes=self.size_bytes, checksum=self.checksum)
        disk.attempt_write(path, self._descriptor, self._header._replace(meta=meta).encode(), 0)
        disk.attempt(path, disk.files.fdatasync, self._descriptor)
        target = self._directory / snapshot_name(self.index, self.term)
        disk.attempt(path, disk.files.rename, path, target)
        disk.call(self._directory, disk.files.fsync_directory, self._directory)
        disk.close(self._descriptor)
        log.info("snapshot index=%d term=%d bytes=%d", self.index, self.term, self.size_bytes)
        return meta

    def abandon(self) -> None:
        """Give it up; also after the disk has failed."""
        self._disk.close(self._descriptor)
        if not self._disk.failed:
            self._disk.call(self._path, self._disk.files.unlink, self._path)

    def _write_chunk(self, data: bytes) -> None:
        disk, chunk = self._disk, encode_chunk(self._header.meta, self._chunks, data)
        disk.attempt_write(self._path, self._descriptor, chunk, self._end)
        length = len(chunk)
        # So that the sync at the end finds little left to do, and no turn waits for it.
        disk.attempt(self._path, disk.files.start_writeback, self._descriptor, self._end, length)
        self._chunks += 1
        self._end += length


def chunk_crc(meta: SnapshotMeta, number: int, data: bytes) -> int:
    """Seeded by whose chunk it is, and which: another one in its place is found, however intact."""
    return crc32(data, crc32(_PLACE.pack(meta.index, meta.term, number, len(data))))


def encode_chunk(meta: SnapshotMeta, number: int, data: bytes) -> bytes:
    """As it stands in the file."""
    return _CHUNK.pack(len(data), chunk_crc(meta, number, data)) + data


class SnapshotReader:
    """Reads one named snapshot file, any part of it, and believes nothing unchecked. Owned by the log."""

    __slots__ = (
        "_chunk_bytes",
        "_data_start",
        "_descriptor",
        "_disk",
        "_index",
        "_path",
        "_remedy",
        "header",
        "meta",
    )

    def __init__(self, path: Path, disk: FailStop, cluster_id: str | None) -> None:
        """Without a `cluster_id` it is a file that stands by itself: of any cluster, under any name."""
        self._path = path
        self._disk = disk
        self._remedy = TAKE_ANOTHER_COPY if cluster_id is None else REPLACE_THE_MEMBER
        self._index = (place_of(path.name) or (0, 0))[0]  # where it is said to end; 0 while nothing says it
        self._descriptor: Descriptor = disk.call(path, disk.files.open, path)
        try:
            header = self._read_header(cluster_id)
        except BaseException:
            self.close()
            raise
        self.header = header
        self.meta = header.meta
        self._index = header.meta.index
        self._chunk_bytes = header.chunk_bytes

    def close(self) -> None:
        self._disk.close(self._descriptor)

    def read(self, offset: int, size_bytes: int) -> bytes:
        """That part of the snapshot; shorter only where the snapshot ends. Raises CorruptSnapshot."""
        chunk_bytes = self._chunk_bytes
        stop = min(offset + size_bytes, self.meta.size_bytes)
        first = offset // chunk_bytes
        parts = [self._read_chunk(number) for number in range(first, -(-stop // chunk_bytes))]
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        start = offset - first * chunk_bytes
        return data if not start and len(data) == stop - offset else data[start : stop - first * chunk_bytes]

    def verify(self) -> None:
        """Read all of it. Raises CorruptSnapshot unless every byte is as it was written."""
        checksum, end = 0, self._data_start
        for number in range(-(-self.meta.size_bytes // self._chunk_bytes)):
            data = self._read_chunk(number)
            checksum = crc32(data, checksum)
            end += _CHUNK.size + len(data)
        if checksum != self.meta.checksum:
            raise self._corrupt("the checksum of the whole is wrong", self._data_start)
        if self._pread(1, end):
            raise self._corrupt("something stands behind its end", end)

    def _read_chunk(self, number: int) -> bytes:
        meta, chunk_bytes = self.meta, self._chunk_bytes
        at = self._data_start + number * (_CHUNK.size + chunk_bytes)
        due = min(chunk_bytes, meta.size_bytes - number * chunk_bytes)
        block = self._pread(_CHUNK.size + due, at)
        if len(block) == _CHUNK.size + due:
            length, crc = _CHUNK.unpack_from(block)
            data = block[_CHUNK.size :]
            if length == due and crc == chunk_crc(meta, number, data):
                return data
        raise self._corrupt(f"chunk {number} is damaged", at)

    def _read_header(self, cluster_id: str | None) -> SnapshotHeader:
        header = decode_header(self._pread(_FIXED.size, 0), self._pread)
        if isinstance(header, str):
            raise self._corrupt(header)
        if not 1 <= header.version <= FORMAT_VERSION:
            remedy = READ_WITH_A_LATER_VERSION if cluster_id is None else A_LATER_VERSION
            raise UnknownFormat(self._path, header.version, FORMAT_VERSION, remedy)
        if cluster_id is not None:
            if snapshot_name(header.meta.index, header.meta.term) != self._path.name:
                raise self._corrupt(f"it holds {header.meta.index} of term {header.meta.term}")
            if header.cluster_id != cluster_id:
                raise self._corrupt(f"it is of cluster {header.cluster_id}, not {cluster_id}")
        self._data_start = len(header.encode())
        return header

    def _corrupt(self, reason: str, offset: int = 0) -> CorruptSnapshot:
        return CorruptSnapshot(self._path, reason, offset=offset, index=self._index, remedy=self._remedy)

    def _pread(self, length_bytes: int, offset: int) -> bytes:
        return self._disk.call(self._path, self._disk.files.pread, self._descriptor, length_bytes, offset)


def decode_header(fixed: bytes, pread: Callable[[int, int], bytes]) -> SnapshotHeader | str:
    """The header that begins with these bytes, or the reason why there is none."""
    if len(fixed) < _FIXED.size:
        return f"the file has only {len(fixed)} bytes"
    magic, version, chunk_bytes, index, term, size_bytes, checksum, *lengths = _FIXED.unpack(fixed)
    if magic != _MAGIC:
        return "it does not begin as a snapshot does"
    if max(lengths) > MAX_CONFIGURATION_BYTES:
        return f"the header claims {max(lengths)} bytes of names"
    rest = pread(sum(lengths) + _CRC.size, _FIXED.size)
    names, crc = rest[: sum(lengths)], rest[sum(lengths) :]
    if len(crc) != _CRC.size or crc32(fixed + names) != _CRC.unpack(crc)[0]:
        return "the checksum of the header is wrong"
    if not (1 <= index < LIMIT and 1 <= term < LIMIT and chunk_bytes):
        return f"index {index}, term {term} or chunks of {chunk_bytes} bytes are out of range"
    cluster_id = names[: lengths[0]].decode(errors="replace")
    meta = SnapshotMeta(index, term, names[lengths[0] :], size_bytes, checksum)
    return SnapshotHeader(cluster_id, chunk_bytes, meta, version)


class SnapshotDirectory:
    """All snapshot files of a log, in the log's directory. Owned by one log."""

    __slots__ = ("_cluster_id", "_directory", "_discarded", "_disk", "_readers", "_writer", "newest")

    def __init__(
        self, directory: Path, disk: FailStop, cluster_id: str, discarded: Discarded | None = None
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._cluster_id = cluster_id
        self._discarded = discarded if discarded is not None else Discarded(directory, disk)
        self._readers: dict[Index, SnapshotReader] = {}  # every snapshot that may be read, by index
        self._writer: SnapshotWriter | None = None
        self.newest: SnapshotMeta | None = None  # of those in _readers

    def load(self) -> list[CorruptSnapshot]:
        """Find the newest good one. Returns what is wrong with those that should be newer."""
        damaged: list[CorruptSnapshot] = []
        for name in self._names()[::-1]:
            try:
                reader = SnapshotReader(self._directory / name, self._disk, self._cluster_id)
                self._readers[reader.meta.index] = reader
                reader.verify()
            except CorruptSnapshot as error:
                log.error("%s", error)
                damaged.append(error)
                continue
            self.newest = reader.meta
            break
        for index in [index for index in self._readers if self.newest is None or index != self.newest.index]:
            self._readers.pop(index).close()
        return damaged

    def begin(self, index: Index, term: Term, configuration: bytes) -> None:
        """Begin a new one; one that was begun before is given up."""
        self.abandon()
        self._writer = SnapshotWriter(
            self._directory, self._disk, self._cluster_id, index, term, configuration, CHUNK_BYTES
        )

    def append(self, data: bytes) -> None:
        assert self._writer is not None, "no snapshot was begun"
        self._writer.append(data)

    def commit(self) -> SnapshotMeta:
        writer = self._writer
        assert writer is not None, "no snapshot was begun"
        meta = writer.commit()
        self._writer = None
        old = self._readers.pop(meta.index, None)
        if old is not None:
            old.close()
        path = self._directory / snapshot_name(meta.index, meta.term)
        self._readers[meta.index] = SnapshotReader(path, self._disk, self._cluster_id)
        self.newest = meta
        return meta

    def abandon(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abandon()

    def read(self, index: Index, offset: int, size_bytes: int) -> bytes:
        """A part of the snapshot at `index`, which must not have been released."""
        return self._readers[index].read(offset, size_bytes)

    def release(self, keep: frozenset[Index]) -> bool:
        """Remove the oldest of all that are older than the newest, but for those; False if there is none."""
        newest = self.newest
        if newest is None:
            return False
        for name in self._names():
            place = place_of(name)
            assert place is not None, f"{name} is no snapshot"
            if place[0] >= newest.index or place[0] in keep:
                continue
            reader = self._readers.pop(place[0], None)
            if reader is not None:
                reader.close()
            size_bytes = (newest if reader is None else reader.meta).size_bytes
            self._discarded.add(self._directory / name, size_bytes)
            return True
        return False

    def close(self) -> None:
        self.abandon()
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def _names(self) -> list[str]:
        """The names of all snapshot files, oldest first."""
        names = self._disk.call(self._directory, self._disk.files.list_directory, self._directory)
        return sorted(name for name in names if place_of(name) is not None)
