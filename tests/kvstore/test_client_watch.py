"""Watches: every revision once and in order, whatever the publishing side loses."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from kvstore import errors, protocol, watch_frames
from kvstore.client.watch import MAX_BATCHES, Phase, Watch
from kvstore.protocol import STALE_READ
from tests.kvstore.watch_desk import Frame, WatchDesk


def has_events(frame: Frame) -> bool:
    return len(frame) == 3 and frame[2] != watch_frames.encode_events([])


def phase_of(watch: Watch) -> Phase:
    return watch.phase


def lose_next(desk: WatchDesk, count: int) -> None:
    left: Iterator[int] = iter(range(count))
    desk.lost = lambda frame: has_events(frame) and next(left, None) is not None


def place(desk: WatchDesk, watch: Watch) -> str:
    return desk.place_of(watch)


# ---------------------------------------------------------------- beginning


def test_the_history_is_asked_for_after_the_first_sign_of_the_stream() -> None:
    """Clone pattern: what is published between history and subscription would be lost otherwise."""
    desk = WatchDesk()
    desk.mute = set("abc")
    watch = desk.watch("/", 1)
    desk.holds_answers = True
    desk.run(0.5)
    assert watch.phase == Phase.SUBSCRIBING
    assert desk.take(STALE_READ) == []
    desk.mute.clear()
    desk.run(0.6)
    assert phase_of(watch) == Phase.HISTORY
    assert len(desk.take(STALE_READ)) == 1


def test_a_watch_from_now_sees_what_comes_and_nothing_before() -> None:
    desk = WatchDesk()
    desk.store("/before")
    watch = desk.established()
    assert desk.taken(watch) == []
    revision = desk.store("/after")
    assert desk.revisions(watch) == [revision]
    assert watch.revision == revision


def test_a_watch_from_the_past_has_history_and_stream_without_a_seam() -> None:
    desk = WatchDesk()
    for number in range(50):
        desk.store(f"/{number}")
        desk.store(f"other{number}")
    watch = desk.watch("/", 10)
    for number in range(50, 200):
        desk.store(f"/{number}")
        desk.turn()
        desk.now += 0.001
    assert desk.revisions(watch) == [*range(10, 102, 2), *range(102, 252)]


def test_events_that_arrive_while_the_history_is_on_its_way_come_once() -> None:
    desk = WatchDesk()
    desk.store("/1")
    desk.holds_answers = True
    watch = desk.watch("/", 2)
    desk.run(0.3)
    asked = desk.take_one()
    desk.store("/2")
    desk.answer(asked)  # the history has /2, and so has the stream before and what is kept of it
    desk.store("/3")
    desk.turn()
    assert desk.revisions(watch) == [2, 3, 4]
    assert desk.core.counters["watch_gaps"] == 0


def test_history_comes_in_pages() -> None:
    desk = WatchDesk()
    for number in range(40):
        desk.store(f"/{number}", b"x" * 200_000)
    watch = desk.watch("/", 1)
    desk.run(0.3)
    assert desk.revisions(watch) == list(range(2, 42))
    assert watch.phase == Phase.STREAMING


def test_a_page_may_end_with_a_revision_that_does_not_concern_the_range() -> None:
    desk = WatchDesk(max_scanned_versions=7)
    for number in range(100):
        desk.store(f"/{number}" if number % 20 == 0 else f"other{number}")
    watch = desk.watch("/", 1)
    desk.run(0.3)
    assert desk.revisions(watch) == [2, 22, 42, 62, 82]


def test_a_watch_from_the_future_gets_nothing_old() -> None:
    desk = WatchDesk()
    watch = desk.established("/", 10)
    for number in range(20):
        desk.store(f"/{number}")
    desk.run(0.1)
    assert desk.revisions(watch) == list(range(10, 22))


def test_all_events_of_a_revision_come_together() -> None:
    desk = WatchDesk()
    watch = desk.established()
    for number in range(100):
        desk.store(f"/{number:03}")
    lose_next(desk, 1)
    revision = desk.remove_prefix("/")
    desk.run(0.6)
    batches = desk.taken(watch)
    assert [len(batch.events) for batch in batches] == [1] * 100 + [100]
    assert {event.mod_revision for event in batches[-1].events} == {revision}
    assert all(event.is_delete for event in batches[-1].events)
    assert [batch.events[0].is_create for batch in batches] == [True] * 100 + [False]


def test_a_range_that_is_none_is_refused() -> None:
    desk = WatchDesk()
    with pytest.raises(errors.WatchRangeEmpty):
        desk.watches.start(Watch(b"b", b"a", 0, progress=False), desk.now)
    with pytest.raises(errors.EmptyKey):
        desk.watches.start(Watch(b"", b"", 0, progress=False), desk.now)


def test_watches_of_one_range_share_a_subscription() -> None:
    desk = WatchDesk()
    first = desk.established()
    desk.mute = set("abc")  # the second needs no sign of life: the first had one
    second = desk.watch()
    desk.run(0.1)
    assert second.phase == Phase.STREAMING
    desk.mute.clear()
    desk.store("/1")
    desk.watches.cancel(first)
    desk.store("/2")
    assert desk.revisions(second) == [2, 3]
    assert first.phase == Phase.ENDED
    assert [len(topics) for topics in desk.wire.topics.values()] == [1]
    desk.watches.cancel(second)
    assert desk.wire.topics == {}


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("count", [1, 2, 50])
def test_a_gap_leads_to_the_history(count: int) -> None:
    desk = WatchDesk()
    watch = desk.established()
    desk.store("/0")
    lose_next(desk, count)
    for number in range(100):
        desk.store(f"/{number}")
    desk.run(0.1)
    assert desk.revisions(watch) == list(range(2, 103))
    assert desk.core.counters["watch_gaps"] >= 1


def test_a_lost_last_message_is_noticed_by_the_next_heartbeat() -> None:
    desk = WatchDesk()
    watch = desk.established()
    lose_next(desk, 1)
    desk.store("/1")
    desk.run(protocol.WATCH_HEARTBEAT_SECONDS + 0.1)
    assert desk.revisions(watch) == [2]


def test_a_new_epoch_leads_to_the_history() -> None:
    desk = WatchDesk()
    watch = desk.established()
    desk.store("/1")
    desk.mute = set("abc")
    desk.renew_streams(place(desk, watch))
    desk.store("/2")
    desk.mute.clear()
    desk.store("/3")
    desk.run(0.1)
    assert desk.revisions(watch) == [2, 3, 4]
    assert desk.core.counters["watch_new_epochs"] == 1


def test_silence_leads_to_another_node() -> None:
    desk = WatchDesk()
    watch = desk.established()
    assert place(desk, watch) == "a"
    desk.mute = {"a"}
    desk.store("/1")
    desk.run(protocol.WATCH_SILENCE_SECONDS + 1.0)
    assert place(desk, watch) != "a"
    assert desk.revisions(watch) == [2]
    assert desk.core.counters["watch_silences"] == 1


def test_a_lost_connection_leads_to_another_node_at_once() -> None:
    desk = WatchDesk()
    watch = desk.established()
    desk.store("/1")
    number = desk.subscribers("a")[0]
    desk.lose_subscriber(number)
    desk.store("/2")
    desk.run(0.1)
    assert place(desk, watch) == "b"
    desk.store("/3")
    assert desk.revisions(watch) == [2, 3, 4]


def test_a_node_that_lags_does_not_take_the_watch_back_in_time() -> None:
    desk = WatchDesk()
    watch = desk.established()
    desk.lagging = {"b", "c"}
    for number in range(10):
        desk.store(f"/{number}")
    assert desk.revisions(watch) == list(range(2, 12))
    desk.lose_subscriber(desk.subscribers("a")[0])
    desk.run(0.1)
    assert place(desk, watch) == "b"
    desk.lagging.clear()
    desk.store("/late")
    desk.run(0.1)
    assert desk.revisions(watch) == [12]


def test_the_only_node_is_gone_for_a_while() -> None:
    desk = WatchDesk("a")
    watch = desk.established()
    for number in range(3):
        desk.store(f"/{number}")
        desk.restart("a")
        desk.run(0.2)
    assert desk.revisions(watch) == [2, 3, 4]


def test_a_node_that_refuses_the_connection_is_not_asked_without_a_pause() -> None:
    desk = WatchDesk("a")
    watch = desk.watch()
    for _ in range(100):
        desk.turn()
        for number in desk.subscribers("a"):
            desk.lose_subscriber(number)
        desk.now += 0.01
    assert not watch.is_established
    assert len([endpoint for endpoint in desk.wire.opened if endpoint.endswith(":2")]) <= 25


def test_garbage_on_the_stream_is_counted_and_made_good() -> None:
    desk = WatchDesk()
    watch = desk.established()
    number = desk.subscribers("a")[0]
    topic = watch.topic
    header = watch_frames.encode_stream_header(watch.epoch, 1, 2)
    event = [0, b"/x", b"", 1, 1, 1, 0]
    for parts in (
        [topic],
        [topic, header],
        [topic, b"", b""],
        [topic, header, b"\xc1"],
        [topic, header, watch_frames.encode_events([event[:6]])],  # type: ignore[arg-type]
        [topic, header, b"\x90", b"more"],
        [b"unknown", header, b"\x90"],
    ):
        desk.watches.on_message(number, parts, desk.now)
    assert desk.core.counters["malformed_stream_messages"] == 6
    desk.store("/1")
    assert desk.revisions(watch) == [2]


# ---------------------------------------------------------------- the history is gone


def test_a_compacted_start_ends_the_watch() -> None:
    desk = WatchDesk()
    for number in range(50):
        desk.store(f"/{number}")
    desk.compact(42)
    watch = desk.watch("/", 5)
    desk.run(1.5)
    assert watch.phase == Phase.ENDED
    assert isinstance(watch.error, errors.Compacted)
    assert watch.error.compact_revision == 42
    boundary = desk.established("/", 42)
    assert desk.revisions(boundary) == list(range(42, 52))


def test_another_node_may_have_kept_more() -> None:
    """It has not come as far in the log."""
    desk = WatchDesk()
    for number in range(50):
        desk.store(f"/{number}")
    desk.compact(42, "ab")
    watch = desk.watch("/", 5)
    desk.run(2.0)
    assert place(desk, watch) == "c"
    assert desk.revisions(watch) == list(range(5, 52))


def test_a_consumer_that_is_too_slow_for_the_history_is_told() -> None:
    """Complete or cancelled, nothing between."""
    desk = WatchDesk()
    watch = desk.established()
    for number in range(MAX_BATCHES + 500):
        desk.store(f"/{number}")
    desk.compact(MAX_BATCHES + 400)
    desk.run(0.1)
    seen = []
    while (batch := desk.watches.take(watch, desk.now)) is not None:
        seen.append(batch.revision)
    assert seen == list(range(2, 2 + MAX_BATCHES))
    desk.run(1.5)
    assert isinstance(watch.error, errors.Compacted)


# ---------------------------------------------------------------- consumers


def test_a_slow_consumer_costs_bounded_memory_and_gets_everything() -> None:
    desk = WatchDesk()
    watch = desk.established()
    total = 5 * MAX_BATCHES
    seen: list[int] = []
    for number in range(total):
        desk.store(f"/{number}")
        if number % 100 == 0:
            desk.turn()
            assert len(watch.queue) <= 2 * MAX_BATCHES
    assert watch.phase == Phase.FULL
    for _ in range(200):
        for _ in range(100):
            batch = desk.watches.take(watch, desk.now)
            if batch is not None:
                seen.append(batch.revision)
        desk.turn()
        desk.now += 0.01
        assert watch.queued_bytes < 32 << 20
    assert seen == list(range(2, 2 + total))
    assert desk.core.counters["watch_overflows"] >= 1


def test_a_full_watch_whose_node_is_lost_goes_on_elsewhere() -> None:
    desk = WatchDesk()
    watch = desk.established()
    for number in range(MAX_BATCHES + 10):
        desk.store(f"/{number}")
    assert watch.phase == Phase.FULL
    desk.lose_subscriber(desk.subscribers("a")[0])
    desk.run(0.1)
    seen = desk.revisions(watch)
    desk.run(0.3)
    assert seen + desk.revisions(watch) == list(range(2, 2 + MAX_BATCHES + 10))


def test_progress_never_runs_ahead_of_events() -> None:
    desk = WatchDesk()
    watch = desk.established("/", progress=True)
    desk.taken(watch)
    lose_next(desk, 1)
    desk.store("/lost")
    for number in range(5):
        desk.store(f"elsewhere{number}")
    desk.run(1.2)
    batches = desk.taken(watch)
    assert [(batch.revision, len(batch.events)) for batch in batches] == [(2, 1), (7, 0)]
    assert watch.revision == 7


def test_cancelling_in_every_phase_leaves_nothing_behind() -> None:
    for phase in (Phase.PLACELESS, Phase.SUBSCRIBING, Phase.HISTORY, Phase.STREAMING):
        desk = WatchDesk()
        desk.mute = set("abc") if phase is Phase.SUBSCRIBING else set()
        desk.holds_answers = phase is Phase.HISTORY
        watch = desk.watch()
        if phase is not Phase.PLACELESS:
            desk.run(0.3)
        assert watch.phase == phase
        desk.watches.cancel(watch)
        assert phase_of(watch) == Phase.ENDED
        desk.holds_answers = False
        desk.run(0.3)
        assert desk.wire.topics == {}
        assert desk.watches.next_deadline() is None


# ---------------------------------------------------------------- whatever happens


@pytest.mark.parametrize("seed", range(10))
def test_every_revision_comes_once_and_in_order(seed: int) -> None:
    """Random loss of messages and connections, restarts, lag, new epochs, and a moody consumer."""
    chance = random.Random(seed)
    desk = WatchDesk()
    start = chance.choice([0, 1, 5])
    desk.store("/a")
    watch = desk.watch("/", start)
    desk.run(0.3)
    first = 3 if start == 0 else max(start, 2)
    concerned = [2]
    seen: list[int] = []
    desk.lost = lambda _: chance.random() < 0.05
    for _ in range(1500):
        fate = chance.random()
        if fate < 0.5:
            key = chance.choice(["/a", "/b", "other"])
            revision = desk.store(key)
            if key != "other":
                concerned.append(revision)
        elif fate < 0.51 and desk.wire.topics:
            desk.lose_subscriber(chance.choice(list(desk.wire.topics)))
        elif fate < 0.515:
            desk.restart(chance.choice("abc"))
        elif fate < 0.52:
            desk.renew_streams(chance.choice("abc"))
        elif fate < 0.54:
            desk.lagging = set(chance.choice(["", "a", "b", "ab"]))
            for name in "abc":
                desk.catch_up(name)
        elif fate < 0.6:
            seen += desk.revisions(watch)
        else:
            desk.turn()
            desk.now += chance.uniform(0.0, 0.05)
    desk.lost = lambda _: False
    desk.lagging.clear()
    concerned.append(desk.store("/end"))
    desk.run(4.0)
    seen += desk.revisions(watch)
    assert seen == [revision for revision in concerned if revision >= first]


def test_progress_that_waits_to_be_taken_does_not_take_a_watch_back() -> None:
    """Whoever goes on behind `revision` would get the last event a second time."""
    desk = WatchDesk()
    watch = desk.established()
    revision = desk.store("/1")
    assert desk.revisions(watch) == [revision]
    desk.watches.request_progress(watch, desk.now)
    desk.run(0.1)
    assert [batch.events for batch in watch.queue] == [[]]
    assert watch.revision == revision


def test_a_fenced_node_is_not_waited_for() -> None:
    """It publishes nothing any more, and each watch that began there would wait two seconds for a sign."""
    desk = WatchDesk()
    desk.mute = {"a"}
    status = desk.status
    desk.status = lambda name: status(name) | {"fenced": {"index": 7} if name == "a" else None}  # type: ignore[method-assign]
    watch = desk.watch()
    desk.run(0.6)
    assert watch.phase is Phase.STREAMING and place(desk, watch) == "b"
