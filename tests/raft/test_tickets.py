"""Tickets: which committed entries answer which of the gateway's frames."""

from __future__ import annotations

import random

from raft.replication_actor import Tickets


def test_a_ticket_leaves_whole_when_its_entries_commit_together() -> None:
    tickets = Tickets()
    tickets.add(5, [11, 12], [2, 3])
    assert tickets.take(5, 9) == ([(11, 0, 2), (12, 0, 3)], [0, 2])
    assert tickets.take(10, 20) == ([], [])


def test_entries_of_others_before_and_between_are_skipped() -> None:
    tickets = Tickets()
    tickets.add(5, [11], [2])
    assert tickets.take(1, 4) == ([], [])
    assert tickets.take(3, 5) == ([(11, 0, 1)], [2])
    assert tickets.take(6, 6) == ([(11, 1, 1)], [0])


def test_a_ticket_in_parts_keeps_its_offsets_until_it_is_done() -> None:
    tickets = Tickets()
    tickets.add(1, [7], [5])
    parts = [tickets.take(index, index) for index in range(1, 6)]
    assert [part[0][0] for part in parts] == [(7, offset, 1) for offset in range(5)]
    assert tickets.drop_all() == []


def test_truncation_drops_the_tickets_it_touches_and_no_others() -> None:
    tickets = Tickets()
    tickets.add(1, [1, 2, 3], [2, 2, 2])
    assert tickets.drop_from(4) == [2, 3]
    assert tickets.take(1, 3) == ([(1, 0, 2)], [0])


def test_a_half_committed_ticket_that_is_dropped_leaves_nothing_behind() -> None:
    tickets = Tickets()
    tickets.add(1, [1], [4])
    tickets.take(1, 2)
    assert tickets.drop_all() == [1]
    tickets.add(3, [2], [2])
    assert tickets.take(3, 4) == ([(2, 0, 2)], [0])


def test_any_commit_pattern_answers_each_request_exactly_once() -> None:
    for seed in range(50):
        rng = random.Random(seed)
        tickets, sizes, index = Tickets(), {}, 1
        for ticket in range(1, 20):
            sizes[ticket] = rng.randint(1, 7)
            tickets.add(index, [ticket], [sizes[ticket]])
            index += sizes[ticket]
        seen: dict[int, list[int]] = {ticket: [] for ticket in sizes}
        at = 1
        while at < index:
            last = min(index - 1, at + rng.randint(0, 9))
            for ticket, offset, size in tickets.take(at, last)[0]:
                seen[ticket].extend(range(offset, offset + size))
            at = last + 1
        assert seen == {ticket: list(range(size)) for ticket, size in sizes.items()}, seed
