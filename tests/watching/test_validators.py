"""Each promise of a watch: a record that keeps it has no complaint, and one that breaks it has that one."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import pytest

from kvstore.protocol import EVENT_PUT
from tests.watching.validators import (
    VALIDATORS,
    Recorded,
    SeenBatch,
    SeenEvent,
    Truth,
    complaints_about,
    complete,
)

Contents = dict[bytes, tuple[bytes, bytes, int, int, int, int]]


def some_truth(seed: int, revisions: int = 40) -> Truth:
    """Puts, overwrites, deletes of one key and of all."""
    chance, contents = Random(seed), list[Contents]([{}])
    for revision in range(2, revisions + 1):
        now = dict(contents[-1])
        key = b"/%d" % chance.randrange(4)
        if key in now and chance.random() < 0.3:
            del now[key]
        elif chance.random() < 0.15 and now:
            now.clear()
        else:
            for name in {key, b"/x"} if chance.random() < 0.3 else {key}:
                before = now.get(name, (name, b"", revision, 0, 0, 0))
                now[name] = (name, b"%d" % revision, before[2], revision, before[4] + 1, 0)
        contents.append(now)
    return Truth.of_contents(contents)


def perfect(watch: Recorded, truth: Truth) -> Recorded:
    """All that the watch is to hear, with a promise now and then."""
    assert watch.first_revision is not None
    for revision in range(max(2, watch.first_revision), truth.revision + 1):
        events = []
        for event in sorted(truth.events_at(watch, revision)):
            before = truth.before(event.key, revision)
            is_create = event.type == EVENT_PUT and before is None
            previous = before if watch.wants_previous else None
            events.append(event._replace(previous=previous, is_create=is_create))
        if events:
            watch.batches.append(SeenBatch(revision, tuple(events)))
        if revision % 5 == 0:
            watch.batches.append(SeenBatch(revision, ()))
    return watch


def recorded(truth: Truth, **changes: object) -> Recorded:
    asked: dict[str, Any] = {"key": b"/", "range_end": b"0", "start_revision": 1, **changes}
    return perfect(Recorded(**asked), truth)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"start_revision": 17},
        {"start_revision": 1000},
        {"start_revision": 0, "registered": 12},
        {"wants_previous": True},
        {"no_puts": True},
        {"no_deletes": True},
        {"key": b"/1", "range_end": b""},
        {"key": b"/2", "range_end": b"\x00"},
    ],
    ids=str,
)
def test_who_keeps_all_promises_is_not_blamed(seed: int, changes: dict[str, object]) -> None:
    truth = some_truth(seed)
    assert complaints_about(recorded(truth, **changes), truth, is_over=True) == []


# ---------------------------------------------------------------- each breach, and what it is called


def with_events(watch: Recorded) -> list[int]:
    """Places of batches with events."""
    return [place for place, batch in enumerate(watch.batches) if batch.events]


def altered(watch: Recorded, place: int, **changes: object) -> None:
    """The last event of a batch becomes another one."""
    batch = watch.batches[place]
    event = batch.events[-1]._replace(**changes)  # type: ignore[arg-type]
    watch.batches[place] = SeenBatch(batch.revision, (*batch.events[:-1], event))


def goes_back(watch: Recorded) -> None:
    first, second = with_events(watch)[3:5]
    watch.batches[first], watch.batches[second] = watch.batches[second], watch.batches[first]


def comes_twice(watch: Recorded) -> None:
    place = with_events(watch)[4]
    watch.batches.insert(place, watch.batches[place])


def has_a_gap(watch: Recorded) -> None:
    del watch.batches[with_events(watch)[5]]


def is_torn(watch: Recorded) -> None:
    place = next(place for place, batch in enumerate(watch.batches) if len(batch.events) > 1)
    revision, (first, *rest), _ = watch.batches[place]
    watch.batches[place : place + 1] = [SeenBatch(revision, (first,)), SeenBatch(revision, tuple(rest))]


def lacks_a_part(watch: Recorded) -> None:
    place = next(place for place, batch in enumerate(watch.batches) if len(batch.events) > 1)
    watch.batches[place] = watch.batches[place]._replace(events=watch.batches[place].events[1:])


def mixes_revisions(watch: Recorded) -> None:
    """As one that joins what it should not."""
    first, second = with_events(watch)[2:4]
    later = watch.batches.pop(second)
    watch.batches[first] = SeenBatch(later.revision, watch.batches[first].events + later.events)


def begins_too_late(watch: Recorded) -> None:
    """The first events were dropped, as by a create that was too fast."""
    del watch.batches[: with_events(watch)[2]]


def begins_too_early(watch: Recorded) -> None:
    """It was to begin in the future, and got the past."""
    watch.start_revision = watch.batches[with_events(watch)[3]].revision


def promises_too_early(watch: Recorded) -> None:
    """The promise overtook its events."""
    place = with_events(watch)[3]
    watch.batches.insert(place, SeenBatch(watch.batches[place].revision, ()))


def promises_the_future(watch: Recorded) -> None:
    watch.batches.append(SeenBatch(watch.last_revision + 1, ()))


def takes_a_promise_back(watch: Recorded) -> None:
    watch.batches.append(SeenBatch(3, ()))


def has_what_was_filtered(watch: Recorded) -> None:
    watch.no_deletes = True


def has_other_keys(watch: Recorded) -> None:
    watch.key = b"/1"


def tells_another_value(watch: Recorded) -> None:
    altered(watch, with_events(watch)[0], value=b"?")


def tells_another_version(watch: Recorded) -> None:
    altered(watch, with_events(watch)[0], version=9)


def has_another_previous(watch: Recorded) -> None:
    altered(watch, with_events(watch)[0], previous=(b"/0", b"?", 2, 2, 1, 0))


def has_no_previous(watch: Recorded) -> None:
    place = next(p for p in with_events(watch) if watch.batches[p].events[-1].previous is not None)
    altered(watch, place, previous=None)


def has_previous_unasked(watch: Recorded) -> None:
    watch.wants_previous = False


def takes_all_for_new(watch: Recorded) -> None:
    place = next(p for p in with_events(watch) if not watch.batches[p].events[-1].is_create)
    altered(watch, place, is_create=True)


def takes_nothing_for_new(watch: Recorded) -> None:
    altered(watch, with_events(watch)[0], is_create=False)


def ends_without_need(watch: Recorded) -> None:
    watch.compacted = watch.last_revision


def stops_early(watch: Recorded) -> None:
    del watch.batches[with_events(watch)[-1] :]


def was_never_told(watch: Recorded) -> None:
    watch.start_revision, watch.registered = 0, None


BREACHES: list[tuple[str, Callable[[Recorded], None]]] = [
    ("ordered", goes_back),
    ("unique", comes_twice),
    ("reliable", has_a_gap),
    ("atomic", is_torn),
    ("atomic", lacks_a_part),
    ("atomic", mixes_revisions),
    ("resumable", begins_too_late),
    ("resumable", begins_too_early),
    ("resumable", was_never_told),
    ("bookmarkable", promises_too_early),
    ("bookmarkable", promises_the_future),
    ("bookmarkable", takes_a_promise_back),
    ("filter", has_what_was_filtered),
    ("filter", has_other_keys),
    ("truthful", tells_another_value),
    ("truthful", tells_another_version),
    ("prev_kv", has_another_previous),
    ("prev_kv", has_no_previous),
    ("prev_kv", has_previous_unasked),
    ("is_create", takes_all_for_new),
    ("is_create", takes_nothing_for_new),
    ("ended_rightly", ends_without_need),
    ("complete", stops_early),
]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("promise", "breach"), BREACHES, ids=lambda value: getattr(value, "__name__", value))
def test_a_breach_is_called_by_its_name(promise: str, breach: Callable[[Recorded], None], seed: int) -> None:
    truth = some_truth(seed)
    watch = recorded(truth, wants_previous=True)
    assert complaints_about(watch, truth, is_over=True) == []
    breach(watch)
    found = VALIDATORS[promise](watch, truth) if promise in VALIDATORS else complete(watch, truth)
    assert found, f"{breach.__name__} is not noticed"
    assert any(f" not {promise}: " in text for text in complaints_about(watch, truth, is_over=True))


def test_every_promise_can_be_broken() -> None:
    assert {promise for promise, _ in BREACHES} == VALIDATORS.keys() | {"complete"}


# ---------------------------------------------------------------- what is no breach


def test_what_is_compacted_need_not_be_known() -> None:
    """The record before the oldest event that is kept."""
    truth = some_truth(1)
    watch = recorded(truth, wants_previous=True)
    has_no_previous(watch)
    place = next(p for p in with_events(watch) if watch.batches[p].events[-1].previous is None)
    truth.compacted = max(watch.batches[place].revision, 30)
    assert VALIDATORS["prev_kv"](watch, truth) == []


def test_what_is_compacted_after_it_came_must_have_been_known() -> None:
    truth = some_truth(1)
    watch = recorded(truth, wants_previous=True)
    place = next(p for p in with_events(watch) if watch.batches[p].events[-1].previous is not None)
    has_no_previous(watch)
    truth.compacted = truth.revision
    batch = watch.batches[place]
    watch.batches[place] = batch._replace(compacted=batch.revision)
    assert VALIDATORS["prev_kv"](watch, truth) == []
    watch.batches[place] = batch._replace(compacted=batch.revision - 1)
    assert "comes without" in "".join(VALIDATORS["prev_kv"](watch, truth))


def test_a_watch_may_end_where_its_past_is_compacted() -> None:
    truth = some_truth(2)
    watch = recorded(truth)
    del watch.batches[10:]
    watch.compacted = truth.compacted = watch.last_revision + 5
    assert complaints_about(watch, truth, is_over=True) == []
    watch.compacted += 1
    assert "the oldest" in "".join(VALIDATORS["ended_rightly"](watch, truth))


def test_a_watch_that_is_still_on_its_way_is_only_incomplete() -> None:
    truth = some_truth(3)
    watch = recorded(truth)
    stops_early(watch)
    assert complaints_about(watch, truth) == []
    assert complaints_about(watch, truth, is_over=True) != []


def test_a_batch_of_the_client_library_is_taken_as_it_is() -> None:
    class Told(NamedTuple):
        type: int
        key: bytes
        value: bytes
        create_revision: int
        mod_revision: int
        version: int
        lease: int
        previous: list[Any]
        is_create: bool = True

    watch = Recorded(b"/", b"0", start_revision=3)
    watch.note(3, [Told(EVENT_PUT, b"/a", b"2", 2, 3, 2, 0, [b"/a", b"1", 2, 2, 1, 0])])
    [event] = watch.events()
    assert event == SeenEvent(EVENT_PUT, b"/a", b"2", 2, 3, 2, 0, (b"/a", b"1", 2, 2, 1, 0), True)
