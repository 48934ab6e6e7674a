"""A leader sending one snapshot to one peer, in chunks. A small machine of its own, as Progress is.

Knows offsets and what the peer says it has; nothing of the content, which the core's owner reads. At most a
window of chunks is on its way, so whatever else the same peer is sent never waits behind more than that, and
other peers behind none of it. The peer's word counts for where to go on: after a restart, a loss, or when it
has got a part of the same snapshot from an earlier leader.
"""

from __future__ import annotations

from raft.config import RaftConfig
from raft.entries import SnapshotMeta, Term
from raft.messages import InstallSnapshot


class SnapshotSender:
    """Owned by one Progress, for as long as its peer needs this snapshot."""

    __slots__ = (
        "_acknowledged_offset",
        "_chunk_bytes",
        "_is_all_sent",
        "_is_answered",
        "_max_inflight_bytes",
        "_next_offset",
        "_was_answered",
        "meta",
    )

    def __init__(self, meta: SnapshotMeta, config: RaftConfig) -> None:
        self.meta = meta
        self._chunk_bytes = config.snapshot_chunk_bytes
        self._max_inflight_bytes = config.max_inflight_snapshot_chunks * config.snapshot_chunk_bytes
        self._acknowledged_offset = 0  # the peer has all before it
        self._next_offset = 0  # all before it was sent; never below _acknowledged_offset
        self._is_all_sent = False  # the last chunk too, which may be empty
        self._is_answered = False  # the peer said where to go on; until then one chunk is enough to ask
        self._was_answered = False  # the peer said anything since the last heartbeat that it answered

    def wants_chunk(self) -> bool:
        if self._is_all_sent:
            return False
        if not self._is_answered:
            return self._next_offset == self._acknowledged_offset
        return self._next_offset - self._acknowledged_offset < self._max_inflight_bytes

    def next_chunk(self, term: Term) -> InstallSnapshot:
        """The next chunk, to be filled with data; the first one tells the configuration."""
        meta, offset = self.meta, self._next_offset
        self._next_offset = min(offset + self._chunk_bytes, meta.size_bytes)
        # Of an answer it is known that a question was sent, so an empty chunk must not be asked for again.
        self._is_all_sent = self._next_offset == meta.size_bytes
        configuration = meta.configuration if offset == 0 else b""
        return InstallSnapshot(
            term, meta.index, meta.term, configuration, offset, meta.size_bytes, meta.checksum, b"", 0
        )

    def acknowledge(self, offset: int) -> None:
        """The peer has all before `offset`, and waits for what is there."""
        self._was_answered = True
        if not self._is_answered:
            # Maybe less than it had: then it was restarted, and has nothing any more.
            self._is_answered = True
            self._go_on_from(min(offset, self.meta.size_bytes))
        elif self._acknowledged_offset < offset <= self._next_offset:
            self._acknowledged_offset = offset

    def heard_heartbeat(self) -> None:
        """The peer is there. If it owes answers, chunks were lost, or it was restarted: ask."""
        if not self._was_answered:
            self._is_answered = False
            self._go_on_from(self._acknowledged_offset)
        self._was_answered = False

    def _go_on_from(self, offset: int) -> None:
        self._acknowledged_offset = self._next_offset = offset
        self._is_all_sent = False
