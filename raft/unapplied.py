"""What was handed out to be applied and is not applied yet, and how much of it one turn may do.

May know the messages that have an order among them, and a time that it is given. What waits is bounded by
those who hand out: while something waits here, they are told to hold back. Results are kept for those who
asked, and no longer than until a turn ends or there is a megabyte of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from raft.actor_messages import Committed, RestoreSnapshot, TakeSnapshot
from raft.long_answers import Slice

# Of a heartbeat interval: so much of it one turn may take, and a command more. Heartbeats, and all else that
# a node does, go on between the turns; and so others need not wait where heartbeats are rare.
TURN_SHARE: Final = 0.5
MOST_TURN_SECONDS: Final = 0.025
READ_SHARE: Final = 0.25  # of that, at least, for the reads that wait behind what is applied
TURN_RESULT_BYTES: Final = 8 << 20  # of results leave with one turn, and those of a piece or a read more
PIECE_ENTRIES: Final = 64  # at once into a machine that asks for no time by itself
PART_BYTES: Final = 1 << 20  # of a ticket's results leave together, and one result more

Ordered: TypeAlias = Committed | TakeSnapshot | RestoreSnapshot
"""Messages of replication that mean the state after all those before them."""


class Share:
    """What one turn of the applier may take. Owned by one applier."""

    __slots__ = ("_now", "_seconds", "_until", "result_bytes")

    def __init__(self, now: Callable[[], float], heartbeat_interval_seconds: float) -> None:
        self._now = now
        self._seconds = min(heartbeat_interval_seconds * TURN_SHARE, MOST_TURN_SECONDS)
        self._until = 0.0
        self.result_bytes = 0  # that leave with this turn

    def begin(self) -> None:
        """With a turn: what it does first counts as well."""
        self._until = self._now() + self._seconds
        self.result_bytes = 0

    def leave_some_for_reads(self) -> None:
        """Though the commands have taken all of it."""
        self._until = max(self._until, self._now() + READ_SHARE * self._seconds)

    def is_used_up(self) -> bool:
        """Asked behind whatever may have taken long."""
        return self._now() >= self._until or self.result_bytes >= TURN_RESULT_BYTES


class Unapplied:
    """Owned by one applier."""

    __slots__ = ("_kept", "_kept_bytes", "_place", "_sent", "done", "is_told", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Ordered] = deque()
        self.done = 0  # entries of the first one that waits
        self.is_told = False  # replication holds back
        # Of the slices of that one: those before _place have left, and so have the first _sent results of the
        # one that is there; _kept has the next ones.
        self._place = 0
        self._sent = 0
        self._kept: list[bytes] = []
        self._kept_bytes = 0

    def take(self, message: Committed, results: list[bytes | None]) -> list[Slice]:
        """Those of its next entries: what is to leave now. What nobody asked for is gone with this call."""
        begin, end = self.done, self.done + len(results)
        self.done = end
        parts: list[Slice] = []
        while self._place < len(message.slices) and message.starts[self._place] < end:
            start, (_, _, count) = message.starts[self._place], message.slices[self._place]
            first, last = max(start, begin), min(start + count, end)
            self._keep(results[first - begin : last - begin], parts)  # type: ignore[arg-type]  # commands have results
            if last < start + count:
                break
            parts += self.part()
            self._place += 1
            self._sent = 0
        return parts

    def _keep(self, results: list[bytes], parts: list[Slice]) -> None:
        size_bytes = sum(map(len, results))
        if self._kept_bytes + size_bytes < PART_BYTES:
            self._kept += results
            self._kept_bytes += size_bytes
            return
        for result in results:
            self._kept.append(result)
            self._kept_bytes += len(result)
            if self._kept_bytes >= PART_BYTES:
                parts += self.part()

    def part(self) -> list[Slice]:
        """What is kept, which is not kept any longer."""
        kept = self._kept
        if not kept:
            return []
        message = self.waiting[0]
        assert isinstance(message, Committed), f"results of {message}"
        ticket, offset, _ = message.slices[self._place]
        part = (ticket, offset + self._sent, len(kept), b"".join(kept))
        self._sent += len(kept)
        self._kept, self._kept_bytes = [], 0
        return [part]

    def go_on(self) -> None:
        """With the next one that waits: the first is applied."""
        self.waiting.popleft()
        self._begin()

    def clear(self) -> None:
        """Nothing more is applied, and nobody is answered."""
        self.waiting.clear()
        self._begin()

    def _begin(self) -> None:
        self.done = self._place = self._sent = self._kept_bytes = 0
        self._kept = []
