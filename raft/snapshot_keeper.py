"""Snapshots at work in a node: when one is taken, how it gets to the disk, to peers and to the state machine.

Owned by the replication actor, between the core, the storage and the applier. The applier has the state, and
the storage has the bytes: they come and go in slices, one at a time and with a pause between them, so that no
turn is long and no writer waits. None of it lies in the way of a command.
"""

from __future__ import annotations

from collections.abc import Callable

from raft.actor_messages import (
    NextSlice,
    PartWanted,
    RestoreSnapshot,
    SnapshotGivenUp,
    SnapshotPart,
    SnapshotRestored,
    SnapshotSlice,
    TakeSnapshot,
)
from raft.core import Core
from raft.entries import Index, NodeId
from raft.lull import Lull
from raft.messages import InstallSnapshot
from raft.ready import Ready, SnapshotWork
from raft.relief import Relief
from raft.slices import SLICE_BYTES
from raft.snapshot_streams import SnapshotStreams
from raft.storage import DiskFull, Storage, StorageFailed

# Between two slices of a snapshot that is being taken, and two steps of a compaction. With slices of 64 KiB
# it makes about 10 MiB a second, and leaves the disk and three quarters of the loop to the commands.
PAUSE_SECONDS = 0.004
# A busy node's turns are longer than that. If its log has grown by more, since a snapshot was begun, than
# half of what was written of it, as many slices are taken in one turn as would have been in short ones, one
# for each 6 ms. Not more than 1 MiB, and for no longer than a quarter of the time: where others have the
# processor, too, each slice takes longer.
SLICE_SECONDS = 0.006
MOST_SLICES = 16
SLICES_SHARE = 0.25
LEAD = 2
# To free the entries of one step takes about a millisecond.
COMPACTION_STEP_ENTRIES = 8192
# A part of an installed snapshot on its way into the state machine, and the pause before the next one: the
# turn that takes a part in is over, and all that has come meanwhile is heard, before there is another one.
PART_BYTES = 256 << 10
PART_PAUSE_SECONDS = 0.001


class SnapshotKeeper:
    """One per replication actor."""

    def __init__(self, core: Core, storage: Storage, send_local: Callable[[str, object], None]) -> None:
        self._core = core
        self._storage = storage
        # Raises DiskFull where only the last bytes are left. What knows of no such bounds need not say so.
        self._check_draft_room: Callable[[], None] = getattr(storage, "check_draft_room", lambda: None)
        self._yield_room: Callable[[bool], None] = getattr(storage, "yield_room", lambda is_wanted: None)
        self._send_local = send_local
        self._is_taking = False  # the applier was asked, and its last slice has not come yet
        self._taking_index: Index = (
            0  # of the snapshot that is being written; 0 until its first slice is here
        )
        self._compact_to: Index = 0  # the log is to be compacted up to here, step by step
        self._was_asked_for = False  # the one that is being taken: a stream wanted it
        self._wants_slice = False  # the next slice is to be asked for at due_at
        self._asked_at = 0.0  # for the last slice
        self._part_wanted: PartWanted | None = None  # the next part is to be given at due_at
        self._written_bytes = 0  # of the snapshot that is being taken
        self._is_fenced = False  # no snapshot of this node is taken or sent any more
        # A snapshot was given up for want of room; none is begun before the next check_room().
        self._waits_for_room = False
        self._relief = Relief(core)
        self._lull = Lull()
        self.due_at: float | None = None  # when on_time() has something to do; None: nothing
        self.streams = SnapshotStreams(core, storage, send_local, lambda: self._written_bytes, self._release)

    def consider(self, *, in_lull: bool = False) -> None:
        """Entries were handed out to be applied, or somebody asks: is it time for a snapshot?"""
        snapshots = self._core.snapshots
        is_wanted = self.streams.wants_snapshot() and snapshots.may_take()
        may_begin = not (self._is_taking or self._is_fenced or self._waits_for_room)
        self._was_asked_for = is_wanted if may_begin else self._was_asked_for
        if may_begin and (is_wanted or (snapshots.is_due(in_lull) and not self._relief.is_hopeless())):
            self._begin()

    def _begin(self) -> None:
        self._is_taking, self._taking_index = True, 0
        self._core.snapshots.note_begun()
        self._send_local("applier", TakeSnapshot())

    def check_room(self, is_low: bool, free_bytes: int, spent_segments: int, now: float) -> None:
        """What was given up for want of room may find some by now; and where there is too little, some is to
        be made. To be called every second or so."""
        snapshots, relief = self._core.snapshots, self._relief
        self._waits_for_room = False
        snapshots.installation.resume()
        snapshots.is_short_of_room = is_low
        is_new = relief.note(is_low=is_low, free_bytes=free_bytes, now=now, is_taking=self._is_taking)
        if is_new and not self._is_fenced:
            self._release()  # first of all what is behind the newest snapshot already
        self.consider(in_lull=self._lull.lasts(self._core.delivered_index, now))
        if not (self._is_taking or self._is_fenced) and relief.is_due(spent_segments, now):
            relief.note_begun(now)
            self._yield_room(True)
            self._begin()

    def on_time(self, now: float) -> None:
        """Ask for the next slice, give the next part, and compact the next step."""
        if self.due_at is None or now < self.due_at:
            return
        self.due_at = None
        if self._wants_slice:
            self._ask_for_slice(now)
        if self._part_wanted is not None:
            self._give_part(self._part_wanted)
        if self._compact_to:
            self._compact_step(now)

    # -- taken here ------------------------------------------------------------------------------------

    def _ask_for_slice(self, now: float) -> None:
        """The next one, or several."""
        count, seconds = self._slices_due(now), (now - self._asked_at) * SLICES_SHARE
        self._wants_slice, self._asked_at = False, now
        self._send_local("applier", NextSlice(self._taking_index, count, seconds))

    def _slices_due(self, now: float) -> int:
        """More than one only as far as the log would outgrow the snapshot else."""
        behind_bytes = LEAD * self._core.snapshots.bytes_since_begun() - self._written_bytes
        if behind_bytes <= 0:
            return 1
        due = int((now - self._asked_at) / SLICE_SECONDS)
        return max(1, min(due, MOST_SLICES, 1 + behind_bytes // SLICE_BYTES))

    def take_slice(self, message: SnapshotSlice, now: float) -> None:
        """Write it down; after the last one the snapshot is durable, and the log may be compacted."""
        if not self._is_taking or message.index <= self._core.snapshots.index:
            # A leader's snapshot has come in between. Should it break off, nothing else would end this one.
            self._send_local("applier", SnapshotGivenUp(message.index))
            return
        try:
            self._write_slice(message, now)
        except DiskFull:
            self._end()
            self._waits_for_room = True
            self._relief.note_given_up(message.index)
            self._send_local("applier", SnapshotGivenUp(message.index))
            self.streams.give_up()
        if self._wants_slice and self._slices_due(now) > 1:
            self._ask_for_slice(now)  # the turn that it took was pause enough
        self._wake(now)

    def _write_slice(self, message: SnapshotSlice, now: float) -> None:
        core = self._core
        if message.offset == 0:
            self._written_bytes = 0
            term = core.log.term_at(message.index)
            assert term is not None, f"a snapshot at {message.index} of a log from {core.log.first_index}"
            configuration = core.configurations.at(message.index).encode()
            self._storage.begin_snapshot(message.index, term, configuration)
            self._taking_index, self._asked_at = message.index, now
        if message.index != self._taking_index:
            return  # of one that was given up
        self._check_draft_room()
        self._storage.append_snapshot(message.data)
        self._written_bytes += len(message.data)
        if message.is_last:
            meta = self._storage.commit_snapshot(replaces_log=False)
            self._end()
            core.snapshots.note_taken(meta)
            self._compact_to = core.snapshots.index
            if self._was_asked_for:
                self.streams.rest(now)
            self.streams.settle()
            self.consider()  # it may have begun before somebody asked for one
        else:
            self._wants_slice = True

    def _end(self) -> None:
        """It is written, or nothing comes of it."""
        self._is_taking = self._wants_slice = False
        self._taking_index = 0
        self._yield_room(False)

    def fence(self) -> None:
        """The state is wrong, and nobody knows since when: the log stays, from the last snapshot on."""
        self._is_fenced = True
        self._compact_to = 0
        if self._is_taking:
            self._end()
            self._storage.abandon_snapshot()

    def _compact_step(self, now: float) -> None:
        """First the log in memory, a step at a time; then the disk, where whole segments go."""
        core = self._core
        goal = core.snapshots.compaction_index(core.progress)
        core.compact(min(goal, core.log.snapshot_index + COMPACTION_STEP_ENTRIES))
        if core.log.give_up(COMPACTION_STEP_ENTRIES) or core.log.snapshot_index < goal:
            self._wake(now)
            return
        if self._storage.compact(core.log.snapshot_index, self._in_use()):
            self._wake(now)  # the space of large files is given back bit by bit
        else:
            self._compact_to = 0

    def _release(self) -> None:
        """A snapshot that was kept may go."""
        self._compact_to = self._core.snapshots.index
        if self.due_at is None:
            self.due_at = 0.0

    def _in_use(self) -> frozenset[Index]:
        return self._core.snapshots.in_use(self._core.progress) | self.streams.in_use()

    def _wake(self, now: float, pause_seconds: float = PAUSE_SECONDS) -> None:
        if self.due_at is None:
            self.due_at = now + pause_seconds

    # -- from the leader -------------------------------------------------------------------------------

    def write(self, ready: Ready) -> None:
        """What a Ready has for the disk in the way of snapshots; before its entries, after its hard state.

        A snapshot is never of a later term than the log beside it, so the term goes first.
        """
        work, storage = ready.snapshots, self._storage
        if work is None or not (work.received or work.installed):
            return
        if self._is_taking:  # this node is so far behind that its own is of no use
            self._send_local("applier", SnapshotGivenUp(self._taking_index))
            self._end()
        try:
            for meta, offset, data in work.received:
                if offset == 0:
                    storage.begin_snapshot(meta.index, meta.term, meta.configuration)
                if work.installed is None:  # the chunk before the last one has left room enough for it
                    self._check_draft_room()
                storage.append_snapshot(data)
            if work.installed is not None:
                storage.append(ready.hard_state, None)
                meta = storage.commit_snapshot(replaces_log=True)
        except DiskFull as full:
            if work.installed is not None:
                # The core has given its log up for it already.
                raise StorageFailed("installing a snapshot", full.path, full.cause) from full
            self._core.snapshots.installation.suspend()
        if work.installed is not None:
            assert meta == work.installed, f"{meta} is on the disk, {work.installed} was received"
            self._release()  # step by step: the leader waits for the answer to this turn
            self._send_local("applier", RestoreSnapshot(meta.index, meta.size_bytes, meta.term))

    def want_part(self, message: PartWanted, now: float) -> None:
        """The applier restores the installed snapshot, part by part, and has all before this one."""
        self._part_wanted = message
        self._wake(now, PART_PAUSE_SECONDS)

    def _give_part(self, message: PartWanted) -> None:
        self._part_wanted = None
        if message.index == self._core.snapshots.index:
            data = self._storage.read_snapshot(message.index, message.offset, PART_BYTES)
            self._send_local("applier", SnapshotPart(message.index, message.offset, data))

    def note_restored(self, message: SnapshotRestored) -> None:
        self._core.snapshots.note_restored(message.index)
        self.streams.settle()
        self.consider()

    # -- for peers -------------------------------------------------------------------------------------

    def filled(self, work: SnapshotWork) -> list[tuple[NodeId, InstallSnapshot]]:
        """The chunks that are to be sent, with their data; none of a state that turned out to be wrong."""
        if self._is_fenced:
            return []
        size, read = self._core.config.snapshot_chunk_bytes, self._storage.read_snapshot
        return [
            (node_id, chunk.with_data(read(chunk.index, chunk.offset, size)))
            for node_id, chunk in work.chunks
        ]
