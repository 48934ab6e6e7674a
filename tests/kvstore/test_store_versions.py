"""The store at past revisions, and what compaction leaves of it: against facts, and against a dumb store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.history import HistoryPage
from kvstore.protocol import KeyValue, prefix_range
from kvstore.store import Store
from kvstore.store_builder import ImpossibleStore, StoreBuilder
from raft.errors import StateDamaged
from tests.kvstore.dumb_store import DumbStore

ALL = (b"\x00", b"\x00")
PLENTY = 1 << 40


def filled(*keys: bytes) -> Store:
    store = Store()
    for key in keys:
        store.put(key, b"v%d" % store.revision, 0)
    store.take_changes()
    return store


def contents(
    store: Store, revision: int, key: bytes = ALL[0], end: bytes = ALL[1]
) -> list[tuple[bytes, bytes]]:
    return [record[:2] for record in store.range(key, end, revision=revision).records]


def swept(store: Store) -> Store:
    store.take_changes()
    for _ in range(10_000):
        if not store.is_sweeping:
            return store
        store.sweep(1)
    raise AssertionError("the sweep does not end")


def rebuilt(store: Store, batch: int = 3) -> Store:
    builder = StoreBuilder(store.revision, store.compact_revision, store.known_from)
    versions = list(store.frozen())
    for start in range(0, len(versions), batch):
        builder.add(versions[start : start + batch])
    return builder.finish()


def page(store: Store, start: int) -> HistoryPage | None:
    return store.history.read(*ALL, start, PLENTY)


# ---------------------------------------------------------------- facts


def test_a_past_revision_is_read_as_it_was() -> None:
    store = filled(b"a", b"b", b"a")
    store.delete(b"b", b"")
    store.put(b"b", b"again", 0)
    assert [contents(store, revision) for revision in range(1, 7)] == [
        [],
        [(b"a", b"v1")],
        [(b"a", b"v1"), (b"b", b"v2")],
        [(b"a", b"v3"), (b"b", b"v2")],
        [(b"a", b"v3")],
        [(b"a", b"v3"), (b"b", b"again")],
    ]
    assert store.range(b"b", b"", revision=4).records == [(b"b", b"v2", 3, 3, 1, 0)]
    assert store.range(b"b", b"", revision=5).records == []
    assert store.get(b"b") == (b"b", b"again", 6, 6, 1, 0)  # a new life


def test_limit_and_count_at_a_past_revision() -> None:
    store = filled(*[b"k%02d" % number for number in range(20)])
    store.delete(b"k00", b"k15")
    assert store.count(b"k", b"l", revision=21) == 20 and store.count(b"k", b"l") == 5
    total, more, records = store.range(b"k", b"l", revision=21, limit=3)
    assert (total, more, [record[0] for record in records]) == (20, True, [b"k00", b"k01", b"k02"])
    assert store.range(b"k", b"l", revision=21, limit=20).more is False
    assert (
        store.range(b"k", b"l", revision=21, max_bytes=9).records
        == store.range(b"k0", b"k03", revision=21).records[:1]
    )
    assert store.range(*prefix_range(b"k1"), revision=13).total == 2
    assert store.range(b"l", b"k", revision=21) == (0, False, [])


def test_compaction_keeps_of_each_live_key_the_newest_version_up_to_it() -> None:
    store = filled(b"a", b"b", b"a", b"a", b"b")
    before = [contents(store, revision) for revision in range(7)]
    store.compact(4)
    for one in (store, swept(store)):
        assert [contents(one, revision) for revision in (4, 5, 6)] == before[4:]
        assert [version[3] for version in one.frozen()] == [4, 5, 3, 6]


def test_h5_a_key_deleted_before_the_compacted_revision_goes_wholly() -> None:
    store = filled(b"a", b"a", b"b")
    store.delete(b"a", b"")
    store.put(b"b", b"x", 0)
    store.compact(6)
    swept(store)
    assert [version[0] for version in store.frozen()] == [b"b"]
    assert not store._older and not store._versions.gone
    assert store.history_bytes == 8  # the place of the one change


def test_h5_a_delete_at_the_very_revision_of_a_compaction_is_an_event_still() -> None:
    """A watch may begin there; and it is no record for a reader."""
    store = filled(b"a", b"a")
    store.delete(b"a", b"")
    store.compact(4)
    for one in (store, swept(store), rebuilt(store)):
        found = page(one, 4)
        assert found is not None and found.revisions == [(4, [(1, b"a", b"", 0, 4, 0, 0)])]
        assert page(one, 3) is None
        assert contents(one, 4) == []
    store.put(b"b", b"", 0)
    store.compact(5)
    assert len(list(swept(store).frozen())) == 1 and not store._older


def test_a_key_that_was_compacted_costs_nothing_any_more() -> None:
    store = filled(*[b"k%03d" % number for number in range(100)] * 5)
    assert store.history_bytes > 400 * 200
    store.compact(store.revision)
    assert swept(store).history_bytes == 8
    assert not store._older and len(store.history) == 1


def test_one_step_of_a_sweep_is_bounded() -> None:
    """However many versions one key has, and however many keys one revision deleted."""
    store = filled(*[b"hot"] * 1000, *[b"k%03d" % number for number in range(1000)])
    store.delete(*ALL)
    store.put(b"end", b"", 0)
    store.take_changes()
    store.compact(store.revision)
    steps, before = 0, store.history_bytes
    while store.is_sweeping:
        store.sweep(10)
        assert before - store.history_bytes < 12 * 230
        before, steps = store.history_bytes, steps + 1
    assert 200 < steps < 2000 and store.history_bytes == 8


def test_two_compactions_one_sweep() -> None:
    store = filled(*[b"a", b"b", b"c"] * 10)
    store.compact(10)
    store.sweep(3)
    store.compact(25)
    store.sweep(3)
    assert list(swept(store).frozen()) == list(rebuilt(store).frozen())
    assert contents(store, 25) == [(b"a", b"v22"), (b"b", b"v23"), (b"c", b"v24")]


def test_what_is_compacted_stays_for_a_reader_and_goes_with_it() -> None:
    store = filled(*[b"a", b"b"] * 10)
    reader = store.frozen()
    expected = list(store.frozen())
    store.delete(*ALL)
    store.take_changes()
    store.compact(store.revision)
    for _ in range(100):
        store.sweep(10)
    assert store.is_sweeping and list(reader) == expected
    del reader
    assert swept(store).history_bytes < 2000 and store.range(*ALL).total == 0


def test_a_half_read_reader_that_is_dropped_costs_nothing_further() -> None:
    store = filled(*[b"%04d" % number for number in range(1000)] * 2)
    pieces = iter(store.frozen())
    next(pieces)
    store.compact(store.revision)
    store.sweep(1 << 20)
    assert store.is_sweeping
    del pieces
    store.sweep(1 << 20)
    assert not store.is_sweeping


def test_the_fingerprint_is_of_the_state_and_not_of_the_way() -> None:
    one, other = Store(), Store()
    for key in (b"a", b"b"):
        one.put(key, b"1", 0)
    other.put(b"b", b"1", 0)
    other.put(b"a", b"1", 0)
    assert one.fingerprint != other.fingerprint
    assert rebuilt(one).fingerprint == one.fingerprint
    before = one.fingerprint
    one.delete(b"x", b"")
    assert one.fingerprint == before
    one.compact(3)
    assert one.fingerprint != before
    assert swept(one).fingerprint == rebuilt(one).fingerprint == one.fingerprint


DAMAGED = [
    (b"a", b"w", 2, 3, 2, 0),
    (b"a", b"v", 2, 3, 3, 0),
    (b"a", b"v", 2, 3, 2, 1),
    (b"a", b"v", 3, 3, 2, 0),
    (b"b", b"v", 2, 3, 2, 0),
    (b"a", b"v", 2, 2, 2, 0),
]


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_record_that_changed_in_memory_is_noticed_when_it_is_deleted_and_when_it_is_read_as_a_whole(
    damaged: KeyValue,
) -> None:
    store, sound = Store(), Store()
    for one in (store, sound):
        one.put(b"a", b"1", 0)
        one.put(b"a", b"v", 0)
    store._records[b"a"] = damaged
    with pytest.raises(StateDamaged, match="revision 3"):
        list(store.frozen())
    if damaged[0] != b"a":
        return  # no delete finds it
    store.delete(b"a", b"")
    sound.delete(b"a", b"")
    assert store.fingerprint != sound.fingerprint


def test_a_value_that_changed_in_memory_is_noticed_when_it_is_replaced() -> None:
    store, sound = filled(b"a"), filled(b"a")
    store._records[b"a"] = (b"a", b"v2", 2, 2, 1, 0)
    assert store.fingerprint == sound.fingerprint  # nobody has looked at it yet
    store.put(b"a", b"x", 0)
    sound.put(b"a", b"x", 0)
    assert store.range(*ALL) == sound.range(*ALL) and store.fingerprint != sound.fingerprint


A1, A2, B3 = (b"a", b"1", 2, 2, 1, 0), (b"a", b"2", 2, 3, 2, 0), (b"b", b"1", 4, 4, 1, 0)


@pytest.mark.parametrize(
    ("revision", "compacted", "versions"),
    [
        (4, 0, [A1, A2]),
        (4, 0, [A1, B3]),
        (4, 0, [A2, A1, B3]),
        (4, 0, [B3, A1, A2]),
        (3, 0, [A1, A2, B3]),
        (5, 0, [A1, A2, B3]),
        (1, 2, []),
        (-1, 0, []),
    ],
)
def test_versions_that_no_store_can_have_are_refused(
    revision: int, compacted: int, versions: list[KeyValue]
) -> None:
    assert len(list(rebuilt(filled(b"a", b"a", b"b")).frozen())) == 3
    with pytest.raises(ImpossibleStore):
        builder = StoreBuilder(revision, compacted, 0)
        builder.add(versions)
        builder.finish()


# ---------------------------------------------------------------- any history whatsoever

KEYS = st.binary(min_size=1, max_size=2).map(lambda data: bytes(byte % 3 + 97 for byte in data))
ENDS = st.one_of(st.just(b""), st.just(b"\x00"), KEYS)
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.binary(max_size=2)),
    st.tuples(st.just("put"), KEYS, st.binary(max_size=2)),
    st.tuples(st.just("delete"), KEYS, ENDS),
    st.tuples(st.just("compact"), st.integers(0, 100), st.none()),
    st.tuples(st.just("sweep"), st.integers(1, 8), st.none()),
    st.tuples(st.just("read"), st.integers(0, 3), st.none()),
    st.tuples(st.just("rebuild"), st.none(), st.none()),
)


class Pair:
    """The store and the dumb store, which get the same."""

    def __init__(self) -> None:
        self.store, self.dumb = Store(), DumbStore()
        self.readers: list[tuple[Iterator[KeyValue], list[KeyValue]]] = []

    def do(self, name: str, first: object, second: object) -> None:
        store, dumb = self.store, self.dumb
        if name == "put":
            assert isinstance(first, bytes) and isinstance(second, bytes)
            store.put(first, second, 0)
            dumb.put(first, second)
        elif name == "delete":
            assert isinstance(first, bytes) and isinstance(second, bytes)
            store.delete(first, second)
            dumb.delete(first, second)
        elif name == "compact":
            assert isinstance(first, int)
            revision = dumb.compact_revision + 1 + first * (dumb.revision - dumb.compact_revision) // 100
            if revision <= dumb.revision:
                store.compact(revision)
                dumb.compact(revision)
        elif name == "sweep":
            assert isinstance(first, int)
            store.take_changes()
            store.sweep(first)
        elif name == "read":
            assert isinstance(first, int)
            self.read(first)
        else:
            self.store = rebuilt(store)

    def read(self, pieces: int) -> None:
        """Go on with a reader or begin another, or leave one half read."""
        if len(self.readers) < 2:
            self.readers.append((iter(self.store.frozen()), self.dumb.versions()))
        reader, expected = self.readers[-1]
        if pieces == 3 and len(self.readers) == 2:
            self.readers.pop(0)
        for _ in range(pieces):
            if expected:
                assert next(reader) == expected.pop(0)

    def check(self) -> None:
        store, dumb = self.store, self.dumb
        assert (store.revision, store.compact_revision) == (dumb.revision, dumb.compact_revision)
        assert list(store.frozen()) == dumb.versions()
        for revision in range(max(1, store.oldest_revision), store.revision + 1):
            for key, end in ((b"\x00", b"\x00"), (b"b", b"c"), (b"ab", b"\x00"), (b"a", b"")):
                expected = dumb.range(key, end, revision)
                assert store.range(key, end, revision=revision) == (len(expected), False, expected)
                assert store.count(key, end, revision=revision) == len(expected)
        for start in range(store.compact_revision, store.revision + 2):
            found = store.history.read(b"a", b"b", start, PLENTY)
            assert found is not None and found.revisions == dumb.history(b"a", b"b", start)
        if store.compact_revision:
            assert store.history.read(b"a", b"b", store.compact_revision - 1, PLENTY) is None
        assert rebuilt(store).fingerprint == store.fingerprint


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_e13_any_history_is_what_a_dumb_store_has_at_each_revision(
    steps: list[tuple[str, object, object]],
) -> None:
    """With compactions, with sweeps at any time, with readers of earlier moments, and after any restore."""
    pair = Pair()
    for step in steps:
        pair.do(*step)
    for reader, expected in pair.readers:
        assert list(reader) == expected
    pair.readers.clear()
    pair.check()
    swept(pair.store)
    pair.check()
    if pair.store.compact_revision == pair.store.revision > 1:
        assert pair.store.history_bytes < 2 * 202 * 9
