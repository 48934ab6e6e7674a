"""What the gateway holds of requests: a frame that waits to be answered, and a turn's worth of bodies.

Plain data; knows nothing of what a body says.
"""

from __future__ import annotations

from dataclasses import dataclass


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
