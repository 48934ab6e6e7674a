"""A leader: appends, replicates, commits, and proves that it still leads before it lets anybody read.

May know the core, the messages and the peers' progress. All of it is gone with the leadership, so no
quota, window or round can leak from one term into the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from itertools import repeat
from typing import TYPE_CHECKING, Any, ClassVar

from raft.entries import Entry, EntryBatch, EntryKind, Index, NodeId
from raft.errors import Overloaded, TransferReason, TransferRefused, Transferring
from raft.log import ENTRY_OVERHEAD_BYTES, fitting
from raft.messages import (
    AppendEntries,
    AppendRejected,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshotResponse,
    ReadIndexRefused,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
)
from raft.progress import Progress
from raft.ready import Role
from raft.reconfiguration import Reconfiguration
from raft.snapshot_sender import SnapshotSender
from raft.transfer import (
    HAND_OVER_PAUSE_TIMEOUTS,
    Transfer,
    best_successor,
    check_target,
    preferred_successor,
)

if TYPE_CHECKING:
    from raft.core import Core

_NOOP = int(EntryKind.NOOP)
# A plain int: an enum member would make the garbage collector track every entry that holds it.
_COMMAND = int(EntryKind.COMMAND)

# Who asked for a read: a follower and its number for it, or this node itself (None) and the caller's context.
ReadOrigin = tuple[NodeId | None, int]


class Leader:
    """Owned by the core, for one term at most."""

    __slots__ = (
        "_asked_reads",
        "_commit_news",
        "_core",
        "_hand_over_pause",
        "_round",
        "_round_read_index",
        "_unapplied",
        "_uncommitted",
        "_waiting_reads",
        "progress",
        "reconfiguration",
        "transfer",
        "unapplied_bytes",
        "uncommitted_bytes",
    )
    role = Role.LEADER

    def __init__(self, core: Core, supporters: Collection[NodeId]) -> None:
        self._core = core
        next_index = core.log.last_index + 1
        # Those whose votes made this leader have just been heard.
        self.progress: dict[NodeId, Progress] = {
            node_id: Progress(next_index, core.config, is_active=node_id in supporters)
            for node_id in sorted(core.configuration.members - {core.node_id})
        }
        self._uncommitted: deque[tuple[Index, int]] = deque()  # (last index, bytes) of each own proposal
        self.uncommitted_bytes = 0  # the sum over _uncommitted
        # The same of those that are committed, and were not handed out yet when something was proposed last.
        self._unapplied: deque[tuple[Index, int]] = deque()
        self.unapplied_bytes = 0  # the sum over _unapplied
        self._commit_news: Index = 0  # peers are to hear of it, with or without entries to go along
        # At most one round is on its way, for _asked_reads; _waiting_reads go with the next one. A dict is an
        # ordered set here: a follower may have asked twice.
        self._round = 0  # of the last round that was sent; never decreases
        self._round_read_index: Index = 0
        self._asked_reads: dict[ReadOrigin, None] = {}
        self._waiting_reads: dict[ReadOrigin, None] = {}
        self.reconfiguration = Reconfiguration(core, self)
        self.transfer: Transfer | None = None  # under way: nothing is proposed meanwhile
        self._hand_over_pause = 1  # election timeouts before this leader makes way for a preferred one

    def begin(self) -> None:
        """Raft §8: an entry of its own term, since by counting it may commit nothing else (§5.4.2)."""
        if self._core.configurations.is_initial_only:
            # The founding members, so that whoever joins later learns of them from the log.
            self.reconfiguration.begin_with_initial()
        else:
            self._core.log.append([(self._core.term, _NOOP, b"")])

    def retire(self) -> None:
        """Leadership is lost: no read that waits was confirmed."""
        core = self._core
        for origin, context in [*self._asked_reads, *self._waiting_reads]:
            if origin is None:
                core.refuse_reads([context])
            else:
                core.send(origin, ReadIndexRefused(core.term, context))

    def has_work(self) -> bool:
        if self._waiting_reads and self._may_begin_round():
            return True
        last_index, news = self._core.log.last_index, self._commit_news
        for progress in self.progress.values():
            if progress.wants_append(last_index, news):
                return True
            if progress.sender is not None and progress.sender.wants_chunk():
                return True
        return False

    def collect(self, unpersisted: EntryBatch | None) -> None:
        """End of a turn: one append to each peer for all that was proposed in it, then the read round."""
        self._replicate(unpersisted)
        if self._waiting_reads and self._may_begin_round():
            self._begin_round()

    # -- the log ---------------------------------------------------------------------------------------

    def propose(self, bodies: list[bytes]) -> Index:
        core = self._core
        assert bodies, "0 bodies are no proposal"
        if self.transfer is not None:
            raise Transferring(self.transfer.target)
        self._check_unapplied()
        size = sum(map(len, bodies)) + ENTRY_OVERHEAD_BYTES * len(bodies)
        total = self.uncommitted_bytes + size
        # With nothing under way any size passes, or a large proposal could never be made.
        if total > core.config.max_uncommitted_bytes and self._uncommitted:
            raise Overloaded(total, core.config.max_uncommitted_bytes)
        first_index = core.log.last_index + 1
        entries: list[Entry] = list(zip(repeat(core.term), repeat(_COMMAND), bodies))
        core.log.append(entries)
        self._uncommitted.append((core.log.last_index, size))
        self.uncommitted_bytes = total
        return first_index

    def _check_unapplied(self) -> None:
        """What is committed is not bounded by what is uncommitted: it waits here for a state machine that is
        behind. Raises Overloaded."""
        core, unapplied = self._core, self._unapplied
        while unapplied and unapplied[0][0] <= core.delivered_index:
            self.unapplied_bytes -= unapplied.popleft()[1]
        if not core.snapshots.is_applier_behind:
            return
        waiting, most = core.commit_index - core.delivered_index, core.config.max_unapplied_entries
        if waiting > most:
            raise Overloaded(waiting, most)
        if self.unapplied_bytes > core.config.max_unapplied_bytes:
            raise Overloaded(self.unapplied_bytes, core.config.max_unapplied_bytes)

    def _replicate(self, unpersisted: EntryBatch | None) -> None:
        """Peers with the same next_index get the very same message, with the batch that goes to disk."""
        core, config = self._core, self._core.config
        last_index, commit_index = core.log.last_index, core.commit_index
        built: dict[Index, tuple[AppendEntries, int]] = {}
        if unpersisted is not None and len(unpersisted.entries) <= config.max_append_entries:
            count, size = fitting(unpersisted.entries, config.max_append_bytes)
            if count == len(unpersisted.entries):
                built[unpersisted.first_index] = self._append_of(unpersisted, size)
        for node_id, progress in self.progress.items():
            while progress.wants_append(last_index, self._commit_news):
                append = self._next_append(progress, built)
                if append is None:
                    break
                message, size = append
                progress.note_sent(message.batch.last_index, size, commit_index)
                core.send(node_id, message)
            while progress.sender is not None and progress.sender.wants_chunk():
                core.snapshots.add_chunk(node_id, progress.sender.next_chunk(core.term))

    def is_commit_untold(self) -> bool:
        # Not of a peer that is silent: there is nothing to wait for but its answer.
        commit_index = self._core.commit_index
        return any(progress.can_be_told(commit_index) for progress in self.progress.values())

    def tell_commit(self) -> None:
        self._commit_news = self._core.commit_index

    def _next_append(
        self, progress: Progress, built: dict[Index, tuple[AppendEntries, int]]
    ) -> tuple[AppendEntries, int] | None:
        """What this peer gets next. None if it lies before the log: then the peer needs the snapshot."""
        log, config = self._core.log, self._core.config
        first_index = progress.next_index
        if first_index < log.first_index:
            newest = self._core.snapshots.newest
            assert newest is not None, f"no snapshot stands for the entries up to {log.snapshot_index}"
            progress.become_snapshot(SnapshotSender(newest, config))
            return None
        if not progress.inflights.has_room():
            return self._append_of(EntryBatch(first_index, []), 0)  # the window is closed: only ask
        found = built.get(first_index)
        if found is None:
            last_index = min(log.last_index, first_index + config.max_append_entries - 1)
            entries = log.slice(first_index, last_index)
            count, size = fitting(entries, config.max_append_bytes)
            del entries[count:]
            found = built[first_index] = self._append_of(EntryBatch(first_index, entries), size)
        return found

    def _append_of(self, batch: EntryBatch, size: int) -> tuple[AppendEntries, int]:
        core = self._core
        prev_index = batch.first_index - 1
        prev_term = core.log.term_at(prev_index)
        assert prev_term is not None, f"{prev_index} is not in a log from {core.log.first_index}"
        return AppendEntries(core.term, prev_index, prev_term, core.commit_index, batch), size

    def on_append_response(self, sender: NodeId, message: AppendResponse) -> None:
        progress = self.progress[sender]
        progress.is_active = True
        if message.match_index > self._core.log.last_index:
            self._core.ignored_messages += 1  # nobody can have more of this log than its leader
        elif progress.acknowledge(message.match_index):
            if self.transfer is not None and self.transfer.target == sender:
                self.transfer.advance(progress)
            if message.match_index > self._core.commit_index:
                self.advance_commit()

    def on_append_rejected(self, sender: NodeId, message: AppendRejected) -> None:
        progress = self.progress[sender]
        progress.is_active = True
        progress.reject(message.prev_index, self._resume_index(message))

    def on_install_snapshot_response(self, sender: NodeId, message: InstallSnapshotResponse) -> None:
        progress = self.progress[sender]
        progress.is_active = True
        if progress.sender is not None and progress.sender.meta.index == message.index:
            progress.sender.acknowledge(message.offset)

    def _resume_index(self, message: AppendRejected) -> Index:
        """Raft §5.3: go on after the last entry of the conflicting term, or where the peer's begins."""
        shared = self._core.log.last_index_of_term(message.conflict_term, message.prev_index)
        return message.conflict_index if shared is None else shared + 1

    def advance_commit(self) -> None:
        """Raft §5.3, §5.4.2: if a quorum has it on disk and it is of this term, all up to it commits."""
        core = self._core
        matches = {node_id: progress.match_index for node_id, progress in self.progress.items()}
        # Its own entries count once they are durable here, as anybody's (dissertation 10.2.1).
        matches[core.node_id] = core.log.stable_index
        index = core.configuration.quorum_value(matches)
        if core.log.term_at(index) != core.term:
            return
        core.commit_to(index)
        uncommitted = self._uncommitted
        while uncommitted and uncommitted[0][0] <= index:
            proposal = uncommitted.popleft()
            self.uncommitted_bytes -= proposal[1]
            self._unapplied.append(proposal)
            self.unapplied_bytes += proposal[1]
        if index >= self.reconfiguration.attention_index:
            self.reconfiguration.on_commit()

    # -- membership ------------------------------------------------------------------------------------

    def follow_configuration(self) -> None:
        """One Progress for each other member. Who left is sent nothing more, and its answers are ignored."""
        core = self._core
        others = core.configuration.members - {core.node_id}
        for node_id in self.progress.keys() - others:
            del self.progress[node_id]
        for node_id in sorted(others - self.progress.keys()):
            # As if just heard: a new member had no time yet to be, and must not look like a lost quorum.
            self.progress[node_id] = Progress(core.log.last_index + 1, core.config, is_active=True)
        if self.transfer is not None and self.transfer.target not in core.configuration.voters:
            self.transfer = None
        if self._asked_reads:
            self._confirm_round()  # those who are left may have answered all, and nobody else will

    def resign(self) -> None:
        """It is no voter any more, and that is committed: have the fittest take over, and follow."""
        core = self._core
        successor = best_successor(core, self)
        if successor is not None:
            core.send(successor, TimeoutNow(core.term))
        core.become_follower(core.term, None)

    def begin_transfer(self, target: NodeId | None) -> None:
        core = self._core
        if target is None:
            target = self.transfer.target if self.transfer is not None else best_successor(core, self)
            if target is None:
                raise TransferRefused(TransferReason.NO_CANDIDATE, "no other voter that may lead was heard")
        else:
            check_target(core, self, target)
        if self.transfer is None or self.transfer.target != target:
            self.transfer = Transfer(core, target)
        self.transfer.advance(self.progress[target])

    # -- heartbeats, quorum, reads ---------------------------------------------------------------------

    def heartbeat_due(self) -> None:
        """A heartbeat interval has passed: what is done at this pace."""
        self.heartbeat()
        if self.transfer is not None:
            self.transfer.advance(self.progress[self.transfer.target])
        self.reconfiguration.observe()

    def heartbeat(self) -> None:
        """To all peers, with the last read round: so a round whose messages were lost is asked again."""
        core = self._core
        built: dict[Index, Heartbeat] = {}
        for node_id, progress in self.progress.items():
            commit_index = min(progress.match_index, core.commit_index)  # see Follower.on_heartbeat
            message = built.get(commit_index)
            if message is None:
                message = built[commit_index] = Heartbeat(core.term, commit_index, self._round)
            core.send(node_id, message)

    def on_heartbeat_response(self, sender: NodeId, message: HeartbeatResponse) -> None:
        progress = self.progress[sender]
        progress.heard_heartbeat()
        progress.priority = message.priority
        if progress.read_round < message.round <= self._round:
            progress.read_round = message.round
            self._confirm_round()

    def check_quorum(self) -> None:
        """Dissertation 6.2: who hears no quorum must not go on as if it led."""
        core = self._core
        active = {node_id for node_id, progress in self.progress.items() if progress.is_active}
        for progress in self.progress.values():
            progress.end_timeout()
        self.reconfiguration.note_timeout()
        if not core.configuration.has_quorum(active | {core.node_id}):
            core.become_follower(core.term, None)
        else:
            self._make_way()

    def _make_way(self) -> None:
        """For a live voter of higher priority, once in a while."""
        if self._hand_over_pause > 0:
            self._hand_over_pause -= 1
            return
        core = self._core
        successor = preferred_successor(core, self) if self.transfer is None else None
        if successor is not None and core.configurations.last_index <= core.commit_index:
            self._hand_over_pause = HAND_OVER_PAUSE_TIMEOUTS
            self.begin_transfer(successor)

    def read_index(self, context: int) -> None:
        limit = self._core.config.max_waiting_reads
        if len(self._waiting_reads) >= limit:
            raise Overloaded(len(self._waiting_reads) + 1, limit)
        self._waiting_reads[(None, context)] = None

    def on_read_index_request(self, sender: NodeId, message: ReadIndexRequest) -> None:
        core = self._core
        if len(self._waiting_reads) >= core.config.max_waiting_reads:
            core.send(sender, ReadIndexRefused(core.term, message.context))
        else:
            self._waiting_reads[(sender, message.context)] = None

    def _may_begin_round(self) -> bool:
        # Dissertation 6.4, step 1: until an entry of its own term is committed, a leader does not know
        # what is committed.
        core = self._core
        return not self._asked_reads and core.log.term_at(core.commit_index) == core.term

    def _begin_round(self) -> None:
        """Steps 2 and 3: note the commit index, then find out whether anybody else leads by now.

        The number is new, so no answer to an earlier heartbeat can confirm these reads.
        """
        self._asked_reads, self._waiting_reads = self._waiting_reads, {}
        self._round += 1
        self._round_read_index = self._core.commit_index
        self.heartbeat()
        self._confirm_round()

    def _confirm_round(self) -> None:
        core = self._core
        rounds = {node_id: progress.read_round for node_id, progress in self.progress.items()}
        rounds[core.node_id] = self._round
        if core.configuration.quorum_value(rounds) < self._round:
            return
        asked, self._asked_reads = self._asked_reads, {}
        core.grant_reads([context for origin, context in asked if origin is None], self._round_read_index)
        for origin, context in asked:
            if origin is not None:
                core.send(origin, ReadIndexResponse(core.term, context, self._round_read_index))

    handlers: ClassVar[dict[type, Callable[[Any, NodeId, Any], None]]] = {
        AppendResponse: on_append_response,
        AppendRejected: on_append_rejected,
        InstallSnapshotResponse: on_install_snapshot_response,
        HeartbeatResponse: on_heartbeat_response,
        ReadIndexRequest: on_read_index_request,
    }
