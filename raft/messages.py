"""The messages that cores exchange: plain data, one class for each meaning.

There is no sender in a message: the transport knows who sent it. Every message has the sender's term,
captured when it is built; RequestPreVote and a granted PreVoteResponse have the term that the candidate
would campaign in (dissertation 9.6).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from zlib import crc32

from raft.entries import EntryBatch, Index, Term

_PLACE_OF_CHUNK = struct.Struct("<QQQQ")


@dataclass(slots=True)
class RequestPreVote:
    """Would you vote for me in `term`? Promises nothing, and changes nothing at the one who answers."""

    term: Term  # the sender's term + 1
    last_index: Index
    last_term: Term


@dataclass(slots=True)
class PreVoteResponse:
    term: Term  # if granted, the term that was asked about; if not, the term of the one who refuses
    granted: bool


@dataclass(slots=True)
class RequestVote:
    term: Term
    last_index: Index
    last_term: Term
    transfer: bool = False  # The leader itself asked for this campaign: it passes the vote gate (4.2.3).


@dataclass(slots=True)
class VoteResponse:
    term: Term
    granted: bool


@dataclass(slots=True)
class AppendEntries:
    """Entries that follow (prev_index, prev_term). May be empty: a probe, or news of the commit index."""

    term: Term
    prev_index: Index
    prev_term: Term
    commit_index: Index
    batch: EntryBatch  # first_index is prev_index + 1, also when empty


@dataclass(slots=True)
class AppendResponse:
    term: Term
    match_index: Index  # durable here, and equal to the leader's log up to here


@dataclass(slots=True)
class AppendRejected:
    """The log here has no (prev_index, prev_term). Says where to go on (Raft §5.3, fast backtracking)."""

    term: Term
    prev_index: Index  # the one that was refused, so that a late answer is known for one
    conflict_index: Index  # first index of conflict_term here; if there is none, last index + 1
    conflict_term: Term  # term of the entry at prev_index here; 0 if there is none


@dataclass(slots=True)
class Heartbeat:
    term: Term
    commit_index: Index  # never beyond what the receiver has acknowledged to the sender, in this term
    round: int  # read round of this leader's term: an answer confirms all reads asked before it


@dataclass(slots=True)
class HeartbeatResponse:
    term: Term
    round: int
    priority: int = 1  # of the one who answers, in elections; 0: it never leads


@dataclass(slots=True)
class ReadIndexRequest:
    """A follower asks the leader for a read index. `context` is the asking core's number for it."""

    term: Term
    context: int


@dataclass(slots=True)
class ReadIndexResponse:
    term: Term
    context: int
    read_index: Index


@dataclass(slots=True)
class ReadIndexRefused:
    term: Term
    context: int


@dataclass(slots=True)
class TimeoutNow:
    """The leader to its successor: campaign at once (dissertation 3.10)."""

    term: Term


@dataclass(slots=True)
class Removed:
    """A member to a node that is none: your removal is committed, so do not campaign any more."""

    term: Term


@dataclass(slots=True)
class InstallSnapshot:
    """A chunk of the leader's snapshot, for a peer that needs what is compacted away (Raft §7)."""

    term: Term
    index: Index  # of the last entry that the snapshot stands for
    snapshot_term: Term  # of that entry
    configuration: bytes  # in force at that entry; the first chunk has it, the others are empty here
    offset: int  # of this chunk
    size_bytes: int  # of the whole
    checksum: int  # CRC-32 of the whole
    data: bytes
    chunk_checksum: int  # CRC-32 of what is in this message, and of the place that it belongs to

    def with_data(self, data: bytes) -> InstallSnapshot:
        """The same chunk, filled and sealed."""
        filled = replace(self, data=data)
        filled.chunk_checksum = filled.checksum_of_chunk()
        return filled

    def checksum_of_chunk(self) -> int:
        """What `chunk_checksum` is if nothing was damaged on the way. All numbers are below 2**64."""
        place = _PLACE_OF_CHUNK.pack(self.index, self.snapshot_term, self.offset, self.size_bytes)
        return crc32(self.data, crc32(self.configuration, crc32(place)))


@dataclass(slots=True)
class InstallSnapshotResponse:
    """How much of the snapshot is here. Once it is whole and durable, an AppendResponse says so."""

    term: Term
    index: Index  # of the snapshot
    offset: int  # the next that is wanted


@dataclass(slots=True)
class StateReport:
    """Between appliers, and none of the core's: what my state was, at indexes that all pass.

    Values that were computed in different ways, and so have different versions, are never compared.
    """

    version: int
    pairs: bytes  # (index, fingerprint), 8 bytes each, big endian; a bounded number (raft/divergence.py)


@dataclass(slots=True)
class MemberHealth:
    """From the leader's replication to all appliers, and none of the core's: whom it does not hear."""

    term: Term
    silent: list[str]  # names, in order


Message = (
    RequestPreVote
    | PreVoteResponse
    | RequestVote
    | VoteResponse
    | AppendEntries
    | AppendResponse
    | AppendRejected
    | Heartbeat
    | HeartbeatResponse
    | ReadIndexRequest
    | ReadIndexResponse
    | ReadIndexRefused
    | TimeoutNow
    | InstallSnapshot
    | InstallSnapshotResponse
    | Removed
)
