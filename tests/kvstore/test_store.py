"""The store against the facts of the etcd v3 data model, and against a plain model of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.protocol import KeyValue, prefix_range
from kvstore.store import Store
from kvstore.versions import change_events, change_revision


def filled(*keys: bytes) -> Store:
    store = Store()
    for key in keys:
        store.put(key, b"v:" + key, 0)
    return store


def keys_in(store: Store, key: bytes, range_end: bytes = b"") -> list[bytes]:
    return [record[0] for record in store.range(key, range_end).records]


def test_a_fresh_store_is_at_revision_1_and_the_first_put_makes_2() -> None:
    store = Store()
    assert store.revision == 1
    assert store.put(b"a", b"1", 0) is None
    assert store.revision == 2
    assert store.get(b"a") == (b"a", b"1", 2, 2, 1, 0)


def test_a_change_keeps_create_revision_and_counts_the_version() -> None:
    store = filled(b"a", b"b")
    assert store.put(b"a", b"2", 0) == (b"a", b"v:a", 2, 2, 1, 0)
    assert store.get(b"a") == (b"a", b"2", 2, 4, 2, 0)
    assert store.get(b"b") == (b"b", b"v:b", 3, 3, 1, 0)


def test_a_delete_ends_the_life_of_a_key() -> None:
    store = filled(b"a")
    store.put(b"a", b"2", 0)
    assert store.delete(b"a", b"") == [(b"a", b"2", 2, 3, 2, 0)]
    assert store.revision == 4
    assert store.get(b"a") is None
    store.put(b"a", b"3", 0)
    assert store.get(b"a") == (b"a", b"3", 5, 5, 1, 0)


def test_deleting_what_is_not_there_leaves_the_revision() -> None:
    store = filled(b"a")
    assert store.delete(b"b", b"") == []
    assert store.delete(b"b", b"z") == []
    assert store.revision == 2
    assert len(store.take_changes()) == 1


def test_a_range_is_deleted_in_one_revision() -> None:
    store = filled(b"a", b"b", b"c", b"d")
    store.take_changes()
    removed = store.delete(b"b", b"d")
    assert [record[0] for record in removed] == [b"b", b"c"]
    assert store.revision == 6
    [change] = store.take_changes()
    assert change_revision(change) == 6
    # A delete event has key and mod_revision only.
    assert change_events(change) == [(1, b"b", b"", 0, 6, 0, 0), (1, b"c", b"", 0, 6, 0, 0)]
    assert keys_in(store, b"\x00", b"\x00") == [b"a", b"d"]


def test_changes_of_puts() -> None:
    store = filled(b"a", b"b")
    changes = store.take_changes()
    assert [change_revision(change) for change in changes] == [2, 3]
    assert change_events(changes[0]) == [(0, b"a", b"v:a", 2, 2, 1, 0)]
    assert store.take_changes() == []


@pytest.mark.parametrize(
    ("key", "range_end", "expected"),
    [
        (b"b", b"", [b"b"]),
        (b"x", b"", []),
        (b"a", b"c", [b"a", b"ab", b"b"]),
        (b"a", b"b", [b"a", b"ab"]),
        (b"aa", b"\x00", [b"ab", b"b", b"c", b"\xff"]),
        (b"\x00", b"\x00", [b"a", b"ab", b"b", b"c", b"\xff"]),
        (*prefix_range(b"a"), [b"a", b"ab"]),
        (*prefix_range(b"\xff"), [b"\xff"]),
        (*prefix_range(b""), [b"a", b"ab", b"b", b"c", b"\xff"]),
        (b"c", b"a", []),
        (b"b", b"b", []),
    ],
)
def test_the_forms_of_a_range(key: bytes, range_end: bytes, expected: list[bytes]) -> None:
    """End before begin is an empty result, not an error."""
    store = filled(b"c", b"b", b"\xff", b"a", b"ab")
    assert keys_in(store, key, range_end) == expected
    assert store.range(key, range_end).total == store.count(key, range_end) == len(expected)


def test_the_total_is_of_the_whole_range_whatever_the_limit() -> None:
    store = filled(*[b"k%02d" % number for number in range(20)])
    total, more, records = store.range(b"k", b"l", limit=3)
    assert (total, more, len(records)) == (20, True, 3)
    assert store.range(b"k", b"l", limit=20).more is False
    assert store.range(b"k00", b"", limit=1).more is False


def test_a_long_range_is_cut_by_bytes_after_at_least_one_record() -> None:
    store = Store()
    for number in range(5):
        store.put(b"k%d" % number, bytes(100), 0)
    total, more, records = store.range(b"k", b"l", max_bytes=204)
    assert (total, more, len(records)) == (5, True, 2)
    assert store.range(b"k", b"l", max_bytes=1)[1:] == (True, records[:1])
    assert store.range(b"k", b"l", max_bytes=510).more is False


def test_one_key_object_serves_index_table_and_history() -> None:
    """Memory: a key written a thousand times is stored once."""
    store = Store()
    store.put(b"".join([b"a", b"b"]), b"1", 0)
    store.put(b"".join([b"a", b"b"]), b"2", 0)
    record = store.get(b"ab")
    assert record is not None
    assert record[0] is store.range(b"a", b"b").records[0][0]
    first, second = store.take_changes()
    assert first[0] is second[0] is record[0]


KEYS = st.binary(min_size=1, max_size=2).map(lambda data: bytes(byte % 3 + 97 for byte in data))
COMMANDS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.binary(max_size=2)),
    st.tuples(st.just("delete"), KEYS, st.one_of(st.just(b""), st.just(b"\x00"), KEYS)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(COMMANDS, max_size=40), KEYS, KEYS)
def test_any_history_leaves_what_a_plain_model_leaves(
    commands: list[tuple[str, bytes, bytes]], low: bytes, high: bytes
) -> None:
    store, revision = Store(), 1
    model: dict[bytes, KeyValue] = {}
    revisions: list[int] = []
    for name, key, argument in commands:
        if name == "put":
            revision += 1
            _, _, created, _, version, _ = model.get(key, (key, b"", revision, 0, 0, 0))
            model[key] = (key, argument, created, revision, version + 1, 0)
        else:
            doomed = [k for k in model if in_range(k, key, argument)]
            revision += bool(doomed)
            for k in doomed:
                del model[k]
        if name == "put":
            store.put(key, argument, 0)
        else:
            store.delete(key, argument)
        revisions.extend(map(change_revision, store.take_changes()))
    assert store.revision == revision
    assert revisions == list(range(2, revision + 1))
    expected: list[KeyValue] = [model[k] for k in sorted(model) if in_range(k, low, high)]
    assert store.range(low, high).records == expected
    assert store.range(b"\x00", b"\x00").records == [model[k] for k in sorted(model)]
    assert len(store) == len(model)


def in_range(candidate: bytes, key: bytes, range_end: bytes) -> bool:
    if not range_end:
        return candidate == key
    return candidate >= key and (range_end == b"\x00" or candidate < range_end)


def test_the_digest_tells_any_two_states_apart() -> None:
    one, same = filled(b"a", b"b"), filled(b"a", b"b")
    assert one.digest() == same.digest()
    other_order = filled(b"b", b"a")
    assert other_order.digest() != one.digest()
    same.delete(b"x", b"")
    assert one.digest() == same.digest()
    same.put(b"a", b"v:a", 0)
    assert one.digest() != same.digest()
