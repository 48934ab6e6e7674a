"""What happened: exact from the compacted revision on, Compacted before it, empty in the future."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.history import EVENT_OVERHEAD_BYTES, MAX_SCANNED_VERSIONS, HistoryPage
from kvstore.protocol import Event, prefix_range
from kvstore.store import Store
from kvstore.versions import Change, change_events, change_revision

PLENTY = 1 << 30
ALL = (b"\x00", b"\x00")


def filled(*keys: bytes) -> Store:
    store = Store()
    put(store, *keys)
    return store


def put(store: Store, *keys: bytes) -> None:
    for key in keys:
        store.put(key, b"v", 0)


def page(
    store: Store,
    start: int,
    key: bytes = ALL[0],
    end: bytes = ALL[1],
    *,
    limit_bytes: int = PLENTY,
    scanned: int = MAX_SCANNED_VERSIONS,
) -> HistoryPage:
    found = store.history.read(key, end, start, limit_bytes, scanned)
    assert found is not None
    return found


def revisions(found: HistoryPage) -> list[int]:
    return [revision for revision, _ in found.revisions]


def test_an_empty_history_has_nothing_from_the_first_revision_on() -> None:
    store = Store()
    assert page(store, 1) == page(store, 2) == page(store, 99) == (False, [])
    assert (store.history.oldest_start, store.history.newest_revision) == (0, 1)


def test_the_start_is_inclusive() -> None:
    store = filled(b"a", b"b", b"c")
    assert revisions(page(store, 1)) == [2, 3, 4]
    assert revisions(page(store, 2)) == [2, 3, 4]
    assert revisions(page(store, 3)) == [3, 4]
    assert revisions(page(store, 4)) == [4]


def test_h6_a_start_in_the_future_gives_no_old_events() -> None:
    store = filled(b"a", b"b")
    assert page(store, 4) == page(store, 1000) == page(store, 2**63 - 1) == (False, [])


@pytest.mark.parametrize(
    ("key", "range_end", "expected"),
    [
        (b"b", b"", [3, 6]),
        (*prefix_range(b"a"), [2, 4, 6]),
        (b"ab", b"\x00", [3, 4, 5, 6]),
        (b"ab", b"c", [3, 4, 6]),
        (*ALL, [2, 3, 4, 5, 6]),
        (b"x", b"", []),
    ],
)
def test_only_events_of_the_range_are_read(key: bytes, range_end: bytes, expected: list[int]) -> None:
    store = filled(b"a", b"b", b"ab", b"c")
    store.delete(b"a", b"c")
    assert revisions(page(store, 1, key, range_end)) == expected


def test_h7_a_revision_is_never_split() -> None:
    store = filled(*[b"k%02d" % number for number in range(50)])
    store.delete(b"k", b"l")
    found = page(store, 52, b"k", b"l", limit_bytes=1)
    assert [(revision, len(events)) for revision, events in found.revisions] == [(52, 50)]
    assert not found.more


def test_a_page_is_cut_by_bytes_after_whole_revisions() -> None:
    store = filled(b"a", b"b", b"c")
    size = 2 + EVENT_OVERHEAD_BYTES
    expected = {0: [2], 1: [2], size: [2], size + 1: [2, 3], 2 * size: [2, 3], 3 * size: [2, 3, 4]}
    for limit_bytes, found in expected.items():
        one = page(store, 2, limit_bytes=limit_bytes)
        assert (revisions(one), one.more) == (found, found != [2, 3, 4])


def test_h5_below_the_compacted_revision_is_compacted_and_exactly_there_is_not() -> None:
    """At once, and no less when the memory is given back."""
    store = filled(*[b"k"] * 100)
    store.take_changes()
    store.compact(61)
    for _ in range(100):
        assert store.history.read(b"k", b"", 60, PLENTY) is None
        assert store.history.read(b"k", b"", 1, PLENTY) is None
        assert revisions(page(store, 61)) == list(range(61, 102))
        assert revisions(page(store, 70)) == list(range(70, 102))
        store.sweep(3)
    assert len(store.history) == 41


def test_h5_a_delete_is_kept_as_long_as_any_event() -> None:
    store = filled(b"a")
    store.delete(b"a", b"")
    put(store, b"b")
    store.take_changes()
    for compacted in (2, 3):
        store.compact(compacted)
        store.sweep(100)
        found = page(store, 3, b"a", b"").revisions
        assert [event[0] for _, events in found for event in events] == [1]
    store.compact(4)
    assert store.history.read(b"a", b"", 3, PLENTY) is None


def test_one_read_looks_at_a_bounded_number_of_revisions_and_says_how_far_it_came() -> None:
    """A range in which nothing happens must neither stall the node nor leave its watcher without a place."""
    store = filled(b"a", *[b"other"] * 14, b"a", *[b"other"] * 9, b"a")
    first = page(store, 1, b"a", b"", scanned=10)
    assert (first.more, revisions(first)) == (True, [2, 11])
    assert first.revisions[-1] == (11, [])
    second = page(store, 12, b"a", b"", scanned=10)
    assert (second.more, revisions(second)) == (True, [17, 21])
    third = page(store, 22, b"a", b"", scanned=10)
    assert (third.more, revisions(third)) == (False, [27])
    exactly_to_the_end = page(store, 18, b"c", b"", scanned=10)
    assert exactly_to_the_end == (False, [])


def test_what_was_given_up_is_cut_off_now_and_then() -> None:
    """Or a place would be kept for every revision that there ever was."""
    store = Store()
    for number in range(20):
        put(store, *[b"%d" % number] * 1000)
        store.take_changes()
        store.compact(store.revision - 100)
        while store.is_sweeping:
            store.sweep(100)
        assert revisions(page(store, store.revision - 100)) == list(
            range(store.revision - 100, store.revision + 1)
        )
    assert len(store.history.changes) < 6000 and len(store.history) == 101


PUTS = st.sampled_from([b"a", b"b", b"ab"]).map(lambda key: (key, b""))
DELETES = st.tuples(st.sampled_from([b"a", b"b"]), st.sampled_from([b"\x00", b"b"]))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.one_of(PUTS, PUTS, DELETES), max_size=6), max_size=12),
    st.integers(0, 100),
    st.integers(1, 8),
    st.integers(0, 1500),
)
def test_reading_page_by_page_gives_what_happened(
    batches: list[list[tuple[bytes, bytes]]], compacted_percent: int, scanned: int, limit_bytes: int
) -> None:
    store = Store()
    everything: list[Change] = []
    for batch in batches:
        for key, range_end in batch:
            if range_end:
                store.delete(key, range_end)
            else:
                store.put(key, b"v", 0)
        everything.extend(store.take_changes())
    assert store.history.newest_revision == store.revision
    compacted = store.revision * compacted_percent // 100
    if compacted:
        store.compact(compacted)
        store.sweep(scanned)
    start, seen = compacted, list[Event]()
    more = True
    while more:
        found = page(store, start, b"a", b"b", limit_bytes=limit_bytes, scanned=scanned)
        more = found.more
        for revision, events in found.revisions:
            assert revision >= start
            start = revision + 1
            seen.extend(events)
    assert seen == [
        event
        for change in everything
        if change_revision(change) >= compacted
        for event in change_events(change)
        if b"a" <= event[1] < b"b"
    ]
