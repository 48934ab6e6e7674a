"""What is read back from a write-ahead log: the records of its segments, in order, joined to a snapshot.

Knows records, segments and entries; reads no file itself. Refuses whatever does not fit, with the place.
"""

from __future__ import annotations

import struct
from pathlib import Path

from raft.entries import (
    CorruptEntries,
    Entry,
    HardState,
    Index,
    SnapshotMeta,
    Term,
    decode_entries,
)
from raft.record import RecordType
from raft.segment import (
    FORMAT_VERSION,
    Ending,
    Identity,
    SegmentReader,
    decode_hard_state,
    decode_seal,
    decode_segment_header,
    segment_name,
)
from raft.storage import CorruptLog, Recovered, UnknownFormat, put_entries

_MARK = struct.Struct("<QQ?")


def succeeds(old: HardState, new: HardState) -> bool:
    """Whether a node may say `new` after `old`: terms only grow, and a term has one vote (Raft §5.2)."""
    return new.term > old.term or (new.term == old.term and old.voted_for in (None, new.voted_for))


def encode_mark(index: Index, term: Term, *, replaces_log: bool) -> bytes:
    """A snapshot is durable; if it replaces the log, the entries before it in the log are void."""
    return _MARK.pack(index, term, replaces_log)


def decode_mark(payload: bytes) -> tuple[Index, Term, bool] | None:
    """Index and term of a snapshot, and whether it replaces the log; None if it is no mark."""
    return _MARK.unpack(payload) if len(payload) == _MARK.size else None


class Replay:
    """Rebuilds the state from the segments, in order; refuses what does not fit. Owned by one load()."""

    __slots__ = (
        "_identity",
        "_path",
        "_reader",
        "_unsealed",
        "base_index",
        "base_term",
        "entries",
        "last_switch",
        "state",
    )

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._reader: SegmentReader | None = None  # of the segment before
        self._path = Path()  # its file
        self._unsealed: CorruptLog | None = None  # what is wrong with it, if this one was written to
        # The file and reader of the last segment but one, if nothing follows the head of the last one: only
        # then may its seal be missing, or not be synced yet.
        self.last_switch: tuple[Path, SegmentReader] | None = None
        self.base_index: Index = 0  # of the entry before the first of `entries`
        self.base_term: Term | None = 0  # its term; None while nothing in the log tells
        self.entries: list[Entry] = []
        self.state = HardState()

    @property
    def next_index(self) -> Index:
        return self.base_index + len(self.entries) + 1

    def segment(
        self, path: Path, sequence: int, data: bytes, *, is_last: bool
    ) -> tuple[SegmentReader, Ending]:
        """Take over all that is good in a segment, which must continue the one before it."""
        reader = self._open(path, sequence, data)
        for offset, record_type, payload in reader.records():
            reason = self._take(record_type, payload)
            if reason:
                raise CorruptLog(path, offset, self.next_index, reason)
        tail = reader.tail(is_last=is_last)
        if tail.ending is Ending.CORRUPT:
            raise CorruptLog(path, reader.end, self.next_index, tail.reason)
        is_only_a_head = is_last and reader.is_only_a_head()
        if self._unsealed is not None and not is_only_a_head:
            raise self._unsealed
        if is_last:
            self._expect_no_successor(path, sequence, reader)
            if is_only_a_head and self._reader is not None:
                self.last_switch = self._path, self._reader
        elif reader.seal is None and (reader.header.version > 1 or tail.ending is Ending.TORN):
            reason = f"{tail.reason or 'no seal ends this segment'}, and the next one was written to"
            self._unsealed = CorruptLog(path, reader.end, self.next_index, reason)
        self._path, self._reader = path, reader
        return reader, tail.ending

    def _expect_no_successor(self, path: Path, sequence: int, reader: SegmentReader) -> None:
        if reader.seal is not None:
            successor = path.with_name(segment_name(sequence + 1))
            reason = "this segment is missing: the one before it was sealed when it was begun"
            raise CorruptLog(successor, 0, self.next_index, reason)

    def joined(self, snapshot: SnapshotMeta | None) -> Recovered | str:
        """What the log and the newest good snapshot make together, or why they make nothing."""
        if snapshot is None:
            if self.base_index:
                return f"the log begins after entry {self.base_index}, and no good snapshot covers that"
            return self._recovered(0, 0, self.entries, None)
        index, term = snapshot.index, snapshot.term
        if term > self.state.term:
            return f"a snapshot is of term {term}, in a log of term {self.state.term}"
        if self.base_index > index:
            return f"the log begins after entry {self.base_index}, and the snapshot ends at {index}"
        if not self.reaches(snapshot):
            # An installed snapshot became durable, and the power went before its mark did. Its entries are
            # committed, so what differs from them is not (Raft figure 13, rule 7).
            return self._recovered(index, term, [], snapshot)
        if self.base_term is not None:
            return self._recovered(self.base_index, self.base_term, self.entries, snapshot)
        if self.base_index == index:
            return self._recovered(index, term, self.entries, snapshot)
        # Of the entry before the first one nothing is known. So the first one is given up for its term.
        return self._recovered(self.base_index + 1, self.entries[0][0], self.entries[1:], snapshot)

    def reaches(self, snapshot: SnapshotMeta) -> bool:
        """Does the log have the very entry that the snapshot ends with, or follow it?"""
        position = snapshot.index - self.base_index - 1
        if position == -1:
            return self.base_term in (None, snapshot.term)
        return 0 <= position < len(self.entries) and self.entries[position][0] == snapshot.term

    def _recovered(
        self, base_index: Index, base_term: Term, entries: list[Entry], snapshot: SnapshotMeta | None
    ) -> Recovered:
        # A disk that lost its last turn, which was zeroed, ends before what was committed. It is only a hint.
        commit_index = min(self.state.commit_index, base_index + len(entries))
        state = self.state._replace(commit_index=commit_index)
        return Recovered(state, base_index + 1, entries, base_term, snapshot)

    def _open(self, path: Path, sequence: int, data: bytes) -> SegmentReader:
        header = decode_segment_header(data)
        if isinstance(header, str):
            raise CorruptLog(path, 0, self.next_index, header)
        if not 1 <= header.version <= FORMAT_VERSION:
            raise UnknownFormat(path, header.version, FORMAT_VERSION)
        before = self._reader
        if before is None and sequence > 1:
            # Those before it were released. What it continues is for the snapshot to show.
            self.base_index, self.base_term = header.first_index - 1, 0 if header.first_index == 1 else None
            last_crc = header.previous_crc
        else:
            last_crc = 0 if before is None else before.last_crc
        found = (header.identity, header.sequence, header.previous_crc, header.first_index)
        expected = (self._identity, sequence, last_crc, self.next_index)
        names = ("identity", "sequence", "link to the segment before", "first index")
        for name, is_there, is_due in zip(names, found, expected):
            if is_there != is_due:
                reason = f"the {name} in the segment header is {is_there}, expected {is_due}"
                raise CorruptLog(path, 0, self.next_index, reason)
        if before is not None and before.seal is not None:
            followed_by = decode_seal(before.seal)
            if followed_by != (sequence, header.crc):
                reason = f"the segment before was sealed for {followed_by}, this is {(sequence, header.crc)}"
                raise CorruptLog(path, 0, self.next_index, reason)
        return SegmentReader(data, header)

    def _take(self, record_type: int, payload: bytes) -> str:
        """Apply one record; the reason why it cannot be, if it cannot."""
        if record_type == RecordType.ENTRIES:
            return self._take_entries(payload)
        if record_type == RecordType.HARD_STATE:
            state = decode_hard_state(payload)
            if state is None or not succeeds(self.state, state):
                return f"{state} cannot follow {self.state}"
            self.state = state
            return ""
        if record_type == RecordType.SNAPSHOT_MARK:
            return self._take_mark(payload)
        if record_type == RecordType.SEAL:
            return "" if decode_seal(payload) else f"a seal has {len(payload)} bytes"
        return f"a record has type {record_type}, which this program does not know"

    def _take_entries(self, payload: bytes) -> str:
        try:
            first_index, entries = decode_entries(payload)
        except CorruptEntries as error:
            return f"a record holds no entries: {error.reason}"
        if not entries or first_index > self.next_index:
            return f"{len(entries)} entries from {first_index} on cannot follow entry {self.next_index - 1}"
        if first_index <= self.base_index:
            if self.base_term is not None:
                return f"entries from {first_index} on replace {self.base_index}, which a snapshot covers"
            # Written when entries of released segments were not committed yet: it replaced some of them.
            self.base_index, self.entries = first_index - 1, []
        kept = first_index - self.base_index - 1
        before = self.entries[kept - 1][0] if kept else self.base_term or 0
        if entries[0][0] < before or entries[-1][0] > self.state.term:
            terms = f"{entries[0][0]}..{entries[-1][0]}"
            return f"entries of terms {terms} follow term {before} in a log of term {self.state.term}"
        put_entries(self.entries, self.base_index + 1, first_index, entries)
        return ""

    def _take_mark(self, payload: bytes) -> str:
        mark = decode_mark(payload)
        if mark is None:
            return f"a snapshot mark has {len(payload)} bytes"
        index, term, replaces_log = mark
        if replaces_log:
            if index <= self.base_index and self.base_term is not None:
                return f"a snapshot up to {index} replaces a log that begins after {self.base_index}"
            self.base_index, self.base_term, self.entries = index, term, []
        elif index >= self.next_index:
            return f"a snapshot up to {index} was taken of a log up to {self.next_index - 1}"
        return ""
