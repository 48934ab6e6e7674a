"""Exactly once: a sequence has one result for ever, or is refused loudly (dissertation 6.3)."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import protocol
from kvstore.protocol import MAX_UNACKNOWLEDGED
from kvstore.sessions import EXPIRED, FORGOTTEN, RESULT_OVERHEAD_BYTES, Session, Sessions

NONCE = b"n" * 16


def opened(index: int = 10, **limits: int) -> Sessions:
    sessions = Sessions(**limits)
    sessions.open(NONCE, index, 1)
    return sessions


def apply_once(sessions: Sessions, session_id: int, sequence: int, below: int, result: bytes) -> bytes:
    """The way of a command through the machine: `result` is what applying it now would give."""
    admitted = sessions.admit(session_id, sequence, below)
    if isinstance(admitted, bytes):
        return admitted
    sessions.remember(admitted, sequence, result)
    return result


def test_the_session_id_is_the_log_position_of_the_opening() -> None:
    assert msgpack.unpackb(Sessions().open(NONCE, 77, 5)) == [0, 5, 77]


def test_the_same_nonce_opens_the_same_session() -> None:
    sessions = opened(10)
    assert sessions.open(NONCE, 20, 9) == msgpack.packb([0, 1, 10])
    assert sessions.open(b"m" * 16, 21, 9) == msgpack.packb([0, 9, 21])
    assert len(sessions) == 2


def test_g1_a_repeated_sequence_has_the_first_result() -> None:
    sessions = opened()
    assert apply_once(sessions, 10, 1, 1, b"first") == b"first"
    assert apply_once(sessions, 10, 1, 1, b"second") == b"first"
    assert apply_once(sessions, 10, 2, 1, b"other") == b"other"
    assert apply_once(sessions, 10, 1, 1, b"third") == b"first"


def test_g4_an_unknown_session_is_expired_never_a_new_one() -> None:
    sessions = opened()
    assert sessions.admit(11, 1, 1) == EXPIRED
    code, text = msgpack.unpackb(EXPIRED)
    assert (code, text[:15]) == (protocol.SESSION_EXPIRED, "session expired")
    assert len(sessions) == 1


def test_a_closed_session_is_expired_and_its_nonce_opens_another() -> None:
    sessions = opened()
    assert sessions.close(10)
    assert not sessions.close(10)
    assert sessions.admit(10, 1, 1) == EXPIRED
    assert msgpack.unpackb(sessions.open(NONCE, 30, 1)) == [0, 1, 30]


def test_sequences_may_come_in_any_order_within_the_window() -> None:
    """Pipelined requests, retried one by one, overtake one another."""
    sessions = opened()
    for sequence in (3, 1, 5, 2, 4):
        assert apply_once(sessions, 10, sequence, 1, b"%d" % sequence) == b"%d" % sequence
    for sequence in (1, 2, 3, 4, 5):
        assert apply_once(sessions, 10, sequence, 1, b"again") == b"%d" % sequence


def test_what_is_acknowledged_is_forgotten_and_never_applied_again() -> None:
    sessions = opened()
    for sequence in (1, 2, 3):
        apply_once(sessions, 10, sequence, 1, b"%d" % sequence)
    assert apply_once(sessions, 10, 4, 3, b"4") == b"4"
    assert sessions.admit(10, 1, 1) == FORGOTTEN
    assert sessions.admit(10, 2, 1) == FORGOTTEN
    assert sessions.admit(10, 3, 1) == b"3"


def test_a_sequence_below_the_acknowledged_ones_is_forgotten_even_if_it_never_came() -> None:
    sessions = opened()
    assert apply_once(sessions, 10, 9, 7, b"9") == b"9"
    assert sessions.admit(10, 6, 1) == FORGOTTEN
    assert isinstance(sessions.admit(10, 7, 1), Session)


def test_beyond_the_window_the_oldest_is_forgotten() -> None:
    sessions = opened()
    for sequence in range(1, MAX_UNACKNOWLEDGED + 1):
        apply_once(sessions, 10, sequence, 1, b"r")
    assert sessions.admit(10, 1, 1) == b"r"
    apply_once(sessions, 10, MAX_UNACKNOWLEDGED + 1, 1, b"r")
    assert sessions.admit(10, 1, 1) == FORGOTTEN
    assert sessions.admit(10, 2, 1) == b"r"


def test_a_leap_of_sequences_costs_nothing() -> None:
    sessions = opened()
    for sequence in (1, 2, 2**62, 2**63 - 1):
        assert apply_once(sessions, 10, sequence, 1, b"%d" % sequence) == b"%d" % sequence
    assert sessions.admit(10, 2**62, 1) == FORGOTTEN
    assert sessions.admit(10, 2**63 - 1, 1) == b"%d" % (2**63 - 1)


def test_the_session_unused_for_longest_makes_room() -> None:
    """By the order of the log; repeats and re-openings are uses, refusals of other sessions are none."""
    sessions = Sessions(max_sessions=3)
    for index in (1, 2, 3):
        sessions.open(b"%016d" % index, index, 1)
    apply_once(sessions, 1, 1, 1, b"r")
    sessions.open(b"%016d" % 2, 50, 1)
    sessions.open(b"%016d" % 4, 4, 1)
    assert sessions.admit(3, 1, 1) == EXPIRED
    assert sessions.admit(1, 1, 1) == b"r"
    assert len(sessions) == 3
    assert msgpack.unpackb(sessions.open(b"%016d" % 3, 60, 1)) == [0, 1, 60]
    assert sessions.admit(2, 1, 1) == EXPIRED


def test_a_session_with_large_results_forgets_its_own_older_ones() -> None:
    sessions = opened(10, max_session_bytes=10 * (100 + RESULT_OVERHEAD_BYTES))
    sessions.open(b"m" * 16, 11, 1)
    apply_once(sessions, 11, 1, 1, b"small")
    for sequence in range(1, 12):
        apply_once(sessions, 10, sequence, 1, bytes(100))
    assert sessions.admit(10, 1, 1) == FORGOTTEN
    assert sessions.admit(10, 11, 1) == bytes(100)
    assert sessions.admit(11, 1, 1) == b"small"


def test_all_results_together_are_bounded() -> None:
    sessions = opened(10, max_remembered_bytes=20 * (100 + RESULT_OVERHEAD_BYTES))
    sessions.open(b"m" * 16, 11, 1)
    for sequence in range(1, 11):
        apply_once(sessions, 10, sequence, 1, bytes(100))
    for sequence in range(1, 12):
        apply_once(sessions, 11, sequence, 1, bytes(100))
    assert sessions.admit(10, 1, 1) == EXPIRED
    assert sessions.admit(11, 1, 1) == bytes(100)


def test_one_result_larger_than_every_bound_is_still_given() -> None:
    sessions = opened(10, max_session_bytes=50, max_remembered_bytes=50)
    assert apply_once(sessions, 10, 1, 1, bytes(1000)) == bytes(1000)
    assert sessions.admit(10, 1, 1) == bytes(1000)


STEPS = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(0, 12), st.integers(0, 200)), max_size=80
)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(1, 4000))
def test_no_sequence_is_applied_twice_and_the_bytes_add_up(
    steps: list[tuple[int, int, int, int]], max_bytes: int
) -> None:
    """Whatever is acknowledged, forgotten or evicted."""
    sessions = Sessions(max_sessions=2, max_remembered_bytes=max_bytes, max_session_bytes=max_bytes // 2)
    applied: dict[tuple[int, int], bytes] = {}
    ids: dict[int, int] = {}
    for index, (client, sequence, below, size) in enumerate(steps, 1):
        result: list[int] = msgpack.unpackb(sessions.open(b"%016d" % client, index, 1))
        ids[client] = result[2]
        place = (ids[client], sequence)
        fresh = b"%d" % index + bytes(size)
        got = apply_once(sessions, *place, min(below, sequence), fresh)
        if got == fresh:
            assert place not in applied
            applied[place] = fresh
        else:
            assert got in (FORGOTTEN, EXPIRED, applied.get(place))
        kept = [session.remembered_bytes for session in sessions._sessions.values()]
        assert sessions._remembered_bytes == sum(kept)
        assert kept == [
            sum(len(r) + RESULT_OVERHEAD_BYTES for r in session.results.values())
            for session in sessions._sessions.values()
        ]


def test_the_digest_knows_the_order_of_use() -> None:
    """Two replicas which would evict different sessions are not in the same state."""
    one, other = opened(1), opened(1)
    for sessions in (one, other):
        sessions.open(b"m" * 16, 2, 1)
    assert one.digest() == other.digest()
    one.open(NONCE, 3, 1)
    assert one.digest() != other.digest()


@pytest.mark.parametrize("below", [0, 1, 4])
def test_a_retry_with_its_old_acknowledgement_changes_nothing(below: int) -> None:
    sessions = opened()
    apply_once(sessions, 10, 4, below, b"4")
    apply_once(sessions, 10, 8, 5, b"8")
    before = sessions.digest()
    assert apply_once(sessions, 10, 8, below, b"again") == b"8"
    assert sessions.digest() == before
