"""The long form of RANGE: what is chosen and in which order, and what it may cost. Facts of etcd's Range."""

from __future__ import annotations

from operator import itemgetter

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import codes, protocol, range_select
from kvstore import store as store_module
from kvstore.protocol import KeyValue
from tests.kvstore.dumb_store import DumbStore
from tests.kvstore.machine_log import Log
from tests.kvstore.test_range_steps import ALL, begun, filled, finish, keys

TARGETS = {"key": 1, "version": 2, "create": 3, "mod": 4, "value": 5}
FIELDS = {1: 0, 2: 4, 3: 2, 4: 3, 5: 1}
ASCENDING, DESCENDING = codes.SORT_ASCENDING, codes.SORT_DESCENDING


def read(
    key: bytes,
    range_end: bytes,
    /,
    *,
    limit: int = 0,
    revision: int = 0,
    flags: int = 0,
    sort_target: int = 0,
    sort_order: int = 0,
    **bounds: int,
) -> bytes:
    """The long form."""
    chosen = [bounds.get(name, 0) for name in ("min_mod", "max_mod", "min_create", "max_create")]
    return protocol.range_body(
        key, range_end, sort_target, sort_order, *chosen, limit=limit, revision=revision, flags=flags
    )


@pytest.fixture()
def log() -> Log:
    """a: created first, changed last; b: changed most often; c: deleted and created again; d: untouched."""
    log = Log()
    log.put(b"a", b"3")  # revision 2
    log.put(b"b", b"9")
    log.put(b"c", b"8")
    log.put(b"d", b"1")  # 5
    log.put(b"b", b"2")
    log.put(b"b", b"4")
    log.delete(b"c")  # 8
    log.put(b"c", b"5")
    log.put(b"a", b"2")  # 10
    return log


@pytest.mark.parametrize(
    ("target", "expected"),
    [("key", b"abcd"), ("version", b"cdab"), ("create", b"abdc"), ("mod", b"dbca"), ("value", b"dabc")],
)
def test_a_range_is_sorted_by_each_target_in_both_orders(log: Log, target: str, expected: bytes) -> None:
    """What is equal, as the versions of c and d, is in order of keys either way."""
    found = log.ask(read(*ALL, sort_target=TARGETS[target]))
    assert b"".join(keys(found)) == expected and found[:4] == [0, 10, 4, False]
    backwards = b"bacd" if target == "version" else expected[::-1]
    again = log.ask(read(*ALL, sort_target=TARGETS[target], sort_order=DESCENDING))
    assert b"".join(keys(again)) == backwards


def test_a_limit_is_of_what_comes_first_in_the_order_and_count_is_of_the_range(log: Log) -> None:
    found = log.ask(read(*ALL, limit=2, sort_target=TARGETS["mod"], sort_order=DESCENDING))
    assert keys(found) == [b"a", b"c"] and found[2:4] == [4, True]
    found = log.ask(read(*ALL, limit=1, sort_target=TARGETS["mod"]))
    assert keys(found) == [b"d"] and found[2:4] == [4, True]
    found = log.ask(read(*ALL, limit=4, sort_target=TARGETS["mod"]))
    assert len(keys(found)) == 4 and found[2:4] == [4, False]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"min_mod": 7}, b"abc"),
        ({"max_mod": 9}, b"bcd"),
        ({"min_mod": 7, "max_mod": 7}, b"b"),
        ({"min_create": 3}, b"bcd"),
        ({"max_create": 5}, b"abd"),
        ({"min_create": 3, "max_create": 8, "min_mod": 6}, b"b"),
        ({"min_mod": 11}, b""),
    ],
)
def test_filters_by_revision_choose_and_count_is_of_the_range(
    log: Log, bounds: dict[str, int], expected: bytes
) -> None:
    found = log.ask(read(*ALL, **bounds))
    assert b"".join(keys(found)) == expected and found[2:4] == [4, False]
    found = log.ask(read(*ALL, limit=1, **bounds))
    assert b"".join(keys(found)) == expected[:1] and found[2:4] == [4, len(expected) > 1]


def test_sorting_and_filters_are_exact_at_a_past_revision(log: Log) -> None:
    """At revision 7 c was there in its first life, and a had its first value."""
    found = log.ask(read(*ALL, revision=7, sort_target=TARGETS["value"], max_create=4))
    assert [(record[0], record[1]) for record in found[4]] == [(b"a", b"3"), (b"b", b"4"), (b"c", b"8")]
    assert found[:4] == [0, 10, 4, False]
    assert log.ask(read(*ALL, revision=8, min_mod=3))[2] == 3
    assert log.ask(read(*ALL, revision=11, sort_target=4))[0] == protocol.FUTURE_REVISION
    log.apply(protocol.compact_body(0, 0, 0, 8))
    assert log.ask(read(*ALL, revision=7, sort_target=4))[0] == protocol.COMPACTED
    assert log.ask(read(*ALL, revision=8, sort_target=4))[0] == protocol.OK


def test_keys_only_sorts_by_values_that_it_does_not_give(log: Log) -> None:
    found = log.ask(read(*ALL, sort_target=TARGETS["value"], flags=protocol.KEYS_ONLY))
    assert [(record[0], record[1]) for record in found[4]] == [
        (name, b"") for name in (b"d", b"a", b"b", b"c")
    ]


def test_a_count_is_the_same_whatever_is_chosen(log: Log) -> None:
    assert log.ask(read(*ALL, flags=protocol.COUNT_ONLY, min_mod=9, sort_target=2)) == [0, 10, 4, False, []]


def test_a_page_that_is_not_counted_counts_itself(log: Log) -> None:
    """Whoever reads page by page as of a past revision would have the rest looked at with each page."""
    body = protocol.range_body(*ALL, limit=3, revision=9, flags=codes.UNCOUNTED)
    found = log.ask(body)
    assert keys(found) == [b"a", b"b", b"c"] and found[:4] == [0, 10, 3, True]
    body = protocol.range_body(b"b\0", b"\0", limit=3, revision=9, flags=codes.UNCOUNTED)
    assert log.ask(body)[:4] == [0, 10, 2, False]
    assert not log.machine._counts._counts
    both = codes.UNCOUNTED | protocol.COUNT_ONLY
    assert log.ask(protocol.range_body(*ALL, flags=both))[0] == protocol.BAD_REQUEST


def test_an_empty_range_and_one_key_have_the_long_form_too(log: Log) -> None:
    assert log.ask(read(b"x", b"b", sort_target=4)) == [0, 10, 0, False, []]
    assert keys(log.ask(read(b"a", b"", sort_target=5, sort_order=1))) == [b"a"]
    assert log.ask(read(b"a", b"", max_mod=9)) == [0, 10, 1, False, []]


@pytest.mark.parametrize(
    "chosen",
    [
        (6, 0, 0, 0, 0, 0),
        (4, 2, 0, 0, 0, 0),
        (0, 1, 0, 0, 0, 0),
        (4, 0, -1, 0, 0, 0),
        (4, 0, 0, 1 << 63, 0, 0),
        (True, 0, 0, 0, 0, 0),
        (4, 0, 0, 0, 0),
        (4, 0, 0, 0, 0, b""),
        (4, 0, 0, 0, 0, 0, 0),
    ],
)
def test_an_order_that_is_none_is_refused(log: Log, chosen: tuple[object, ...]) -> None:
    answer = log.ask(msgpack.packb((protocol.RANGE, b"a", b"\0", 0, 0, 0, *chosen)))
    assert answer[0] == protocol.BAD_REQUEST


def test_a_sorted_read_is_of_one_revision_though_others_write() -> None:
    log = filled(6000)
    body = read(*ALL, sort_target=TARGETS["mod"], sort_order=DESCENDING)
    before = log.ask(body)
    answer = begun(log.machine, body)
    next(answer)
    log.delete(b"k00000", b"k03000")
    log.put(b"k05999", b"new")
    assert finish(answer) == before


def test_a_compaction_ends_a_sorted_read_of_what_it_forgets() -> None:
    log = filled(6000)
    revision = log.machine.revision
    log.put(b"k00000", b"new")
    past, present = (begun(log.machine, read(*ALL, revision=at, min_mod=5)) for at in (revision, 0))
    next(present)
    log.put(b"k00001", b"newer")
    log.apply(protocol.compact_body(0, 0, 0, log.machine.revision))
    assert finish(past)[0] == protocol.COMPACTED
    assert finish(present) == log.ask(read(*ALL, min_mod=5))


def test_no_step_of_a_sorted_read_handles_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while the range is looked at nor while what was found is put in order."""
    monkeypatch.setattr(store_module.Store.slice_as_of, "__defaults__", (100,))
    monkeypatch.setattr(range_select, "MERGED_RECORDS", 100)
    log = filled(1000)
    answer = begun(log.machine, read(*ALL, sort_target=TARGETS["value"], sort_order=DESCENDING))
    steps = sum(result is None for result in answer)
    assert steps >= 17  # and the first was taken when it was asked for


def test_the_last_keys_of_a_range_are_found_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants the last key of very many does not have all of them looked at."""
    monkeypatch.setattr(store_module.Store.slice_before, "__defaults__", (100,))
    log = filled(1000)
    log.delete(b"k00990", b"k01000")
    [answer] = log.machine.begin_query(
        [read(*ALL, limit=3, sort_target=TARGETS["key"], sort_order=DESCENDING)]
    )
    assert isinstance(answer, bytes)
    found = msgpack.unpackb(answer)
    assert keys(found) == [b"k00989", b"k00988", b"k00987"] and found[2:4] == [990, True]


def test_too_much_to_sort_is_refused_and_a_limit_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module.Store.slice_as_of, "__defaults__", (100,))
    monkeypatch.setattr(range_select, "MAX_SORTED_RECORDS", 400)
    monkeypatch.setattr(range_select, "MAX_SORTED_LIMIT", 200)
    log = filled(1000)
    code, text = log.ask(read(*ALL, sort_target=TARGETS["mod"]))
    assert code == protocol.TOO_LARGE and "too many records to sort" in text and "set a limit" in text
    assert log.ask(read(*ALL, limit=201, sort_target=TARGETS["mod"]))[0] == protocol.TOO_LARGE
    for order in (ASCENDING, DESCENDING):
        found = log.ask(read(*ALL, limit=200, sort_target=TARGETS["mod"], sort_order=order))
        expected = [b"k%05d" % number for number in range(1000)]
        assert len(keys(log.ask(read(*ALL, sort_target=TARGETS["key"], sort_order=order)))) == 1000
        assert keys(found) == (expected[::-1] if order else expected)[:200]
        assert found[2:4] == [1000, True]
    assert len(keys(log.ask(read(*ALL, sort_target=TARGETS["mod"], min_mod=700)))) == 302
    assert log.machine._sort_room.left == range_select.MAX_HELD_RECORDS


def test_what_all_sorted_reads_hold_is_bounded_and_given_back() -> None:
    log = filled(6000)
    body = read(*ALL, sort_target=TARGETS["mod"])
    room = log.machine._sort_room
    whole = room.left
    answers = [begun(log.machine, body) for _ in range(2)]
    assert room.left == whole - 2 * store_module.SLICE_KEYS
    del answers[0]  # nobody waits for it any more
    assert room.left == whole - store_module.SLICE_KEYS
    finish(answers.pop())
    assert room.left == whole
    room.left = 3000
    code, text = log.ask(body)
    assert code == protocol.TOO_LARGE and "ask again" in text
    assert room.left == 3000


SMALL_KEYS = st.binary(min_size=1, max_size=2).map(lambda data: bytes(byte % 4 + 97 for byte in data))
STEPS = st.lists(st.tuples(st.booleans(), SMALL_KEYS, st.sampled_from([b"", b"\0", b"c"])), max_size=40)
BOUNDS = st.integers(0, 30)


def expected_records(
    found: list[KeyValue], target: int, order: int, bounds: tuple[int, int, int, int]
) -> list[KeyValue]:
    min_mod, max_mod, min_create, max_create = bounds
    chosen = [
        record
        for record in found
        if record[3] >= min_mod
        and record[2] >= min_create
        and (not max_mod or record[3] <= max_mod)
        and (not max_create or record[2] <= max_create)
    ]
    if target:
        chosen.sort(key=itemgetter(FIELDS[target]), reverse=bool(order))
    return chosen


@settings(max_examples=100, deadline=None)
@given(
    STEPS, st.integers(0, 5), st.integers(0, 1), st.tuples(BOUNDS, BOUNDS, BOUNDS, BOUNDS), st.integers(0, 4)
)
def test_a_selected_range_is_what_a_dumb_store_has(
    steps: list[tuple[bool, bytes, bytes]],
    target: int,
    order: int,
    bounds: tuple[int, int, int, int],
    limit: int,
) -> None:
    """At each revision."""
    log, dumb = Log(), DumbStore()
    for number, (is_delete, key, end) in enumerate(steps):
        if is_delete:
            log.delete(key, end)
            dumb.delete(key, end)
        else:
            value = b"%d" % (number * 7 % 5)
            log.put(key, value)
            dumb.put(key, value)
    order = order if target else 0
    names = ("min_mod", "max_mod", "min_create", "max_create")
    patch = pytest.MonkeyPatch()
    patch.setattr(store_module.Store.slice_as_of, "__defaults__", (2,))
    patch.setattr(store_module.Store.slice_before, "__defaults__", (2,))
    patch.setattr(range_select, "MERGED_RECORDS", 3)
    try:
        for revision in range(1, dumb.revision + 1):
            whole = dumb.range(b"a", b"\0", revision)
            expected = expected_records(whole, target, order, bounds)
            body = read(
                b"a",
                b"\0",
                limit=limit,
                revision=revision,
                sort_target=target,
                sort_order=order,
                **dict(zip(names, bounds)),
            )
            shown = expected[: limit or None]
            found = log.ask(body)
            assert found[2:4] == [len(whole), len(shown) < len(expected)]
            assert [tuple(record) for record in found[4]] == shown
    finally:
        patch.undo()
