"""What the core may raise.

Operating errors carry data, and the caller is expected to act on it. InvariantBroken is different: it says
that this program, or the disk under it, is wrong, and that the process must end before it does damage.
"""

from __future__ import annotations

from raft.entries import NodeId


class RaftError(Exception):
    """Any refusal of the core that an ordinary caller has to expect."""

    __slots__ = ()


class NotLeader(RaftError):
    """This node cannot do it. `leader_id` is the node that can, or None while no leader is known."""

    __slots__ = ("leader_id",)

    def __init__(self, leader_id: NodeId | None) -> None:
        super().__init__(leader_id)
        self.leader_id = leader_id


class Overloaded(RaftError):
    """A bound is reached: `amount` (bytes or requests) would pass `limit`. Try again when some are done."""

    __slots__ = ("amount", "limit")

    def __init__(self, amount: int, limit: int) -> None:
        super().__init__(amount, limit)
        self.amount = amount
        self.limit = limit


class InvariantBroken(AssertionError):
    """A fact that Raft's safety rests on does not hold. Raised, not asserted: `python -O` keeps it."""
