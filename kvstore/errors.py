"""What can go wrong for a caller of Assent: exceptions that carry data, one for each code of the protocol.

May know: the protocol's codes. Every exception of the package derives from AssentError, and every one that
ends a request from NotApplied or MaybeApplied: whether a write may have been carried out in spite of the
error is a fact of its class (`may_be_applied`), and so is whether sending the same session and sequence again
makes sense (`retry_helps`).
"""

from __future__ import annotations

from typing import Any, ClassVar

from kvstore import protocol


class AssentError(Exception):
    """Base of all; `code` is the protocol's number for it, None where it never travels."""

    __slots__ = ()

    code: ClassVar[int | None] = None
    may_be_applied: ClassVar[bool] = False
    retry_helps: ClassVar[bool] = False


class NotApplied(AssentError):
    """The request was surely not carried out, and will not be: the caller may do something else instead."""

    __slots__ = ()


class MaybeApplied(AssentError):
    """The outcome is unknown: the request may have been carried out, or may yet be."""

    __slots__ = ()
    may_be_applied = True


# ---------------------------------------------------------------- results: the store's own answer, final


class RequestFailed(AssentError):
    """The store has decided against the request; asking again gives the same answer."""

    __slots__ = ("message",)

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadRequest(NotApplied, RequestFailed):
    """The request makes no sense: a wrong type, a number out of range, an unknown flag or lease."""

    __slots__ = ()
    code = protocol.BAD_REQUEST


class SessionExpired(MaybeApplied, RequestFailed):
    """The session is not known (any more). Whether its unanswered writes were applied cannot be told now."""

    __slots__ = ()
    code = protocol.SESSION_EXPIRED


class SequenceForgotten(MaybeApplied, RequestFailed):
    """The sequence is older than what the session remembers; not applied again, but maybe once before."""

    __slots__ = ()
    code = protocol.SEQUENCE_FORGOTTEN


class Compacted(NotApplied, RequestFailed):
    """The revision asked for is gone; `compact_revision` is the oldest that can still be asked for.

    Of a compaction that was refused it is the revision of the last one.
    """

    __slots__ = ("compact_revision",)
    code = protocol.COMPACTED

    def __init__(self, message: str, compact_revision: int) -> None:
        super().__init__(message)
        self.compact_revision = compact_revision


class FutureRevision(NotApplied, RequestFailed):
    """The revision asked for does not exist yet; `current_revision` is the newest that does."""

    __slots__ = ("current_revision",)
    code = protocol.FUTURE_REVISION

    def __init__(self, message: str, current_revision: int) -> None:
        super().__init__(message)
        self.current_revision = current_revision


class EmptyKey(NotApplied, RequestFailed):
    """A key has at least one byte."""

    __slots__ = ()
    code = protocol.EMPTY_KEY


class TooLarge(NotApplied, RequestFailed):
    """A key, a value, a request or what would be its answer is larger than the documented limit."""

    __slots__ = ()
    code = protocol.TOO_LARGE


class WatchRangeEmpty(NotApplied, RequestFailed):
    """The range to be watched ends before it begins."""

    __slots__ = ()
    code = protocol.WATCH_RANGE_EMPTY


class ChangeRefused(NotApplied, RequestFailed):
    """A change of membership or of leadership that was not begun; `reason` is one word for programs."""

    __slots__ = ("reason",)
    code = protocol.CHANGE_REFUSED

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ChangeUnfinished(MaybeApplied, RequestFailed):
    """A change of membership that was begun and was not done by the deadline: it goes on by itself."""

    __slots__ = ()
    code = protocol.CHANGE_UNFINISHED


class SnapshotGone(NotApplied, RequestFailed):
    """What was being read of is not open at the node any more: it was restarted, or nobody read for long."""

    __slots__ = ()
    code = protocol.SNAPSHOT_GONE


class SpaceExceeded(NotApplied, RequestFailed):
    """A member's disk is nearly full: what makes the data grow is refused until there is room. Deletes,
    compaction and reads go on."""

    __slots__ = ()
    code = protocol.SPACE_EXCEEDED


class KeyNotFound(NotApplied, RequestFailed):
    """A put was to keep the value or the lease of a key that is not there."""

    __slots__ = ()
    code = protocol.KEY_NOT_FOUND


class ValueProvided(NotApplied, RequestFailed):
    """A put that keeps the value must not come with one."""

    __slots__ = ()
    code = protocol.VALUE_PROVIDED


class LeaseProvided(NotApplied, RequestFailed):
    """A put that keeps the lease must not come with one."""

    __slots__ = ()
    code = protocol.LEASE_PROVIDED


class LeaseNotFound(NotApplied, RequestFailed):
    """The lease is not there (any more)."""

    __slots__ = ()
    code = protocol.LEASE_NOT_FOUND


class LeaseExists(NotApplied, RequestFailed):
    """A lease with the id that was asked for is there already."""

    __slots__ = ()
    code = protocol.LEASE_EXISTS


class LeaseTtlTooLarge(NotApplied, RequestFailed):
    """A lease cannot last so long."""

    __slots__ = ()
    code = protocol.LEASE_TTL_TOO_LARGE


class DuplicateKey(NotApplied, RequestFailed):
    """A transaction puts a key twice, or puts one that it deletes."""

    __slots__ = ()
    code = protocol.DUPLICATE_KEY


class TooManyOperations(NotApplied, RequestFailed):
    """A transaction has more compares or operations than are allowed."""

    __slots__ = ()
    code = protocol.TOO_MANY_OPERATIONS


class UnknownAnswer(MaybeApplied, RequestFailed):
    """The server answered with a code that this client does not know."""

    __slots__ = ("answer_code",)

    def __init__(self, message: str, answer_code: int) -> None:
        super().__init__(f"{message} (code {answer_code})")
        self.answer_code = answer_code


# ---------------------------------------------------------------- refusals: no result from the asked node


class RequestRefused(AssentError):
    """The asked node has no result for the request; `leader_name`, `leader_endpoint`: its best hint."""

    __slots__ = ("leader_endpoint", "leader_name", "message")

    def __init__(
        self, message: str, *, leader_name: str | None = None, leader_endpoint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.leader_name = leader_name
        self.leader_endpoint = leader_endpoint


class NotLeader(NotApplied, RequestRefused):
    """Another node leads: go there."""

    __slots__ = ()
    code = protocol.NOT_LEADER
    retry_helps = True


class NoLeader(NotApplied, RequestRefused):
    """No leader is known at the moment."""

    __slots__ = ()
    code = protocol.NO_LEADER
    retry_helps = True


class Transferring(NotApplied, RequestRefused):
    """Leadership is being handed to another node, which takes milliseconds: ask again."""

    __slots__ = ()
    code = protocol.TRANSFERRING
    retry_helps = True


class Overloaded(NotApplied, RequestRefused):
    """A bound on what may wait was reached: wait a little before asking again."""

    __slots__ = ()
    code = protocol.OVERLOADED
    retry_helps = True


class ShuttingDown(NotApplied, RequestRefused):
    """The node is about to end: go to another."""

    __slots__ = ()
    code = protocol.SHUTTING_DOWN
    retry_helps = True


class OutcomeUnknown(MaybeApplied, RequestRefused):
    """The write may have been applied, or may yet be. Only its session and sequence, sent again, can tell."""

    __slots__ = ()
    code = protocol.OUTCOME_UNKNOWN
    retry_helps = True


class ConflictWithLeader(OutcomeUnknown):
    """A new leader overwrote the write in the log of the asked node. That is no proof that it was not
    applied: another node may hold it, lead, and commit it (Raft figure 8)."""

    __slots__ = ()
    code = protocol.CONFLICT_WITH_LEADER


class Expired(NotApplied, RequestRefused):
    """The deadline of a write passed before it was sent, or before the node proposed it."""

    __slots__ = ()
    code = protocol.EXPIRED


class BadFrame(NotApplied, RequestRefused):
    """The node could not read the frame: another protocol, or a damaged message."""

    __slots__ = ()
    code = protocol.BAD_FRAME


class NotMember(NotApplied, RequestRefused):
    """The node is no member of the cluster: it was removed, or waits to be added. Go to another."""

    __slots__ = ()
    code = protocol.NOT_MEMBER
    retry_helps = True


class Fenced(NotApplied, RequestRefused):
    """The node's state differs from that of a majority, so it serves nothing any more. Go to another."""

    __slots__ = ()
    code = protocol.FENCED
    retry_helps = True


class DeadlineExceeded(NotApplied, RequestRefused):
    """A read was not answered in the time allowed; for a write it would be OutcomeUnknown."""

    __slots__ = ()
    code = protocol.DEADLINE_EXCEEDED


# ---------------------------------------------------------------- a client's own


class Unreachable(NotApplied):
    """None of the `endpoints` answered in the time allowed, and nothing was sent that could be applied.

    `reason` is what this very process lacked, such as a descriptor for a socket; else it is empty.
    """

    __slots__ = ("endpoints", "reason")

    def __init__(self, endpoints: tuple[str, ...], reason: str | None = None) -> None:
        why = f": {reason}" if reason else ""
        super().__init__(f"no node answered at {', '.join(endpoints)}{why}")
        self.endpoints = endpoints
        self.reason = reason or ""


class ClientClosed(NotApplied):
    """The client was closed, by its owner or by a fork of the process."""

    __slots__ = ()


class TreeError(AssentError):
    """A tree that cannot be kept as keys, or keys that are no tree; `where` names the place."""

    __slots__ = ("reason", "where")

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


# ---------------------------------------------------------------- from codes

_PLAIN_FAILURES: dict[int, type[RequestFailed]] = {
    protocol.BAD_REQUEST: BadRequest,
    protocol.SESSION_EXPIRED: SessionExpired,
    protocol.SEQUENCE_FORGOTTEN: SequenceForgotten,
    protocol.EMPTY_KEY: EmptyKey,
    protocol.TOO_LARGE: TooLarge,
    protocol.WATCH_RANGE_EMPTY: WatchRangeEmpty,
    protocol.CHANGE_UNFINISHED: ChangeUnfinished,
    protocol.SPACE_EXCEEDED: SpaceExceeded,
    protocol.SNAPSHOT_GONE: SnapshotGone,
    protocol.KEY_NOT_FOUND: KeyNotFound,
    protocol.VALUE_PROVIDED: ValueProvided,
    protocol.LEASE_PROVIDED: LeaseProvided,
    protocol.LEASE_NOT_FOUND: LeaseNotFound,
    protocol.LEASE_EXISTS: LeaseExists,
    protocol.LEASE_TTL_TOO_LARGE: LeaseTtlTooLarge,
    protocol.DUPLICATE_KEY: DuplicateKey,
    protocol.TOO_MANY_OPERATIONS: TooManyOperations,
}

_REFUSALS: dict[int, type[RequestRefused]] = {
    protocol.NOT_LEADER: NotLeader,
    protocol.NO_LEADER: NoLeader,
    protocol.OVERLOADED: Overloaded,
    protocol.SHUTTING_DOWN: ShuttingDown,
    protocol.CONFLICT_WITH_LEADER: ConflictWithLeader,
    protocol.OUTCOME_UNKNOWN: OutcomeUnknown,
    protocol.BAD_FRAME: BadFrame,
    protocol.DEADLINE_EXCEEDED: DeadlineExceeded,
    protocol.EXPIRED: Expired,
    protocol.TRANSFERRING: Transferring,
    protocol.NOT_MEMBER: NotMember,
    protocol.FENCED: Fenced,
}


def error_of_result(result: list[Any]) -> AssentError:
    """The exception for a result whose code is not OK, whatever else is in it."""
    code = result[0]
    message = result[1] if len(result) > 1 and type(result[1]) is str else "no message"
    revision = result[2] if len(result) > 2 and protocol.is_integer(result[2]) else 0
    if code == protocol.COMPACTED:
        return Compacted(message, revision)
    if code == protocol.FUTURE_REVISION:
        return FutureRevision(message, revision)
    if code == protocol.CHANGE_REFUSED:
        return ChangeRefused(message, result[2] if len(result) > 2 and type(result[2]) is str else "")
    kind = _PLAIN_FAILURES.get(code)
    return kind(message) if kind is not None else UnknownAnswer(message, code)


def error_of_refusal(refusal: protocol.Refusal) -> AssentError:
    """The exception for a frame that refuses."""
    kind = _REFUSALS.get(refusal.code)
    if kind is None:
        return UnknownAnswer(refusal.message, refusal.code)
    return kind(refusal.message, leader_name=refusal.leader_name, leader_endpoint=refusal.leader_endpoint)
