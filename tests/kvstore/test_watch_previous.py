"""Watches with the record before each event, with filters, and with progress when it is asked for."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import protocol, watch_frames
from kvstore.client.results import Event
from kvstore.client.watch import MAX_BATCHES, Phase, Watch
from kvstore.protocol import PREV_KV, MalformedFrame, prefix_range
from kvstore.versions import full_events
from kvstore.watch_frames import stream_topic
from tests.kvstore.machine_log import Log
from tests.kvstore.watch_desk import Frame, WatchDesk

APP = prefix_range(b"/app/")
FULL = stream_topic(*APP, is_full=True)


def has_events(frame: Frame) -> bool:
    return len(frame) == 3 and frame[2] != watch_frames.encode_events([])


def before(event: Event) -> bytes | None:
    return None if event.previous is None else event.previous.value


# ---------------------------------------------------------------- at the node


def test_a_full_stream_has_the_record_before_each_event_and_a_plain_one_has_not() -> None:
    log = Log()
    log.put(b"/app/a", b"1")
    log.machine.watch_plane.subscribed([b"\x01" + stream_topic(*APP), b"\x01" + FULL])
    log.put(b"/app/a", b"2")
    log.put(b"/app/b", b"3")
    log.delete(*APP)
    frames = log.machine.watch_plane.announcements()
    plain = [watch_frames.decode_stream_message(*frame[1:]) for frame in frames if frame[0] != FULL]
    full = [watch_frames.decode_full_message(*frame[1:]) for frame in frames if frame[0] == FULL]
    assert [header.sequence for header, _ in plain] == [header.sequence for header, _ in full] == [1, 2, 3]
    assert [[event[:7] for event in events] for _, events in full] == [events for _, events in plain]
    first, second = (b"/app/a", b"1", 2, 2, 1, 0), (b"/app/a", b"2", 2, 3, 2, 0)
    assert [[event[7] for event in events] for _, events in full] == [
        [first],
        [None],
        [second, (b"/app/b", b"3", 4, 4, 1, 0)],
    ]


def test_several_changes_of_a_key_in_one_batch_have_each_what_was_before_it() -> None:
    """Looked up in the present state, all of them would have the last one."""
    log = Log()
    log.machine.watch_plane.subscribed([b"\x01" + FULL])
    puts = [protocol.put_body(0, 0, 0, b"/app/a", b"%d" % number) for number in range(3)]
    gone = protocol.delete_body(0, 0, 0, b"/app/a")
    log.apply(*puts, gone, puts[0])
    events = [
        watch_frames.decode_full_message(*frame[1:])[1][0]
        for frame in log.machine.watch_plane.announcements()
    ]
    assert [None if event[7] is None else event[7][1] for event in events] == [None, b"0", b"1", b"2", None]


def test_the_history_has_the_same_and_nothing_where_it_is_compacted() -> None:
    log = Log()
    for number in range(5):
        log.put(b"/app/a", b"%d" % number)  # revisions 2 to 6
    asked = protocol.watch_history_body(*APP, start_revision=4, flags=PREV_KV)
    assert values_before(log.ask(asked)) == [b"1", b"2", b"3"]
    reader = log.machine._store.frozen()  # while somebody reads what was, nothing is swept
    log.apply(protocol.compact_body(0, 0, 0, 4))
    assert values_before(log.ask(asked)) == [None, b"2", b"3"]
    del reader
    log.machine.tidy()
    assert values_before(log.ask(asked)) == [None, b"2", b"3"], "swept or not: the same"
    plain = log.ask(protocol.watch_history_body(*APP, start_revision=4))
    assert [len(event) for _, events in plain[5] for event in events] == [7, 7, 7]


def values_before(result: list[Any]) -> list[bytes | None]:
    return [None if event[7] is None else event[7][1] for _, events in result[5] for event in events]


def test_a_full_stream_and_the_plain_one_of_its_range_are_two() -> None:
    log = Log()
    plane = log.machine.watch_plane
    plane.subscribed([b"\x01" + FULL])
    assert plane.position(*APP) == (0, 0)
    epoch, _ = plane.position(*APP, is_full=True)
    assert epoch
    log.put(b"/app/a")
    assert [frame[0] for frame in plane.announcements()] == [FULL]
    plane.subscribed([b"\x00" + FULL])
    log.put(b"/app/a")
    assert plane.announcements() == [] and plane.status()["watch_streams"] == 0


def test_the_records_before_one_revision_have_a_bound() -> None:
    """A delete of many large values is one message; what is beyond the bound has no record before."""
    value = b"x" * (1 << 20)
    events: list[protocol.Event] = [(1, b"%02d" % number, b"", 0, 9, 0, 0) for number in range(30)]
    full = full_events(events, lambda key, revision: (key, value, 2, revision - 1, 1, 0))
    assert [event[:7] for event in full] == events
    assert [event[7] is not None for event in full] == [True] * 15 + [False] * 15


def test_pages_of_the_history_count_the_records_before() -> None:
    log = Log()
    for _ in range(20):
        log.put(b"/app/a", b"x" * 1000)
        log.put(b"/app/a", b"")
    result = log.ask(protocol.watch_history_body(*APP, start_revision=2, limit_bytes=5000, flags=PREV_KV))
    assert result[4] and len(result[5]) < 8


@pytest.mark.parametrize(
    "record", [5, [], [b"k", b"v", 1, 1, 1], [b"k", b"v", 1, 1, 1, -1], ["k", b"v", 1, 1, 1, 0]]
)
def test_a_damaged_record_before_is_refused(record: object) -> None:
    event = [0, b"a", b"1", 2, 3, 2, 0]
    header = watch_frames.encode_stream_header(11, 4, 3)
    for events in ([[*event, record]], [event], [[*event, None, None]]):
        with pytest.raises(MalformedFrame):
            watch_frames.decode_full_message(header, msgpack.packb(events))


# ---------------------------------------------------------------- at the client


def test_a_watch_with_previous_has_it_from_history_and_stream_and_after_a_gap() -> None:
    desk = WatchDesk()
    desk.store("/a", "1")
    desk.store("/a", "2")
    watch = desk.established("/", 2, previous=True)
    desk.store("/a", "3")
    left = iter([True])
    desk.lost = lambda frame: has_events(frame) and next(left, False)
    desk.store("/a", "4")
    desk.remove_prefix("/")
    desk.run(0.6)
    events = [event for batch in desk.taken(watch) for event in batch.events]
    assert [(event.value, before(event)) for event in events] == [
        (b"1", None),
        (b"2", b"1"),
        (b"3", b"2"),
        (b"4", b"3"),
        (b"", b"4"),
    ]
    assert desk.core.counters["watch_gaps"] == 1
    assert [event.is_create for event in events] == [True, False, False, False, False]


def test_watches_of_one_range_with_and_without_previous() -> None:
    desk = WatchDesk()
    plain, full = desk.established("/"), desk.established("/", previous=True)
    desk.store("/a", "1")
    desk.store("/a", "2")
    assert [event.previous for batch in desk.taken(plain) for event in batch.events] == [None, None]
    assert [before(event) for batch in desk.taken(full) for event in batch.events] == [None, b"1"]


@pytest.mark.parametrize(("puts", "deletes", "expected"), [(True, False, [2, 4]), (False, True, [3, 5])])
def test_a_filter_leaves_events_out_and_no_revision_behind(
    puts: bool, deletes: bool, expected: list[int]
) -> None:
    desk = WatchDesk()
    desk.store("/a")
    desk.remove_prefix("/")
    watch = desk.established("/", 2, puts=puts, deletes=deletes)
    desk.store("/a")
    desk.remove_prefix("/")
    desk.run(0.6)
    assert desk.revisions(watch) == expected
    assert watch.revision == 5, "what was left out need not be asked for again"
    desk.lose_subscriber(desk.subscribers("a")[0])
    desk.run(0.3)
    assert desk.revisions(watch) == []
    assert desk.core.counters["watch_gaps"] == 0


def test_a_filter_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to tell"):
        Watch(b"a", b"", 0, progress=False, puts=False, deletes=False)


# ---------------------------------------------------------------- progress when it is asked for


def test_progress_is_told_when_it_is_asked_for_and_at_once() -> None:
    desk = WatchDesk()
    watch = desk.established()
    for _ in range(3):
        desk.store("elsewhere")
    desk.watches.request_progress(watch, desk.now)
    desk.turn()
    desk.turn()
    assert [(batch.revision, batch.events) for batch in desk.taken(watch)] == [(4, [])]
    desk.run(1.2)
    assert desk.taken(watch) == [], "once"
    desk.watches.request_progress(watch, desk.now)
    desk.turn()
    desk.turn()
    assert desk.revisions(watch) == [4], "though nothing has happened since"


def test_progress_that_is_asked_for_comes_behind_what_it_promises() -> None:
    desk = WatchDesk()
    watch = desk.established()
    desk.lost = has_events
    lost = desk.store("/lost")
    desk.watches.request_progress(watch, desk.now)
    desk.run(0.1)
    assert [(batch.revision, len(batch.events)) for batch in desk.taken(watch)] == [(lost, 1), (lost, 0)]


def test_progress_of_a_watch_from_the_future_promises_nothing_that_is_to_come() -> None:
    desk = WatchDesk()
    desk.store("/a")
    watch = desk.established("/", 100)
    desk.watches.request_progress(watch, desk.now)
    desk.run(0.1)
    assert desk.revisions(watch) == [2]


def test_progress_of_a_full_watch_comes_when_its_events_have_been_taken() -> None:
    desk = WatchDesk()
    watch = desk.established()
    for number in range(MAX_BATCHES + 10):
        desk.store(f"/{number}")
    assert watch.phase == Phase.FULL
    desk.watches.request_progress(watch, desk.now)
    seen = []
    for _ in range(3):
        seen += desk.taken(watch)
        desk.run(0.1)
    assert [batch.revision for batch in seen if batch.events] == list(range(2, 2 + MAX_BATCHES + 10))
    assert [(batch.revision, batch.events) for batch in seen[-1:]] == [(MAX_BATCHES + 11, [])]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "delete", "lose", "move", "ask"]), st.sampled_from("abc")
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(STEPS, st.sampled_from([(True, True), (True, False), (False, True)]))
def test_whatever_is_lost_each_event_has_what_was_before_it(
    steps: list[tuple[str, str]], kinds: tuple[bool, bool]
) -> None:
    desk = WatchDesk()
    desk.store("/x")
    watch = desk.watch("/", 2, previous=True, puts=kinds[0], deletes=kinds[1])
    desk.run(0.3)
    current: dict[str, bytes] = {"x": b"v"}
    expected: list[tuple[int, bytes, bytes | None]] = [(0, b"/x", None)] if kinds[0] else []
    for number, (step, name) in enumerate(steps):
        if step == "put":
            desk.store(f"/{name}", f"{number}")
            if kinds[0]:
                expected.append((0, b"/" + name.encode(), current.get(name)))
            current[name] = b"%d" % number
        elif step == "delete":
            desk.remove_prefix(f"/{name}")
            gone = current.pop(name, None)
            if gone is not None and kinds[1]:
                expected.append((1, b"/" + name.encode(), gone))
        elif step == "lose":
            left = iter([True])
            desk.lost = lambda frame, left=left: has_events(frame) and next(left, False)  # type: ignore[misc]
        elif step == "move" and watch.subscriber is not None:
            desk.lose_subscriber(watch.subscriber.connection)
        else:
            desk.watches.request_progress(watch, desk.now)
        desk.turn()
    desk.lost = lambda _: False
    desk.run(1.2)
    batches = desk.taken(watch)
    assert [(event.type, event.key, before(event)) for batch in batches for event in batch.events] == expected
    assert [batch.revision for batch in batches] == sorted(batch.revision for batch in batches)
