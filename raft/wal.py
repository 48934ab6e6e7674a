"""The write-ahead log: what the core must not forget, in segments on a disk.

Decides when bytes are written and synced, and what is believed at a start; knows records, segments and Files.
Nothing is promised before sync() returns, and nothing is done after a call of the disk failed. A turn costs
one write and one sync. A segment is zero-filled before it is written to, because growing a file, or writing
where it has room but no data yet, makes each sync wait for the file system's journal as well.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from raft.discarded import Discarded
from raft.entries import EntryBatch, HardState, Index, SnapshotMeta, Term
from raft.files import Descriptor, FailStop, Files
from raft.record import RecordType, record_bytes, stored_payload
from raft.replay import Replay, encode_mark, succeeds
from raft.reserve import RESERVE_BYTES, RESERVE_DRAFT_NAME
from raft.segment import (
    MAX_UNSYNCED_BYTES,
    SEAL_BYTES,
    Ending,
    Identity,
    SegmentReader,
    SegmentWriter,
    encode_hard_state,
    head_bytes,
    segment_name,
    sequence_of,
)
from raft.snapshot import DRAFT_NAME, SnapshotDirectory
from raft.spare import FILL_SLICE_BYTES, SPARE_NAME, Spare
from raft.storage import (
    REPLACE_THE_MEMBER,
    CorruptLog,
    CorruptSnapshot,
    DiskFull,
    Recovered,
    Space,
    WrongDirectory,
)
from raft.supply import Supply

log = logging.getLogger("assent.wal")

DEFAULT_SEGMENT_BYTES = 32 << 20
MAX_SEGMENT_BYTES = 1 << 30  # offsets are four bytes wide
MAX_RECORD_BYTES = 8 << 20  # A longer batch is cut into several records.
# A log begins with this much zeroed space; each segment is up to twice as long as the one before.
FIRST_FILL_BYTES = 1 << 20
PAGE_BYTES = 4096
BROKEN_SUFFIX = ".broken"


class WriteAheadLog:
    """Storage in a directory of its own, for one node. Owned by whoever owns the core.

    load() comes first, once. After a StorageFailed the object refuses everything but close().
    """

    def __init__(
        self, directory: Path, files: Files, identity: Identity, *, segment_bytes: int = DEFAULT_SEGMENT_BYTES
    ) -> None:
        assert 0 < segment_bytes <= MAX_SEGMENT_BYTES, f"segments of {segment_bytes} bytes"
        self._directory = directory
        self._identity = identity
        self._segment_bytes = segment_bytes
        self._first_fill_bytes = min(FIRST_FILL_BYTES, segment_bytes)
        self._slice_bytes = min(FILL_SLICE_BYTES, segment_bytes)
        self._disk = FailStop(files)
        reserve_bytes = min(RESERVE_BYTES, segment_bytes)
        self._supply = Supply(
            directory, self._disk, reserve_bytes=reserve_bytes, slice_bytes=self._slice_bytes
        )
        self._writer: SegmentWriter | None = None  # None before load() and after close()
        self._descriptor: Descriptor | None = None  # of the segment that is written to
        self._path = directory
        self._sequence = 0
        self._start = 0  # where writing began in this segment, by this object
        self._capacity = 0  # the segment is filled with zeros up to here
        self._pending: list[bytes] = []  # encoded records not yet written: writer.durable to writer.end
        self._state = HardState()  # the latest; terms and votes in it are in a record
        self._commit_unwritten = False  # its commit index alone is not: it goes along with the next record
        self._last_index: Index = 0
        # Of each segment that is there, in order: (sequence, index of the entry to be written first).
        self._segments: deque[tuple[int, Index]] = deque()
        self._discarded = Discarded(directory, self._disk)
        self._snapshots = SnapshotDirectory(directory, self._disk, identity.cluster_id, self._discarded)

    @classmethod
    def create(cls, directory: Path, files: Files, identity: Identity) -> None:
        """Make an empty log, durably. To be repeated if it broke off; refuses a directory with data in it."""
        disk = FailStop(files)
        disk.call(directory, files.make_directory, directory)
        disk.call(directory.parent, files.fsync_directory, directory.parent)
        sequences = _sequences(disk, directory)
        if not sequences:
            _discard_drafts(disk, directory)
            begin = partial(SegmentWriter.begin, identity, 1, 1, 0, HardState())
            try:
                _, descriptor, _ = Spare(directory, disk, PAGE_BYTES).name(1, begin, PAGE_BYTES)
            except DiskFull as full:
                raise disk.give_in(full) from full
            disk.close(descriptor)
            return
        disk.call(directory, files.fsync_directory, directory)
        replay = Replay(identity)
        path = directory / segment_name(1)
        if sequences == [1]:
            replay.segment(path, 1, disk.call(path, files.read, path), is_last=True)
        if sequences != [1] or replay.entries or replay.state != HardState():
            raise WrongDirectory(
                directory,
                "log",
                expected="none",
                found=f"{len(sequences)} segments with data",
                remedy=REPLACE_THE_MEMBER,
            )

    def load(self) -> Recovered:
        """All that is durable, read back. Cuts off a write that broke off; refuses damage with CorruptLog."""
        assert self._descriptor is None, "load() comes once, first"
        files, disk = self._disk.files, self._disk
        sequences = _sequences(disk, self._directory)
        if not sequences:
            raise CorruptLog(self._directory, 0, 1, "the log was begun once, and no segment of it is there")
        damaged = self._snapshots.load()
        replay = Replay(self._identity)
        for sequence, found in enumerate(sequences, sequences[0]):
            path = self._directory / segment_name(sequence)
            if found != sequence:
                raise CorruptLog(path, 0, replay.next_index, "this segment is missing")
            is_last = sequence == sequences[-1]
            if is_last:
                # After a failed sync the cache shows what never reached the disk. What it holds beyond that,
                # of a process that was killed, is synced before this returns.
                self._descriptor = disk.call(path, files.open, path)
                disk.call(path, files.forget_cached, self._descriptor)
            data = disk.call(path, files.read, path)
            reader, ending = replay.segment(path, sequence, data, is_last=is_last)
            self._segments.append((sequence, reader.header.first_index))
        recovered = self._joined(replay, damaged)
        _discard_drafts(disk, self._directory)  # now that nothing is refused any more
        self._path, self._sequence = path, sequence
        self._capacity = reader.header.filled_bytes or len(data)
        if ending is Ending.TORN:
            self._cut(reader, replay.next_index)
        if replay.last_switch is not None:
            self._finish_switch(*replay.last_switch, reader)
        self._supply.load()
        self._continue(reader)
        # What is on the disk still ends where it was read to, also for a segment that is begun for the mark.
        self._state, self._last_index = replay.state, replay.next_index - 1
        snapshot = recovered.snapshot
        if snapshot is not None and not replay.reaches(snapshot):
            self._mark(snapshot.index, snapshot.term, replaces_log=True)
        log.info(
            "log recovered snapshot_index=%d last_index=%d segments=%d",
            0 if snapshot is None else snapshot.index,
            recovered.last_index,
            len(sequences),
        )
        return recovered

    def _joined(self, replay: Replay, damaged: list[CorruptSnapshot]) -> Recovered:
        """Falls back to an older snapshot only if the log has all that follows it."""
        recovered = replay.joined(self._snapshots.newest)
        if isinstance(recovered, Recovered):
            for error in damaged:
                log.warning("an older snapshot and the log make up for %s: %s", error.file, error.reason)
            return recovered
        if damaged:
            raise damaged[0]
        path = self._directory / segment_name(self._segments[0][0])
        snapshot = self._snapshots.newest
        raise CorruptLog(path, 0, 1 if snapshot is None else snapshot.index + 1, recovered)

    def append(self, hard_state: HardState | None, batch: EntryBatch | None) -> None:
        """Buffer both, hard state first. A commit index alone waits for the next record: it is a hint."""
        self._disk.check()
        if hard_state is not None:
            old = self._state
            assert succeeds(old, hard_state), f"{hard_state} cannot follow {old}"
            self._state = hard_state
            if hard_state[:2] != old[:2]:
                self._add_state()
            elif hard_state != old:
                self._commit_unwritten = True
        if batch is not None and batch.entries:
            assert batch.first_index <= self._last_index + 1, f"{batch} cannot follow {self._last_index}"
            assert batch.last_term <= self._state.term, f"{batch} is ahead of term {self._state.term}"
            if self._commit_unwritten:
                self._add_state()
            for part in _parts(batch):
                self._add(RecordType.ENTRIES, stored_payload(part.encode()))
                self._last_index = part.last_index

    def sync(self) -> None:
        """One write and one sync for all that was appended; then a slice of the next segment, if due."""
        self._disk.check()
        if self._pending:
            self._flush()
            self._supply.fill(self._spare_goal_bytes())

    def begin_snapshot(self, index: Index, term: Term, configuration: bytes) -> None:
        self._disk.check()
        with self._draft_given_up():
            self._snapshots.begin(index, term, configuration)

    def append_snapshot(self, data: bytes) -> None:
        with self._draft_given_up():
            self._snapshots.append(data)

    def yield_room(self, is_wanted: bool) -> None:
        self._supply.yield_room(is_wanted)

    def check_draft_room(self) -> None:
        """Gives the draft up where it would take the last bytes, unless it frees more: the log has its
        reserve, but there may be others who write to this disk. Raises DiskFull then."""
        if self._supply.yields:
            return
        disk, directory = self._disk, self._directory
        with self._draft_given_up():
            free_bytes = disk.call(directory, disk.files.free_bytes, directory)
            if free_bytes < self._slice_bytes:
                raise DiskFull(directory / DRAFT_NAME, f"only {free_bytes} bytes are left")

    def commit_snapshot(self, *, replaces_log: bool) -> SnapshotMeta:
        """First what was appended, since a snapshot must not be of a later term than the log; then the file,
        durable under its name; then the mark of it."""
        self.sync()
        with self._draft_given_up():
            meta = self._snapshots.commit()
        self._mark(meta.index, meta.term, replaces_log=replaces_log)
        return meta

    @contextmanager
    def _draft_given_up(self) -> Iterator[None]:
        """A snapshot can wait until there is room: nothing of it is left behind that takes some."""
        try:
            yield
        except DiskFull as full:
            self._supply.note(full)
            self._snapshots.abandon()
            raise

    def abandon_snapshot(self) -> None:
        self._snapshots.abandon()

    def check_space(self) -> Space:
        disk, newest = self._disk, self._snapshots.newest
        free_bytes = disk.call(self._directory, disk.files.free_bytes, self._directory)
        wanted_bytes = self._segment_bytes + (0 if newest is None else newest.size_bytes)
        return Space(free_bytes, wanted_bytes, self._supply.check(free_bytes), len(self._segments) - 1)

    def read_snapshot(self, index: Index, offset: int, size_bytes: int) -> bytes:
        return self._snapshots.read(index, offset, size_bytes)

    def compact(self, index: Index, keep_snapshots: frozenset[Index] = frozenset()) -> bool:
        """Release the segments in which no entry is beyond `index`, oldest first, and the older snapshots.

        Entries up to `index` are committed, so none of those that a segment's successors begin with can
        still be replaced from before it. One step a call, with one sync at most: a name, or
        after all names some space.
        """
        newest, segments = self._snapshots.newest, self._segments
        assert newest is not None and index <= newest.index, f"no snapshot covers {index}"
        if self._discarded.sync_name():
            return True
        if len(segments) > 1 and segments[1][1] <= index + 1:
            sequence, _ = segments.popleft()
            self._discarded.add(self._directory / segment_name(sequence), self._segment_bytes)
            return True
        if self._snapshots.release(keep_snapshots):
            return True
        self._release_copies()
        return self._discarded.step()

    def _release_copies(self) -> None:
        """What was cut off from segments that are gone: or crash by crash it would fill the disk."""
        disk, directory = self._disk, self._directory
        for name in disk.call(directory, disk.files.list_directory, directory):
            if name.endswith(BROKEN_SUFFIX):
                sequence = sequence_of(name.removesuffix(BROKEN_SUFFIX).rpartition(".")[0])
                if sequence is not None and sequence < self._segments[0][0]:
                    disk.call(directory / name, disk.files.unlink, directory / name)

    def _mark(self, index: Index, term: Term, *, replaces_log: bool) -> None:
        self._add(RecordType.SNAPSHOT_MARK, (encode_mark(index, term, replaces_log=replaces_log), 0))
        if replaces_log:
            self._last_index = index
        self._flush()

    def close(self) -> None:
        """Write all that is appended, and a last record that vouches for everything before it."""
        try:
            if self._writer is not None and not self._disk.failed:
                if self._has_room_for_a_last_record(self._writer):
                    self._add_state()
                self._flush()
        finally:
            descriptor, self._descriptor, self._writer = self._descriptor, None, None
            if descriptor is not None:
                self._disk.close(descriptor)
            self._supply.close()
            self._snapshots.close()
            self._discarded.close()

    def _has_room_for_a_last_record(self, writer: SegmentWriter) -> bool:
        """It can be done without: a full disk must not turn a clean end into another."""
        disk, payload = self._disk, stored_payload(encode_hard_state(self._state))
        if writer.end + record_bytes(len(payload[0])) + SEAL_BYTES <= self._capacity:
            return True
        return self._supply.has_room(disk.call(self._directory, disk.files.free_bytes, self._directory))

    def _add_state(self) -> None:
        self._add(RecordType.HARD_STATE, stored_payload(encode_hard_state(self._state)))
        self._commit_unwritten = False

    def _add(self, record_type: int, stored: tuple[bytes, int]) -> None:
        """Encode one record behind those that are there, in a new segment if this one is full."""
        writer = self._writer
        assert writer is not None, "load() comes before everything else"
        size = record_bytes(len(stored[0]))
        assert size <= MAX_UNSYNCED_BYTES, f"a record of {size} bytes; no more than {MAX_UNSYNCED_BYTES} fit"
        if writer.end + size + SEAL_BYTES > self._capacity:
            writer = self._switch(size)
        elif writer.end + size - writer.durable > MAX_UNSYNCED_BYTES:
            self._flush()
        self._pending += writer.encode(record_type, stored)

    def _flush(self) -> None:
        writer, descriptor = self._writer, self._descriptor
        assert writer is not None and descriptor is not None, "the log is not open"
        if not self._pending:
            return
        disk = self._disk
        disk.write(self._path, descriptor, b"".join(self._pending), writer.durable)
        disk.call(self._path, disk.files.fdatasync, descriptor)
        self._pending.clear()
        writer.durable = writer.end

    def _switch(self, size_bytes: int) -> SegmentWriter:
        """Go on in the next segment, with a record of this size, which is within what is filled of it: what
        grows a file can be cut off unseen. Only where there is no room to fill that much, it grows.

        This one is durable first, so that whatever is bad in it is damage. Once the next one is there, a seal
        says so in this one: should the next one be lost, it is missed.
        """
        self._flush()
        old, descriptor = self._writer, self._descriptor
        assert old is not None and descriptor is not None, "the log is not open"
        self._sequence += 1
        identity, sequence, state = self._identity, self._sequence, self._state
        begin = partial(SegmentWriter.begin, identity, sequence, self._last_index + 1, old.last_crc, state)
        needed_bytes = head_bytes(state) + size_bytes + SEAL_BYTES
        goal_bytes = max(self._first_fill_bytes, needed_bytes)
        writer, self._descriptor, filled = self._supply.name(sequence, begin, goal_bytes, needed_bytes)
        self._seal(self._path, descriptor, old, self._sequence, writer.header_crc)
        self._segments.append((self._sequence, self._last_index + 1))
        self._commit_unwritten = False
        self._write_on(writer, filled)
        return writer

    def _seal(
        self, path: Path, descriptor: Descriptor, writer: SegmentWriter, sequence: int, header_crc: int
    ) -> None:
        """End a segment, durably, and give its descriptor back."""
        disk, at = self._disk, writer.end
        disk.write(path, descriptor, writer.seal(sequence, header_crc), at)
        disk.call(path, disk.files.fdatasync, descriptor)
        disk.close(descriptor)

    def _finish_switch(self, path: Path, before: SegmentReader, last: SegmentReader) -> None:
        """Seal the last segment but one, though it may be sealed already: nothing in the file tells whether
        the seal is durable, and nobody has relied on it yet."""
        descriptor = self._disk.call(path, self._disk.files.open, path)
        self._seal(path, descriptor, before.writer(), last.header.sequence, last.header.crc)

    def _write_on(self, writer: SegmentWriter, capacity: int) -> None:
        self._path = self._directory / segment_name(self._sequence)
        self._writer = writer
        self._start, self._capacity = writer.end, capacity

    def _spare_goal_bytes(self) -> int:
        """How much of the next segment is to be filled by now, so that it is done when this one is full."""
        writer = self._writer
        assert writer is not None, "the log is not open"
        room = max(1, self._capacity - self._start)
        used = min(writer.end - self._start, room)
        return min(self._segment_bytes, max(self._first_fill_bytes, 2 * room)) * used // room

    def _cut(self, reader: SegmentReader, next_index: Index) -> None:
        """Drop what a write left that broke off: nobody was told that it is durable. A copy is kept."""
        disk, path, descriptor = self._disk, self._path, self._descriptor
        assert descriptor is not None, "the log is not open"
        rest = reader.rest()
        copy = self._directory / f"{path.name}.{reader.end}{BROKEN_SUFFIX}"
        if copy.name in disk.call(self._directory, disk.files.list_directory, self._directory):
            disk.call(copy, disk.files.unlink, copy)
        kept = self._keep_copy(copy, rest)
        # Bytes that stay behind would be taken for records one day. Not truncated: the file must not be
        # shorter than its head says. Should the power go now, whatever is zero already is one more sector
        # that was never written.
        try:
            disk.attempt_write(path, descriptor, bytes(len(rest)), reader.end)
        except DiskFull as full:
            raise disk.give_in(full) from full
        log.warning(
            "unfinished write cut off file=%s offset=%d bytes=%d next_index=%d copy=%s",
            path,
            reader.end,
            len(rest),
            next_index,
            copy.name if kept else "none",
        )

    def _keep_copy(self, path: Path, content: bytes) -> bool:
        """For whoever wants to look at it. A full disk must not keep a node from starting."""
        disk = self._disk
        descriptor = None
        try:
            descriptor = disk.attempt(path, disk.files.create, path)
            disk.attempt_write(path, descriptor, content, 0)
            disk.attempt(path, disk.files.fdatasync, descriptor)
        except DiskFull as full:
            self._supply.note(full)
            if descriptor is not None:
                disk.close(descriptor)
                disk.call(path, disk.files.unlink, path)
            return False
        disk.close(descriptor)
        return True

    def _continue(self, reader: SegmentReader) -> None:
        """Make the last segment ready to be written to, and all that was read in it durable.

        It is left when it is full, and never made longer, since nothing would tell how long it was. If that
        is soon, the next one is ready: no turn waits for it.
        """
        disk, path, descriptor = self._disk, self._path, self._descriptor
        assert descriptor is not None, "the log is not open"
        disk.call(path, disk.files.fdatasync, descriptor)
        disk.call(self._directory, disk.files.fsync_directory, self._directory)
        self._write_on(reader.writer(), self._capacity)
        if self._capacity - reader.end < self._first_fill_bytes:
            self._supply.fill(self._first_fill_bytes)


def names_in(disk: FailStop, directory: Path) -> list[str]:
    """What a directory holds; nothing if it is gone."""

    def list_directory() -> list[str]:
        try:
            return disk.files.list_directory(directory)
        except FileNotFoundError:
            return []

    return disk.call(directory, list_directory)


def _sequences(disk: FailStop, directory: Path) -> list[int]:
    """Those of the segments that are there, in order."""
    names = names_in(disk, directory)
    return sorted(sequence for name in names if (sequence := sequence_of(name)) is not None)


def _discard_drafts(disk: FailStop, directory: Path) -> None:
    """Throw away what was in the making when the process ended."""
    names = names_in(disk, directory)
    for draft in (SPARE_NAME, RESERVE_DRAFT_NAME, DRAFT_NAME):
        if draft in names:
            disk.call(directory / draft, disk.files.unlink, directory / draft)


def _parts(batch: EntryBatch) -> Iterator[EntryBatch]:
    """The batch itself, or if it is too long for one record, pieces that are not."""
    if batch.size_bytes <= MAX_RECORD_BYTES:
        yield batch
        return
    first, size = 0, 0
    for at, (_, _, body) in enumerate(batch.entries):
        if size and size + len(body) > MAX_RECORD_BYTES // 2:
            yield EntryBatch(batch.first_index + first, batch.entries[first:at])
            first, size = at, 0
        size += len(body) + 16
    yield batch.from_index(batch.first_index + first)
