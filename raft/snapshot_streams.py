"""Snapshots read by somebody outside the cluster, such as a backup: slice by slice, for as long as it takes.

Owned by the snapshot keeper. May know the core, the storage and the messages; time is passed in. Whoever
opens a stream gets a snapshot that is no older than that moment, on any node: the newest one if it is new
enough, else one that is taken now. It is kept while it is read, whatever is taken or installed meanwhile. All
is bounded: streams, slices that wait, the size of one, how many leave in a second, and how often a snapshot
is taken for somebody's sake.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from raft.actor_messages import (
    CloseSnapshot,
    OpenSnapshot,
    ReadSnapshot,
    Reason,
    Refused,
    SnapshotClosed,
    SnapshotData,
    SnapshotGone,
    SnapshotOpened,
    SnapshotPending,
)
from raft.core import Core
from raft.entries import Index, SnapshotMeta
from raft.storage import Storage

MAX_STREAMS = 2
MAX_WAITING_READS = 4  # of all streams
STREAM_SLICE_BYTES = 256 << 10
# Between two slices, so that the disk and nine tenths of the loop are left to the commands.
SLICE_PAUSE_SECONDS = 0.004
# Who waits for a snapshot that is being taken hears so often how far it is.
PATIENCE_SECONDS = 0.5
# Between a snapshot that was taken because somebody asked and the next such one, whoever asks.
REST_SECONDS = 2.0
IDLE_SECONDS = 30.0  # a stream that nobody reads for so long is closed


@dataclass(slots=True)
class _Stream:
    """One reader's; owned by SnapshotStreams."""

    heard_at: float
    moment: Index = 0  # the snapshot must reach so far; 0: it is not known yet
    meta: SnapshotMeta | None = None  # what is read; None until there is one
    ticket: int | None = None  # of whoever waits for it
    answer_at: float = 0.0  # when that one is to hear of it at the latest


class SnapshotStreams:
    """One per snapshot keeper."""

    __slots__ = (
        "_core",
        "_free_at",
        "_reads",
        "_release",
        "_rests_until",
        "_send_local",
        "_storage",
        "_streams",
        "_written_bytes",
    )

    def __init__(
        self,
        core: Core,
        storage: Storage,
        send_local: Callable[[str, object], None],
        written_bytes: Callable[[], int],
        release: Callable[[], None],
    ) -> None:
        self._core = core
        self._storage = storage
        self._send_local = send_local
        self._written_bytes = written_bytes  # of the snapshot that is being taken
        self._release = release  # to be called when a snapshot that was kept is of no use any more
        self._streams: dict[bytes, _Stream] = {}  # by the name that its reader gave it
        self._reads: deque[ReadSnapshot] = deque()  # of streams that were open when it was asked
        self._free_at = 0.0  # no slice is read before
        self._rests_until: float | None = None  # no snapshot is wanted before; None: it may be

    # -- what the gateway asks -------------------------------------------------------------------------

    def open(self, message: OpenSnapshot, now: float) -> bool:
        """True if the stream is new: then its moment is to be found, and told by set_moment()."""
        stream = self._streams.get(message.stream)
        if is_new := stream is None:
            if len(self._streams) >= MAX_STREAMS:
                self._refuse(message.ticket)
                return False
            stream = self._streams[message.stream] = _Stream(now)
        assert stream is not None
        if stream.ticket is not None:
            self._tell_pending(stream)  # who asks again does not wait for the first answer any more
        stream.ticket, stream.heard_at = message.ticket, now
        stream.answer_at = now + PATIENCE_SECONDS
        self.settle()
        return is_new

    def read(self, message: ReadSnapshot, now: float) -> None:
        stream = self._streams.get(message.stream)
        if stream is None or stream.meta is None:
            self._send_local("gateway", SnapshotGone(message.ticket))
        elif len(self._reads) >= MAX_WAITING_READS:
            self._refuse(message.ticket)
        else:
            stream.heard_at = now
            self._reads.append(message)
            self._read_next(now)

    def close(self, message: CloseSnapshot) -> None:
        """To be asked again is no harm, nor to be asked for what was never open."""
        self._drop(message.stream)
        self._send_local("gateway", SnapshotClosed(message.ticket))

    # -- what the others know --------------------------------------------------------------------------

    def set_moment(self, name: bytes, index: Index) -> None:
        """All that was acknowledged before the stream was opened is in the log up to `index`."""
        stream = self._streams.get(name)
        if stream is not None:
            stream.moment = index
            self.settle()

    def refuse_moment(self, message: OpenSnapshot) -> None:
        """It cannot be found now. Who asked is told so, but maybe not who asked for the same since."""
        stream = self._streams.pop(message.stream, None)
        if stream is not None and stream.ticket not in (None, message.ticket):
            self._send_local("gateway", Refused([stream.ticket], Reason.NO_LEADER, None))

    def wants_snapshot(self) -> bool:
        """Does a stream wait for one that can be taken now?"""
        if self._rests_until is not None:
            return False
        delivered = self._core.delivered_index
        return any(
            stream.meta is None and 0 < stream.moment <= delivered for stream in self._streams.values()
        )

    def settle(self) -> None:
        """There may be a new snapshot: give it to those for whom it is new enough."""
        snapshots = self._core.snapshots
        newest = None if snapshots.awaits_installation else snapshots.newest
        for stream in self._streams.values():
            if stream.meta is None and newest is not None and 0 < stream.moment <= newest.index:
                stream.meta = newest
            if stream.meta is not None and stream.ticket is not None:
                ticket, stream.ticket = stream.ticket, None
                self._send_local("gateway", SnapshotOpened(ticket, *stream.meta))

    def rest(self, now: float) -> None:
        """One was taken because a stream wanted it."""
        self._rests_until = now + REST_SECONDS

    def give_up(self) -> None:
        """The one that was being taken has no room on the disk: another node may have some."""
        waiting = [name for name, stream in self._streams.items() if stream.meta is None]
        for stream in map(self._streams.pop, waiting):
            if stream.ticket is not None:
                self._send_local("gateway", SnapshotGone(stream.ticket, is_for_want_of_room=True))

    def in_use(self) -> frozenset[Index]:
        """Indexes of the snapshots that are being read."""
        return frozenset(stream.meta.index for stream in self._streams.values() if stream.meta is not None)

    # -- time ------------------------------------------------------------------------------------------

    def due_at(self) -> float | None:
        """When on_time() has something to do; None: nothing."""
        if not self._streams and not self._reads:
            return None
        due = [self._free_at] if self._reads else []
        if self._rests_until is not None:
            due.append(self._rests_until)
        for stream in self._streams.values():
            due.append(stream.heard_at + IDLE_SECONDS if stream.ticket is None else stream.answer_at)
        return min(due)

    def on_time(self, now: float) -> bool:
        """True if a snapshot may be wanted now that had to wait."""
        self._read_next(now)
        if is_rested := self._rests_until is not None and now >= self._rests_until:
            self._rests_until = None
        for name, stream in list(self._streams.items()):
            if stream.ticket is not None:
                if now >= stream.answer_at:
                    self._tell_pending(stream)
            elif now >= stream.heard_at + IDLE_SECONDS:
                self._drop(name)
        return is_rested

    def _read_next(self, now: float) -> None:
        """One slice, if it is time for one."""
        if not self._reads or now < self._free_at:
            return
        message = self._reads.popleft()
        stream = self._streams.get(message.stream)
        if stream is None or stream.meta is None:
            self._send_local("gateway", SnapshotGone(message.ticket))
            return
        data = b""
        if message.offset < stream.meta.size_bytes:
            data = self._storage.read_snapshot(stream.meta.index, message.offset, STREAM_SLICE_BYTES)
        self._free_at = now + SLICE_PAUSE_SECONDS
        self._send_local("gateway", SnapshotData(message.ticket, message.offset, data))

    # -- answers ---------------------------------------------------------------------------------------

    def _refuse(self, ticket: int) -> None:
        self._send_local("gateway", Refused([ticket], Reason.OVERLOADED, None))

    def _tell_pending(self, stream: _Stream) -> None:
        ticket, stream.ticket = stream.ticket, None
        assert ticket is not None, "nobody waits"
        self._send_local("gateway", SnapshotPending(ticket, self._written_bytes()))

    def _drop(self, name: bytes) -> None:
        """Nobody reads it any more; a snapshot that was kept for it alone goes."""
        stream = self._streams.pop(name, None)
        if stream is None:
            return
        if stream.ticket is not None:
            self._send_local("gateway", SnapshotGone(stream.ticket))
        meta, snapshots = stream.meta, self._core.snapshots
        if meta is not None and meta.index < snapshots.index and not snapshots.awaits_installation:
            self._release()
