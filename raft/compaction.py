"""Snapshots in a core: the newest one, when the next is due, and how far the log may be compacted.

May know the core; reads and writes no snapshot. The owner of the core takes, stores, sends and restores them,
and says when it has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from raft.entries import Index, NodeId, SnapshotMeta
from raft.installation import Installation
from raft.membership import Configuration
from raft.messages import InstallSnapshot
from raft.progress import Progress
from raft.ready import ReceivedChunk, SnapshotWork

if TYPE_CHECKING:
    from raft.core import Core


# A restart reads the newest snapshot and applies the log after it, an entry of which takes several times as
# long as a key of a snapshot. So a snapshot is due before the log is as large as the one that it replaces.
SNAPSHOT_BYTES_PER_LOG_BYTE = 2
SNAPSHOT_BYTES_PER_LOG_BYTE_IN_LULL = 8  # while hardly anything is written, so that it is in nobody's way


class Snapshots:
    """Owned by one core."""

    __slots__ = (
        "_begun",
        "_chunks",
        "_core",
        "_installed",
        "_older",
        "_received",
        "has_work",
        "index",
        "installation",
        "is_applier_behind",
        "is_restoring",
        "is_short_of_room",
        "log_bytes",
        "newest",
    )

    def __init__(self, core: Core, newest: SnapshotMeta | None) -> None:
        self._core = core
        self.newest = newest  # of those that are durable here
        self.index: Index = 0 if newest is None else newest.index  # that of the newest
        # Those before the newest within the log, oldest first: (index, bytes of log up to the next one).
        self._older: deque[tuple[Index, int]] = deque()
        self.log_bytes = 0  # of entries that were handed out to be applied since the newest
        # Of the one that is being taken: (index, log_bytes when it was begun).
        self._begun: tuple[Index, int] = (0, 0)
        self.installation = Installation(core)
        # An installed one is on its way into the state machine: until it is there, nothing is handed out.
        self.is_restoring = False
        # The state machine has enough to do for now: nothing is handed out either.
        self.is_applier_behind = False
        # The disk is nearly full: no entries are kept merely because a peer might come to need them.
        self.is_short_of_room = False
        # Collected for the next Ready.
        self._received: list[ReceivedChunk] = []
        self._installed: SnapshotMeta | None = None
        self._chunks: list[tuple[NodeId, InstallSnapshot]] = []
        self.has_work = False  # is anything in these? A flag, since it is asked at every turn

    @property
    def holds_back(self) -> bool:
        """Is nothing handed out to be applied, though it is committed?"""
        return self.is_restoring or self.is_applier_behind

    @property
    def awaits_installation(self) -> bool:
        """Is one whole, and not given to storage yet?"""
        return self._installed is not None

    def durable_commit_index(self, saved_index: Index) -> Index:
        """How far a restart may take for committed what it finds here; `saved_index` was said last.

        No further than to what is durable. A hard state goes to the disk before the entries, or the snapshot,
        of the same turn: if the power goes in between, what they were to replace is still in their place.
        """
        if self.awaits_installation:
            return saved_index
        return min(self._core.commit_index, self._core.log.stable_index)

    # -- for Ready -------------------------------------------------------------------------------------

    def take_work(self) -> SnapshotWork:
        work = SnapshotWork(self._received, self._installed, self._chunks)
        self._received, self._installed, self._chunks = [], None, []
        self.has_work = False
        return work

    def add_received(self, chunk: ReceivedChunk) -> None:
        self._received.append(chunk)
        self.has_work = True

    def add_chunk(self, to: NodeId, chunk: InstallSnapshot) -> None:
        self._chunks.append((to, chunk))
        self.has_work = True

    # -- taken here ------------------------------------------------------------------------------------

    def may_take(self) -> bool:
        """Not while a leader is about to replace all of this."""
        return not (self.installation.is_under_way or self.is_restoring)

    def is_due(self, in_lull: bool = False) -> bool:
        """Dissertation 5.1.3: once the log has grown half as large as the snapshot that it would replace.

        So the work of writing snapshots stays in proportion to that of writing the log, however large the
        state is; and so does the length of a restart to the size of the state.
        """
        config = self._core.config
        if not self.may_take():
            return False
        if self.log_bytes >= config.max_log_bytes:
            return self._core.delivered_index > self.index
        entries = self._core.delivered_index - self.index
        share = SNAPSHOT_BYTES_PER_LOG_BYTE_IN_LULL if in_lull else SNAPSHOT_BYTES_PER_LOG_BYTE
        least_bytes = 0 if self.newest is None else self.newest.size_bytes // share
        return entries >= config.snapshot_interval_entries and self.log_bytes >= least_bytes

    def note_begun(self) -> None:
        """One is being taken of all that was handed out until now."""
        self._begun = (self._core.delivered_index, self.log_bytes)

    def bytes_since_begun(self) -> int:
        """Of the log that was handed out while the one that is being taken was written."""
        return self.log_bytes - self._begun[1]

    def note_taken(self, meta: SnapshotMeta) -> None:
        """This one, of this node's own state, is durable.

        What was handed out while it was written lies behind it, and counts for the next one.
        """
        assert self.index < meta.index <= self._core.delivered_index, f"{meta} after one at {self.index}"
        index, log_bytes = self._begun
        covered_bytes = log_bytes if index == meta.index else self.log_bytes
        self._older.append((self.index, covered_bytes))
        self.newest, self.index = meta, meta.index
        self.log_bytes -= covered_bytes
        self._core.configurations.compact(meta.index)

    # -- installed -------------------------------------------------------------------------------------

    def install(self, meta: SnapshotMeta, configuration: Configuration) -> None:
        """Raft figure 13, rules 7 and 8: it replaces the log, and the state machine's state."""
        core = self._core
        core.restore(meta, configuration)
        self.newest = self._installed = meta
        self.index = meta.index
        self.has_work = True
        self._older.clear()
        self.log_bytes = 0
        self.is_restoring = True

    def note_restored(self, index: Index) -> None:
        """The state machine holds the installed snapshot at `index`."""
        if index == self.index:
            self.is_restoring = False

    # -- compaction ------------------------------------------------------------------------------------

    def compaction_index(self, progress: Mapping[NodeId, Progress]) -> Index:
        """How far the log may go, for peers with this progress (that of a leader; else empty).

        A few entries before the newest snapshot stay for whoever is only a little behind. What live peers
        need stays too: for one that lags, not more than since the snapshot before the newest; for one that
        is sent a snapshot, as much as max_log_bytes, or it might need another one as soon as it has it.
        """
        wanted = self.index - (0 if self.is_short_of_room else self._core.config.trailing_entries)
        previous = self._older[-1][0] if self._older else 0
        for peer in progress.values():
            if not peer.is_live:
                continue
            if peer.sender is not None:
                wanted = min(wanted, max(peer.sender.meta.index, self._oldest_affordable()))
            else:
                wanted = min(wanted, max(peer.match_index, previous))
        return max(wanted, self._core.log.snapshot_index)

    def _oldest_affordable(self) -> Index:
        """Of the indexes of snapshots, the oldest from which on the log has no more than max_log_bytes."""
        oldest, size_bytes = self.index, 0
        for index, log_bytes in reversed(self._older):
            size_bytes += log_bytes
            if size_bytes > self._core.config.max_log_bytes:
                break
            oldest = index
        return oldest

    def note_compacted(self) -> None:
        """What is not in the log any more needs not to be counted."""
        while self._older and self._older[0][0] < self._core.log.snapshot_index:
            self._older.popleft()

    def in_use(self, progress: Mapping[NodeId, Progress]) -> frozenset[Index]:
        """Indexes of the snapshots that are being sent."""
        return frozenset(peer.sender.meta.index for peer in progress.values() if peer.sender is not None)
