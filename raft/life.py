"""The life of a command as its proposer sees it: stages, the ways in which it ends, and what each one proves.

Plain data; knows reasons and errors. No clock, no thread: whoever owns a command moves it on.

    SUBMITTED -> QUEUED -> COMMITTED -> APPLIED
        |           |          |
        +-----------+----------+------> ABANDONED(reason, may_be_applied)

The last stage is told once, and nothing after it. QUEUED and COMMITTED may be left out.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from raft.actor_messages import Reason
from raft.entries import Index, NodeId, Term
from raft.errors import (
    ConflictWithLeader,
    Expired,
    Fenced,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    RaftError,
    ShuttingDown,
    Transferring,
)


class Stage(Enum):
    """How far a command has come. Only the last two are ends."""

    SUBMITTED = "submitted"  # handed over; not in any log yet
    QUEUED = "queued"  # in the log of this node, which leads; not durable yet
    COMMITTED = "committed"  # durable on a quorum: every node will apply it
    APPLIED = "applied"  # applied here; there is a result
    ABANDONED = "abandoned"  # there will be no result here; see the Abandonment


class Abandonment(NamedTuple):
    """Why there is no result. `may_be_applied` is False only if the command was never in a log."""

    reason: Reason
    may_be_applied: bool
    leader_id: NodeId | None = None  # with NOT_LEADER: who can do it

    def error(self) -> RaftError:
        """The same as an exception: a NotApplied or an OutcomeUnknown."""
        if self.reason is Reason.CONFLICT_WITH_LEADER:
            return ConflictWithLeader(self.reason)
        if self.may_be_applied or self.reason is Reason.OUTCOME_UNKNOWN:
            return OutcomeUnknown(self.reason)
        if self.reason is Reason.OVERLOADED:
            return Overloaded()
        if self.reason is Reason.EXPIRED:
            return Expired()
        if self.reason is Reason.TRANSFERRING:
            return Transferring()
        if self.reason is Reason.FENCED:
            return Fenced()
        if self.reason is Reason.SHUTTING_DOWN:
            return ShuttingDown()
        return NotLeader(self.leader_id)


class Command:
    """One command on its way. Made by Replica.propose(); changed by the thread of the replica's loop only.

    Callbacks get this object, run on that thread, and must not block it.
    """

    __slots__ = (
        "_callbacks",
        "abandonment",
        "body",
        "deadline",
        "index",
        "is_proposed",
        "result",
        "stage",
        "term",
    )

    def __init__(
        self, body: bytes, deadline: float, callbacks: dict[Stage, Callable[[Command], None]] | None = None
    ) -> None:
        self.body = body
        self.deadline = deadline  # of the clock of its replica
        self.stage = Stage.SUBMITTED
        self.is_proposed = False  # True: it may be in a log, from here on
        self.index: Index | None = None  # where in the log, known from QUEUED on if notices were asked for
        self.term: Term | None = None  # of the leader that took it, likewise
        self.result: bytes | None = None  # what the state machine answered; None until APPLIED
        self.abandonment: Abandonment | None = None  # None unless ABANDONED
        self._callbacks = callbacks or {}

    @property
    def is_over(self) -> bool:
        """Whether it has come to one of its two ends."""
        return self.stage is Stage.APPLIED or self.stage is Stage.ABANDONED

    @property
    def wants_notices(self) -> bool:
        """Whether anybody asks for the stages between the first and the last."""
        return Stage.QUEUED in self._callbacks or Stage.COMMITTED in self._callbacks

    def outcome(self) -> bytes:
        """The result; raises the error of its abandonment, or OutcomeUnknown while it is under way."""
        if self.abandonment is not None:
            raise self.abandonment.error()
        if self.result is None:
            raise OutcomeUnknown(self.stage.value)
        return self.result

    def callback(self, stage: Stage) -> Callable[[Command], None] | None:
        """Whom to tell of this stage."""
        return self._callbacks.get(stage)


class Query:
    """One question on its way, as a Command is for a write. `is_local`: of what is applied here."""

    __slots__ = ("abandonment", "answer", "body", "deadline", "is_local", "on_end")

    is_proposed = False  # whatever becomes of it, it changes nothing

    def __init__(
        self,
        body: bytes,
        deadline: float,
        *,
        is_local: bool = False,
        on_end: Callable[[Query], None] | None = None,
    ) -> None:
        self.body = body
        self.deadline = deadline
        self.is_local = is_local
        self.answer: bytes | None = None
        self.abandonment: Abandonment | None = None
        self.on_end = on_end

    @property
    def is_over(self) -> bool:
        """Whether there is an answer, or will be none."""
        return self.answer is not None or self.abandonment is not None

    def outcome(self) -> bytes:
        """The answer; raises the error of its abandonment, or Expired while there is neither."""
        if self.abandonment is not None:
            raise self.abandonment.error()
        if self.answer is None:
            raise Expired
        return self.answer
