"""The watch plane: who watches what, and so what is published. It decides; somebody else has the socket.

May know: topics, subscription frames, changes, and a time that it is given. Two promises to a watcher of
a range stream: the sequence of its messages has no gap unless something was lost, and all events of one
revision are in one message. Whatever is dropped here by a bound leaves a gap in the sequence, so the
watcher sees it and asks for the history. Nothing here is replicated: streams exist while somebody
subscribes to them, on this node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from kvstore import protocol, watch_frames
from kvstore.interests import Interests, PrefixTable
from kvstore.protocol import (
    CLUSTER_TOPIC,
    MAX_KEY_BYTES,
    MAX_PUBLISHED_BYTES,
    RESERVED_TOPIC_BYTE,
    Event,
)
from kvstore.versions import (
    ALL_FROM_KEY,
    FIRST_REVISION,
    Change,
    RecordBefore,
    change_events,
    change_revision,
    full_events,
)
from kvstore.watch_streams import Stream
from raft import Configuration

Frame = list[bytes]
"""The parts of one message; part 0 is the topic."""

MAX_STREAMS: Final = 10_000
MAX_PATH_PREFIXES: Final = 10_000
MAX_PATH_EVENTS: Final = 4096  # of one revision; a subscriber's queue has no room for more at once
MAX_PUBLISHED_EVENTS: Final = MAX_PUBLISHED_BYTES // 11  # so many bytes has the smallest event
# Of one revision, for streams of different ranges; those beyond ask for the history. Some ten milliseconds.
MAX_SPREAD_EVENTS: Final = 16_384
MAX_QUEUED_BYTES: Final = 64 << 20  # between two calls that take what is queued
MAX_HELD_BYTES: Final = 16 << 20  # by all streams together, for as long as their pauses last
MAX_INCARNATION: Final = 2**31 - 1
LEADERLESS_SECONDS: Final = 3.0  # an election takes less; after that this node has no more to tell
_FRAME_OVERHEAD_BYTES: Final = 128
# Counters that the status has, from 0 on.
COUNTED: Final = ("dropped_frames", "large_frames", "malformed_subscriptions", "refused_subscriptions")
_NO_EVENTS: Final = watch_frames.join_events(0, [])


class WatchPlane:
    """Owned by one state machine; speaks to the applier as its announcer.

    `incarnation` must differ from that of every other watch plane there ever was in the cluster: drawn at
    random at each start of a node, from 1..MAX_INCARNATION.
    """

    def __init__(
        self,
        incarnation: int,
        *,
        max_streams: int = MAX_STREAMS,
        max_path_prefixes: int = MAX_PATH_PREFIXES,
        max_queued_bytes: int = MAX_QUEUED_BYTES,
    ) -> None:
        assert 1 <= incarnation <= MAX_INCARNATION, f"incarnation {incarnation} is out of range"
        self.revision = FIRST_REVISION  # of the store, as fed so far
        self.counters: Counter[str] = Counter()
        self._next_epoch = incarnation << 32  # a stream that is dropped and made again is another one
        self._max_streams = max_streams
        self._max_path_prefixes = max_path_prefixes
        self._max_queued_bytes = max_queued_bytes
        self._streams: dict[bytes, Stream] = {}  # by topic
        # Exactly those of _streams: those whose events have no record before, and those whose have.
        self._plain, self._full = Interests(), Interests()
        self._path_prefixes: PrefixTable[bytes] = PrefixTable()
        self._queued: list[Frame] = []
        self._queued_bytes = 0
        self.clock: Callable[[], float] | None = None  # of whoever comes back when due_at() says; else None
        self._holding: dict[Stream, None] = {}  # an ordered set: exactly those that hold something
        self._held_bytes = 0  # the sum over them
        self._next_heartbeats = 0.0
        # Since when no leader was known, as seen at the heartbeats; None: there is one, or none was told of.
        self._leaderless_since: float | None = None
        self._cluster_frame: Frame | None = None  # the last one said of a leader
        self._term = 0  # as it was said last
        self._leader = ""  # as it was said last; empty: none
        self._members: dict[str, bool] | None = None  # name to whether it votes; None: not heard yet
        self._unhealthy: set[str] = set()  # of the members, as the leader said last
        self._has_cluster_watchers = False

    def __len__(self) -> int:
        return len(self._streams)

    # -- what was applied ------------------------------------------------------------------------------

    def most_concerned(self) -> int:
        """No event of one key concerns more streams than this, nor has more prefixes to be looked up."""
        return self._plain.breadth() + self._full.breadth() + self._path_prefixes.breadth()

    def feed(self, changes: list[Change], record_before: RecordBefore) -> None:
        """Takes what the store did, and queues what somebody wants of it."""
        if not changes:
            return
        self.revision = change_revision(changes[-1])
        if self._streams:
            for change in changes if self._plain else ():
                self._feed_streams(self._plain, change, watch_frames.encode_bodies)
            if self._full:

                def encode(events: list[Event]) -> bytes:
                    return watch_frames.encode_bodies(full_events(events, record_before))

                for change in changes:
                    self._feed_streams(self._full, change, encode)
        if self._path_prefixes:
            for change in changes:
                left = MAX_PATH_EVENTS
                for event in change_events(change):
                    left -= self._feed_path(event)
                    if not left:
                        break

    def _feed_streams(
        self, interests: Interests, change: Change, encode: Callable[[list[Event]], bytes]
    ) -> None:
        if len(change) == 6:
            streams = interests.of(change[0])
            if streams:
                events = encode(change_events(change))
                for stream in streams:
                    self._say(stream, change[3], 1, events)
            return
        left = MAX_SPREAD_EVENTS
        for some, streams in interests.spread(change_events(change)):
            bodies = None
            # What is too much for one message in any case is not worth the time to encode it.
            if len(some) <= min(left, MAX_PUBLISHED_EVENTS):
                bodies = encode(list(some))
                left -= len(some)
            for stream in streams:
                self._say(stream, change[0], len(some), bodies)

    def _say(self, stream: Stream, revision: int, count: int, bodies: bytes | None) -> None:
        """All events of one revision go into one message, which may have those of several.

        A subscriber that does not read has as many messages waiting as its queue holds: so none is large. In
        the place of a large one, which counts, comes a heartbeat: so the watchers see that they miss one, and
        ask for the history.
        """
        if bodies is None or stream.held_bytes + len(bodies) > MAX_PUBLISHED_BYTES:
            self._release(stream)
        if bodies is None or len(bodies) > MAX_PUBLISHED_BYTES:
            self.counters["large_frames"] += 1
            self._publish(stream, revision, _NO_EVENTS)
            return
        if not (stream.pause_seconds or stream.held) or self.clock is None:
            self._publish(stream, revision, watch_frames.join_events(count, [bodies]))
            return
        stream.hold(revision, count, bodies)
        self._holding[stream] = None
        self._held_bytes += len(bodies)
        if self.clock() >= stream.spoke_at + stream.pause_seconds:
            self._release(stream)
        elif self._held_bytes > MAX_HELD_BYTES:
            self._release_all()

    def _release(self, stream: Stream) -> None:
        """What it holds is said."""
        if stream.held:
            self._publish(
                stream, stream.held_revision, watch_frames.join_events(stream.held_events, stream.held)
            )
            if self.clock is not None:
                stream.spoke_at = self.clock()
            self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        if stream.held:
            del self._holding[stream]
            self._held_bytes -= stream.held_bytes
            stream.let_go()

    def _release_all(self) -> None:
        for stream in list(self._holding):
            self._release(stream)

    def _publish(self, stream: Stream, revision: int, events: bytes) -> None:
        stream.sequence += 1
        header = watch_frames.encode_stream_header(stream.epoch, stream.sequence, revision)
        self._queue([stream.topic, header, events])

    def due_at(self) -> float | None:
        """When announcements() has to be called at the latest, by the clock; None: there is no hurry."""
        return min((stream.spoke_at + stream.pause_seconds for stream in self._holding), default=None)

    def _feed_path(self, event: Event) -> bool:
        """Best effort: a path topic has no sequence, and what is dropped is gone. False: nobody wants it."""
        key = event[1]
        if key[0] == RESERVED_TOPIC_BYTE or next(self._path_prefixes.of(key), None) is None:
            return False
        if len(event[2]) > MAX_PUBLISHED_BYTES:
            self.counters["large_frames"] += 1
        else:
            self._queue([key, watch_frames.encode_path_header(event), event[2]])
        return True

    def _queue(self, frame: Frame) -> None:
        size_bytes = sum(map(len, frame)) + _FRAME_OVERHEAD_BYTES
        if self._queued_bytes + size_bytes > self._max_queued_bytes:
            self.counters["dropped_frames"] += 1
            return
        self._queued_bytes += size_bytes
        self._queued.append(frame)

    def restart(self, revision: int) -> None:
        """A snapshot at `revision` took the place of the store: what was between was never fed.

        So every stream begins a new epoch, and tells its watchers at once: they ask for what they missed.
        """
        self.revision = revision
        for stream in self._streams.values():
            self._drop(stream)
            stream.epoch, stream.sequence = self._next_epoch, 0
            self._next_epoch += 1
        for beat in self._beats(self._streams.values()):
            self._queue(beat)

    def cut_off(self) -> list[Frame]:
        """The store is wrong: nothing more is told of it. A new epoch in each stream makes its watchers ask
        for the history, which this node refuses them; so they go elsewhere at once."""
        self._queued, self._queued_bytes = [], 0
        self.restart(self.revision)
        return self.announcements()

    def announcements(self) -> list[Frame]:
        """What is to be published now, in order of revision for each topic."""
        if self._holding and self.clock is not None:
            now = self.clock()
            for stream in [each for each in self._holding if now >= each.spoke_at + each.pause_seconds]:
                self._release(stream)
        queued = self._queued
        if queued:
            self._queued = []
            self._queued_bytes = 0
        return queued

    # -- who watches -----------------------------------------------------------------------------------

    def subscribed(self, frames: Sequence[bytes]) -> list[Frame]:
        """Notes raw XPUB frames, a byte 1 or 0 and the topic, and whatever else a peer may send there.

        The socket passes on every subscription but only the last unsubscription of a topic. Answers with a
        heartbeat for each stream subscribed to, so that a watcher knows that it is heard.
        """
        self._release_all()
        greeted: dict[bytes, None] = {}  # an ordered set: many watchers of one stream need one heartbeat
        for frame in frames:
            topic = frame[1:]
            if frame[:1] == b"\x01":
                if self._subscribe(topic):
                    greeted[topic] = None
            elif frame[:1] == b"\x00":
                self._unsubscribe(topic)
            else:
                self.counters["malformed_subscriptions"] += 1
        beats = self._beats(self._streams[topic] for topic in greeted if topic in self._streams)
        if CLUSTER_TOPIC in greeted:
            beats += self._cluster_state()
        return self.announcements() + beats

    def _subscribe(self, topic: bytes) -> bool:
        """True if the subscriber is to be greeted."""
        if topic == CLUSTER_TOPIC:
            self._has_cluster_watchers = True
            return True
        if topic in self._streams:
            self._streams[topic].greet()
            return True
        if topic[:1] == ALL_FROM_KEY:
            return self._open_stream(topic)
        if topic not in self._path_prefixes:
            if len(topic) > MAX_KEY_BYTES or len(self._path_prefixes) >= self._max_path_prefixes:
                self.counters["refused_subscriptions"] += 1
                return False
            self._path_prefixes.add(topic, topic)
        return False

    def _open_stream(self, topic: bytes) -> bool:
        interval = watch_frames.parse_stream_topic(topic)
        if interval is None or protocol.range_is_inverted(*interval):
            self.counters["malformed_subscriptions"] += 1
            return False
        stream = Stream(topic, *interval, self._next_epoch)
        if len(self._streams) >= self._max_streams or not self._interests_of(topic).add(stream):
            self.counters["refused_subscriptions"] += 1
            return False
        self._next_epoch += 1
        self._streams[topic] = stream
        stream.greet()
        return True

    def _interests_of(self, topic: bytes) -> Interests:
        return self._full if watch_frames.is_full_topic(topic) else self._plain

    def _unsubscribe(self, topic: bytes) -> None:
        if topic == CLUSTER_TOPIC:
            self._has_cluster_watchers = False
            return
        stream = self._streams.pop(topic, None)
        if stream is not None:
            self._drop(stream)
            self._interests_of(topic).remove(stream)
            return
        self._path_prefixes.discard(topic)

    def position(self, key: bytes, range_end: bytes, *, is_full: bool = False) -> tuple[int, int]:
        """(epoch, sequence of the last message) of a range's stream; epoch 0 if nobody subscribes to it."""
        stream = self._streams.get(watch_frames.stream_topic(key, range_end, is_full=is_full))
        if stream is None:
            return 0, 0
        self._release(stream)  # the history has it
        return stream.epoch, stream.sequence

    # -- signs of life ---------------------------------------------------------------------------------

    def heartbeats(self, now_seconds: float) -> list[Frame]:
        """One for each stream, each WATCH_HEARTBEAT_SECONDS of the caller's clock.

        They promise that all up to the revision they carry was sent, so they leave after what is queued.
        """
        if now_seconds < self._next_heartbeats:
            return self.announcements()
        self._next_heartbeats = now_seconds + protocol.WATCH_HEARTBEAT_SECONDS
        if self._is_left_alone(now_seconds):
            return self.announcements()
        self._release_all()
        beats = self.announcements() + self._beats(self._streams.values())
        if self._has_cluster_watchers:
            beats += self._cluster_events([("heartbeat", self._leader)])
        return beats

    def _is_left_alone(self, now_seconds: float) -> bool:
        """Without a leader nothing is applied here, and perhaps it is elsewhere: on the other side of a cut,
        or because this node was removed and does not know it. Heartbeats would say for ever that nothing
        happens; silence sends the watchers to other nodes.
        """
        if self._leader or self._cluster_frame is None:
            self._leaderless_since = None
        elif self._leaderless_since is None:
            self._leaderless_since = now_seconds
        since = self._leaderless_since
        return since is not None and now_seconds - since >= LEADERLESS_SECONDS

    def _beats(self, streams: Iterable[Stream]) -> list[Frame]:
        encode, revision = watch_frames.encode_stream_header, self.revision
        return [
            [stream.topic, encode(stream.epoch, stream.sequence, revision), _NO_EVENTS] for stream in streams
        ]

    # -- the cluster -----------------------------------------------------------------------------------

    def _cluster_events(self, events: Iterable[tuple[str, str]]) -> list[Frame]:
        encode, term = watch_frames.encode_cluster_event, self._term
        return [[CLUSTER_TOPIC, encode(name, term, node)] for name, node in events]

    def _cluster_state(self) -> list[Frame]:
        """What a new subscriber has to know to make sense of what comes; at least a sign of life."""
        unhealthy = self._cluster_events(("member_unhealthy", node) for node in sorted(self._unhealthy))
        if self._cluster_frame is None:
            return self._cluster_events([("heartbeat", self._leader)]) + unhealthy
        return [self._cluster_frame, *unhealthy]

    def role_changed(self, role: str, term: int, leader_id: str | None) -> list[Frame]:
        """On the cluster topic, once for each leader and each loss of one, whatever this node's own role."""
        self._term, self._leader = term, leader_id or ""
        [frame] = self._cluster_events(
            [("leader_lost" if leader_id is None else "leader_elected", self._leader)]
        )
        if frame == self._cluster_frame:
            return []
        self._cluster_frame = frame
        return [frame]

    def members_changed(self, configuration: Configuration) -> list[Frame]:
        """On the cluster topic, each member that came, changed or left, since the first that were told."""
        before = self._members
        now = dict.fromkeys(configuration.learners, False) | dict.fromkeys(configuration.voters, True)
        self._members = now
        self._unhealthy &= now.keys()
        if before is None:
            return []
        events = [("member_removed", node) for node in sorted(before.keys() - now.keys())]
        for node, votes in sorted(now.items()):
            if node not in before:
                events.append(("member_added", node))
            if votes and not before.get(node, False):
                events.append(("member_promoted", node))
            elif before.get(node, False) and not votes:
                events.append(("member_demoted", node))
        return self._cluster_events(events)

    def health_changed(self, term: int, silent: Sequence[str]) -> list[Frame]:
        """On the cluster topic, each member that its leader hears no more, and each that it hears again."""
        if term < self._term or self._members is None:
            return []  # of a leader that is none any more, or of nobody knows whom
        before, self._unhealthy = self._unhealthy, self._members.keys() & set(silent)
        events = [("member_unhealthy", node) for node in sorted(self._unhealthy - before)]
        events += [("member_healthy", node) for node in sorted(before - self._unhealthy)]
        return self._cluster_events(events)

    def status(self) -> dict[str, int]:
        counted = {name: self.counters[name] for name in COUNTED}
        return {"watch_streams": len(self._streams), "watch_prefixes": len(self._path_prefixes), **counted}
