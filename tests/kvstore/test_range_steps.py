"""Ranges that are read in steps: the same answer as in one go, whatever others do in between."""

from __future__ import annotations

import time
import tracemalloc

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import protocol, query_batch, range_steps, state_machine
from kvstore import store as store_module
from kvstore.query_batch import QUERY_KEYS
from kvstore.state_machine import StoreMachine
from raft.long_answers import MAX_AT_WORK, LongAnswers
from raft.state_machine import LongAnswer
from tests.kvstore.dumb_store import DumbStore
from tests.kvstore.machine_log import Log

ALL = (b"\0", b"\0")
read = protocol.range_body
SLOW_STEP_SECONDS = 0.25  # of one step, on a machine that is busy with much else


def filled(count: int) -> Log:
    log = Log()
    for number in range(count):
        log.put(b"k%05d" % number)
    return log


def long_answer(machine: StoreMachine, body: bytes) -> LongAnswer:
    [answer] = machine.begin_query([body])
    assert not isinstance(answer, bytes)
    return answer


def begun(machine: StoreMachine, body: bytes) -> LongAnswer:
    """Behind its first piece, after the step which found out that one is not enough."""
    answer = long_answer(machine, body)
    assert next(answer) is None and next(answer) is None
    return answer


def finish(answer: LongAnswer) -> list[object]:
    found: list[object] = msgpack.unpackb(next(result for result in answer if result is not None))
    return found


def keys(result: list[object]) -> list[bytes]:
    assert isinstance(result[4], list)
    return [record[0] for record in result[4]]


def test_no_step_looks_at_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read of the past that wants ten of 300 000 keys took a fifth of a second in one turn."""
    monkeypatch.setattr(state_machine, "SLICE_KEYS", 100)
    monkeypatch.setattr(range_steps, "SLICE_KEYS", 100)
    monkeypatch.setattr(store_module.Store.slice_as_of, "__defaults__", (100,))
    looked_at: list[int] = []
    names = store_module.Store._names

    def counted_names(
        self: store_module.Store, start: bytes, end: bytes, most: int
    ) -> tuple[list[bytes], bytes | None]:
        looked_at.append(most)
        return names(self, start, end, most)

    monkeypatch.setattr(store_module.Store, "_names", counted_names)
    log = filled(2500)
    revision = log.machine.revision
    for number in range(2500):
        log.put(b"k%05d" % number)
    for body in (read(*ALL, limit=10, revision=revision), read(*ALL, revision=revision)):
        looked_at.clear()
        for step, _ in enumerate(long_answer(log.machine, body)):
            assert len(looked_at) == step  # the first one finds out that one is not enough
        assert set(looked_at) == {100}
    looked_at.clear()
    log.ask(read(b"k00100", b"\0", limit=10, revision=revision))
    log.ask(read(b"k00100", b"\0", limit=10, revision=revision))
    assert len(looked_at) == 25  # of another range another count; but it is counted once


def test_a_batch_of_many_reads_does_a_bounded_part_at_once() -> None:
    log = filled(3000)
    past = log.machine.revision - 1500
    for body in (read(*ALL), read(*ALL, limit=5, revision=past), read(*ALL, revision=past)):
        answers = log.machine.begin_query([body] * 500)
        at_once = sum(isinstance(answer, bytes) for answer in answers)
        assert at_once <= QUERY_KEYS // 2048
        results = log.machine.query([body] * 20)
        assert len(set(results)) == 1 and msgpack.unpackb(results[0])[0] == protocol.OK
    history = protocol.watch_history_body(*ALL, start_revision=1)
    answers = log.machine.begin_query([history] * 100)
    assert sum(isinstance(answer, bytes) for answer in answers) <= 5
    assert len(set(log.machine.query([history] * 10))) == 1


def test_what_takes_no_time_is_answered_at_once_beside_what_does() -> None:
    log = filled(QUERY_KEYS + 1)
    small = [
        read(b"k00001"),
        read(*ALL, flags=protocol.COUNT_ONLY),
        read(b"k00001", revision=5),
        read(*ALL, limit=10, revision=log.machine.revision - 1),
        b"garbage",
        read(*ALL, revision=1 << 40),
    ]
    answers = log.machine.begin_query([read(*ALL), *small])
    assert [isinstance(answer, bytes) for answer in answers] == [False] + [True] * 6


def test_a_small_range_is_answered_at_once_whatever_others_scan() -> None:
    """All reads of a turn shared one allowance: the scans of one client put all others into their queue."""
    log = filled(6000)
    past = log.machine.revision - 2000
    scans = [read(*ALL, limit=2048), read(*ALL, limit=2048), read(*ALL), read(*ALL, revision=past)] * 50
    small = [read(b"k00100", b"k00102"), read(b"k00100", b"k00102", revision=past), read(b"k00100")]
    answers = log.machine.begin_query(scans + small)
    assert all(isinstance(answer, bytes) for answer in answers[-3:])
    answers = log.machine.begin_query([small[0]] * 5000)  # which are not without bounds themselves
    assert sum(isinstance(answer, bytes) for answer in answers) <= 3072


def test_a_late_first_step_behind_a_compaction_says_so() -> None:
    log = filled(6000)
    past = log.machine.revision - 2000
    *_, wide, narrow = log.machine.begin_query(
        [read(*ALL, revision=past)] * 9 + [read(b"k000", b"k005", revision=past)]
    )
    assert not isinstance(wide, bytes) and not isinstance(narrow, bytes)
    log.apply(protocol.compact_body(0, 0, 0, log.machine.revision))
    assert finish(wide)[0] == finish(narrow)[0] == protocol.COMPACTED


def test_half_made_pages_of_many_readers_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty readers of values of 3 KB held 355 MiB after one step; a thousand would have held gigabytes."""
    for module in (range_steps, state_machine):
        monkeypatch.setattr(module, "SLICE_KEYS", 100)
    monkeypatch.setattr(query_batch, "QUERY_KEYS", 200)
    monkeypatch.setattr(store_module.Store.slice_as_of, "__defaults__", (100,))
    log = Log()
    for number in range(500):
        log.put(b"k%05d" % number, bytes(4000))
    past, page_bytes = log.machine.revision, 2_000_000
    for _ in range(1200):
        log.put(b"z")
    for body in (read(b"k", b"l"), read(b"k", b"l", revision=past), read(b"k", b"l", limit=400)):
        open_reads, at = LongAnswers(), 0.0

        def now() -> float:
            nonlocal at
            at += 0.001
            return at

        tracemalloc.start()
        try:
            for ticket in range(60):
                open_reads.take(ticket, log.machine.begin_query([body]), at)
            most_bytes, waiting, answered = tracemalloc.get_traced_memory()[0], len(open_reads), 0
            while open_reads:
                slices, overdue = open_reads.work(now)
                assert not overdue
                answered += len(slices)
                del slices
                most_bytes = max(most_bytes, tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
        assert answered == waiting
        assert most_bytes < (MAX_AT_WORK + 2) * page_bytes


def test_an_answer_in_steps_is_of_one_revision_though_others_write() -> None:
    log = filled(6000)
    before, revision = log.ask(read(*ALL)), log.machine.revision
    answer = begun(log.machine, read(*ALL))
    log.delete(b"k00000", b"k03000")
    log.put(b"k05999", b"new")
    log.put(b"k04000x", b"new")
    log.put(b"k00001", b"again")
    assert finish(answer) == before and before[1] == revision
    assert keys(log.ask(read(*ALL)))[:2] == [b"k00001", b"k03000"]


def test_a_compaction_ends_a_read_of_what_it_forgets_and_no_other() -> None:
    log = filled(6000)
    revision = log.machine.revision
    log.put(b"k00000", b"new")
    past, present = (begun(log.machine, read(*ALL, revision=at)) for at in (revision, 0))
    log.put(b"k00001", b"newer")
    log.apply(protocol.compact_body(0, 0, 0, log.machine.revision))
    assert finish(past)[0] == protocol.COMPACTED
    found = finish(present)
    assert found[:4] == [0, revision + 2, 6000, False] and found == log.ask(read(*ALL))


def test_an_answer_in_steps_outlives_a_restored_snapshot() -> None:
    log = filled(6000)
    expected = log.ask(read(*ALL))
    answer = begun(log.machine, read(*ALL))
    other = filled(6000)
    other.put(b"k00000", b"new")
    restorer = log.machine.restorer()
    for piece in other.machine.snapshot():
        restorer.feed(piece)
    restorer.finish()
    assert finish(answer) == expected


def test_counts_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_steps, "MAX_COUNTS", 3)
    counts = range_steps.PastCounts()
    for revision in range(5):
        counts.keep(b"a", b"b", revision, 7)
    assert [counts.get(b"a", b"b", revision) for revision in range(5)] == [None, None, 7, 7, 7]


def test_a_page_of_the_history_looks_at_no_more_versions_than_revisions() -> None:
    """One revision may have deleted very many keys."""
    log = filled(100)
    for _ in range(50):
        log.delete(b"k00000", b"k00010")
        for number in range(10):
            log.put(b"k%05d" % number)
    history = log.machine._store.history
    page = history.read(b"z", b"", 102, 1 << 20, 100)
    assert page is not None and page.more and page.revisions == [(156, [])]


SMALL_KEYS = st.binary(min_size=1, max_size=2).map(lambda data: bytes(byte % 4 + 97 for byte in data))
STEPS = st.lists(st.tuples(st.booleans(), SMALL_KEYS, st.sampled_from([b"", b"\0", b"b", b"c"])), max_size=40)


@settings(max_examples=150, deadline=None)
@given(STEPS, STEPS, st.integers(0, 4), st.integers(0, 3), st.integers(1, 3))
def test_an_answer_in_steps_is_what_a_dumb_store_has(
    before: list[tuple[bool, bytes, bytes]],
    after: list[tuple[bool, bytes, bytes]],
    limit: int,
    flags: int,
    step_keys: int,
) -> None:
    """At each revision, with writes between the steps, and whatever is counted how."""
    log, dumb = Log(), DumbStore()

    def do(is_delete: bool, key: bytes, end: bytes) -> None:
        if is_delete:
            log.delete(key, end)
            dumb.delete(key, end)
        else:
            log.put(key, key)
            dumb.put(key, key)

    for change in before:
        do(*change)
    patch = pytest.MonkeyPatch()
    patch.setattr(store_module.Store.slice_as_of, "__defaults__", (step_keys,))
    patch.setattr(store_module, "_QUICK_CHANGES", 5)
    try:
        spans = [(b"a", b"\0"), (b"ab", b"cb"), (b"c", b"a"), (b"b", b"")]
        asked = [(span, revision) for span in spans for revision in range(1, dumb.revision + 1)]
        steps = [
            range_steps.range_in_steps(
                lambda: log.machine._store, log.machine._counts, [16, *span, limit, revision, flags]
            )
            for span, revision in asked
        ]
        halves = [next(each) for each in steps]
        for change in after:
            do(*change)
        for half, rest, (span, revision) in zip(halves, steps, asked):
            answer = half or next(result for result in rest if result is not None)
            expected = dumb.range(*span, revision)
            shown = [] if flags & protocol.COUNT_ONLY else expected[: limit or None]
            if flags & protocol.KEYS_ONLY:
                shown = [(record[0], b"", *record[2:]) for record in shown]
            found = msgpack.unpackb(answer, use_list=False)
            more = len(shown) < len(expected) and not flags & protocol.COUNT_ONLY
            assert (found[0], *found[2:]) == (0, len(expected), more, tuple(shown))
    finally:
        patch.undo()


def test_eight_readers_of_the_past_leave_the_loop_to_others() -> None:
    """The longest step, of a store of a hundred thousand keys, with a bound for the slowest of machines."""
    log = Log()
    for start in range(0, 100_000, 1000):
        bodies = [
            protocol.put_body(0, 0, 0, b"k%06d" % number, b"v") for number in range(start, start + 1000)
        ]
        log.machine.apply(log.machine.applied_index + 1, bodies)
    log.delete(b"k000000", b"k050000")
    log.put(b"k000000")
    past = log.machine.revision - 90_000
    bodies = [read(b"k0", b"k1", limit=10 + reader, revision=past) for reader in range(8)]
    longest = 0.0
    began = time.process_time()
    for answer in log.machine.begin_query(bodies):
        at = time.process_time()
        longest = max(longest, at - began) if isinstance(answer, bytes) else longest
        for _ in answer if not isinstance(answer, bytes) else ():
            began, at = at, time.process_time()
            longest = max(longest, at - began)
    assert longest < SLOW_STEP_SECONDS
