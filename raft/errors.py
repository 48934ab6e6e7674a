"""What the core may raise, and what a proposer may be told instead of a result.

Operating errors carry data, and the caller is expected to act on it. Those that end the life of a command are
of two families, NotApplied and OutcomeUnknown: what may be done next depends on nothing else.
InvariantBroken is different: it says that this program, or the disk under it, is wrong, and that the process
must end before it does damage.
"""

from __future__ import annotations

from raft.entries import NodeId


class RaftError(Exception):
    """Any refusal that an ordinary caller has to expect."""

    __slots__ = ()


class NotApplied(RaftError):
    """The command was never in a log, so it is surely not applied: it may be proposed again, anywhere."""

    __slots__ = ()


class OutcomeUnknown(RaftError):
    """The command was in a log: it may have been applied, or may yet be. `reason` says why nobody knows.

    To propose it again may apply it twice, unless the state machine can tell that it has seen it before.
    """

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConflictWithLeader(OutcomeUnknown):
    """A new leader overwrote the command in the log of this node. By Raft's figure 8 another node that holds
    it may still lead and commit it, so that this is no proof that it was not applied."""

    __slots__ = ()


class NotLeader(NotApplied):
    """This node cannot do it. `leader_id` is the node that can, or None while no leader is known."""

    __slots__ = ("leader_id",)

    def __init__(self, leader_id: NodeId | None) -> None:
        super().__init__(leader_id)
        self.leader_id = leader_id


class Overloaded(NotApplied):
    """A bound is reached: `amount` (bytes or requests) would pass `limit`. Try again when some are done.

    Both are 0 when it is known from hearsay only.
    """

    __slots__ = ("amount", "limit")

    def __init__(self, amount: int = 0, limit: int = 0) -> None:
        super().__init__(amount, limit)
        self.amount = amount
        self.limit = limit


class Expired(NotApplied):
    """The deadline passed before the command was proposed, or before a read was answered."""

    __slots__ = ()


class ShuttingDown(NotApplied):
    """The node is stopping or has stopped, and had not proposed the command: go to another node."""

    __slots__ = ()


class InvariantBroken(AssertionError):
    """A fact that Raft's safety rests on does not hold. Raised, not asserted: `python -O` keeps it."""
