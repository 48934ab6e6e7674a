"""The log in memory: terms, ranges, comparison, truncation, and how far it is durable."""

from __future__ import annotations

import pytest

from raft.log import ENTRY_OVERHEAD_BYTES, Log, fitting, size_bytes
from tests.raft.network import batch, entries_of, entry


def log_of(terms: list[int], first_index: int = 1, snapshot_term: int = 0) -> Log:
    return Log(first_index, entries_of(terms, first_index), snapshot_term)


def test_b9_the_term_of_what_is_not_there_is_unknown() -> None:
    log = log_of([4, 5], first_index=4, snapshot_term=3)
    assert [log.term_at(index) for index in range(8)] == [None, None, None, 3, 4, 5, None, None]
    assert (log.first_index, log.last_index, log.last_term, log.snapshot_index) == (4, 5, 5, 3)
    empty = log_of([], first_index=4, snapshot_term=3)
    assert (empty.last_index, empty.last_term, empty.term_at(3), empty.term_at(4)) == (3, 3, 3, None)
    assert log_of([]).term_at(0) == 0 and log_of([]).term_at(-1) is None


def test_a_range_outside_the_log_is_a_programming_error() -> None:
    log = log_of([4, 5], first_index=4, snapshot_term=3)
    assert log.slice(4, 5) == entries_of([4, 5], 4) and log.slice(6, 5) == []
    for first, last in ((3, 5), (4, 6)):
        with pytest.raises(AssertionError, match=r"4\.\.5"):
            log.slice(first, last)


@pytest.mark.parametrize("snapshot_index", [0, 3])
def test_where_terms_begin_and_end(snapshot_index: int) -> None:
    terms = [1, 1, 2, 4, 4, 4, 7]
    log = log_of(terms, snapshot_index + 1, snapshot_term=1 if snapshot_index else 0)
    for position, term in enumerate(terms):
        index = snapshot_index + 1 + position
        assert log.first_index_of_term_at(index) == snapshot_index + 1 + terms.index(term)
    for term in range(9):
        for not_after in range(snapshot_index, log.last_index + 3):
            matching = [
                snapshot_index + 1 + p
                for p, t in enumerate(terms)
                if t == term and snapshot_index + 1 + p <= not_after
            ]
            assert log.last_index_of_term(term, not_after) == (matching[-1] if matching else None)
    assert log.last_index_of_term(1, -5) is None


@pytest.mark.parametrize(
    ("first_index", "terms", "difference"),
    [(1, [1, 1, 2], 4), (2, [1], 3), (3, [3, 3], 3), (2, [3, 3, 3], 2), (4, [3], 4), (1, [1, 1, 2, 2], 4)],
)
def test_the_first_difference_to_a_batch(first_index: int, terms: list[int], difference: int) -> None:
    assert log_of([1, 1, 2]).first_difference(batch(first_index, terms)) == difference


def test_the_first_difference_in_the_middle_of_a_batch() -> None:
    assert log_of([1, 2, 2, 2]).first_difference(batch(2, [2, 2, 3])) == 4
    assert log_of([2, 2, 2, 4], first_index=5, snapshot_term=1).first_difference(batch(6, [2, 3, 3])) == 7


def test_a_batch_must_follow_the_end() -> None:
    log = log_of([1, 1])
    for first_index in (2, 4):
        with pytest.raises(AssertionError):
            log.extend(batch(first_index, [1]))
    log.extend(batch(3, [2]))
    assert (log.last_index, log.last_term) == (3, 2)


@pytest.mark.parametrize("index", [0, 3, 6, 7])
def test_only_what_is_there_can_be_truncated(index: int) -> None:
    log = log_of([4, 5], first_index=4, snapshot_term=3)
    with pytest.raises(AssertionError):
        log.truncate_from(index)


def test_truncation_takes_the_durable_marks_along() -> None:
    log = log_of([1, 1, 1], snapshot_term=0)
    log.append([entry(2), entry(2)])
    log.take_unpersisted()
    log.truncate_from(5)
    assert (log.last_index, log.persisting_index, log.stable_index) == (4, 4, 3)
    log.truncate_from(2)
    assert (log.last_index, log.last_term, log.persisting_index, log.stable_index) == (1, 1, 1, 1)
    log.truncate_from(1)
    assert (log.last_index, log.last_term) == (0, 0)


def test_every_entry_is_given_to_storage_once() -> None:
    log = log_of([1])
    assert log.take_unpersisted() is None and not log.has_unpersisted()
    log.append([entry(2, b"x")])
    log.extend(batch(3, [2]))
    taken = log.take_unpersisted()
    assert taken is not None and (taken.first_index, len(taken)) == (2, 2)
    assert log.take_unpersisted() is None and log.stable_index == 1
    log.extend(batch(4, [2]))
    log.append([entry(3)])  # received and own entries within a turn: it has become leader in between
    taken = log.take_unpersisted()
    assert taken is not None and (taken.first_index, len(taken)) == (4, 2)
    log.confirm_persisted()
    assert log.stable_index == 5


def test_at_least_one_entry_fits_and_framing_counts() -> None:
    entries = [entry(1, bytes(100)) for _ in range(5)]
    each = 100 + ENTRY_OVERHEAD_BYTES
    assert size_bytes(entries) == 5 * each
    for limit, count in (
        (0, 1),
        (each, 1),
        (2 * each - 1, 1),
        (2 * each, 2),
        (5 * each - 1, 4),
        (5 * each, 5),
    ):
        assert fitting(entries, limit) == (count, count * each)
    assert fitting([], 100) == (0, 0)
