"""Renewals of leases that come one by one: those of a moment go to the log together.

May know: where the first bytes of a body tell a renewal, and the time as it is passed in. A renewal can wait
as nothing else can: nobody reads what it writes, and a lease that is renewed a little later ends a little
later. By itself each would cost an entry, a sync and a round of messages. The first leaves at once; those
that come within GATHER_SECONDS of it leave together at the end of that, or with whatever is written before.
"""

from __future__ import annotations

from typing import Final

from kvstore.codes import LEASE_KEEPALIVE
from kvstore.pending import Batch

GATHER_SECONDS: Final = 0.1

# Behind the head of a short array: no session, no sequence, nothing acknowledged, and the operation.
_START: Final = bytes((0, 0, 0, LEASE_KEEPALIVE))


def is_renewal(bodies: list[bytes]) -> bool:
    """Of few leases, alone in its frame. What is wrong with it the state machine finds out."""
    return len(bodies) == 1 and bodies[0][1:5] == _START


class Renewals:
    """Owned by one gateway. What it holds is pending there, and bounded with it."""

    def __init__(self) -> None:
        self.held = Batch()
        self._leave_at = 0.0  # no earlier than this, unless something else is written

    def __bool__(self) -> bool:
        return bool(self.held.tickets)

    def due_at(self) -> float | None:
        """When what is held is to be proposed; None: nothing is."""
        return self._leave_at if self.held.tickets else None

    def is_due(self, now: float) -> bool:
        return bool(self.held.tickets) and now >= self._leave_at

    def join(self, writes: Batch, now: float) -> None:
        """What is held is proposed with these writes, behind them."""
        if self.held.tickets:
            held, self.held = self.held, Batch()
            self._leave_at = now + GATHER_SECONDS
            writes.extend(held)
