"""What an operator asks of a leader through a replica: changes of membership, a transfer of leadership.

Plain data, as in raft/life.py; the errors are those of the core, or NotApplied and OutcomeUnknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from raft.actor_messages import ChangeConfiguration, ChangeRefused, TransferLeadership
from raft.entries import NodeId
from raft.errors import (
    ConfigurationReason,
    ConfigurationRefused,
    OutcomeUnknown,
    RaftError,
    TransferReason,
    TransferRefused,
)
from raft.membership import Configuration

Question: TypeAlias = ChangeConfiguration | TransferLeadership


class Errand:
    """One of them on its way. Changed by the thread of the replica's loop only."""

    __slots__ = ("answer", "deadline", "error", "on_end", "question")

    body = b""  # of no weight beside commands

    def __init__(
        self, question: Question, deadline: float, on_end: Callable[[Errand], None] | None = None
    ) -> None:
        self.question = question  # its ticket is filled in by whoever sends it
        self.deadline = deadline
        self.on_end = on_end
        self.answer: Configuration | NodeId | None = None  # the members then; or who leads then
        self.error: RaftError | None = None

    @property
    def is_proposed(self) -> bool:
        """Whether the leader may have heard of it."""
        return self.question.ticket != 0

    @property
    def is_over(self) -> bool:
        """Whether there is an answer, or an error."""
        return self.answer is not None or self.error is not None

    def outcome(self) -> Configuration | NodeId:
        """The answer; raises its error, or OutcomeUnknown while there is neither: it may go on by itself."""
        if self.error is not None:
            raise self.error
        if self.answer is None:
            raise OutcomeUnknown("under_way")
        return self.answer


def error_of(refusal: ChangeRefused) -> RaftError:
    """The same as an exception."""
    if refusal.reason in set(ConfigurationReason):
        return ConfigurationRefused(ConfigurationReason(refusal.reason), refusal.detail)
    return TransferRefused(TransferReason(refusal.reason), refusal.detail)
