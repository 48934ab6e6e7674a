"""What is published to whom: contiguous, atomic, never ahead of its events."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import protocol, watch_frames
from kvstore.interests import MAX_SCANNED_STREAMS, prefix_of
from kvstore.protocol import CLUSTER_TOPIC, Event, prefix_range
from kvstore.store import Store
from kvstore.versions import change_events
from kvstore.watch_frames import StreamHeader, stream_topic
from kvstore.watch_plane import Frame, WatchPlane
from raft import Configuration

APP = stream_topic(*prefix_range(b"/app/"))
ONE = stream_topic(b"/app/a", b"")
ALL = stream_topic(b"\x00", b"\x00")


class Plane:
    """A watch plane with the store that feeds it."""

    def __init__(self, incarnation: int = 1, **limits: int) -> None:
        self.store = Store()
        self.plane = WatchPlane(incarnation, **limits)

    def subscribe(self, *topics: bytes) -> list[Frame]:
        return self.plane.subscribed([b"\x01" + topic for topic in topics])

    def unsubscribe(self, *topics: bytes) -> list[Frame]:
        return self.plane.subscribed([b"\x00" + topic for topic in topics])

    def put(self, *keys: bytes, value: bytes = b"v") -> list[Frame]:
        for key in keys:
            self.store.put(key, value, 0)
        return self.publish()

    def delete(self, key: bytes, range_end: bytes = b"") -> list[Frame]:
        self.store.delete(key, range_end)
        return self.publish()

    def publish(self) -> list[Frame]:
        self.plane.feed(self.store.take_changes(), self.store.record_before)
        return self.plane.announcements()


def message(frame: Frame) -> tuple[bytes, StreamHeader, list[Event]]:
    topic, header, events = frame
    return topic, *watch_frames.decode_stream_message(header, events)


def seen(frames: list[Frame], topic: bytes) -> list[tuple[int, int, list[bytes]]]:
    """(sequence, revision, keys) of each message on the topic."""
    messages = [message(frame) for frame in frames if frame[0] == topic]
    return [
        (header.sequence, header.revision, [event[1] for event in events]) for _, header, events in messages
    ]


def test_a_new_subscription_is_greeted_at_once() -> None:
    """So that the watcher knows that it is heard, before it asks for the history."""
    plane = Plane()
    plane.put(b"/app/a")
    [frame] = plane.subscribe(APP)
    topic, header, events = message(frame)
    assert (topic, header.sequence, header.revision, events) == (APP, 0, 2, [])
    assert plane.plane.position(*prefix_range(b"/app/")) == (header.epoch, 0)


def test_every_watcher_is_greeted_but_a_crowd_only_once() -> None:
    """XPUB_VERBOSE passes on each subscription, and every watcher of the topic receives the heartbeat."""
    plane = Plane()
    assert len(plane.subscribe(APP, APP, APP)) == 1
    plane.put(b"/app/a")
    [frame] = plane.subscribe(APP)
    assert message(frame)[1].sequence == 1
    assert len(plane.plane) == 1


def test_the_sequence_of_a_stream_has_no_gap() -> None:
    plane = Plane()
    plane.subscribe(APP)
    frames = plane.put(b"/app/a", b"/other", b"/app/b") + plane.put(b"/app/a") + plane.delete(b"/app/b")
    assert seen(frames, APP) == [
        (1, 2, [b"/app/a"]),
        (2, 4, [b"/app/b"]),
        (3, 5, [b"/app/a"]),
        (4, 6, [b"/app/b"]),
    ]


def test_h7_all_events_of_one_revision_are_in_one_message() -> None:
    plane = Plane()
    names = [b"/app/%02d" % number for number in range(50)]
    plane.put(*names, b"/other")
    plane.subscribe(APP, ALL, ONE, stream_topic(b"/app/03", b""))
    frames = plane.delete(b"\x00", b"\x00")
    assert seen(frames, APP) == [(1, 53, names)]
    assert seen(frames, ALL) == [(1, 53, [*names, b"/other"])]
    assert seen(frames, stream_topic(b"/app/03", b"")) == [(1, 53, [b"/app/03"])]
    assert seen(frames, ONE) == []


def test_a_put_and_a_delete_look_as_in_the_protocol() -> None:
    plane = Plane()
    plane.subscribe(ONE)
    [put] = plane.put(b"/app/a", value=b"x")
    [delete] = plane.delete(b"/app/a")
    assert message(put)[2] == [(protocol.EVENT_PUT, b"/app/a", b"x", 2, 2, 1, 0)]
    assert message(delete)[2] == [(protocol.EVENT_DELETE, b"/app/a", b"", 0, 3, 0, 0)]


@pytest.mark.parametrize(
    ("key", "range_end", "expected"),
    [
        (b"b", b"", [b"b"]),
        (*prefix_range(b"a"), [b"a", b"ab"]),
        (*prefix_range(b""), [b"a", b"ab", b"b", b"c", b"\xff"]),
        (*prefix_range(b"\xff"), [b"\xff"]),
        (b"ab", b"c", [b"ab", b"b"]),
        (b"ab", b"\x00", [b"ab", b"b", b"c", b"\xff"]),
        (b"b", b"b\x00", [b"b"]),
    ],
)
def test_the_forms_of_a_range_in_a_stream(key: bytes, range_end: bytes, expected: list[bytes]) -> None:
    plane = Plane()
    topic = stream_topic(key, range_end)
    plane.subscribe(topic)
    frames = plane.put(b"a", b"ab", b"b", b"c", b"\xff")
    assert [keys for _, _, keys in seen(frames, topic)] == [[name] for name in expected]


@pytest.mark.parametrize(
    ("key", "range_end", "expected"),
    [
        (b"a", b"b", b"a"),
        (b"\x00", b"\x00", b""),
        (b"a\xff", b"b", b"a\xff"),
        (b"a", b"", None),
        (b"a", b"c", None),
        (b"a", b"\x00", None),
    ],
)
def test_which_ranges_are_prefixes(key: bytes, range_end: bytes, expected: bytes | None) -> None:
    assert prefix_of(key, range_end) == expected


def test_the_last_unsubscription_ends_the_stream() -> None:
    plane = Plane()
    topics = [APP, ONE, ALL, stream_topic(b"a", b"c")]
    plane.subscribe(*topics)
    plane.subscribe(stream_topic(b"elsewhere", b""))
    plane.unsubscribe(*topics)
    assert len(plane.plane) == 1
    assert plane.put(b"/app/a", b"b") == []
    assert plane.plane.position(b"/app/a", b"") == (0, 0)
    plane.unsubscribe(*topics)


def test_a_stream_made_again_has_another_epoch() -> None:
    """A watcher whose connection broke for a moment must not take the new count for a continuation."""
    plane = Plane()
    plane.subscribe(ONE)
    plane.put(b"/app/a")
    first = plane.plane.position(b"/app/a", b"")
    plane.unsubscribe(ONE)
    plane.put(b"/app/a")
    plane.subscribe(ONE)
    second = plane.plane.position(b"/app/a", b"")
    assert first[0] != second[0]
    assert second[1] == 0


def test_no_two_incarnations_share_an_epoch() -> None:
    epochs = set()
    for incarnation in (1, 2, 2**31 - 1):
        plane = Plane(incarnation)
        for _ in range(3):
            plane.subscribe(ONE)
            epoch, _ = plane.plane.position(b"/app/a", b"")
            assert 0 < epoch <= protocol.MAX_INTEGER
            epochs.add(epoch)
            plane.unsubscribe(ONE)
    assert len(epochs) == 9


def test_h3_a_heartbeat_never_overtakes_the_events_it_promises() -> None:
    """Neither the one of a new subscription nor the regular one."""
    for beat in ("subscription", "clock"):
        plane = Plane()
        plane.subscribe(ONE)
        plane.store.put(b"/app/a", b"v", 0)
        plane.plane.feed(plane.store.take_changes(), plane.store.record_before)
        frames = plane.subscribe(ONE) if beat == "subscription" else plane.plane.heartbeats(10.0)
        assert seen(frames, ONE) == [(1, 2, [b"/app/a"]), (1, 2, [])]
        assert plane.plane.announcements() == []


def test_heartbeats_come_each_half_second_of_the_given_clock() -> None:
    plane = Plane()
    plane.subscribe(ONE, APP)
    plane.put(b"/app/a", b"/app/b")
    counts = [len(plane.plane.heartbeats(at)) for at in (100.0, 100.25, 100.5, 100.75, 100.99, 101.0)]
    assert counts == [2, 0, 2, 0, 0, 2]
    frames = plane.plane.heartbeats(102.0)
    assert seen(frames, ONE) == [(1, 3, [])]
    assert seen(frames, APP) == [(2, 3, [])]


def test_a_heartbeat_carries_the_revision_of_the_store_also_when_others_are_written() -> None:
    plane = Plane()
    plane.subscribe(ONE)
    plane.put(b"/other", b"/other")
    assert seen(plane.plane.heartbeats(1.0), ONE) == [(0, 3, [])]


def test_h4_what_a_bound_drops_leaves_a_gap_that_the_next_heartbeat_shows() -> None:
    plane = Plane(max_queued_bytes=1000)
    plane.subscribe(ONE)
    frames = plane.put(*[b"/app/a"] * 20)
    received = [sequence for sequence, _, _ in seen(frames, ONE)]
    assert 1 <= len(received) < 20
    assert seen(plane.plane.heartbeats(1.0), ONE) == [(20, 21, [])]
    assert plane.plane.status()["dropped_frames"] == 20 - len(received)
    assert seen(plane.put(b"/app/a"), ONE) == [(21, 22, [b"/app/a"])]


# ---------------------------------------------------------------- path topics


def test_a_path_topic_is_the_key_with_header_and_value() -> None:
    plane = Plane()
    assert plane.subscribe(b"/app/") == []
    plane.put(b"/app/a")
    [frame] = plane.put(b"/app/a", value=b"second")
    assert (frame[0], frame[2]) == (b"/app/a", b"second")
    assert watch_frames.decode_path_header(frame[1]) == (protocol.EVENT_PUT, 2, 3, 2, 0)
    [frame] = plane.delete(b"/app/a")
    assert (frame[0], frame[2]) == (b"/app/a", b"")
    assert watch_frames.decode_path_header(frame[1]) == (protocol.EVENT_DELETE, 0, 4, 0, 0)


def test_path_topics_are_published_only_while_a_subscribed_prefix_matches() -> None:
    plane = Plane()
    assert plane.put(b"/app/a") == []
    plane.subscribe(b"/app/", b"/app/a", b"/x")
    assert [frame[0] for frame in plane.put(b"/app/a", b"/apple", b"/xy", b"/", b"/app/b")] == [
        b"/app/a",
        b"/xy",
        b"/app/b",
    ]
    plane.unsubscribe(b"/app/", b"/x")
    assert [frame[0] for frame in plane.put(b"/app/a", b"/app/b", b"/xy")] == [b"/app/a"]
    plane.unsubscribe(b"/app/a", b"never subscribed")
    assert plane.put(b"/app/a") == []


def test_the_empty_subscription_is_for_every_key_but_the_reserved() -> None:
    """A key may begin with the byte that streams begin with; published, it would look like one."""
    plane = Plane()
    plane.subscribe(b"")
    assert [frame[0] for frame in plane.put(b"a", ONE, CLUSTER_TOPIC, b"\x00")] == [b"a"]


# ---------------------------------------------------------------- cluster topic


def test_a_change_of_leader_is_told_once_and_again_to_whoever_comes_later() -> None:
    plane = Plane()
    [greeting] = plane.subscribe(CLUSTER_TOPIC)
    assert watch_frames.decode_cluster_event(greeting[1]) == ("heartbeat", 0, "")
    [lost] = plane.plane.role_changed("candidate", 4, None)
    assert watch_frames.decode_cluster_event(lost[1]) == ("leader_lost", 4, "")
    [frame] = plane.plane.role_changed("follower", 5, "n2")
    assert frame[0] == CLUSTER_TOPIC
    assert watch_frames.decode_cluster_event(frame[1]) == ("leader_elected", 5, "n2")
    assert plane.plane.role_changed("follower", 5, "n2") == []
    assert plane.subscribe(CLUSTER_TOPIC) == [frame]
    assert len(plane.plane.role_changed("leader", 6, "n1")) == 1


def test_members_that_come_change_and_leave_are_told_and_those_to_begin_with_are_not() -> None:
    plane = Plane()
    plane.plane.role_changed("leader", 3, "n1")

    def told(voters: str, learners: str = "") -> list[watch_frames.ClusterEvent]:
        frames = plane.plane.members_changed(Configuration(voters.split(), learners.split()))
        assert all(frame[0] == CLUSTER_TOPIC for frame in frames)
        return [watch_frames.decode_cluster_event(frame[1]) for frame in frames]

    assert told("n1 n2 n3") == []
    assert told("n1 n2 n3", "n4") == [("member_added", 3, "n4")]
    assert told("n1 n2 n3", "n4") == []
    assert told("n1 n2 n4") == [("member_removed", 3, "n3"), ("member_promoted", 3, "n4")]
    assert told("n1 n4 n5", "n2") == [
        ("member_demoted", 3, "n2"),
        ("member_added", 3, "n5"),
        ("member_promoted", 3, "n5"),
    ]


def test_members_that_the_leader_does_not_hear_are_told_once_and_to_whoever_comes_later() -> None:
    plane = Plane()
    plane.plane.role_changed("follower", 3, "n1")

    def told(frames: list[Frame]) -> list[tuple[str, str]]:
        events = [watch_frames.decode_cluster_event(frame[1]) for frame in frames]
        assert {event.term for event in events} <= {3, 4}
        return [(event.name, event.node) for event in events]

    assert plane.plane.health_changed(3, ["n2"]) == [], "who the members are is not known yet"
    plane.plane.members_changed(Configuration(["n1", "n2", "n3"], []))
    assert plane.plane.health_changed(3, []) == []
    assert told(plane.plane.health_changed(3, ["n2", "stranger"])) == [("member_unhealthy", "n2")]
    assert plane.plane.health_changed(3, ["n2"]) == []
    assert told(plane.subscribe(CLUSTER_TOPIC)) == [("leader_elected", "n1"), ("member_unhealthy", "n2")]
    assert told(plane.plane.health_changed(3, ["n3"])) == [
        ("member_unhealthy", "n3"),
        ("member_healthy", "n2"),
    ]
    plane.plane.role_changed("leader", 4, "n2")
    assert plane.plane.health_changed(3, ["n1"]) == [], "an older leader's"
    assert told(plane.plane.health_changed(4, ["n1", "n3"])) == [("member_unhealthy", "n1")]
    plane.plane.members_changed(Configuration(["n1", "n2"], []))
    assert told(plane.subscribe(CLUSTER_TOPIC)) == [("leader_elected", "n2"), ("member_unhealthy", "n1")]
    assert told(plane.plane.health_changed(4, [])) == [("member_healthy", "n1")]


def test_the_cluster_topic_beats_while_somebody_listens() -> None:
    plane = Plane()
    plane.plane.role_changed("follower", 3, "n1")
    assert plane.plane.heartbeats(1.0) == []
    plane.subscribe(CLUSTER_TOPIC)
    [beat] = plane.plane.heartbeats(2.0)
    assert watch_frames.decode_cluster_event(beat[1]) == ("heartbeat", 3, "n1")
    plane.unsubscribe(CLUSTER_TOPIC)
    assert plane.plane.heartbeats(3.0) == []


# ---------------------------------------------------------------- foreign frames and bounds


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x02/app/",
        b"hello",
        b"\x01\x00",
        b"\x01\x00S",
        b"\x01\x00S\xff\xff",
        b"\x01" + APP[:-1],
        b"\x01" + APP + b"x",
        b"\x01" + stream_topic(b"", b""),
        b"\x01" + stream_topic(b"b", b"a"),
        b"\x01" + stream_topic(b"b", b"b"),
        b"\x01" + stream_topic(b"k" * 5000, b""),
        b"\x01" + b"p" * 5000,
        b"\x00" + b"p" * 5000,
        b"\x00",
        b"\x00" + ONE,
        b"\x00\x00S",
        b"\xff" * 100_000,
    ],
)
def test_a_foreign_subscription_frame_is_ignored(frame: bytes) -> None:
    plane = Plane()
    assert plane.plane.subscribed([frame, frame]) == []
    status = plane.plane.status()
    assert (status["watch_streams"], status["watch_prefixes"]) == (0, 0)
    assert plane.put(b"/app/a", b"a", b"p" * 4096) == []
    plane.subscribe(ONE)
    assert len(plane.put(b"/app/a")) == 1


def test_the_number_of_streams_is_bounded_and_a_refused_one_is_not_greeted() -> None:
    plane = Plane(max_streams=3)
    topics = [stream_topic(b"k%d" % number, b"") for number in range(5)]
    assert [frame[0] for frame in plane.subscribe(*topics)] == topics[:3]
    assert plane.plane.status()["refused_subscriptions"] == 2
    assert plane.plane.position(b"k4", b"") == (0, 0)
    plane.unsubscribe(topics[0])
    assert [frame[0] for frame in plane.subscribe(topics[4])] == [topics[4]]


def test_ranges_which_have_to_be_asked_one_by_one_have_a_bound_of_their_own() -> None:
    plane = Plane()
    topics = [stream_topic(b"a", b"c%04d" % number) for number in range(MAX_SCANNED_STREAMS + 5)]
    assert len(plane.subscribe(*topics)) == MAX_SCANNED_STREAMS
    assert len(plane.put(b"b")) == MAX_SCANNED_STREAMS
    plane.unsubscribe(*topics)
    assert plane.put(b"b") == []


def test_the_number_of_path_prefixes_is_bounded() -> None:
    plane = Plane(max_path_prefixes=2)
    plane.subscribe(b"a", b"b", b"c", b"a")
    assert plane.plane.status()["watch_prefixes"] == 2
    assert [frame[0] for frame in plane.put(b"a", b"b", b"c")] == [b"a", b"b"]


KEYS = st.sampled_from([b"a", b"ab", b"abc", b"b", b"ba", b"c", b"\xff"])
ENDS = st.one_of(st.sampled_from([b"", b"\x00", b"b", b"c"]), KEYS)
RANGES = st.tuples(KEYS, ENDS).flatmap(lambda pair: st.sampled_from([pair, prefix_range(pair[0])]))
STEPS = st.one_of(
    st.tuples(st.sampled_from(["put", "put", "delete", "subscribe", "subscribe", "unsubscribe"]), RANGES)
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_every_stream_says_exactly_what_concerns_its_range(
    steps: list[tuple[str, tuple[bytes, bytes]]],
) -> None:
    plane, expected, received = Plane(), dict[bytes, list[Event]](), dict[bytes, list[Event]]()
    ranges: dict[bytes, tuple[bytes, bytes]] = {}
    last: dict[bytes, tuple[int, int]] = {}
    for name, (key, range_end) in steps:
        topic = stream_topic(key, range_end)
        frames: list[Frame] = []
        if name == "subscribe":
            frames = plane.subscribe(topic)
            if frames:
                ranges[topic] = (key, range_end)
        elif name == "unsubscribe":
            plane.unsubscribe(topic)
            ranges.pop(topic, None)
            last.pop(topic, None)
        else:
            if name == "put":
                plane.store.put(key, b"v", 0)
            else:
                plane.store.delete(key, range_end)
            changes = plane.store.take_changes()
            plane.plane.feed(changes, plane.store.record_before)
            frames = plane.plane.announcements()
            for change in changes:
                events = change_events(change)
                for watched, (low, high) in ranges.items():
                    found = [event for event in events if within(event[1], low, high)]
                    expected.setdefault(watched, []).extend(found)
        for frame in frames:
            watched, header, events = message(frame)
            epoch, sequence = last.get(watched, (header.epoch, 0))
            assert (header.epoch, header.sequence) == (epoch, sequence + bool(events))
            last[watched] = (header.epoch, header.sequence)
            received.setdefault(watched, []).extend(events)
    assert {topic: events for topic, events in received.items() if events} == {
        topic: events for topic, events in expected.items() if events
    }


def within(candidate: bytes, key: bytes, range_end: bytes) -> bool:
    if not range_end:
        return candidate == key
    return key <= candidate and (range_end == b"\x00" or candidate < range_end)
