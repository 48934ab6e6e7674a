"""A follower: takes what the leader sends, if it fits, and asks the leader for read indexes.

May know the core it serves and the messages. Decides nothing about terms: the core has done so before a
message comes here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from raft.configuration_history import Logged, configurations_of
from raft.entries import EntryBatch, Index, NodeId
from raft.errors import NotLeader, Overloaded
from raft.invariants import broken
from raft.messages import (
    AppendEntries,
    AppendRejected,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    ReadIndexRefused,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
)
from raft.ready import Forgotten, Role

if TYPE_CHECKING:
    from raft.core import Core


class Follower:
    """Owned by the core; one for each term and leader."""

    __slots__ = (
        "_acknowledged_index",
        "_asked_reads",
        "_core",
        "_known_index",
        "_match_index",
        "_new_reads",
        "_reads_waiting",
        "_resend_through",
    )
    role = Role.FOLLOWER

    def __init__(self, core: Core) -> None:
        self._core = core
        # Highest match to acknowledge at the end of the turn: one answer for all appends of a turn.
        self._match_index: Index | None = None
        self._acknowledged_index: Index = -1  # highest match that an answer to this leader has told
        self._known_index: Index = (
            0  # what the leader knows to have been acknowledged, perhaps in an earlier life
        )
        self._new_reads: list[int] = []  # contexts for which the leader was not asked yet
        self._asked_reads: dict[int, list[int]] = {}  # number of the request -> contexts; in order of asking
        self._reads_waiting = 0  # contexts in both
        self._resend_through = 0  # requests up to this number were there at the last heartbeat already

    def begin(self) -> None:
        """Nothing to do: a follower waits."""

    def retire(self) -> None:
        """The term or the leader changes: what the old leader was asked stays unanswered."""
        for contexts in self._asked_reads.values():
            self._core.refuse_reads(contexts)
        self._core.refuse_reads(self._new_reads)

    def propose(self, bodies: list[bytes]) -> Index:
        raise NotLeader(self._core.leader_id)

    def read_index(self, context: int) -> None:
        config = self._core.config
        if self._core.leader_id is None:
            raise NotLeader(None)
        if self._reads_waiting >= config.max_waiting_reads:
            raise Overloaded(self._reads_waiting + 1, config.max_waiting_reads)
        self._reads_waiting += 1
        self._new_reads.append(context)

    def has_work(self) -> bool:
        return self._match_index is not None or bool(self._new_reads)

    def collect(self, unpersisted: EntryBatch | None) -> None:
        """End of a turn: one acknowledgement for all its appends, one request for all its reads."""
        core = self._core
        leader_id = core.leader_id
        if leader_id is None:
            return  # nobody to answer, nobody to ask
        if self._match_index is not None:
            core.send_after_sync(leader_id, AppendResponse(core.term, self._match_index))
            self._acknowledged_index = max(self._acknowledged_index, self._match_index)
            self._match_index = None
        if self._new_reads:
            number = core.next_read_number()
            self._asked_reads[number] = self._new_reads
            self._new_reads = []
            core.send(leader_id, ReadIndexRequest(core.term, number))

    # -- the log ---------------------------------------------------------------------------------------

    def on_append_entries(self, leader_id: NodeId, message: AppendEntries) -> None:
        core = self._core
        batch = message.batch
        configurations = configurations_of(batch)
        if configurations is None or not _is_well_formed(message):
            core.ignored_messages += 1
            return
        match_index = batch.last_index
        if match_index < core.commit_index:
            # All of it is committed here, so it is the same here (Leader Completeness, Raft §5.4.3).
            self._acknowledge(core.commit_index)
            return
        prev_index, prev_term = message.prev_index, message.prev_term
        if prev_index < core.commit_index:
            # A late append that reaches back below the commit index, maybe into what is compacted away.
            prev_index = core.commit_index
            prev_term = batch.entries[prev_index - batch.first_index][0]
            batch = batch.from_index(prev_index + 1)
            if core.log.term_at(prev_index) != prev_term:
                raise broken("a committed entry differs at", prev_index, prev_term)
        if core.log.term_at(prev_index) != prev_term:
            if prev_index <= self._known_index:
                # What was acknowledged in a term was the leader's log, and remains it: this is another one.
                core.withdraw(Forgotten(leader_id, core.term, self._known_index, prev_index - 1))
                return
            self._reject(leader_id, message.prev_index)
            return
        self._take(batch, configurations)
        # An empty append that moves the commit index asks for nothing, if its match was told before. Should
        # that answer have been lost, the leader asks again after a heartbeat, and then it has no such news.
        has_news = min(message.commit_index, match_index) > core.commit_index
        if batch.entries or match_index > self._acknowledged_index or not has_news:
            self._acknowledge(match_index)
        # Raft §5.3, receiver rule 5: only what is known to match may commit, whatever else is in the log.
        core.commit_to(min(message.commit_index, match_index))

    def _take(self, batch: EntryBatch, configurations: list[Logged]) -> None:
        """Append what is new. Remove what conflicts, and only then (receiver rules 3 and 4)."""
        core = self._core
        if batch.first_index <= core.log.last_index:
            new_from = core.log.first_difference(batch)
            if new_from > batch.last_index:
                return
            batch = batch.from_index(new_from)
            if new_from <= core.log.last_index:
                core.truncate_from(new_from)
        core.log.extend(batch)
        if configurations:
            core.adopt([logged for logged in configurations if logged[0] >= batch.first_index])

    def _acknowledge(self, match_index: Index) -> None:
        # Within a term the leader only appends, so what matched once matches still: the highest says it all.
        if self._match_index is None or match_index > self._match_index:
            self._match_index = match_index

    def _reject(self, leader_id: NodeId, prev_index: Index) -> None:
        """Raft §5.3: name the conflicting term and where it begins, so that the leader skips all of it."""
        core = self._core
        log = core.log
        if prev_index > log.last_index:
            conflict_index, conflict_term = log.last_index + 1, 0
        else:
            conflict_term = log.term_at(prev_index) or 0
            conflict_index = core.commit_index + 1  # below that the logs are known to match
            if prev_index > core.commit_index:
                conflict_index = max(conflict_index, log.first_index_of_term_at(prev_index))
        core.send_after_sync(leader_id, AppendRejected(core.term, prev_index, conflict_index, conflict_term))

    def on_install_snapshot(self, leader_id: NodeId, message: InstallSnapshot) -> None:
        match_index = self._core.snapshots.installation.take(leader_id, message)
        if match_index is not None:
            self._acknowledge(match_index)

    def on_heartbeat(self, leader_id: NodeId, message: Heartbeat) -> None:
        core = self._core
        commit_index, last_index = message.commit_index, core.log.last_index
        if commit_index > last_index:
            # The leader names no more than this node has acknowledged to it in this very term, after a sync.
            # What is acknowledged to a leader stays for its term: so here it was lost behind the node's back.
            core.withdraw(Forgotten(leader_id, core.term, commit_index, last_index))
            return
        self._known_index = max(self._known_index, commit_index)
        # An old copy of this node's disk may have other entries there, of a leader that was. Those of this
        # term are right, and so is what was compared in this life; of anything else appends are to come.
        if commit_index <= self._acknowledged_index or core.log.term_at(commit_index) == core.term:
            core.commit_to(commit_index)
        core.send(leader_id, HeartbeatResponse(core.term, message.round, core.config.priority))
        # A request that was there one heartbeat ago was probably lost. Asking twice is harmless.
        for number in self._asked_reads:
            if number > self._resend_through:
                self._resend_through = number
            else:
                core.send(leader_id, ReadIndexRequest(core.term, number))

    def on_timeout_now(self, leader_id: NodeId, message: TimeoutNow) -> None:
        """Dissertation 3.10: no pre-vote, since the leader wants it, and asks nobody to wait.

        One that comes late is of an old term, unless nobody has led since: then it is as good as new.
        """
        if self._core.may_campaign():
            self._core.start_election(is_transfer=True)

    # -- reads -----------------------------------------------------------------------------------------

    def on_read_index_response(self, sender: NodeId, message: ReadIndexResponse) -> None:
        """The index counts only from the leader of this very term, for a request of this very run."""
        contexts = self._asked_reads.pop(message.context, None) if sender == self._core.leader_id else None
        if contexts is not None:
            self._reads_waiting -= len(contexts)
            self._core.grant_reads(contexts, message.read_index)

    def on_read_index_refused(self, sender: NodeId, message: ReadIndexRefused) -> None:
        contexts = self._asked_reads.pop(message.context, None) if sender == self._core.leader_id else None
        if contexts is not None:
            self._reads_waiting -= len(contexts)
            self._core.refuse_reads(contexts)

    handlers: ClassVar[dict[type, Callable[[Any, NodeId, Any], None]]] = {
        AppendEntries: on_append_entries,
        Heartbeat: on_heartbeat,
        InstallSnapshot: on_install_snapshot,
        TimeoutNow: on_timeout_now,
        ReadIndexResponse: on_read_index_response,
        ReadIndexRefused: on_read_index_refused,
    }


def _is_well_formed(message: AppendEntries) -> bool:
    """Do the parts of it agree? Entries are consecutive by their making; here it is about both ends."""
    batch = message.batch
    if batch.first_index != message.prev_index + 1 or message.commit_index < 0 or message.prev_term < 0:
        return False
    entries = batch.entries
    return not entries or message.prev_term <= entries[0][0] <= entries[-1][0] <= message.term
