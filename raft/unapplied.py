"""What was handed out to be applied and is not applied yet, for the commands before it take long.

May know the messages that have an order among them. Bounded by those who hand out: while something waits
here, they are told to hold back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, TypeAlias

from raft.actor_messages import Committed, RestoreSnapshot, TakeSnapshot

# In one turn of the applier, beyond the command that is under way. Heartbeats go out between the turns.
APPLY_SECONDS: Final = 0.05

Ordered: TypeAlias = Committed | TakeSnapshot | RestoreSnapshot
"""Messages of replication that mean the state after all those before them."""


@dataclass(slots=True)
class Unapplied:
    """Owned by one applier."""

    waiting: deque[Ordered]
    results: list[bytes | None]  # of the first one that waits, as far as it is applied
    is_told: bool = False  # replication holds back
    work_until: float | None = None  # in this turn; None: no command that may take long came yet

    @classmethod
    def nothing(cls) -> Unapplied:
        return cls(deque(), [])
