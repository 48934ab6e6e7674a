"""No single step of a node is long, however large what it is about: what is done is counted, not seconds."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise
from random import Random
from zlib import crc32

import msgpack
import pytest

from kvstore import (
    codes,
    dismantling,
    interests,
    protocol,
    record_sums,
    store_builder,
    transactions,
    watch_plane,
)
from kvstore import store as store_module
from kvstore.frozen import SLICE_BYTES
from kvstore.leases import Leases
from kvstore.protocol import IGNORE_VALUE, MAX_TXN_KEPT_BYTES, PREV_KV
from kvstore.record_sums import LARGE_VALUE_BYTES, record_sum
from kvstore.store import Store
from kvstore.store_builder import StoreBuilder
from kvstore.versions import PRUNED_BYTES, Change
from kvstore.watch_frames import stream_topic
from kvstore.watch_plane import WatchPlane
from raft.errors import StateDamaged
from raft.log import Log as RaftLog
from raft.state_machine import restore_all
from tests.kvstore.counted_calls import calls_of
from tests.kvstore.machine_log import Log
from tests.kvstore.transaction_log import ALWAYS, compare, put, read, transact

ALL = b"\0", b"\0"
LARGE = LARGE_VALUE_BYTES + 1


@pytest.fixture
def summed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each checksum was taken of."""
    lengths: list[int] = []

    def counted(data: bytes, start: int = 0) -> int:
        lengths.append(len(data))
        return crc32(data, start)

    monkeypatch.setattr(store_module, "crc32", counted)
    monkeypatch.setattr(record_sums, "crc32", counted)
    return lengths


# ---------------------------------------------------------------- deletes


def test_a_delete_of_large_values_looks_at_none_of_them(summed: list[int]) -> None:
    """It took the checksum of each: 500 values of a megabyte were a fifth of a second, in one step."""
    store = Store()
    for number in range(20):
        store.put(b"k%02d" % number, bytes(LARGE), number % 2)
    builder = StoreBuilder(store.revision, 0, 0)
    builder.add(list(store.frozen()))
    for one in (store, builder.finish()):
        summed.clear()
        one.delete_keys(sorted(one.leased_keys(1)))
        one.delete(b"k", b"l")
        assert sum(summed) == 20 * len(b"k00")
        one.put(b"k", bytes(LARGE), 0)
        summed.clear()
        one.put(b"k", b"", 0)
        assert sum(summed) == 0, "nor does a put that replaces one"
        assert not one._large_sums.by_key


@pytest.mark.parametrize("seed", range(5))
def test_the_checksum_is_that_of_the_records_whatever_their_size(seed: int) -> None:
    chance, store = Random(seed), Store()
    for _ in range(400):
        key = b"k%d" % chance.randrange(8)
        if chance.random() < 0.2:
            store.delete(key, chance.choice([b"", b"l"]))
        else:
            size = chance.choice([0, 5, LARGE_VALUE_BYTES, LARGE, 2 * LARGE])
            store.put(key, chance.randbytes(1) * size, chance.randrange(3))
        records = store.range(*ALL).records
        assert store._checksum == sum(map(record_sum, records))
        assert {record[0] for record in records if len(record[1]) >= LARGE} == set(store._large_sums.by_key)


def test_a_large_value_that_changed_in_memory_is_noticed_by_a_snapshot() -> None:
    store = Store()
    store.put(b"a", bytes(LARGE), 0)
    store._records[b"a"] = (b"a", bytes(LARGE - 1) + b"\1", 2, 2, 1, 0)
    with pytest.raises(StateDamaged, match="revision 2"):
        list(store.frozen())


# ---------------------------------------------------------------- transactions


def test_a_transaction_keeps_no_more_of_values_than_it_could_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight thousand puts that keep a megabyte each took the checksum of gigabytes, and were one event."""
    assert MAX_TXN_KEPT_BYTES == 16 << 20
    monkeypatch.setattr(transactions, "MAX_TXN_KEPT_BYTES", 1000)
    log = Log()
    for number in range(3):
        log.put(b"k%d" % number, bytes(400))
    kept = [put(b"k%d" % number, b"", flags=IGNORE_VALUE) for number in range(3)]
    refused = transact(log, [ALWAYS], kept)
    assert refused[0] == protocol.TOO_LARGE and "keep values" in refused[1]
    assert log.machine.revision == 4
    assert transact(log, [ALWAYS], kept[:2])[0] == protocol.OK


def test_long_values_that_are_compared_or_sorted_count_for_many_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty thousand values with the same megabyte at their beginning are a comparison of seconds."""
    monkeypatch.setattr(transactions, "MAX_TXN_KEYS", 100)
    log = Log()
    for number in range(20):
        log.put(b"k%02d" % number, bytes(20_000))
    for operand, expected in ((bytes(100), protocol.OK), (bytes(100_000), protocol.TOO_LARGE)):
        assert transact(log, [compare("value", b"k", "=", operand, b"l")], [])[0] == expected
    for target, expected in ((codes.SORT_MOD, protocol.OK), (codes.SORT_VALUE, protocol.TOO_LARGE)):
        ordered = (*read(b"k", b"l", limit=1), target, 0, 0, 0, 0, 0)
        assert transact(log, [], [ordered])[0] == expected


# ---------------------------------------------------------------- the history


def with_long_revisions() -> Log:
    """Revisions 2 to 3001 are puts, 3002 is a delete of all of them, and so on twice."""
    log = Log(max_scanned_versions=1000)
    for _ in range(2):
        log.apply(*[protocol.put_body(0, 0, 0, b"k%05d" % number, b"v") for number in range(3000)])
        log.delete(b"k", b"l")
    return log


def test_a_page_of_the_history_ends_before_a_long_revision() -> None:
    """It went on into it: one page was as much as two may be."""
    history = with_long_revisions().machine._store.history
    page = history.read(*ALL, 2900, 1 << 30, 1000)
    assert page is not None and page.more and page.revisions[-1][0] == 3001
    page = history.read(*ALL, 3002, 1 << 30, 1000)
    assert page is not None and page.more and [len(events) for _, events in page.revisions] == [3000]
    page = history.read(b"x", b"y", 2900, 1 << 30, 1000)
    assert page is not None and page.more and page.revisions == [(3001, [])]


def test_pages_that_begin_in_a_long_revision_are_answered_one_by_one() -> None:
    """Watchers are sent there by the same revision, all of them at once. Four of the pages came in one step,
    and each was a tenth of a second for a hundred thousand keys."""
    machine = with_long_revisions().machine
    long_one = protocol.watch_history_body(*ALL, start_revision=3002)
    full = protocol.watch_history_body(*ALL, start_revision=3002, flags=PREV_KV)
    short = protocol.watch_history_body(*ALL, start_revision=100)
    for bodies, at_once in (([long_one] * 5, 1), ([full] * 5, 0), ([short] * 5, 3), ([short, long_one], 1)):
        answers = machine.begin_query(bodies)
        assert [isinstance(answer, bytes) for answer in answers] == [
            place < at_once for place in range(len(bodies))
        ]
        assert [msgpack.unpackb(answer)[0] for answer in machine.query(bodies)] == [0] * len(bodies)
    assert isinstance(machine.begin_query([full] * 9 + [protocol.watch_history_body(*ALL)])[9], bytes)


# ---------------------------------------------------------------- snapshots


def test_a_slice_of_a_snapshot_has_few_large_values(summed: list[int]) -> None:
    """The checksum of 128 values of a megabyte was taken before the first byte of them was there."""
    store = Store()
    for number in range(300):
        store.put(b"k%03d" % number, bytes(100_000 if number < 100 else 10), 0)
    found: list[bytes] = []
    summed.clear()
    for slice_ in store.frozen().slices():
        assert sum(summed) < SLICE_BYTES + 110_000
        summed.clear()
        found += [version[0] for version in slice_]
    assert found == [b"k%03d" % number for number in range(300)]


def test_a_snapshot_begins_without_a_look_at_each_session() -> None:
    """All their results were copied at its beginning: with millions of them, for a good part of a second."""
    costs = []
    for count in (10, 1000):
        log = Log()
        for number in range(count):
            session_id = log.open_session(b"%016d" % number)
            log.apply(protocol.put_body(session_id, 1, 1, b"k", b"v"))
        costs.append(calls_of(log.machine._sessions.frozen))
    assert costs[0] == costs[1]


def test_of_sessions_a_snapshot_has_those_of_its_moment_and_nothing_is_kept_for_it_afterwards() -> None:
    log = Log()
    ids = [log.open_session(b"%016d" % number) for number in range(4)]
    log.apply(*[protocol.put_body(session_id, 1, 1, b"k", b"v") for session_id in ids])
    expected = list(log.machine._sessions.frozen())
    first, second = log.machine._sessions.frozen(), log.machine._sessions.frozen()
    reading = iter(first)
    read_so_far = [next(reading)]
    log.apply(*[protocol.put_body(session_id, 2, 2, b"k", b"v") for session_id in ids])
    log.apply(protocol.close_session_body(ids[3], 3, 2), protocol.open_session_body(b"x" * 16))
    assert read_so_far + list(reading) == list(second) == expected
    del first, second, reading
    assert log.machine._sessions._readers == []


def test_the_end_of_a_restored_snapshot_looks_at_no_revision() -> None:
    """Of a million there, it took a tenth of a second."""
    costs = []
    for count in (1000, 20_000):
        builder = StoreBuilder(count + 1, 0, 0)
        builder.add([(b"k", b"v", 2, 2 + number, 1 + number, 0) for number in range(count)])
        costs.append(calls_of(builder.finish))
    assert costs[1] < costs[0] + 20_000 // store_builder._BLOCK_CHANGES


@pytest.mark.parametrize("missing", [2, 700, 1999, 2001])
def test_a_snapshot_that_lacks_a_revision_is_refused(missing: int) -> None:
    builder = StoreBuilder(2001, 0, 0)
    revisions = [revision for revision in range(2, 2002) if revision != missing]
    builder.add([(b"k", b"v", 2, revision, revision, 0) for revision in revisions])
    with pytest.raises(store_builder.ImpossibleStore, match=f"what revision {missing} changed is missing"):
        builder.finish()
    with pytest.raises(store_builder.ImpossibleStore, match="after 2001"):
        builder.add([(b"l", b"v", 2002, 2002, 1, 0)])


# ---------------------------------------------------------------- what is freed


freed: list[int] = []


class Freed(bytes):
    """A large value that says when it is freed."""

    def __del__(self) -> None:
        freed.append(len(self))


def freed_by(steps: Iterator[object]) -> list[int]:
    found = []
    for _ in steps:
        found.append(len(freed))
        freed.clear()
    return found


def test_a_compaction_gives_few_large_values_back_in_a_step() -> None:
    """A thousand of a megabyte went in one step, which took a tenth of a second."""
    store = Store()
    for number in range(120):
        store.put(b"k%d" % (number % 3 or number), Freed(bytes(4 * PRUNED_BYTES)), 0)
    freed.clear()

    def steps() -> Iterator[None]:
        store.take_changes()
        store.compact(store.revision)
        while store.is_sweeping:
            store.sweep(40)
            yield

    found = freed_by(steps())  # what has a newer version
    assert sum(found) == 120 - len(store) == 78 and max(found) <= 12
    store.delete(b"k", b"l")
    found = freed_by(steps())  # what a compaction has left before
    assert sum(found) == 42 and max(found) <= 12


def test_a_state_that_was_replaced_is_given_up_as_a_whole_and_in_small_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sessions and keys by lease went at once, as did all versions of a key, and values of any size."""
    monkeypatch.setattr(dismantling, "STEP_ITEMS", 50)
    log, other = Log(), Log()
    log.put(b"new")
    machine = other.machine
    session_id = other.open_session()
    for number in range(200):
        machine._store.put(b"k%d" % (number % 2 or number), Freed(bytes(10 * dismantling.ITEM_BYTES)), 7)
        other.apply(protocol.put_body(session_id, number + 1, 1, b"often", b"v", lease=0))
        other.open_session(b"%016d" % number)
    machine._store.take_changes()
    sessions, leased = machine._sessions, machine._store._leased
    results = sessions._sessions[session_id].results
    tables: list[Collection[object]] = [sessions._sessions, sessions._by_nonce, leased[7], results]
    sizes = [sum(map(len, tables))]
    del leased
    restore_all(machine, log.machine.snapshot())
    freed.clear()

    def steps() -> Iterator[None]:
        while machine._leaving is not None:
            machine.tidy()
            sizes.append(sum(map(len, tables)))
            yield

    found = freed_by(steps())
    assert sum(found) == 200 and max(found) <= 6
    assert sizes[0] > 500 and sizes[-1] == 0
    assert max(before - after for before, after in pairwise(sizes)) <= 50


def test_the_log_that_a_snapshot_replaced_is_given_up_bit_by_bit() -> None:
    """A follower that had a million entries stood still for a tenth of a second."""
    log = RaftLog(1, [(1, 1, b"%d" % number) for number in range(100)])
    log.restore(200, 2)
    assert (log.first_index, log.last_index, log.term_at(200)) == (201, 200, 2)
    assert log.give_up(60) and len(log._replaced) == 40
    log.append([(2, 1, b"x")])
    log.confirm_persisted()
    log.restore(300, 3)
    assert log.give_up(40)
    assert not log.give_up(40) and log._replaced == [] and log.last_index == 300


# ---------------------------------------------------------------- leases and watchers


def test_a_tick_calls_hardly_anything_for_each_lease() -> None:
    """One that finds all leases of a cluster renewed took an eighth of a second."""
    costs = []
    for count in (10, 1000):
        leases = Leases()
        for lease in range(1, count + 1):
            leases.grant(lease, 10, lease)
        costs.append(calls_of(lambda leases=leases: leases.tick([5000], [2000], 2001)))  # type: ignore[misc]
        again = Leases()
        again.load(list(leases.frozen()))
        again.time_ms = 5000
        assert again.fingerprint == leases.fingerprint
        assert leases.ended(15_000) == list(range(1, count + 1)) and leases.ended(14_999) == []
    assert costs[1] < costs[0] + 990 + 10


@pytest.mark.parametrize("is_full", [False, True])
def test_what_is_encoded_of_one_revision_has_a_bound(is_full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges that are no key, prefix or tree may have different parts of a revision: 256 of them had their
    part of 5900 keys encoded one by one, half a second. Who is left out hears that it missed something."""
    assert interests.MAX_SCANNED_STREAMS == 64 and watch_plane.MAX_SPREAD_EVENTS == 16_384
    monkeypatch.setattr(watch_plane, "MAX_SPREAD_EVENTS", 250)
    plane = WatchPlane(1)
    spans = [(b"a", b"k%05d" % number) for number in range(50, 60)]
    plane.subscribed([b"\x01" + stream_topic(*span, is_full=is_full) for span in spans])
    plane.announcements()
    asked: list[bytes] = []
    changes: list[Change] = [(2, [(b"k%05d" % number, b"", 0, 2, 0, 0) for number in range(100)])]
    plane.feed(changes, lambda key, _: asked.append(key))
    told = [msgpack.unpackb(parts[2]) for parts in plane.announcements()]
    assert sorted(map(len, told)) == [0] * 6 + [50, 51, 52, 53]
    assert len(asked) == (206 if is_full else 0)
    assert plane.status()["large_frames"] == 6
