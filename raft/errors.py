"""What the core may raise, and what a proposer may be told instead of a result.

Operating errors carry data, and the caller is expected to act on it. Those that end the life of a command are
of two families, NotApplied and OutcomeUnknown: what may be done next depends on nothing else.
InvariantBroken is different: it says that this program, or the disk under it, is wrong, and that the process
must end before it does damage.
"""

from __future__ import annotations

from enum import StrEnum

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


class TooLarge(NotApplied):
    """A command of `amount` bytes, and `limit` is the most that this replica takes."""

    __slots__ = ("amount", "limit")

    def __init__(self, amount: int, limit: int) -> None:
        super().__init__(amount, limit)
        self.amount = amount
        self.limit = limit


class Expired(NotApplied):
    """The deadline passed before the command was proposed, or before a read was answered."""

    __slots__ = ()


class ShuttingDown(NotApplied):
    """The node is stopping or has stopped, and had not proposed the command: go to another node."""

    __slots__ = ()


class Fenced(NotApplied):
    """This node's state differs from that of a majority, so that it serves nothing any more: go to another
    node, and have this one replaced."""

    __slots__ = ()


class Transferring(NotApplied):
    """Leadership is being handed to `target`: nothing is proposed meanwhile. Try again, soon and anywhere.

    The target is None when it is known from hearsay only.
    """

    __slots__ = ("target",)

    def __init__(self, target: NodeId | None = None) -> None:
        super().__init__(target)
        self.target = target


class ConfigurationReason(StrEnum):
    """Why a change of membership is refused."""

    IN_FLIGHT = "in_flight"  # one at a time: another is not committed yet, or not finished
    NO_COMMIT_IN_TERM = "no_commit_in_term"  # a new leader must commit an entry of its own term before
    NOT_CAUGHT_UP = "not_caught_up"  # a voter to be is no learner yet, or far behind the log
    LOSES_QUORUM = "loses_quorum"  # of the voters to be, no majority is alive as far as the leader hears
    NO_VOTERS = "no_voters"
    NAME_USED_BEFORE = "name_used_before"  # removed names are never used again
    UNCHANGED = "unchanged"  # it is so already
    UNKNOWN_MEMBER = "unknown_member"
    BAD_REQUEST = "bad_request"  # the change makes no sense as it is put
    CALLED_OFF = "called_off"  # another change undid it before it was done
    TRANSFERRING = "transferring"  # leadership is on its way to another node


class ConfigurationRefused(RaftError):
    """A change of membership that was not even begun. `detail` tells people the names and numbers."""

    __slots__ = ("detail", "reason")

    def __init__(self, reason: ConfigurationReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class TransferReason(StrEnum):
    """Why leadership is not handed over."""

    LEADS_ALREADY = "leads_already"  # the target is the leader itself
    NOT_A_VOTER = "not_a_voter"  # a learner, or no member at all
    NEVER_LEADS = "never_leads"  # its priority is 0
    NO_CANDIDATE = "no_candidate"  # no voter that is alive could lead
    TIMED_OUT = "timed_out"  # the target did not catch up or take over within an election timeout


class TransferRefused(RaftError):
    """Leadership stays where it is."""

    __slots__ = ("detail", "reason")

    def __init__(self, reason: TransferReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class InvariantBroken(AssertionError):
    """A fact that Raft's safety rests on does not hold. Raised, not asserted: `python -O` keeps it."""


class StateDamaged(Exception):
    """A state machine has found that its own state is not what it was made: memory under it went bad.

    It may raise this out of apply(), fingerprint(), or a piece of a snapshot. The node is fenced then.
    """
