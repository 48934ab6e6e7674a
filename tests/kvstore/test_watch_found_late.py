"""Bugs of watches that others found late, each of which must not be here; and the two edges beside them.

Each goes all the way: a client's watch, a node's watch plane and history, and a state machine between them.
"""

from __future__ import annotations

import pytest

from kvstore import errors, protocol, watch_frames
from kvstore.client.watch import MAX_BATCHES, Phase
from kvstore.protocol import prefix_range
from tests.kvstore.watch_desk import Frame, WatchDesk


def has_events(frame: Frame) -> bool:
    return len(frame) == 3 and frame[2] != watch_frames.encode_events([])


@pytest.mark.parametrize("loss", ["none", "first", "all"])
@pytest.mark.parametrize("is_asked", [False, True])
def test_a_progress_notification_does_not_overtake_its_events(loss: str, is_asked: bool) -> None:
    """Whoever resumes behind the notification would never get what it overtook."""
    desk = WatchDesk()
    watch = desk.established("/", progress=not is_asked)
    desk.taken(watch)
    left = iter(range(1 if loss == "first" else 1000))
    desk.lost = lambda frame: loss != "none" and has_events(frame) and next(left, None) is not None
    expected: list[int] = []  # revisions of the range that are still to come
    promised, latest = 1, 1
    for number in range(60):
        latest = desk.store("elsewhere" if number % 3 == 2 else f"/{number}")
        if number % 3 != 2:
            expected.append(latest)
        if is_asked and number % 7 == 0:
            desk.watches.request_progress(watch, desk.now)
        desk.turn()
        desk.now += 0.05
        for batch in desk.taken(watch):
            if batch.events:
                assert batch.revision == expected.pop(0)
                assert batch.revision > promised, f"{batch.revision} was promised to be over"
            else:
                assert not expected or batch.revision < expected[0], f"{expected[0]} has not come"
                promised = batch.revision
    desk.lost = lambda _: False
    desk.run(1.0)
    assert [batch.revision for batch in desk.taken(watch) if batch.events] == expected
    assert watch.revision == latest and promised > 1


@pytest.mark.parametrize("distance", [0, 1, 2])
def test_no_event_is_dropped_where_a_compaction_meets_a_delete(distance: int) -> None:
    """A delete at the compacted revision, or right behind it, is an event still, whatever is swept meanwhile;
    a watch that would have to begin before it is told so."""
    desk = WatchDesk()
    desk.store("/a")
    deleted = desk.remove_prefix("/a")
    for _ in range(distance):
        desk.store("elsewhere")
    desk._commit(protocol.compact_body(0, 0, 0, deleted))
    for machine in desk.machines.values():
        machine.tidy()
    watch = desk.established("/", deleted)
    [batch] = desk.taken(watch)
    assert (batch.revision, [event.is_delete for event in batch.events]) == (deleted, [True])
    behind = desk.watch("/", deleted - 1)
    desk.run(1.5)
    assert isinstance(behind.error, errors.Compacted) and behind.error.compact_revision == deleted


def test_a_delete_that_is_streamed_together_with_its_compaction_arrives() -> None:
    """Put, delete and compaction in one batch: the stream is fed before anything is swept."""
    desk = WatchDesk()
    watch = desk.established("/", previous=True)
    desk.log += [
        protocol.put_body(0, 0, 0, b"/a", b"v"),
        protocol.delete_body(0, 0, 0, *prefix_range(b"/")),
        protocol.compact_body(0, 0, 0, 3),
    ]
    for name in desk.names:
        desk.catch_up(name)
    events = [event for batch in desk.taken(watch) for event in batch.events]
    assert [event.is_delete for event in events] == [False, True]
    assert events[1].previous is not None and events[1].previous.value == b"v"


def test_a_fast_create_does_not_drop_the_first_events() -> None:
    """What happens between the subscription, its greeting, the history and its answer: none of it is lost,
    and none comes twice. A watch is made, and written to in each of these moments."""
    for delay in range(12):
        desk = WatchDesk()
        desk.store("/before")
        desk.run(0.2)
        desk.holds_answers = True
        watch = desk.watch("/", 3)
        first = 0
        for turn in range(24):
            revision = desk.store(f"/{turn}")
            first = first or revision
            desk.turn()
            desk.now += 0.01
            if turn == delay:
                desk.holds_answers = False
        desk.run(0.3)
        assert desk.revisions(watch) == list(range(first, first + 24)), f"answered after {delay} turns"


def test_a_watch_that_is_registered_misses_no_put_after_it() -> None:
    """From now on: whatever is put once the watch is established, and on whichever node it then goes on."""
    for lag in (False, True):
        desk = WatchDesk()
        for number in range(5):
            desk.store(f"/{number}")
        watch = desk.watch("/")
        while not watch.is_established:
            desk.turn()
            desk.now += 0.01
        if lag:
            desk.lagging = set("abc") - {desk.place_of(watch)}
        put = desk.store("/first")
        desk.lose_subscriber(desk.subscribers(desk.place_of(watch))[0])
        desk.run(0.2)
        desk.lagging.clear()
        for name in desk.names:
            desk.catch_up(name)
        desk.run(1.0)
        assert desk.revisions(watch) == [put]


@pytest.mark.parametrize("ahead", [1, 2, 100])
def test_a_watch_from_a_future_revision_receives_no_old_events(ahead: int) -> None:
    """Neither from the history, nor from the stream, nor after a gap or on another node."""
    desk = WatchDesk()
    for number in range(20):
        now = desk.store(f"/{number}")
    start = now + ahead
    watch = desk.established("/", start)
    for number in range(ahead + 10):
        if number % 5 == 3:
            desk.lose_subscriber(desk.subscribers(desk.place_of(watch))[0])
            desk.run(0.3)
        desk.lost = lambda frame, number=number: number % 4 == 1 and has_events(frame)  # type: ignore[misc]
        desk.store(f"/{number}")
        desk.turn()
    desk.lost = lambda _: False
    desk.run(1.0)
    assert desk.revisions(watch) == list(range(start, now + ahead + 11))


def test_a_watcher_that_was_cut_off_goes_on_from_where_it_was_on_any_node() -> None:
    """Its node gave up on it while it did not read: it is nobody's loss but the node's."""
    desk = WatchDesk()
    watch = desk.established()
    seen = []
    for number in range(MAX_BATCHES + 200):
        desk.store(f"/{number}")
    assert watch.phase is Phase.FULL
    first = desk.place_of(watch)
    desk.lose_subscriber(desk.subscribers(first)[0])
    desk.mute = {first}
    latest = desk.store("/last")
    for _ in range(20):
        seen += desk.revisions(watch)
        desk.run(0.2)
    assert seen == list(range(2, latest + 1))
    assert desk.place_of(watch) != first
