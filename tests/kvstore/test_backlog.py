"""A client that does not read gets a bounded lot, one that confirms gets all it asks for."""

from __future__ import annotations

from kvstore.backlog import LARGE_REPLY_BYTES, Backlog

LARGE = LARGE_REPLY_BYTES


def test_a_silent_reader_is_refused_at_the_bound_and_served_again_once_it_confirms() -> None:
    backlog = Backlog(max_connection_bytes=3 * LARGE)
    assert [backlog.admit(b"a", number, LARGE) for number in range(1, 6)] == [True, True, True, False, False]
    assert backlog.total_bytes == 3 * LARGE
    backlog.confirm(b"a", 3)  # answers 1 and 2 were received
    assert [backlog.admit(b"a", number, LARGE) for number in (6, 7, 8)] == [True, True, False]


def test_one_connection_does_not_pay_for_another() -> None:
    backlog = Backlog(max_connection_bytes=LARGE)
    assert backlog.admit(b"a", 1, LARGE) and not backlog.admit(b"a", 2, LARGE)
    assert backlog.admit(b"b", 1, LARGE)


def test_small_replies_are_not_counted_and_a_huge_first_one_passes() -> None:
    backlog = Backlog(max_connection_bytes=2 * LARGE)
    assert all(backlog.admit(b"a", number, LARGE - 1) for number in range(1000))
    assert backlog.total_bytes == 0
    assert backlog.admit(b"a", 1, 50 * LARGE) and not backlog.admit(b"a", 2, LARGE)


def test_what_is_kept_of_connections_that_vanished_is_bounded() -> None:
    backlog = Backlog(max_connection_bytes=LARGE, max_total_bytes=10 * LARGE)
    for number in range(1000):
        assert backlog.admit(b"%d" % number, 1, LARGE)
    assert backlog.total_bytes <= 10 * LARGE and len(backlog._replies) <= 10
    assert backlog._bytes.keys() == backlog._replies.keys()


def test_confirming_out_of_turn_changes_nothing() -> None:
    backlog = Backlog()
    backlog.confirm(b"stranger", 99)
    backlog.admit(b"a", 7, LARGE)
    backlog.confirm(b"a", 7)
    assert backlog.total_bytes == LARGE
    backlog.confirm(b"a", 8)
    assert backlog.total_bytes == 0 and not backlog._replies
