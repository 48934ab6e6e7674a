"""The recent past: exact within its bounds, Compacted below them, empty in the future."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.history import EVENT_OVERHEAD_BYTES, EventHistory, HistoryPage
from kvstore.protocol import Event, prefix_range
from kvstore.store import Change, Store, change_events, change_revision

PLENTY = 1 << 30
ALL = (b"\x00", b"\x00")


def put(store: Store, history: EventHistory, *keys: bytes) -> None:
    for key in keys:
        store.put(key, b"v", 0)
    history.extend(store.take_changes())


def page(history: EventHistory, start: int, key: bytes = ALL[0], end: bytes = ALL[1]) -> HistoryPage:
    found = history.read(key, end, start, PLENTY)
    assert found is not None
    return found


def revisions(found: HistoryPage) -> list[int]:
    return [revision for revision, _ in found.revisions]


def test_an_empty_history_has_nothing_from_the_first_revision_on() -> None:
    history = EventHistory()
    assert page(history, 1) == page(history, 2) == page(history, 99) == (False, [])
    assert (history.compact_revision, history.newest_revision) == (1, 1)


def test_the_start_is_inclusive() -> None:
    history = EventHistory()
    put(Store(), history, b"a", b"b", b"c")
    assert revisions(page(history, 1)) == [2, 3, 4]
    assert revisions(page(history, 2)) == [2, 3, 4]
    assert revisions(page(history, 3)) == [3, 4]
    assert revisions(page(history, 4)) == [4]


def test_h6_a_start_in_the_future_gives_no_old_events() -> None:
    history = EventHistory()
    put(Store(), history, b"a", b"b")
    assert page(history, 4) == page(history, 1000) == page(history, 2**63 - 1) == (False, [])


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
    store, history = Store(), EventHistory()
    put(store, history, b"a", b"b", b"ab", b"c")
    store.delete(b"a", b"c")
    history.extend(store.take_changes())
    found = page(history, 1, key, range_end)
    assert revisions(found) == expected


def test_h7_a_revision_is_never_split() -> None:
    store, history = Store(), EventHistory()
    put(store, history, *[b"k%02d" % number for number in range(50)])
    store.delete(b"k", b"l")
    history.extend(store.take_changes())
    found = history.read(b"k", b"l", 52, 1)
    assert found is not None
    assert [(revision, len(events)) for revision, events in found.revisions] == [(52, 50)]
    assert not found.more


def test_a_page_is_cut_by_bytes_after_whole_revisions() -> None:
    history = EventHistory()
    put(Store(), history, b"a", b"b", b"c")
    size = 2 + EVENT_OVERHEAD_BYTES
    expected = {0: [2], 1: [2], size: [2], size + 1: [2, 3], 2 * size: [2, 3], 3 * size: [2, 3, 4]}
    for limit_bytes, found in expected.items():
        one = history.read(*ALL, 2, limit_bytes)
        assert one is not None
        assert (revisions(one), one.more) == (found, found != [2, 3, 4])


def test_h5_below_the_oldest_kept_revision_is_compacted_and_exactly_there_is_not() -> None:
    history = EventHistory(max_revisions=40)
    put(Store(), history, *[b"k"] * 100)
    oldest = history.compact_revision
    assert 101 - 40 < oldest <= 101 - 40 + 10
    assert history.read(b"k", b"", oldest - 1, PLENTY) is None
    assert history.read(b"k", b"", 1, PLENTY) is None
    assert revisions(page(history, oldest)) == list(range(oldest, 102))


def test_h5_a_delete_is_kept_as_long_as_any_event() -> None:
    store, history = Store(), EventHistory(max_revisions=16)
    put(store, history, b"a")
    store.delete(b"a", b"")
    history.extend(store.take_changes())
    while history.compact_revision < 3:
        assert [event[0] for _, events in page(history, 3, b"a", b"").revisions for event in events] == [1]
        put(store, history, b"b")
    assert history.read(b"a", b"", 2, PLENTY) is None


def test_the_history_is_bounded_in_bytes() -> None:
    store, history = Store(), EventHistory(max_bytes=100_000)
    for _ in range(500):
        store.put(b"k", bytes(1000), 0)
        history.extend(store.take_changes())
        assert history.size_bytes <= 100_000
    assert history.size_bytes > 50_000
    assert revisions(page(history, history.compact_revision)) == list(range(history.compact_revision, 502))


def test_the_newest_revision_stays_whatever_its_size() -> None:
    store, history = Store(), EventHistory(max_bytes=1000)
    store.put(b"k", bytes(5000), 0)
    history.extend(store.take_changes())
    assert revisions(page(history, 2)) == [2]
    store.put(b"k", b"small", 0)
    history.extend(store.take_changes())
    assert history.read(b"k", b"", 2, PLENTY) is None
    assert revisions(page(history, 3)) == [3]


def test_one_read_looks_at_a_bounded_number_of_revisions_and_says_how_far_it_came() -> None:
    """A range in which nothing happens must neither stall the node nor leave its watcher without a place."""
    history = EventHistory(max_scanned_revisions=10)
    put(Store(), history, b"a", *[b"other"] * 14, b"a", *[b"other"] * 9, b"a")
    first = page(history, 1, b"a", b"")
    assert (first.more, revisions(first)) == (True, [2, 11])
    assert first.revisions[-1] == (11, [])
    second = page(history, 12, b"a", b"")
    assert (second.more, revisions(second)) == (True, [17, 21])
    third = page(history, 22, b"a", b"")
    assert (third.more, revisions(third)) == (False, [27])
    exactly_to_the_end = page(history, 18, b"c", b"")
    assert exactly_to_the_end == (False, [])


def test_a_gap_in_revisions_is_a_programmers_error() -> None:
    history = EventHistory()
    with pytest.raises(AssertionError, match="revision 3 after 1"):
        history.extend([(b"k", b"v", 3, 3, 1, 0)])


PUTS = st.sampled_from([b"a", b"b", b"ab"]).map(lambda key: (key, b""))
DELETES = st.tuples(st.sampled_from([b"a", b"b"]), st.sampled_from([b"\x00", b"b"]))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.one_of(PUTS, PUTS, DELETES), max_size=6), max_size=12),
    st.integers(1, 30),
    st.integers(1, 8),
    st.integers(0, 1500),
)
def test_reading_page_by_page_gives_what_happened(
    batches: list[list[tuple[bytes, bytes]]], max_revisions: int, scanned: int, limit_bytes: int
) -> None:
    store = Store()
    history = EventHistory(max_revisions=max_revisions, max_scanned_revisions=scanned)
    everything: list[Change] = []
    for batch in batches:
        for key, range_end in batch:
            if range_end:
                store.delete(key, range_end)
            else:
                store.put(key, b"v", 0)
        changes = store.take_changes()
        everything.extend(changes)
        history.extend(changes)
    assert history.newest_revision == store.revision
    assert store.revision - max(history.compact_revision, 2) < max_revisions
    start, seen = history.compact_revision, list[Event]()
    more = True
    while more:
        found = history.read(b"a", b"b", start, limit_bytes)
        assert found is not None
        more = found.more
        for revision, events in found.revisions:
            assert revision >= start
            start = revision + 1
            seen.extend(events)
    assert seen == [
        event
        for change in everything
        if change_revision(change) >= history.compact_revision
        for event in change_events(change)
        if b"a" <= event[1] < b"b"
    ]
