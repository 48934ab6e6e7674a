"""Which messages exist on the wire, and under which numbers. A tag is never reused for another meaning.

The core's messages and what appliers are told are let in from other nodes; those of a node's own actors are
not, whoever sends them.
Entries travel in the very bytes that the write-ahead log holds.
"""

from __future__ import annotations

from actors import Codec
from raft.actor_messages import LOCAL_MESSAGES
from raft.entries import EntryBatch
from raft.messages import (
    AppendEntries,
    AppendRejected,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    MemberHealth,
    PreVoteResponse,
    ReadIndexRefused,
    ReadIndexRequest,
    ReadIndexResponse,
    Removed,
    RequestPreVote,
    RequestVote,
    StateReport,
    TimeoutNow,
    VoteResponse,
)

FIRST_LOCAL_TAG = 64  # local messages never leave the process, so their tags may change at any time
FIRST_FREE_TAG = 128  # for the messages of whoever builds on this package

_PEER_TAGS: dict[int, type] = {
    1: RequestPreVote,
    2: PreVoteResponse,
    3: RequestVote,
    4: VoteResponse,
    6: AppendResponse,
    7: AppendRejected,
    8: Heartbeat,
    9: HeartbeatResponse,
    10: ReadIndexRequest,
    11: ReadIndexResponse,
    12: ReadIndexRefused,
    13: TimeoutNow,
    15: InstallSnapshotResponse,
    17: Removed,
    18: StateReport,
    19: MemberHealth,
    20: InstallSnapshot,
}
_APPEND_ENTRIES_TAG = 5


def register_messages(codec: Codec) -> None:
    """Make all messages of this package known to `codec`."""
    for tag, cls in _PEER_TAGS.items():
        codec.register(tag, cls, remote=True)
    codec.register(
        _APPEND_ENTRIES_TAG, AppendEntries, remote=True, encode=_append_fields, decode=_append_of_fields
    )
    for offset, cls in enumerate(LOCAL_MESSAGES):
        codec.register(FIRST_LOCAL_TAG + offset, cls)


def _append_fields(message: AppendEntries) -> tuple[int, int, int, int, bytes]:
    return message.term, message.prev_index, message.prev_term, message.commit_index, message.batch.encode()


def _append_of_fields(
    term: int, prev_index: int, prev_term: int, commit_index: int, batch: bytes
) -> AppendEntries:
    return AppendEntries(term, prev_index, prev_term, commit_index, EntryBatch.decode(batch))
