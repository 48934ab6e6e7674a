"""Housekeeping: commands that the state machine itself wants, proposed by the leader's applier.

Pure: no clock, no I/O; time is passed in. Nobody waits for what becomes of them. They are bounded, and one
that is wanted again before it can have been applied is not proposed again: a machine may say what it wants
each time it is asked, until the state shows that it has it.
"""

from __future__ import annotations

from typing import Final

from raft.state_machine import Housekeeper, Leading

MAX_COMMANDS: Final = 64  # of one look; what is left is wanted the next time, too
MAX_BYTES: Final = 256 << 10  # of one look, beside the first command
REPEAT_SECONDS: Final = 1.0  # an equal command is not proposed again before


class Housekeeping:
    """What to propose, and when; owned by one applier."""

    def __init__(self, housekeeper: Housekeeper) -> None:
        self._housekeeper = housekeeper
        self._is_leader = False
        self._proposed: dict[bytes, float] = {}  # within the last REPEAT_SECONDS, and when; oldest first

    def lead(self, is_leader: bool) -> None:
        """This node leads from now on, or no longer. What an earlier leader proposed may be lost."""
        if is_leader and not self._is_leader:
            self._proposed.clear()
        if is_leader and isinstance(self._housekeeper, Leading):
            self._housekeeper.begin_leading()
        self._is_leader = is_leader

    def due(self, now_seconds: float) -> list[bytes]:
        """Commands to be proposed now; none, and the machine is not even asked, unless this node leads."""
        if not self._is_leader:
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
