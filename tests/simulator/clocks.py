"""Time in the simulator: one schedule of what happens when, and a clock for each node that may run wrong.

Knows nothing of nodes or networks. Events of one moment happen in the order in which they were scheduled, so
a run depends on nothing but what its seed decided.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Schedule:
    """What is to happen, in order of time. Owned by one simulation."""

    def __init__(self) -> None:
        self.now = 0.0  # simulated seconds; the true time, which no node knows
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, time: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (max(time, self.now), self._count, action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.at(self.now + seconds, action)

    def run_until(self, time: float, is_done: Callable[[], bool] | None = None) -> bool:
        """Let everything happen up to `time`, or until `is_done`, which is asked after each event."""
        heap = self._heap
        while heap and heap[0][0] <= time:
            at, _, action = heapq.heappop(heap)
            self.now = at
            action()
            if is_done is not None and is_done():
                return True
        self.now = max(self.now, time)
        return is_done() if is_done is not None else True


class NodeClock:
    """A node's monotonic clock: it may run fast or slow, and jump ahead, but never back.

    `busy_seconds` is how far the node is within its present turn: a slow disk moves it.
    """

    __slots__ = ("_base_local", "_base_true", "_schedule", "busy_seconds", "rate")

    def __init__(self, schedule: Schedule, start_seconds: float, rate: float) -> None:
        self._schedule = schedule
        self._base_true = schedule.now
        self._base_local = start_seconds
        self.rate = rate
        self.busy_seconds = 0.0

    def now(self) -> float:
        return self._base_local + (self._schedule.now + self.busy_seconds - self._base_true) * self.rate

    def turn_began(self) -> float:
        """What it showed then; of a start, too."""
        return self.now() - self.busy_seconds * self.rate

    def true_time(self, local: float) -> float:
        """When this clock will show `local`, if nothing happens to it meanwhile."""
        return self._base_true + (local - self._base_local) / self.rate

    def change(self, *, jump_seconds: float = 0.0, rate: float | None = None) -> None:
        assert jump_seconds >= 0, f"a monotonic clock cannot jump by {jump_seconds} s"
        self._base_local = self.now() + jump_seconds
        self._base_true = self._schedule.now + self.busy_seconds
        if rate is not None:
            self.rate = rate
