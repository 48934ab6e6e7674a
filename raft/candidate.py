"""The two kinds of candidate: one that asks whether it would win, and one that asks for votes.

May know the core and the vote messages. They are separate classes, so that an answer to one question can
never be counted for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from raft.entries import EntryBatch, Index, NodeId
from raft.errors import NotLeader
from raft.messages import PreVoteResponse, RequestPreVote, RequestVote, VoteResponse
from raft.quorum import VoteResult
from raft.ready import Role

if TYPE_CHECKING:
    from raft.core import Core


class _Campaigner:
    """What both have in common: they count answers, and can serve nobody meanwhile."""

    __slots__ = ("_core", "denied", "granted")

    def __init__(self, core: Core) -> None:
        self._core = core
        # Sets, not counters: the same answer may come twice. Its own voice is counted like any.
        self.granted: set[NodeId] = {core.node_id}
        self.denied: set[NodeId] = set()

    def retire(self) -> None:
        """Nothing waits for a candidate."""

    def propose(self, bodies: list[bytes]) -> Index:
        raise NotLeader(None)

    def read_index(self, context: int) -> None:
        raise NotLeader(None)

    def has_work(self) -> bool:
        return False

    def collect(self, unpersisted: EntryBatch | None) -> None:
        """All was sent at the beginning."""

    def _count(self, sender: NodeId, granted: bool) -> VoteResult:
        if granted:
            self.granted.add(sender)
        elif sender not in self.granted:
            self.denied.add(sender)
        return self._result()

    def _result(self) -> VoteResult:
        return self._core.configuration.vote_result(self.granted, self.denied)

    def _other_voters(self) -> list[NodeId]:
        return sorted(self._core.configuration.electorate - {self._core.node_id})


class PreCandidate(_Campaigner):
    """Asks whether it would win, before it raises any term (dissertation 9.6). Owned by the core."""

    __slots__ = ()
    role = Role.PRE_CANDIDATE

    def begin(self) -> None:
        core = self._core
        if self._result() is VoteResult.WON:
            core.start_election()
            return
        question = RequestPreVote(core.term + 1, core.log.last_index, core.log.last_term)
        for node_id in self._other_voters():
            core.send(node_id, question)

    def on_pre_vote_response(self, sender: NodeId, message: PreVoteResponse) -> None:
        core = self._core
        if message.term != core.term + (1 if message.granted else 0):
            return  # an answer to a campaign of an earlier term
        result = self._count(sender, message.granted)
        if result is VoteResult.WON:
            core.start_election()
        elif result is VoteResult.LOST:
            core.become_follower(core.term, None)

    handlers: ClassVar[dict[type, Callable[[Any, NodeId, Any], None]]] = {
        PreVoteResponse: on_pre_vote_response
    }


class Candidate(_Campaigner):
    """Asks for votes in a new term, which holds its own vote already. Owned by the core."""

    __slots__ = ("_is_transfer",)
    role = Role.CANDIDATE

    def __init__(self, core: Core, *, is_transfer: bool) -> None:
        super().__init__(core)
        self._is_transfer = is_transfer  # the leader asked for this campaign (dissertation 3.10)

    def begin(self) -> None:
        core = self._core
        if self._result() is VoteResult.WON:
            core.become_leader(self.granted)
            return
        # After the sync: a grant may be counted only if the vote for itself cannot be forgotten.
        question = RequestVote(core.term, core.log.last_index, core.log.last_term, self._is_transfer)
        for node_id in self._other_voters():
            core.send_after_sync(node_id, question)

    def on_vote_response(self, sender: NodeId, message: VoteResponse) -> None:
        core = self._core
        result = self._count(sender, message.granted)
        if result is VoteResult.WON:
            core.become_leader(self.granted)
        elif result is VoteResult.LOST:
            core.become_follower(core.term, None)

    handlers: ClassVar[dict[type, Callable[[Any, NodeId, Any], None]]] = {VoteResponse: on_vote_response}
