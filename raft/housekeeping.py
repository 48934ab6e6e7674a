"""Housekeeping: commands that the state machine itself wants, proposed by the leader's applier.

Pure: no clock, no I/O; time is passed in. Nobody waits for what becomes of them. They are bounded, and one
that is wanted again before it can have been applied is not proposed again: a machine may say what it wants
each time it is asked, until the state shows that it has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final

from raft.arrivals import Moment
from raft.entries import Index
from raft.state_machine import Housekeeper, Timekeeper

MAX_COMMANDS: Final = 64  # of one look; what is left is wanted the next time, too
MAX_BYTES: Final = 256 << 10  # of one look, beside the first command
REPEAT_SECONDS: Final = 1.0  # an equal command is not proposed again before


class Housekeeping:
    """What to propose, and when; owned by one applier."""

    def __init__(self, housekeeper: Housekeeper | None) -> None:
        self._housekeeper = housekeeper  # None: the machine wants nothing by itself
        self._timekeeper = housekeeper if isinstance(housekeeper, Timekeeper) else None
        self._leads_from: Index | None = None  # once so much is applied; None: another node leads
        self._applied_index: Index = 0
        self._proposed: dict[bytes, float] = {}  # within the last REPEAT_SECONDS, and when; oldest first

    @property
    def is_wanted(self) -> bool:
        return self._housekeeper is not None

    def lead(self, is_leader: bool, last_index: Index = 0) -> None:
        """This node leads from now on, or no longer. What an earlier leader proposed may be lost, or be in
        the log up to `last_index`: who does not know that yet had better not say what is needed."""
        if is_leader and self._leads_from is None:
            self._proposed.clear()
        if is_leader and self._timekeeper is not None:
            self._timekeeper.begin_leading()
        self._leads_from = last_index if is_leader else None

    def was_applied(self, applied_index: Index, arrivals: Sequence[Moment]) -> None:
        """All up to this entry."""
        self._applied_index = applied_index
        if self._timekeeper is not None:
            self._timekeeper.was_applied(arrivals)

    def due_at(self) -> float:
        """When due() is wanted, if earlier than it comes anyway."""
        at = self._timekeeper.due_at() if self._timekeeper is not None and self._is_up_to_it() else None
        return inf if at is None else at

    def _is_up_to_it(self) -> bool:
        return self._leads_from is not None and self._applied_index >= self._leads_from

    def due(self, now_seconds: float) -> list[bytes]:
        """Commands to be proposed now; none, and the machine is not even asked, unless this node leads."""
        if self._housekeeper is None or not self._is_up_to_it():
            return []
        proposed = self._proposed
        for body in [body for body, at in proposed.items() if now_seconds - at >= REPEAT_SECONDS]:
            del proposed[body]
        bodies: list[bytes] = []
        size_bytes = 0
        for body in self._housekeeper.due_commands(now_seconds):
            if body in proposed:
                continue
            size_bytes += len(body)
            if len(bodies) == MAX_COMMANDS or (bodies and size_bytes > MAX_BYTES):
                break
            proposed[body] = now_seconds
            bodies.append(body)
        return bodies
