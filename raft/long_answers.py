"""Answers that take several steps: the tickets that wait for them, and whose turn it is.

May know: tickets and answers; the time is passed in. A ticket is answered from its start on, in order. The
first step of each answer is taken soon, for it may be the only one. Of those that need more only a few are
begun, the oldest first, and they are brought to an end: what they keep meanwhile is bounded so, and under too
much load some are finished, where all would be late if all were begun. How many wait, how much is kept for
them and how long they may wait and take is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from raft.state_machine import LongAnswer

TURN_SECONDS: Final = 0.005  # no step begins later in a turn
MAX_TICKETS: Final = 1024
MAX_AT_WORK: Final = 4  # so many half-made answers are in memory
MAX_KEPT_BYTES: Final = 64 << 20  # of answers that wait for a longer one before them; or of one ticket
LONGEST_WAIT_SECONDS: Final = 5.0  # until a ticket's next answer is begun
LONGEST_WORK_SECONDS: Final = 10.0  # on one answer

_ANSWERS: Final = {bytes}

Slice = tuple[int, int, int, bytes]
"""(ticket, offset, count, results), as Applied has them."""


class _Open:
    """A ticket that is not answered yet from `offset` on: by `answers`, the first of which is a long one."""

    __slots__ = ("answers", "begun_seconds", "kept_bytes", "offset", "since_seconds", "ticket")

    def __init__(
        self, ticket: int, offset: int, answers: deque[bytes | LongAnswer], kept_bytes: int, now: float
    ) -> None:
        self.ticket = ticket
        self.offset = offset
        self.answers = answers
        self.kept_bytes = kept_bytes
        self.since_seconds = now
        self.begun_seconds = 0.0  # of the answer that is at work


class LongAnswers:
    """Owned by one applier. A ticket is in one of three places."""

    def __init__(self) -> None:
        self._fresh: deque[_Open] = deque()  # the next answer has not had its first step
        self._waiting: deque[_Open] = deque()  # it has, and needs more: it is begun when there is a place
        self._at_work: list[_Open] = []  # begun, at most MAX_AT_WORK, in that order
        self._kept_bytes = 0  # sum over all of them
        self._steps = 0  # of those at work: each second one is the oldest's
        self._is_freshs_turn = True

    def __bool__(self) -> bool:
        return bool(self._fresh or self._waiting or self._at_work)

    def __len__(self) -> int:
        return len(self._fresh) + len(self._waiting) + len(self._at_work)

    def clear(self) -> None:
        """Nobody is answered any more."""
        self._fresh.clear()
        self._waiting.clear()
        self._at_work.clear()
        self._kept_bytes = 0

    def take(
        self, ticket: int, answers: Sequence[bytes | LongAnswer], now: float
    ) -> tuple[list[Slice], bool]:
        """What can be answered at once of this ticket; and whether there was room for the rest."""
        if set(map(type, answers)) == _ANSWERS:
            return [(ticket, 0, len(answers), b"".join(answers))], True  # type: ignore[arg-type]
        waiting = deque(answers)
        ready = _ready(waiting)
        slices = [(ticket, 0, len(ready), b"".join(ready))] if ready else []
        kept_bytes = sum(len(answer) for answer in waiting if isinstance(answer, bytes))
        if self and (len(self) >= MAX_TICKETS or self._kept_bytes + kept_bytes > MAX_KEPT_BYTES):
            return slices, False
        self._fresh.append(_Open(ticket, len(ready), waiting, kept_bytes, now))
        self._kept_bytes += kept_bytes
        return slices, True

    def work(self, now: Callable[[], float]) -> tuple[list[Slice], list[int]]:
        """A turn's worth of steps: what is answered by them, and tickets that have taken too long."""
        slices: list[Slice] = []
        at = began = now()
        overdue = self._overdue(at)
        while self and at - began < TURN_SECONDS:
            self._begin(at)
            if self._fresh and (self._is_freshs_turn or not self._at_work):
                self._step_fresh(slices, at)
            else:
                self._step_at_work(slices, at)
            self._is_freshs_turn = not self._is_freshs_turn
            at = now()
        return slices, overdue

    def _overdue(self, at: float) -> list[int]:
        """Tickets that are given up. Those that wait are looked at as far as the first that may go on."""
        gone = [each for each in self._at_work if at - each.begun_seconds > LONGEST_WORK_SECONDS]
        self._at_work = [each for each in self._at_work if each not in gone]
        for line in (self._fresh, self._waiting):
            while line and at - line[0].since_seconds > LONGEST_WAIT_SECONDS:
                gone.append(line.popleft())
        self._kept_bytes -= sum(each.kept_bytes for each in gone)
        return [each.ticket for each in gone]

    def _begin(self, at: float) -> None:
        while self._waiting and len(self._at_work) < MAX_AT_WORK:
            entry = self._waiting.popleft()
            entry.begun_seconds = at
            self._at_work.append(entry)

    def _step_fresh(self, slices: list[Slice], at: float) -> None:
        entry = self._fresh.popleft()
        if not self._step(entry, slices):
            self._waiting.append(entry)
        else:
            self._go_on(entry, at)

    def _go_on(self, entry: _Open, at: float) -> None:
        """With its next answer, if it has one, which has waited since this one was there."""
        if entry.answers:
            entry.since_seconds = at
            self._fresh.append(entry)

    def _step_at_work(self, slices: list[Slice], at: float) -> None:
        """Half of the steps are the oldest's, which comes to its end so; the others take turns."""
        self._steps += 1
        others = len(self._at_work) - 1
        place = 1 + self._steps // 2 % others if self._steps % 2 == 0 and others else 0
        entry = self._at_work[place]
        if self._step(entry, slices):
            del self._at_work[place]
            self._go_on(entry, at)

    def _step(self, entry: _Open, slices: list[Slice]) -> bool:
        """Whether the answer is there now."""
        long = entry.answers[0]
        assert not isinstance(long, bytes), f"ticket {entry.ticket} waits for what is there"
        answer = next(long)
        if answer is None:
            return False
        entry.answers.popleft()
        ready = [answer, *_ready(entry.answers)]
        slices.append((entry.ticket, entry.offset, len(ready), b"".join(ready)))
        entry.offset += len(ready)
        kept_bytes = sum(map(len, ready)) - len(answer)
        entry.kept_bytes -= kept_bytes
        self._kept_bytes -= kept_bytes
        return True


def _ready(waiting: deque[bytes | LongAnswer]) -> list[bytes]:
    """Takes those at the front which are there."""
    ready: list[bytes] = []
    while waiting and isinstance(answer := waiting[0], bytes):
        ready.append(answer)
        waiting.popleft()
    return ready
