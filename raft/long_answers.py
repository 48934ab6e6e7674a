"""Answers that take several steps: the tickets that wait for them, and whose turn it is.

May know: tickets and answers; the time is passed in. A ticket is answered from its start on, in order. They
take turns, so that a short one does not wait for all of a long one; how many wait, how much is kept for them
and how long they may take is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from raft.state_machine import LongAnswer

TURN_SECONDS: Final = 0.005  # no step begins later in a turn
MAX_TICKETS: Final = 1024
MAX_KEPT_BYTES: Final = 64 << 20  # of answers that wait for a longer one before them; or of one ticket
LONGEST_SECONDS: Final = 10.0  # of one ticket: by then its client has long asked again, most likely

_ANSWERS: Final = {bytes}

Slice = tuple[int, int, int, bytes]
"""(ticket, offset, count, results), as Applied has them."""


class _Open:
    """A ticket that is not answered yet from `offset` on: by `answers`, the first of which is a long one."""

    __slots__ = ("answers", "kept_bytes", "offset", "since_seconds", "ticket")

    def __init__(
        self, ticket: int, offset: int, answers: deque[bytes | LongAnswer], kept_bytes: int, now: float
    ) -> None:
        self.ticket = ticket
        self.offset = offset
        self.answers = answers
        self.kept_bytes = kept_bytes
        self.since_seconds = now


class LongAnswers:
    """Owned by one applier."""

    def __init__(self) -> None:
        self._open: deque[_Open] = deque()  # whose turn it is comes first
        self._kept_bytes = 0  # sum over _open

    def __bool__(self) -> bool:
        return bool(self._open)

    def clear(self) -> None:
        """Nobody is answered any more."""
        self._open.clear()
        self._kept_bytes = 0

    def take(self, ticket: int, answers: list[bytes | LongAnswer], now: float) -> tuple[list[Slice], bool]:
        """What can be answered at once of this ticket; and whether there was room for the rest."""
        if set(map(type, answers)) == _ANSWERS:
            return [(ticket, 0, len(answers), b"".join(answers))], True  # type: ignore[arg-type]
        waiting = deque(answers)
        ready = _ready(waiting)
        slices = [(ticket, 0, len(ready), b"".join(ready))] if ready else []
        kept_bytes = sum(len(answer) for answer in waiting if isinstance(answer, bytes))
        if self._open and (len(self._open) >= MAX_TICKETS or self._kept_bytes + kept_bytes > MAX_KEPT_BYTES):
            return slices, False
        self._open.append(_Open(ticket, len(ready), waiting, kept_bytes, now))
        self._kept_bytes += kept_bytes
        return slices, True

    def work(self, now: Callable[[], float]) -> tuple[list[Slice], list[int]]:
        """A turn's worth of steps: what is answered by them, and tickets that have taken too long."""
        slices: list[Slice] = []
        overdue: list[int] = []
        at = began = now()
        while self._open and at - began < TURN_SECONDS:
            entry = self._open.popleft()
            if at - entry.since_seconds > LONGEST_SECONDS:
                overdue.append(entry.ticket)
                self._kept_bytes -= entry.kept_bytes
                continue
            long = entry.answers[0]
            assert not isinstance(long, bytes), f"ticket {entry.ticket} waits for what is there"
            answer = next(long)
            if answer is not None:
                entry.answers.popleft()
                ready = [answer, *_ready(entry.answers)]
                slices.append((entry.ticket, entry.offset, len(ready), b"".join(ready)))
                entry.offset += len(ready)
                kept_bytes = sum(map(len, ready)) - len(answer)
                entry.kept_bytes -= kept_bytes
                self._kept_bytes -= kept_bytes
            if entry.answers:
                self._open.append(entry)
            at = now()
        return slices, overdue


def _ready(waiting: deque[bytes | LongAnswer]) -> list[bytes]:
    """Takes those at the front which are there."""
    ready: list[bytes] = []
    while waiting and isinstance(answer := waiting[0], bytes):
        ready.append(answer)
        waiting.popleft()
    return ready
