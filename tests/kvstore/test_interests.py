"""Who is interested in a key, and what it costs to find out, whatever others subscribe to."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.interests import Interests
from kvstore.protocol import Event, prefix_range
from kvstore.watch_frames import stream_topic
from kvstore.watch_plane import MAX_PATH_EVENTS, WatchPlane
from kvstore.watch_streams import Stream
from tests.kvstore.test_watch_plane import Plane, within


class CountedKey(bytes):
    """Counts how many parts of it were looked at."""

    looks = 0

    def __getitem__(self, at: Any) -> Any:
        self.looks += 1
        return super().__getitem__(at)


@pytest.mark.parametrize("is_stream", [False, True])
def test_prefixes_longer_than_a_key_cost_its_changes_nothing(is_stream: bool) -> None:
    """One subscriber with a prefix of each length would make each put look at thousands of them."""
    plane = WatchPlane(1)
    prefixes = [b"x" * size for size in range(1, 4097, 16)]
    topics = [stream_topic(prefix, b"x" * (len(prefix) - 1) + b"y") for prefix in prefixes]
    plane.subscribed([b"\x01" + topic for topic in (topics if is_stream else prefixes)])
    key = CountedKey(b"/app/key")
    plane.feed([(key, b"v", 2, 2, 1, 0)], lambda *_: None)
    assert key.looks <= len(key) + 1
    assert plane.announcements() == []
    plane.subscribed([b"\x00" + topic for topic in (topics if is_stream else prefixes)])
    assert plane.status()["watch_streams"] == plane.status()["watch_prefixes"] == 0


@pytest.mark.parametrize("is_full", [False, True])
def test_a_delete_of_many_keys_is_not_looked_at_key_by_key_for_each_stream(is_full: bool) -> None:
    """A hundred thousand keys and some hundred streams would hold up the node for many seconds."""
    plane = WatchPlane(1)
    tops = [b"a", b"ab", b"abc"] + [b"k%d" % number for number in range(10)]
    ranges = [(key, b"") for key in tops] + [prefix_range(key) for key in tops] + [(b"a", b"\x00")]
    ranges += [(b"a", b"l%d" % number) for number in range(60)]
    plane.subscribed([b"\x01" + stream_topic(*span, is_full=is_full) for span in ranges])
    keys = [b"abc%05d" % number for number in range(20_000)]
    asked: list[bytes] = []

    def record_before(key: bytes, _: int) -> None:
        asked.append(key)

    before = time.process_time()
    plane.feed([(2, [(key, b"", 0, 2, 0, 0) for key in keys])], record_before)
    assert time.process_time() - before < 0.5, "it takes some seconds to look at each"
    assert asked == []
    heard = {parts[0] for parts in plane.announcements()}
    concerned = [span for span in ranges if any(within(key, *span) for key in (keys[0], keys[-1]))]
    assert heard == {stream_topic(*span, is_full=is_full) for span in concerned}
    assert plane.status()["large_frames"] == len(concerned) == 64


def test_path_topics_tell_no_more_of_one_revision_than_fits_into_a_queue() -> None:
    plane = Plane()
    plane.subscribe(b"k")
    keys = [b"a%05d" % number for number in range(9000)] + [b"k%05d" % number for number in range(9000)]
    plane.plane.feed([(2, [(key, b"", 0, 2, 0, 0) for key in keys])], lambda *_: None)
    assert len(plane.plane.announcements()) == MAX_PATH_EVENTS


SPANS = st.tuples(st.binary(min_size=1, max_size=2), st.binary(max_size=2))


@settings(max_examples=200, deadline=None)
@given(
    st.sets(st.binary(min_size=1, max_size=2), min_size=2, max_size=40),
    st.sets(
        st.one_of(SPANS, st.binary(min_size=1, max_size=1).map(lambda root: (root, root + b"0"))), max_size=30
    ),
)
def test_what_a_revision_means_to_streams_is_the_same_by_keys_and_by_streams(
    keys: set[bytes], ranges: set[tuple[bytes, bytes]]
) -> None:
    events: list[Event] = [(1, key, b"", 0, 2, 0, 0) for key in sorted(keys)]
    interests = Interests()
    for span in ranges:
        interests.add(Stream(stream_topic(*span), *span, 1))
    told = {stream.topic: list(lot) for lot, streams in interests.spread(events) for stream in streams}
    expected = {
        stream_topic(*span): [event for event in events if within(event[1], *span)] for span in ranges
    }
    assert told == {topic: found for topic, found in expected.items() if found}


def test_trees_are_found_by_their_roots_however_many_are_watched() -> None:
    """They counted as ranges that have to be asked one by one: of 300 services that each watch a tree of
    their own, 44 were refused, and after the loss of another node they waited for ever."""
    plane = Plane()
    roots = [b"/svc/%d" % number for number in range(300)]
    plane.subscribe(*[stream_topic(root, root + b"0") for root in roots])
    assert plane.plane.status()["watch_streams"] == 300
    assert plane.plane.status()["refused_subscriptions"] == 0
    heard = {frame[0] for frame in plane.put(b"/svc/7/address")}
    assert heard == {stream_topic(b"/svc/7", b"/svc/70")}
    key = CountedKey(b"/svc/29x")
    plane.plane.feed([(key, b"v", 3, 3, 1, 0)], lambda *_: None)
    assert plane.plane.announcements() == [] and key.looks <= len(key) + 1
    plane.plane.subscribed([b"\x00" + stream_topic(root, root + b"0") for root in roots])
    assert plane.plane.status()["watch_streams"] == 0
