"""What the gateway holds of requests: a frame that waits to be answered, and a turn's worth of bodies.

Bookkeeping; knows nothing of what a body says, nor of who answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Final

MAX_REQUESTS: Final = 65_536
MAX_BYTES: Final = 64 << 20


@dataclass(slots=True)
class Pending:
    """One client frame whose requests are not all answered yet; known by its ticket."""

    connection: bytes
    first_request_id: int
    count: int
    remaining: int  # 0 < remaining <= count
    size_bytes: int
    expires_at: float
    is_write: bool
    is_status: bool = False


class Waiting:
    """The frames that are not answered yet. Owned by one gateway, which asks for room first."""

    __slots__ = ("_by_ticket", "_size_bytes", "_tickets", "requests")

    def __init__(self) -> None:
        self._tickets = count(1)
        self._by_ticket: dict[int, Pending] = {}
        self.requests = 0  # sum of `count` over them
        self._size_bytes = 0  # sum of `size_bytes` over them

    def __bool__(self) -> bool:
        return bool(self._by_ticket)

    def has_room_for(self, pending: Pending) -> bool:
        return (
            self.requests + pending.count <= MAX_REQUESTS
            and self._size_bytes + pending.size_bytes <= MAX_BYTES
        )

    def enter(self, pending: Pending) -> int:
        """Returns its ticket."""
        ticket = next(self._tickets)
        self._by_ticket[ticket] = pending
        self.requests += pending.count
        self._size_bytes += pending.size_bytes
        return ticket

    def leave(self, ticket: int) -> Pending | None:
        """None: it has left already."""
        pending = self._by_ticket.pop(ticket, None)
        if pending is not None:
            self.requests -= pending.count
            self._size_bytes -= pending.size_bytes
        return pending

    def get(self, ticket: int) -> Pending | None:
        return self._by_ticket.get(ticket)

    def all(self) -> list[tuple[int, Pending]]:
        """As of now: the caller may have some leave."""
        return list(self._by_ticket.items())

    def overdue(self, now: float) -> list[int]:
        return [ticket for ticket, pending in self._by_ticket.items() if pending.expires_at <= now]


class Batch:
    """What arrived in one turn for one destination, flattened: tickets, their counts, all bodies."""

    __slots__ = ("bodies", "counts", "tickets")

    def __init__(self) -> None:
        self.tickets: list[int] = []
        self.counts: list[int] = []
        self.bodies: list[bytes] = []

    def add(self, ticket: int, bodies: list[bytes]) -> None:
        self.tickets.append(ticket)
        self.counts.append(len(bodies))
        self.bodies.extend(bodies)

    def extend(self, other: Batch) -> None:
        self.tickets.extend(other.tickets)
        self.counts.extend(other.counts)
        self.bodies.extend(other.bodies)
