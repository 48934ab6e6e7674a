"""The frames that wait at a gateway: each is known by its ticket, and together they are bounded."""

from __future__ import annotations

import pytest

from kvstore import pending
from kvstore.pending import Pending, Waiting


def frame(count: int, size_bytes: int, expires_at: float = 1.0) -> Pending:
    return Pending(b"client", 1, count, count, size_bytes, expires_at, True)


def test_requests_and_bytes_are_bounded_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_REQUESTS", 5)
    monkeypatch.setattr(pending, "MAX_BYTES", 100)
    waiting = Waiting()
    assert not waiting and waiting.has_room_for(frame(5, 100))
    first = waiting.enter(frame(3, 10))
    assert waiting.has_room_for(frame(2, 90))
    assert not waiting.has_room_for(frame(3, 1)) and not waiting.has_room_for(frame(1, 91))
    second = waiting.enter(frame(2, 90))
    assert waiting.requests == 5 and not waiting.has_room_for(frame(1, 0))
    assert waiting.leave(first) == frame(3, 10) and waiting.leave(first) is None
    assert waiting.has_room_for(frame(3, 10)) and not waiting.has_room_for(frame(3, 11))
    assert [ticket for ticket, _ in waiting.all()] == [second] and waiting.get(first) is None
    assert waiting.leave(second) is not None
    assert not waiting and waiting.has_room_for(frame(5, 100))


def test_tickets_are_never_used_twice_and_the_overdue_are_found() -> None:
    waiting = Waiting()
    early = waiting.enter(frame(1, 1, expires_at=1.0))
    late = waiting.enter(frame(1, 1, expires_at=2.0))
    assert waiting.overdue(0.9) == [] and waiting.overdue(1.0) == [early]
    waiting.leave(late)
    assert waiting.enter(frame(1, 1)) not in (early, late)
