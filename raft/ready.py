"""The one object that comes out of the core: what must happen now. Data only.

The order in which the owner of the core acts on it is part of safety: send `messages`; write `hard_state`
and `batch`, and sync if `must_sync`; only then send `messages_after_sync` and call advance(). The rest may
follow in any order, except that `truncated_from` comes before `committed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from raft.entries import EntryBatch, HardState, Index, NodeId, SnapshotMeta, Term
from raft.membership import Configuration
from raft.messages import InstallSnapshot, Message


class Role(Enum):
    """What a node is in its term (Raft §5.1, dissertation 9.6)."""

    FOLLOWER = "follower"  # learners are followers too: they only never campaign
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class RoleChange(NamedTuple):
    """The soft state: nothing of it is on disk."""

    role: Role
    term: Term
    leader_id: NodeId | None


class ReceivedChunk(NamedTuple):
    """To be written as part of the snapshot that is being received; at offset 0 a new one begins."""

    meta: SnapshotMeta
    offset: int
    data: bytes


class SnapshotWork(NamedTuple):
    """What a Ready wants done with snapshots. Rare, so it is apart."""

    received: list[ReceivedChunk]  # to write, in order; not synced
    # All of it was received: to be made durable, as what replaces the log, after `hard_state` and before
    # `batch` of the same Ready; then to be restored by the state machine, and note_restored() to be called.
    installed: SnapshotMeta | None
    chunks: list[tuple[NodeId, InstallSnapshot]]  # to fill with data and send; whenever there is time


class Forgotten(NamedTuple):
    """Proof that this node has lost what it had acknowledged, to `leader_id`, in `term`."""

    leader_id: NodeId
    term: Term
    known_index: Index  # the log was here, durably, at least up to this one
    held_index: Index  # no more of it is here now than up to this one


@dataclass(slots=True)
class Ready:
    """Made by ready(), owned by the caller from then on."""

    hard_state: HardState | None
    batch: EntryBatch | None  # to persist; if it starts at or below the last stored index, that is truncated
    must_sync: bool
    messages: list[tuple[NodeId, Message]]
    messages_after_sync: list[tuple[NodeId, Message]]
    committed: EntryBatch | None  # the next entries to apply; they follow those of the Ready before
    reads: list[tuple[int, Index]]  # (context, read_index): to be served once read_index is applied
    refused_reads: list[int]  # leadership was lost, or the leader refused: ask again
    # A new leader overwrote the log here from this index on. What was there may be in another node's log
    # still, and so be committed after all (Raft figure 8).
    truncated_from: Index | None
    role_change: RoleChange | None
    # The membership in force, if there is news of it: another one, this one is committed now, or this node
    # heard that it is no member any more.
    configuration: Configuration | None
    snapshots: SnapshotWork | None = None
    # The node takes part in nothing any more. It must be remembered, since the next leader has no such proof.
    forgotten: Forgotten | None = None
