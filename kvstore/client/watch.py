"""Watches: history, then stream, then whatever it takes to miss nothing.

May know: streams' topics and messages, links as the core has them, and time as it is passed in; no socket.
Each watch subscribes first, waits for the first sign of life of its stream, asks the same node for the
history, and goes on with the stream where the history ended. A gap, a new epoch, silence or a lost connection
send it back to the history, from the revision after the last it has seen, on any node. So a consumer gets
every revision once and in order, whatever the publishing side drops, until the history itself is gone.
"""

from __future__ import annotations

from typing import Final, Protocol

from kvstore import errors, protocol, watch_frames
from kvstore.client.calls import Call, history_call
from kvstore.client.core import ClientCore
from kvstore.client.links import Link, LinkState
from kvstore.client.results import History, WatchBatch, make_batch, make_full_batch, split_batch
from kvstore.client.watched import (
    MAX_BATCHES,
    MAX_WATCH_BYTES,
    Phase,
    Stream,
    Subscriber,
    Watch,
    size_bytes_of,
)
from kvstore.protocol import CLUSTER_TOPIC, MalformedFrame
from kvstore.watch_frames import StreamHeader

__all__ = ["MAX_BATCHES", "MAX_WATCH_BYTES", "Phase", "SubscriberWire", "Watch", "Watches"]

RESUME_FRACTION: Final = 4  # a full watch goes on when its queue is down to this part of the bound
HISTORY_BYTES: Final = 1 << 20  # of one page
HISTORY_SECONDS: Final = 2.0
ASK_AGAIN_SECONDS: Final = 1.0  # what a node that may serve by now, or no longer, says of itself
RETRY_SECONDS: Final = 0.05  # between two attempts to find a node
OTHERS_SECONDS: Final = 0.5  # given to nodes not yet connected, before one that failed is tried again
TICK_SECONDS: Final = 0.25


class SubscriberWire(Protocol):
    """What moves subscriptions; numbers of connections are shared with the core's wire."""

    def open_subscriber(self, connection: int, endpoint: str) -> None: ...

    def close(self, connection: int) -> None: ...

    def subscribe(self, connection: int, topic: bytes) -> None: ...

    def unsubscribe(self, connection: int, topic: bytes) -> None: ...


class Watches:
    """All watches of one client, which owns this."""

    def __init__(self, core: ClientCore, wire: SubscriberWire) -> None:
        self._core = core
        self._wire = wire
        self._watches: dict[Watch, None] = {}  # an ordered set of those that have not ended
        self._subscribers: dict[int, Subscriber] = {}  # by connection
        self._answers: list[tuple[Watch, int, Call]] = []  # histories, looked at in on_time()
        self._tick_at: float | None = None
        self.counters = core.counters

    # -- consumers ---------------------------------------------------------------------------------------

    def start(self, watch: Watch, now: float) -> None:
        if not watch.key and watch.has_history:
            raise errors.EmptyKey("a key has at least one byte")
        if protocol.range_is_inverted(watch.key, watch.range_end):
            raise errors.WatchRangeEmpty("the range ends before it begins")
        self._watches[watch] = None
        watch.placeless_since = now
        self._place(watch, now)

    def take(self, watch: Watch, now: float) -> WatchBatch | None:
        """The next batch, or None if there is none now."""
        if not watch.queue:
            return None
        batch = watch.queue.popleft()
        watch.queued_bytes -= size_bytes_of(batch)
        if watch.phase is Phase.FULL:
            few = len(watch.queue) * RESUME_FRACTION <= MAX_BATCHES
            if few and watch.queued_bytes * RESUME_FRACTION <= MAX_WATCH_BYTES:
                self._resume(watch, now)
        return batch

    def _resume(self, watch: Watch, now: float) -> None:
        if watch.subscriber is not None:
            self._ask_history(watch, now)
        else:
            watch.phase = Phase.PLACELESS
            watch.placeless_since = now
            self._place(watch, now)

    def request_progress(self, watch: Watch, now: float) -> None:
        """A batch without events comes as soon as a node has said up to where there is nothing more."""
        watch.is_progress_asked = True
        if watch.phase is Phase.STREAMING:
            self._ask_history(watch, now)

    def cancel(self, watch: Watch) -> None:
        self._end(watch, None)

    def close(self, error: Exception) -> None:
        for watch in list(self._watches):
            self._end(watch, error)

    def _end(self, watch: Watch, error: Exception | None) -> None:
        if watch.phase is Phase.ENDED:
            return
        self._leave(watch)
        watch.phase = Phase.ENDED
        watch.error = error
        if error is None:
            watch.queue.clear()
        self._watches.pop(watch, None)  # it may never have begun
        watch.on_ready()

    # -- nodes -------------------------------------------------------------------------------------------

    def _place(self, watch: Watch, now: float) -> None:
        """Finds a node for a watch that is on none; the next tick tries again if there is none."""
        link = self._choose(watch, now)
        if link is None:
            self._tick_at = min(self._tick_at or now + RETRY_SECONDS, now + RETRY_SECONDS)
            return
        subscriber = self._subscriber_of(link)
        stream = subscriber.streams.get(watch.topic)
        if stream is None:
            stream = subscriber.streams[watch.topic] = Stream(now)
            self._wire.subscribe(subscriber.connection, watch.topic)
        stream.watches.append(watch)
        watch.subscriber = subscriber
        watch.phase = Phase.SUBSCRIBING
        self._tick_at = self._tick_at or now + TICK_SECONDS
        if stream.is_live:
            self._ask_history(watch, now)

    def _choose(self, watch: Watch, now: float) -> Link | None:
        links = self._core.links
        usable = [link for link in links.ready() if link.watch_endpoint is not None]
        for link in usable:
            if link.endpoint not in watch.failed and link.endpoint not in watch.compacted:
                return link
        if not usable and links.leader() is None and links.poll_at is None:
            self._core.start(now)
        elif usable:
            links.open_all(now)
        elif links.poll_at is None:
            # Somebody is believed to lead, who may have said long ago that it is no member yet.
            links.ask_around(now, ASK_AGAIN_SECONDS)
        if now - watch.placeless_since < OTHERS_SECONDS and not all(
            link.state is LinkState.READY or link.refused for link in links.links
        ):
            return None  # another node may answer yet
        if watch.compacted:
            self._end(watch, min(watch.compacted.values(), key=lambda error: error.compact_revision))
            return None
        watch.failed.clear()
        watch.placeless_since = now
        return usable[0] if usable else None

    def _subscriber_of(self, link: Link) -> Subscriber:
        for subscriber in self._subscribers.values():
            if subscriber.link is link:
                return subscriber
        assert link.watch_endpoint is not None, f"{link.endpoint} told of no watch endpoint"
        subscriber = Subscriber(self._core.links.take_connection(), link)
        self._subscribers[subscriber.connection] = subscriber
        self._wire.open_subscriber(subscriber.connection, link.watch_endpoint)
        return subscriber

    def _leave(self, watch: Watch) -> None:
        """Takes a watch off its node, and forgets what only that node's stream meant."""
        watch.attempt += 1
        watch.buffer.clear()
        watch.buffered_bytes = 0
        subscriber, watch.subscriber = watch.subscriber, None
        watch.phase = Phase.PLACELESS
        if subscriber is None:
            return
        stream = subscriber.streams[watch.topic]
        stream.watches.remove(watch)
        if not stream.watches:
            del subscriber.streams[watch.topic]
            if subscriber.streams:
                self._wire.unsubscribe(subscriber.connection, watch.topic)
            else:
                del self._subscribers[subscriber.connection]
                self._wire.close(subscriber.connection)

    def _move(self, watch: Watch, now: float) -> None:
        """The node does not serve: to another one. A full watch moves when its consumer comes for more."""
        self.counters["watch_moves"] += 1
        was_full = watch.phase is Phase.FULL
        if watch.subscriber is not None:
            watch.failed.add(watch.subscriber.link.endpoint)
        self._leave(watch)
        if was_full:
            watch.phase = Phase.FULL
            return
        is_hasty = now - watch.placeless_since < RETRY_SECONDS
        watch.placeless_since = now
        if is_hasty:
            self._tick_at = min(self._tick_at or now + RETRY_SECONDS, now + RETRY_SECONDS)
        else:
            self._place(watch, now)

    # -- history -----------------------------------------------------------------------------------------

    def _ask_history(self, watch: Watch, now: float) -> None:
        """Of a watch that has none, the stream is all."""
        assert watch.subscriber is not None, f"history wanted while {watch.phase.value}"
        if not watch.has_history:
            watch.begin_streaming()
            return
        watch.phase = Phase.HISTORY
        watch.attempt += 1
        span = watch.key, watch.range_end, watch.next_revision
        call = history_call(*span, HISTORY_BYTES, is_full=watch.is_full)
        call.pinned = watch.subscriber.link
        call.deadline = now + HISTORY_SECONDS
        attempt = watch.attempt
        # The core may be in the middle of something when it answers, so that on_time() looks at it.
        call.callback = lambda answered: self._answers.append((watch, attempt, answered))
        try:
            self._core.submit(call, now)
        except errors.AssentError as error:
            self._end(watch, error)

    def _on_history(self, watch: Watch, call: Call, now: float) -> None:
        assert watch.subscriber is not None, f"history answered while {watch.phase.value}"
        error = call.error
        if error is None:
            self._on_page(watch, call.value, now)
        elif isinstance(error, errors.Compacted):
            # Nodes keep their history in memory, each as much as it has: another may have more.
            watch.compacted[watch.subscriber.link.endpoint] = error
            self._move(watch, now)
        elif isinstance(error, errors.RequestFailed) and not isinstance(
            error, errors.TooLarge | errors.FutureRevision
        ):
            self._end(watch, error)
        else:
            self._move(watch, now)

    def _on_page(self, watch: Watch, page: History, now: float) -> None:
        watch.failed.clear()
        watch.compacted.clear()
        is_first, watch.is_established = not watch.is_established, True
        was_empty = not watch.queue
        watch.store_revision = max(watch.store_revision, page.revision)
        for batch in page.batches:
            if batch.revision >= watch.next_revision:
                watch.next_revision = batch.revision + 1
                self._queue_wanted(watch, batch)
        if not page.more:
            has_news = page.revision >= watch.next_revision
            if has_news:
                watch.next_revision = page.revision + 1
            if watch.is_progress_asked or (has_news and watch.wants_progress):
                self._queue_progress(watch)
        watch.epoch, watch.sequence = page.epoch, page.sequence
        if is_first or (was_empty and watch.queue):
            watch.on_ready()
        if watch.has_enough:
            self._fill(watch)
        elif page.more:
            self._ask_history(watch, now)
        else:
            watch.phase = Phase.STREAMING
            kept, watch.buffer = watch.buffer, []
            watch.buffered_bytes = 0
            for header, batch in kept:
                if watch.phase is Phase.STREAMING:
                    self._advance(watch, header, batch, now)

    def _fill(self, watch: Watch) -> None:
        self.counters["watch_overflows"] += 1
        watch.phase = Phase.FULL
        watch.buffer.clear()
        watch.buffered_bytes = 0

    def _queue_wanted(self, watch: Watch, batch: WatchBatch) -> None:
        wanted = watch.wanted(batch)
        if wanted.events:
            self._queue(watch, wanted)

    def _queue_progress(self, watch: Watch) -> None:
        """All up to this revision was queued before: a promise that holds because it comes behind."""
        watch.is_progress_asked = False
        # A watch from the future has been promised nothing that is not there yet.
        self._queue(watch, WatchBatch(min(watch.next_revision - 1, watch.store_revision), []))

    def _queue(self, watch: Watch, batch: WatchBatch) -> None:
        watch.queue.append(batch)
        watch.queued_bytes += size_bytes_of(batch)

    # -- the stream --------------------------------------------------------------------------------------

    def on_message(self, connection: int, parts: list[bytes], now: float) -> None:
        subscriber = self._subscribers.get(connection)
        stream = subscriber.streams.get(parts[0]) if subscriber is not None else None
        if stream is None:
            return
        if parts[0] == CLUSTER_TOPIC:
            self._on_cluster_message(stream, parts, now)
            return
        try:
            topic, header_part, events_part = parts
            header, batch = _decode(topic, header_part, events_part)
        except (MalformedFrame, ValueError):
            self.counters["malformed_stream_messages"] += 1
            return
        stream.heard_at = now
        stream.is_live = True
        for watch in list(stream.watches):
            if watch.phase is Phase.STREAMING:
                self._advance(watch, header, batch, now)
            elif watch.phase is Phase.SUBSCRIBING:
                self._ask_history(watch, now)  # which has this message's events, too
            elif watch.phase is Phase.HISTORY:
                self._keep(watch, header, batch)

    def _on_cluster_message(self, stream: Stream, parts: list[bytes], now: float) -> None:
        try:
            _, event_part = parts
            event = watch_frames.decode_cluster_event(event_part)
        except (MalformedFrame, ValueError):
            self.counters["malformed_stream_messages"] += 1
            return
        stream.heard_at = now
        stream.is_live = True
        for watch in list(stream.watches):
            if watch.phase is Phase.SUBSCRIBING:
                self._ask_history(watch, now)
            watch.hear(event)

    def _keep(self, watch: Watch, header: StreamHeader, batch: WatchBatch) -> None:
        """What cannot be kept leaves a gap, and a gap leads to the history again."""
        size_bytes = size_bytes_of(batch)
        if len(watch.buffer) < MAX_BATCHES and watch.buffered_bytes + size_bytes <= MAX_WATCH_BYTES:
            watch.buffer.append((header, batch))
            watch.buffered_bytes += size_bytes

    def _advance(self, watch: Watch, header: StreamHeader, batch: WatchBatch, now: float) -> None:
        epoch, sequence, revision = header
        if epoch != watch.epoch:
            self.counters["watch_new_epochs"] += 1
            self._ask_history(watch, now)
            return
        expected = watch.sequence + 1 if batch.events else watch.sequence
        if sequence > expected:
            self.counters["watch_gaps"] += 1
            self._ask_history(watch, now)
            return
        if sequence < expected or revision < watch.next_revision:
            watch.sequence = max(watch.sequence, sequence)  # it was in the history already
            return
        first_revision = watch.next_revision
        watch.sequence = sequence
        watch.next_revision = revision + 1
        watch.store_revision = max(watch.store_revision, revision)
        was_empty = not watch.queue
        if batch.events:
            for one in split_batch(batch):
                if one.revision >= first_revision:
                    self._queue_wanted(watch, one)
        elif watch.wants_progress:
            self._queue_progress(watch)
        if watch.has_enough:
            self._fill(watch)
        if was_empty and watch.queue:
            watch.on_ready()

    def on_lost(self, connection: int, now: float) -> None:
        """The subscriber's connection ended, or could not be made."""
        subscriber = self._subscribers.get(connection)
        if subscriber is not None:
            for stream in list(subscriber.streams.values()):
                for watch in list(stream.watches):
                    self._move(watch, now)

    # -- time --------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        return self._tick_at

    def on_time(self, now: float) -> None:
        """Looks at answered histories, and at whoever has waited too long. Called after each event."""
        while self._answers:
            answers, self._answers = self._answers, []
            for watch, attempt, call in answers:
                if watch.attempt == attempt and watch.phase is Phase.HISTORY:
                    self._on_history(watch, call, now)
        if self._tick_at is not None and now >= self._tick_at:
            self._tick(now)

    def _tick(self, now: float) -> None:
        self._tick_at = now + TICK_SECONDS if self._watches else None
        was_silent = False
        for subscriber in list(self._subscribers.values()):
            for stream in list(subscriber.streams.values()):
                if now - stream.heard_at > protocol.WATCH_SILENCE_SECONDS:
                    self.counters["watch_silences"] += 1
                    was_silent = True
                    for watch in list(stream.watches):
                        self._move(watch, now)
        if was_silent:
            # That node may have left the cluster, and one that was of no use may have come to it: a client
            # that only watches would never hear of it.
            self._core.links.ask_around(now, ASK_AGAIN_SECONDS)
        for watch in list(self._watches):
            if watch.phase is Phase.PLACELESS:
                self._place(watch, now)


def _decode(topic: bytes, header_part: bytes, events_part: bytes) -> tuple[StreamHeader, WatchBatch]:
    """A stream's message, whose events may be of several revisions. Raises MalformedFrame."""
    if watch_frames.is_full_topic(topic):
        header, full_events = watch_frames.decode_full_message(header_part, events_part)
        watch_frames.check_revisions(header, full_events)
        return header, make_full_batch(header.revision, full_events)
    header, events = watch_frames.decode_stream_message(header_part, events_part)
    watch_frames.check_revisions(header, events)
    return header, make_batch(header.revision, events)
