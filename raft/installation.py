"""A follower receiving a snapshot in chunks, and what happens when it is whole (Raft §7, figure 13).

May know the core, the messages and nothing of disks: the core's owner writes each chunk that was taken. Only
the chunk that comes next is taken, so order and duplicates need no memory; every other one is answered with
the offset that is wanted. What was received is given up for a newer snapshot, and forgotten by a restart.
A chunk whose checksum is wrong counts as lost. A whole whose checksum is wrong, though that of each chunk was
right, is received anew from its start, after a pause.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from zlib import crc32

from raft.entries import LIMIT, Index, NodeId, SnapshotMeta
from raft.membership import Configuration, CorruptConfiguration
from raft.messages import InstallSnapshot, InstallSnapshotResponse
from raft.ready import ReceivedChunk

if TYPE_CHECKING:
    from raft.core import Core

log = logging.getLogger("assent.snapshot")

# How often resume() is called, at most, before what came damaged is received once more.
MOST_PAUSES = 64


class Installation:
    """Owned by a core's Snapshots, over all leaders: the next one may go on where the last one ended."""

    __slots__ = (
        "_checksum",
        "_configuration",
        "_core",
        "_damaged_chunks",
        "_leader_term",
        "_meta",
        "_next_pauses",
        "_offset",
        "_pauses",
    )

    def __init__(self, core: Core) -> None:
        self._core = core
        self._meta: SnapshotMeta | None = None  # of the one that is being received
        self._configuration = Configuration()  # that of _meta
        self._leader_term = 0  # of the leader whose chunk was taken last
        self._offset = 0  # all before it was taken
        self._checksum = 0  # CRC-32 of that
        self._damaged_chunks = 0  # that came since another one was begun, or came to its end
        self._pauses = 0  # so often is resume() to be called before a chunk is taken again
        self._next_pauses = 1  # after the next whole that is damaged

    @property
    def is_suspended(self) -> bool:
        """Is every chunk passed over, as though it were lost?"""
        return self._pauses > 0

    def suspend(self, pauses: int = 1) -> None:
        """What was received could not be kept. The leader hears of it once that is over."""
        self._meta, self._offset, self._checksum = None, 0, 0
        self._pauses = pauses

    def resume(self) -> None:
        """To be called every second or so: there may be room by now, or time for another try."""
        self._pauses = max(0, self._pauses - 1)

    @property
    def is_under_way(self) -> bool:
        """Is there one that would still be of use?"""
        return self._meta is not None and self._meta.index > self._core.commit_index

    def take(self, leader_id: NodeId, message: InstallSnapshot) -> Index | None:
        """An index up to which this node has the leader's log now, if there is one to tell."""
        core = self._core
        if not _is_well_formed(message):
            core.ignored_messages += 1
            return None
        if message.chunk_checksum != message.checksum_of_chunk():
            self._note_damage(leader_id, message)
            return None
        if message.index <= core.commit_index:
            return core.commit_index  # a late one: all that it stands for is here
        if core.log.term_at(message.index) == message.snapshot_term:
            # Rule 6: the log here has its last entry, and so all before it, and keeps what follows.
            core.commit_to(message.index)
            return message.index
        if core.snapshots.awaits_installation:
            # The one that came to its end in this turn is not on disk under its name yet: a chunk of the
            # next one would be written into it.
            core.send(leader_id, InstallSnapshotResponse(core.term, message.index, 0))
            return None
        if self.is_suspended:
            return None
        if not self._is_continued_by(message) and not self._begin(message):
            return None
        self._leader_term = message.term
        if message.offset == self._offset and (message.data or not message.size_bytes):
            self._take_chunk(message)
            if self._offset == message.size_bytes:
                return self._finish(leader_id, message)
        core.send(leader_id, InstallSnapshotResponse(core.term, message.index, self._offset))
        return None

    def _is_continued_by(self, message: InstallSnapshot) -> bool:
        """Is it a chunk of the very snapshot that is being received, whoever sends it?"""
        meta = self._meta
        return meta is not None and (meta.index, meta.term, meta.size_bytes, meta.checksum) == (
            message.index,
            message.snapshot_term,
            message.size_bytes,
            message.checksum,
        )

    def _begin(self, message: InstallSnapshot) -> bool:
        """Receive this one from now on; what there is of another one is given up."""
        core, meta = self._core, self._meta
        if meta is not None and message.term == self._leader_term and message.index <= meta.index:
            core.ignored_messages += 1  # a late chunk of what the same leader has given up
            return False
        try:
            configuration = Configuration.decode(message.configuration)
        except CorruptConfiguration:
            # Its first chunk tells the configuration; this is another one, or a broken one.
            configuration = None
        if meta is not None:
            self._tell_damage()
        self._meta, self._offset, self._checksum = None, 0, 0
        if message.offset or configuration is None:
            core.send(core.leader_id or "", InstallSnapshotResponse(core.term, message.index, 0))
            return False
        self._configuration = configuration
        self._meta = SnapshotMeta(
            message.index, message.snapshot_term, message.configuration, message.size_bytes, message.checksum
        )
        return True

    def _note_damage(self, leader_id: NodeId, message: InstallSnapshot) -> None:
        """Nothing in it is believed, so it is not answered, and the leader sends it once more."""
        self._core.ignored_messages += 1
        self._damaged_chunks += 1
        if self._damaged_chunks == 1:
            log.warning(
                "a chunk of a snapshot came damaged index=%d offset=%d bytes=%d from=%s",
                message.index,
                message.offset,
                len(message.data),
                leader_id,
            )

    def _tell_damage(self) -> None:
        """One snapshot is no longer received. Of its first damaged chunk was told: how many were they?"""
        if self._damaged_chunks > 1:
            log.warning("a snapshot ends, of which came damaged chunks=%d", self._damaged_chunks)
        self._damaged_chunks = 0

    def _take_chunk(self, message: InstallSnapshot) -> None:
        meta = self._meta
        assert meta is not None, "a chunk of no snapshot"
        self._core.snapshots.add_received(ReceivedChunk(meta, self._offset, message.data))
        self._offset += len(message.data)
        self._checksum = crc32(message.data, self._checksum)

    def _finish(self, leader_id: NodeId, message: InstallSnapshot) -> Index | None:
        core, meta = self._core, self._meta
        assert meta is not None, "no snapshot is being received"
        self._meta = None
        self._tell_damage()
        if self._checksum != meta.checksum:
            core.ignored_messages += 1
            self._refuse_whole(leader_id, meta)
            return None
        self._next_pauses = 1
        core.snapshots.install(meta, self._configuration)
        return meta.index

    def _refuse_whole(self, leader_id: NodeId, meta: SnapshotMeta) -> None:
        """Whatever damages one may damage the next: all of it comes again, ever more rarely."""
        log.warning(
            "a snapshot came damaged index=%d from=%s bytes=%d checksum=%08x expected=%08x pause_seconds=%d",
            meta.index,
            leader_id,
            meta.size_bytes,
            self._checksum,
            meta.checksum,
            self._next_pauses,
        )
        self.suspend(self._next_pauses)
        self._next_pauses = min(2 * self._next_pauses, MOST_PAUSES)


def _is_well_formed(message: InstallSnapshot) -> bool:
    return (
        1 <= message.index < LIMIT
        and 1 <= message.snapshot_term <= message.term
        and 0 <= message.offset <= message.offset + len(message.data) <= message.size_bytes
    )
