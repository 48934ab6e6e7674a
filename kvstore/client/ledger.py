"""Who waits for an answer, for how long, and how much may be waiting.

May know: calls and time as it is passed in. Rules: whatever is admitted is ended once, by finish(); the
bounds hold for callers' calls, not for the few that the client makes for itself.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any, Final

from kvstore.client.calls import Call
from kvstore.errors import Overloaded

MAX_QUEUED_BYTES: Final = 64 << 20
_LEAST_HEAP_ENTRIES: Final = 1024


class Ledger:
    """Owned by the core."""

    __slots__ = ("_deadlines", "_max_outstanding", "_serial", "outstanding", "outstanding_bytes")

    def __init__(self, max_outstanding: int) -> None:
        self.outstanding = 0  # callers' calls that are not finished, <= _max_outstanding
        self.outstanding_bytes = 0  # <= MAX_QUEUED_BYTES
        self._max_outstanding = max_outstanding
        # A heap. Finished calls stay until their time has come, or until they are the greater part.
        self._deadlines: list[tuple[float, int, Call]] = []
        self._serial = 0  # breaks ties, so that calls are never compared

    def admit(self, call: Call) -> None:
        """Raises Overloaded, and then nothing has changed."""
        if not call.is_internal:
            size_bytes = self.outstanding_bytes + call.size_bytes
            if self.outstanding >= self._max_outstanding or size_bytes > MAX_QUEUED_BYTES:
                raise Overloaded("too many requests of this client are waiting for their answers")
            self.outstanding += 1
            self.outstanding_bytes = size_bytes
        self._serial += 1
        heappush(self._deadlines, (call.deadline, self._serial, call))
        if len(self._deadlines) > 4 * self.outstanding + _LEAST_HEAP_ENTRIES:
            self._deadlines = [entry for entry in self._deadlines if not entry[2].done]
            heapify(self._deadlines)

    def next_deadline(self) -> float | None:
        deadlines = self._deadlines
        while deadlines and deadlines[0][2].done:
            heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def due(self, now: float) -> list[Call]:
        """Calls whose deadline has passed; they are no longer waited for here, and must be finished."""
        deadlines = self._deadlines
        calls = []
        while deadlines and (deadlines[0][0] <= now or deadlines[0][2].done):
            call = heappop(deadlines)[2]
            if not call.done:
                calls.append(call)
        return calls

    def finish(self, call: Call, value: Any, error: Exception | None) -> None:
        """Ends a call; its callback runs within."""
        assert not call.done, f"finished twice: kind {call.kind}, sequence {call.sequence}"
        call.done = True
        call.value = value
        call.error = error
        if not call.is_internal:
            self.outstanding -= 1
            self.outstanding_bytes -= call.size_bytes
        call.release()
        call.callback(call)
