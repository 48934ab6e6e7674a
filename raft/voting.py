"""How votes are asked for and given: the messages of elections have term rules of their own.

May know the core and the vote messages. Here is what a node answers; what a candidate makes of the answers is
in raft/candidate.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raft.entries import NodeId
from raft.messages import PreVoteResponse, Removed, RequestPreVote, RequestVote, VoteResponse

if TYPE_CHECKING:
    from raft.core import Core


def on_request_pre_vote(core: Core, sender: NodeId, message: RequestPreVote) -> None:
    """Dissertation 9.6: would it win? Changes nothing here, whatever term it names."""
    if is_known_removed(core, sender):
        return
    is_free = message.term > core.term or (
        message.term == core.term and core.leader_id is None and core.voted_for in (None, sender)
    )
    granted = is_free and core.is_gate_open and core.log.is_up_to_date(message.last_index, message.last_term)
    # A grant names the term asked about. A refusal names the term here, so that who is behind catches up.
    core.send(sender, PreVoteResponse(message.term if granted else core.term, granted))


def on_pre_vote_response(core: Core, sender: NodeId, message: PreVoteResponse) -> None:
    if message.term > core.term and not message.granted:
        core.become_follower(message.term, None)
    else:
        core.dispatch(sender, message)


def on_request_vote(core: Core, sender: NodeId, message: RequestVote) -> None:
    if is_known_removed(core, sender):
        return
    if message.term > core.term:
        if not core.is_gate_open and not message.transfer:
            return  # Dissertation 4.2.3: its term is not taken either, or it would disturb all the same.
        core.become_follower(message.term, None)
    # Raft §5.2: one vote in a term, first come, and the same answer if asked again; §5.4.1: up to date.
    granted = (
        message.term == core.term
        and (core.voted_for == sender or (core.voted_for is None and core.leader_id is None))
        and core.log.is_up_to_date(message.last_index, message.last_term)
    )
    if granted:
        core.voted_for = sender
    core.send_after_sync(sender, VoteResponse(core.term, granted))


def on_vote_response(core: Core, sender: NodeId, message: VoteResponse) -> None:
    if message.term > core.term:
        core.become_follower(message.term, None)
    elif message.term == core.term:
        core.dispatch(sender, message)


def is_known_removed(core: Core, sender: NodeId) -> bool:
    """Whose removal is committed is told so, and not voted for (dissertation 4.2.3).

    Everybody else may be asked to vote for, members or not: the configuration here may be old (4.1).
    """
    if sender not in core.configuration.removed or sender not in core.committed_configuration.removed:
        return False
    core.send(sender, Removed(core.term))
    return True


def on_removed(core: Core, sender: NodeId, message: Removed) -> None:
    """Names are never used again, so this stays true. It costs a campaign at most, were it a lie."""
    core.note_removed()


HANDLERS: dict[type, Callable[[Core, NodeId, Any], None]] = {
    RequestPreVote: on_request_pre_vote,
    PreVoteResponse: on_pre_vote_response,
    RequestVote: on_request_vote,
    VoteResponse: on_vote_response,
    Removed: on_removed,
}
