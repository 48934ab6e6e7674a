"""What is held for a moment so that many subscribers get it in one message: when, in what order, how much."""

from __future__ import annotations

from random import Random

import pytest

from kvstore import watch_frames, watch_plane, watch_streams
from kvstore.protocol import MAX_PUBLISHED_BYTES, MalformedFrame
from kvstore.watch_frames import StreamHeader
from kvstore.watch_plane import Frame
from kvstore.watch_streams import LEAST_PAUSE_SECONDS, MOST_PAUSE_SECONDS
from tests.kvstore.test_watch_plane import APP, ONE, Plane, message, seen
from tests.kvstore.watch_desk import WatchDesk

CROWD = int(MOST_PAUSE_SECONDS / watch_streams.PAUSE_SECONDS_PER_SUBSCRIBER) + 1


class Crowded(Plane):
    """With a clock, and many who subscribe to APP."""

    def __init__(self, subscriptions: int = CROWD, **limits: int) -> None:
        super().__init__(**limits)
        self.now = 100.0
        self.plane.clock = lambda: self.now
        self.subscribe(*[APP] * subscriptions)

    def later(self, seconds: float) -> list[Frame]:
        self.now += seconds
        return self.plane.announcements()


def test_what_comes_to_a_quiet_stream_leaves_at_once() -> None:
    plane = Crowded()
    for number in range(3):
        assert seen(plane.put(b"/app/a"), APP) == [(number + 1, number + 2, [b"/app/a"])]
        assert plane.plane.due_at() is None
        plane.now += MOST_PAUSE_SECONDS


def test_what_follows_closely_comes_in_one_message_at_the_end_of_the_pause() -> None:
    plane = Crowded()
    first_at = plane.now
    assert len(plane.put(b"/app/a")) == 1
    for key in (b"/app/b", b"/app/c", b"/app/a"):
        plane.now += 0.01
        assert plane.put(key) == []
    assert plane.plane.due_at() == first_at + MOST_PAUSE_SECONDS
    [frame] = plane.later(first_at + MOST_PAUSE_SECONDS - plane.now)
    _, header, events = message(frame)
    assert (header.sequence, header.revision) == (2, 5)
    assert [(event[1], event[4]) for event in events] == [(b"/app/b", 3), (b"/app/c", 4), (b"/app/a", 5)]
    assert plane.plane.due_at() is None and plane.later(1.0) == []


@pytest.mark.parametrize(
    "subscriptions", [1, int(LEAST_PAUSE_SECONDS / watch_streams.PAUSE_SECONDS_PER_SUBSCRIBER) - 1]
)
def test_for_few_subscribers_nothing_is_held(subscriptions: int) -> None:
    plane = Crowded(subscriptions)
    assert [len(plane.put(b"/app/a")) for _ in range(5)] == [1] * 5


def test_without_a_clock_nothing_is_held() -> None:
    """Nobody would come back for it."""
    plane = Plane()
    plane.subscribe(*[APP] * CROWD)
    assert [len(plane.put(b"/app/a")) for _ in range(5)] == [1] * 5


def test_a_heartbeat_comes_behind_what_was_held() -> None:
    """It promises that all up to its revision was sent."""
    plane = Crowded()
    plane.put(b"/app/a", b"/app/b")
    assert seen(plane.plane.heartbeats(1.0), APP) == [(2, 3, [b"/app/b"]), (2, 3, [])]
    plane.put(b"/app/c")
    assert seen(plane.subscribe(APP), APP) == [(3, 4, [b"/app/c"]), (3, 4, [])]


def test_a_history_that_has_what_was_held_says_so() -> None:
    """Its sequence counts the message that is about to come, which the watcher drops, therefore."""
    plane = Crowded()
    plane.put(b"/app/a", b"/app/b")
    _, sequence = plane.plane.position(b"/app/", b"/app0")
    assert sequence == 2
    assert seen(plane.later(0.0), APP) == [(2, 3, [b"/app/b"])]


def test_no_message_is_large_and_one_large_revision_keeps_its_place() -> None:
    plane = Crowded()
    plane.put(b"/app/a")
    half = bytes(MAX_PUBLISHED_BYTES // 2)
    frames = plane.put(b"/app/b", b"/app/c", value=half)
    assert seen(frames, APP) == [(2, 3, [b"/app/b"])], "both together would be too large"
    frames = plane.put(b"/app/d", value=2 * half)
    assert seen(frames, APP) == [(3, 4, [b"/app/c"]), (4, 5, [])]


def test_what_all_streams_hold_together_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_plane, "MAX_HELD_BYTES", 10_000)
    plane = Crowded()
    plane.put(b"/app/a")
    frames = [frame for _ in range(9) for frame in plane.put(b"/app/b", value=bytes(2000))]
    assert [len(message(frame)[2]) for frame in frames] == [5], "the rest waits for its time"
    assert plane.plane._held_bytes == sum(stream.held_bytes for stream in plane.plane._holding) > 0


def test_a_stream_that_ends_or_begins_anew_tells_nothing_of_before() -> None:
    plane = Crowded()
    plane.put(b"/app/a", b"/app/b")
    plane.plane.restart(9)
    assert seen(plane.later(1.0), APP) == [(0, 9, [])]
    plane.put(b"/app/a", b"/app/b")
    plane.unsubscribe(APP)
    assert plane.later(1.0) == [] and plane.plane.due_at() is None and plane.plane._held_bytes == 0
    plane.put(b"/app/a")
    assert plane.plane.cut_off() == []


def test_a_state_that_is_wrong_is_not_told_by_what_was_held() -> None:
    plane = Crowded()
    plane.put(b"/app/a", b"/app/b")
    assert seen(plane.plane.cut_off(), APP) == [(0, 3, [])] and plane.later(1.0) == []


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_held_all_is_told_once_in_order_and_whole(seed: int) -> None:
    chance = Random(seed)
    plane, frames = Crowded(), list[Frame]()
    plane.subscribe(ONE)
    for _ in range(300):
        keys = [b"/app/%c" % chance.choice(b"abc") for _ in range(chance.choice((1, 1, 1, 4)))]
        frames += plane.put(*keys) if chance.random() < 0.8 else plane.delete(b"/app/", b"/app0")
        frames += plane.later(chance.choice((0.0, 0.003, 0.02, 0.06)))
        if chance.random() < 0.05:
            frames += plane.plane.heartbeats(plane.now)
    frames += plane.later(1.0)
    told: list[int] = []
    sequence = 0
    for frame in frames:
        _, header, events = message(frame)
        if frame[0] == APP and events:
            watch_frames.check_revisions(header, events)
            sequence += 1
            assert header.sequence == sequence
            revisions = sorted({event[4] for event in events})
            assert not told or revisions[0] > told[-1], "a revision in two messages"
            told += revisions
        elif frame[0] == APP:
            assert told[-1:] <= [header.revision] and header.sequence == sequence
    assert told == list(range(2, plane.store.revision + 1))
    assert sequence < len(told) / 2, "nothing was held"


def test_revisions_of_a_message_ascend_up_to_that_of_its_header() -> None:
    def event(revision: int) -> tuple[int, bytes, bytes, int, int, int, int]:
        return 0, b"k", b"v", 1, revision, 1, 0

    for good in ([], [5], [5, 5], [3, 4, 4, 5]):
        watch_frames.check_revisions(StreamHeader(1, 1, 5), list(map(event, good)))
    for bad in ([4], [6], [5, 4, 5], [3, 6], [6, 5]):
        with pytest.raises(MalformedFrame):
            watch_frames.check_revisions(StreamHeader(1, 1, 5), list(map(event, bad)))


def crowd_at(desk: WatchDesk) -> None:
    """On every node's plane each stream has a crowd from its first subscriber on."""
    for machine in desk.machines.values():
        machine.watch_plane.clock = lambda: desk.now


@pytest.fixture
def all_are_crowds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_streams, "PAUSE_SECONDS_PER_SUBSCRIBER", MOST_PAUSE_SECONDS)


def test_a_client_makes_a_batch_of_each_revision_of_a_message(all_are_crowds: None) -> None:
    desk = WatchDesk("a")
    crowd_at(desk)
    watch = desk.established()
    for number in range(6):
        desk.store(f"/{number}")
    desk.now += MOST_PAUSE_SECONDS
    desk.publish("a", desk.machines["a"].watch_plane.announcements())
    assert desk.revisions(watch) == [2, 3, 4, 5, 6, 7]
    assert desk.core.counters["watch_gaps"] == 0


def test_of_a_message_only_what_the_watch_has_not_seen_is_new(all_are_crowds: None) -> None:
    """A node that lags tells an old and a new revision in one message."""
    desk = WatchDesk("a")
    watch = desk.established()
    watch.next_revision = 4
    bodies = [(0, b"/x", b"", 1, revision, 1, 0) for revision in (2, 3, 4, 5)]
    header = watch_frames.encode_stream_header(watch.epoch, watch.sequence + 1, 5)
    parts = [watch.topic, header, watch_frames.encode_events(bodies)]
    desk.watches.on_message(desk.subscribers("a")[0], parts, desk.now)
    assert desk.revisions(watch) == [4, 5]
