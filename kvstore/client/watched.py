"""What a client watches: each watch with its place, and the connections and topics that watches share.

May know: the topics and batches, and the links as the core has them; no socket and no time. Nothing here
decides where a watch goes: that is for Watches, in `watch`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Final

from kvstore import errors, watch_frames
from kvstore.client.links import Link
from kvstore.client.results import Event, WatchBatch
from kvstore.protocol import CLUSTER_TOPIC, EVENT_DELETE, EVENT_PUT
from kvstore.watch_frames import ClusterEvent, StreamHeader

MAX_BATCHES: Final = 1024  # undelivered, per watch; then the stream is left and the history serves later
MAX_WATCH_BYTES: Final = 16 << 20  # the same in bytes
_EVENT_BYTES: Final = 160  # about what an event takes beside key and value


class Phase(Enum):
    PLACELESS = "placeless"  # on no node
    SUBSCRIBING = "subscribing"  # waits for the first message of the stream
    HISTORY = "history"  # asked for it; messages of the stream are kept meanwhile
    STREAMING = "streaming"
    FULL = "full"  # the consumer is behind: the stream passes by unread
    ENDED = "ended"


class Watch:
    """One watched range. Owned by Watches; its consumer only takes batches, by way of Watches.take()."""

    def __init__(
        self,
        key: bytes,
        range_end: bytes,
        start_revision: int,
        *,
        progress: bool,
        previous: bool = False,
        puts: bool = True,
        deletes: bool = True,
    ) -> None:
        if not (puts or deletes):
            raise ValueError("a watch without puts and without deletes has nothing to tell")
        self.key = key
        self.range_end = range_end
        self.has_history = True  # else it is of what comes, and nothing is asked for
        self.is_full = previous  # its events have the record before
        self.topic = watch_frames.stream_topic(key, range_end, is_full=previous)
        self._unwanted = None if puts and deletes else EVENT_DELETE if puts else EVENT_PUT
        self.phase = Phase.PLACELESS
        self.is_established = False  # the first history was answered: nothing from here on is missed
        self.error: Exception | None = None  # why it ENDED; None if it was cancelled
        self.queue: deque[WatchBatch] = deque()
        self.queued_bytes = 0
        # The lowest revision not yet queued; 0 until the first answer says what now is.
        self.next_revision = start_revision
        self.store_revision = 0  # the highest that a node has told of
        self.wants_progress = progress
        self.is_progress_asked = False  # once, at the next moment at which it is known
        self.on_ready: Callable[[], None] = _nothing  # something was queued, established or ended
        self.subscriber: Subscriber | None = None
        self.epoch = 0
        self.sequence = 0  # of the stream's message last seen or superseded by the history
        self.buffer: list[tuple[StreamHeader, WatchBatch]] = []  # while in HISTORY
        self.buffered_bytes = 0
        self.attempt = 0  # answers to former attempts are ignored
        self.failed: set[str] = set()  # endpoints that did not serve since the last success
        self.compacted: dict[str, errors.Compacted] = {}  # endpoints whose history begins too late
        self.placeless_since = 0.0  # when it last began to look for a node

    @property
    def revision(self) -> int:
        """All up to this revision was taken by the consumer: a watch from the next one on misses nothing."""
        if not self.queue:
            return max(self.next_revision, 1) - 1
        first = self.queue[0]
        # A promise of progress comes behind all that it is about, so that much was taken.
        return first.revision - bool(first.events)

    def wanted(self, batch: WatchBatch) -> WatchBatch:
        """What the filters leave of it."""
        if self._unwanted is None:
            return batch
        return WatchBatch(batch.revision, [event for event in batch.events if event.type != self._unwanted])

    @property
    def has_enough(self) -> bool:
        return len(self.queue) >= MAX_BATCHES or self.queued_bytes >= MAX_WATCH_BYTES

    def begin_streaming(self) -> None:
        raise AssertionError(f"a watch of {self.key!r} has a history")

    def hear(self, event: ClusterEvent) -> None:
        raise AssertionError(f"a watch of {self.key!r} heard {event}")


def _nothing() -> None:
    pass


class ClusterWatch(Watch):
    """The cluster's own topic: who leads, who is a member, who is heard. It has no history.

    What happens while it finds another node is missed, but who leads is told again there. What is told
    again and is no news is left out.
    """

    def __init__(self) -> None:
        super().__init__(b"", b"", 0, progress=False)
        self.topic = CLUSTER_TOPIC
        self.has_history = False
        self.events: deque[ClusterEvent] = deque()  # not taken yet; of too many the oldest go
        self._leader: ClusterEvent | None = None  # the last that was told of it
        self._unhealthy: set[str] = set()

    def begin_streaming(self) -> None:
        self.phase = Phase.STREAMING
        self.failed.clear()
        self.is_established = True
        self.on_ready()

    def hear(self, event: ClusterEvent) -> None:
        if not self._is_news(event):
            return
        while len(self.events) >= MAX_BATCHES:
            self.events.popleft()
        self.events.append(event)
        self.on_ready()

    def _is_news(self, event: ClusterEvent) -> bool:
        if event.name == "heartbeat":
            return False
        if event.name in ("leader_elected", "leader_lost"):
            before, self._leader = self._leader, event
            if before is not None and (event.term < before.term or event == before):
                self._leader = before  # a node that lags, or that greets
                return False
            return True
        if event.name == "member_unhealthy":
            if event.node in self._unhealthy:
                return False
            self._unhealthy.add(event.node)
        elif event.name in ("member_healthy", "member_removed"):
            self._unhealthy.discard(event.node)
        return True


class Stream:
    """A topic that some watches of this client follow at one node."""

    __slots__ = ("heard_at", "is_live", "watches")

    def __init__(self, now: float) -> None:
        self.watches: list[Watch] = []
        self.is_live = False  # a message came, so the subscription is in force
        self.heard_at = now


class Subscriber:
    """One connection to a node's watch plane; owned by Watches. Closed with its last watch."""

    __slots__ = ("connection", "link", "streams")

    def __init__(self, connection: int, link: Link) -> None:
        self.connection = connection
        self.link = link
        self.streams: dict[bytes, Stream] = {}  # by topic; never one without watches


def size_bytes_of(batch: WatchBatch) -> int:
    return sum(map(_event_bytes, batch.events)) + _EVENT_BYTES


def _event_bytes(event: Event) -> int:
    size_bytes = len(event.key) + len(event.value) + _EVENT_BYTES
    if event.previous is not None:
        size_bytes += len(event.previous.key) + len(event.previous.value) + _EVENT_BYTES
    return size_bytes
