"""When entries came into a node's log, by its own clock.

Pure: time is passed in. Who proposed an entry did so before it came, on whatever node: so a state machine
that counts time learns here what has passed at least. A few moments are remembered, of what is not applied.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

from raft.entries import Index

Moment: TypeAlias = tuple[Index, float]
"""All up to this entry were in the log then, by the node's own clock."""

MOST: Final = 1024  # moments; what comes while so many wait counts as having come together, with the last


class Arrivals:
    """Owned by one replication actor."""

    def __init__(self, last_index: Index, now_seconds: float) -> None:
        """What is in the log at the start may have come long before: nobody knows, so it comes now."""
        self._ends: deque[Moment] = deque([(last_index, now_seconds)])

    def came(self, first_index: Index, last_index: Index, now_seconds: float) -> None:
        """In place of all that was there from `first_index` on; the log ends with them."""
        ends = self._ends
        while ends and ends[-1][0] >= first_index:
            _, since = ends.pop()
            if not ends or ends[-1][0] < first_index - 1:
                ends.append((first_index - 1, since))  # what is before stays
        if len(ends) >= MOST:
            ends.pop()
        ends.append((last_index, now_seconds))

    def until(self, index: Index) -> list[Moment]:
        """Of all up to `index`, the first ones first. Never asked for less again."""
        ends = self._ends
        moments: list[Moment] = []
        while ends[0][0] < index:
            moments.append(ends.popleft())
        moments.append((index, ends[0][1]))
        return moments
