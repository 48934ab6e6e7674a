"""Replication: decides what is true. The Raft core at work on messages and on the disk.

Owns the core and its storage; nobody else touches either. One turn steps all that arrived, lets the appends
leave, syncs once, and only then lets the answers leave that promise durability (dissertation 10.2.1). May
know messages, storage and the clock (only to thin out notes to election and to forget stale reads).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from math import inf

from actors import Actor, Address
from raft.actor_messages import (
    Abandoned,
    ApplierBehind,
    Campaign,
    ChangeConfiguration,
    CheckQuorumDue,
    CloseSnapshot,
    CommitNotice,
    Committed,
    HeartbeatDue,
    LeaderContact,
    LeaderSilent,
    LogForgotten,
    NodeFenced,
    OpenSnapshot,
    PartWanted,
    Propose,
    QueryStatus,
    Queued,
    Read,
    ReadReady,
    ReadSnapshot,
    Reason,
    Refused,
    RoleChanged,
    SnapshotRestored,
    SnapshotSlice,
    TransferLeadership,
    TransferOverdue,
)
from raft.administration import Administration
from raft.arrivals import Arrivals
from raft.core import Core, Ready, Role, RoleChange
from raft.entries import EntryBatch, EntryKind
from raft.errors import NotLeader, Overloaded, Transferring
from raft.health import Health
from raft.messages import AppendEntries, Heartbeat, InstallSnapshot
from raft.snapshot_keeper import SnapshotKeeper
from raft.space_watch import DEFAULT_RESERVE_BYTES, SpaceWatch
from raft.storage import Storage

log = logging.getLogger("assent.replication")

# A turn closes after so many rounds of ready() at the latest, so that one turn never hogs the loop;
# what is left is taken up in the next.
MAX_READY_ROUNDS = 4
# Reads that a leader has not confirmed by then were lost on the way; the client asks again.
READ_PATIENCE_SECONDS = 1.0
MAX_WAITING_READS = 4096
# Every contact of the leader moves the election timeout; telling election at this grain is enough.
CONTACT_GRAIN_SECONDS = 0.01
# A commit index goes along with the next append. If none leaves for so long, it is told by itself: at once
# would wake two followers for each lone put, just when its client is to be answered.
COMMIT_NEWS_SECONDS = 0.002


class Tickets:
    """Which log entries answer which of the gateway's tickets; owned by one replication actor.

    Only a leader's own proposals are here, in log order. A ticket leaves as its entries are committed,
    in parts if the commit index moves through it.
    """

    def __init__(self) -> None:
        self._open: deque[tuple[int, int, int]] = deque()  # (ticket, first log index, count)
        self._taken = 0  # entries of the first open ticket that were committed already

    def add(self, first_index: int, tickets: list[int], counts: list[int]) -> None:
        for ticket, size in zip(tickets, counts):
            self._open.append((ticket, first_index, size))
            first_index += size

    def take(self, first_index: int, last_index: int) -> tuple[list[tuple[int, int, int]], list[int]]:
        """Slices (ticket, offset, count) within the committed range, and where each starts in it."""
        slices: list[tuple[int, int, int]] = []
        starts: list[int] = []
        while self._open:
            ticket, ticket_first, size = self._open[0]
            begin = ticket_first + self._taken
            if begin > last_index:
                break
            taken = min(size - self._taken, last_index - begin + 1)
            slices.append((ticket, self._taken, taken))
            starts.append(begin - first_index)
            self._taken += taken
            if self._taken < size:
                break
            self._open.popleft()
            self._taken = 0
        return slices, starts

    def first(self) -> int | None:
        """The ticket whose entries are to be committed next."""
        return self._open[0][0] if self._open else None

    def drop_from(self, index: int) -> list[int]:
        """Tickets with an entry at `index` or later: a new leader overwrote them."""
        dropped = []
        while self._open and self._open[-1][1] + self._open[-1][2] > index:
            dropped.append(self._open.pop()[0])
        if not self._open:
            self._taken = 0
        return dropped[::-1]

    def drop_all(self) -> list[int]:
        return self.drop_from(0)


class ReplicationActor(Actor):
    """One per node; the only hand on the core."""

    name = "replication"

    def __init__(
        self, core: Core, storage: Storage, *, disk_reserve_bytes: int = DEFAULT_RESERVE_BYTES
    ) -> None:
        super().__init__()
        self._core = core
        self._storage = storage
        self._tickets = Tickets()
        self._noticed: set[int] = set()  # tickets in _tickets whose owner wants to hear of each stage
        self._administration = Administration(core, self.send_local)
        self._keeper = SnapshotKeeper(core, storage, self.send_local)
        self._space = SpaceWatch(storage, self.send_local, disk_reserve_bytes)
        self._health = Health()
        self._arrivals = Arrivals(core.last_index, inf)
        self._contexts = count(1)  # read contexts are never reused within a process
        self._reads: dict[int, tuple[float, Read | OpenSnapshot]] = {}  # waiting for a quorum, by context
        self._contact_told_at = 0.0
        self._tell_commit_at: float | None = None  # None: the peers were told all that is committed
        self._local: dict[type, Callable[..., None]] = {
            Propose: self._propose,
            Read: self._read,
            OpenSnapshot: self._open_snapshot,
            ReadSnapshot: self._read_snapshot,
            CloseSnapshot: self._keeper.streams.close,
            QueryStatus: self._report,
            Campaign: self._campaign,
            LeaderSilent: self._leader_silent,
            HeartbeatDue: self._heartbeat_due,
            CheckQuorumDue: self._check_quorum_due,
            ChangeConfiguration: self._administration.change,
            TransferLeadership: self._administration.transfer,
            TransferOverdue: self._transfer_overdue,
            SnapshotSlice: self._take_slice,
            PartWanted: self._want_part,
            SnapshotRestored: self._keeper.note_restored,
            ApplierBehind: self._hold_back,
            NodeFenced: self._fence,
        }

    def on_start(self) -> None:
        self._arrivals = Arrivals(self._core.last_index, self.now())
        self._tell_role(RoleChange(self._core.role, self._core.term, self._core.leader_id))
        self._administration.tell_membership()
        self._space.check(self.now())
        self._drive()

    def on_stop(self) -> None:
        self._storage.close()

    def receive(self, batch: list[tuple[Address, object]]) -> None:
        core = self._core
        contact = False
        local = []
        for sender, message in batch:
            if sender.node == self.node:
                local.append(message)
                continue
            core.step(sender.node, message)
            if type(message) in (AppendEntries, Heartbeat, InstallSnapshot):
                contact = contact or (sender.node == core.leader_id and message.term == core.term)  # type: ignore[attr-defined]
        if contact:
            self._tell_contact()
        for message in local:
            # A leader heard in this very turn is not dead, whatever election thought a moment ago.
            if not (contact and type(message) in (Campaign, LeaderSilent)):
                self._local[type(message)](message)
        self._drive()

    def on_deadline(self) -> None:
        now = self.now()
        if self._tell_commit_at is not None and now >= self._tell_commit_at:
            self._core.tell_commit()
        self._forget_stale_reads(now)
        self._keeper.on_time(now)
        if self._keeper.streams.on_time(now):
            self._keeper.consider()
        if now >= self._space.due_at:
            self._space.check(now)
            space = self._space
            self._keeper.check_room(space.is_low, space.free_bytes, space.spent_segments, now)
        self._drive()

    # -- what the gateway asks -------------------------------------------------------------------------

    def _propose(self, message: Propose) -> None:
        try:
            first_index = self._core.propose(message.bodies)
        except (NotLeader, Overloaded, Transferring) as refusal:
            if message.tickets:  # else the applier's own wish, which it has again if it still leads
                self._refuse_proposal(message.tickets, refusal)
        else:
            self._tickets.add(first_index, message.tickets, message.counts)
            if message.wants_notices:
                self._noticed.update(message.tickets)
                queued = Queued(first_index, self._core.term, message.tickets, message.counts)
                self.send_local("gateway", queued)

    def _refuse_proposal(self, tickets: list[int], refusal: NotLeader | Overloaded | Transferring) -> None:
        if isinstance(refusal, NotLeader):
            self._refuse(tickets, refusal.leader_id)
        else:
            reason = Reason.OVERLOADED if isinstance(refusal, Overloaded) else Reason.TRANSFERRING
            self.send_local("gateway", Refused(tickets, reason, None))

    def _read(self, message: Read | OpenSnapshot) -> None:
        """Find the index that an answer must not be older than."""
        context = next(self._contexts)
        try:
            if len(self._reads) >= MAX_WAITING_READS:
                raise Overloaded
            self._core.read_index(context)
        except NotLeader as refusal:
            self._refuse_read(message, refusal.leader_id)
        except Overloaded:
            self._note_refused(message)
            self.send_local("gateway", Refused(message.tickets, Reason.OVERLOADED, None))
        else:
            self._reads[context] = (self.now() + READ_PATIENCE_SECONDS, message)

    def _open_snapshot(self, message: OpenSnapshot) -> None:
        if self._keeper.streams.open(message, self.now()):
            self._read(message)

    def _read_snapshot(self, message: ReadSnapshot) -> None:
        self._keeper.streams.read(message, self.now())

    def _refuse_read(self, message: Read | OpenSnapshot, leader_id: str | None) -> None:
        self._note_refused(message)
        self._refuse(message.tickets, leader_id)

    def _note_refused(self, message: Read | OpenSnapshot) -> None:
        if isinstance(message, OpenSnapshot):
            self._keeper.streams.refuse_moment(message)

    def _refuse(self, tickets: list[int], leader_id: str | None) -> None:
        reason = Reason.NO_LEADER if leader_id is None else Reason.NOT_LEADER
        self.send_local("gateway", Refused(tickets, reason, leader_id))

    def _report(self, message: QueryStatus) -> None:
        core = self._core
        snapshot = core.snapshots.newest
        message.fields.update(
            node=self.node,
            role=core.role.value,
            term=core.term,
            leader=core.leader_id,
            commit_index=core.commit_index,
            last_index=core.last_index,
            log_first_index=core.log.first_index,
            log_bytes=core.snapshots.log_bytes,
            snapshot_index=0 if snapshot is None else snapshot.index,
            snapshot_term=0 if snapshot is None else snapshot.term,
            priority=core.config.priority,
            **self._space.fields(),
        )
        self.send_local("applier", message)

    # -- what election asks ----------------------------------------------------------------------------

    def _campaign(self, message: Campaign) -> None:
        if message.term == self._core.term:
            self._core.campaign()

    def _leader_silent(self, message: LeaderSilent) -> None:
        if message.term == self._core.term:
            self._core.leader_silent()

    def _heartbeat_due(self, message: HeartbeatDue) -> None:
        if message.term == self._core.term:
            self._core.heartbeat()

    def _check_quorum_due(self, message: CheckQuorumDue) -> None:
        if message.term == self._core.term:
            self._check_health()
            self._core.check_quorum()
            self._administration.tell_transfer()  # a preferred node may be to take over

    def _check_health(self) -> None:
        """Before the core looks for its quorum, and then forgets who was active."""
        report = self._health.end_timeout(self._core.term, self._core.progress)
        if report is not None:
            for node in self._core.progress:
                self.send(Address(node, "applier"), report)
            self.send_local("applier", report)

    def _transfer_overdue(self, message: TransferOverdue) -> None:
        if message.term == self._core.term:
            self._administration.give_up_transfer()

    def _tell_contact(self) -> None:
        now = self.now()
        if now - self._contact_told_at >= CONTACT_GRAIN_SECONDS:
            self._contact_told_at = now
            self.send_local("election", LeaderContact(self._core.term, self._core.leader_id or ""))

    def _fence(self, message: NodeFenced) -> None:
        self._keeper.fence()
        self._administration.fence()

    # -- the core's answer -----------------------------------------------------------------------------

    def _drive(self) -> None:
        """Carry out what the core wants, until it wants nothing more or the turn is long enough."""
        rounds = 0
        while self._core.has_ready() and rounds < MAX_READY_ROUNDS:
            self._carry_out(self._core.ready())
            rounds += 1
        self._schedule(is_unfinished=rounds == MAX_READY_ROUNDS)

    def _schedule(self, *, is_unfinished: bool) -> None:
        now = self.now()
        if not self._core.is_commit_untold():
            self._tell_commit_at = None
        elif self._tell_commit_at is None:
            self._tell_commit_at = now + COMMIT_NEWS_SECONDS
        deadlines = [now if is_unfinished else self._space.due_at]
        if self._tell_commit_at is not None:
            deadlines.append(self._tell_commit_at)
        if self._keeper.due_at is not None:
            deadlines.append(self._keeper.due_at)
        if (streams_due_at := self._keeper.streams.due_at()) is not None:
            deadlines.append(streams_due_at)
        if self._reads:
            deadlines.append(next(iter(self._reads.values()))[0])  # the oldest comes first
        self.set_deadline(min(deadlines))

    def _take_slice(self, message: SnapshotSlice) -> None:
        self._keeper.take_slice(message, self.now())

    def _hold_back(self, message: ApplierBehind) -> None:
        self._core.snapshots.is_applier_behind = message.is_behind

    def _want_part(self, message: PartWanted) -> None:
        self._keeper.want_part(message, self.now())

    def _carry_out(self, ready: Ready) -> None:
        if ready.messages:
            self._send(ready.messages)
            self._tell_commit_at = None  # they carry what was committed up to now
        if ready.snapshots is not None:
            self._keeper.write(ready)
        if ready.batch is not None:
            self._arrivals.came(ready.batch.first_index, ready.batch.last_index, self.now())
        if ready.batch is not None or ready.hard_state is not None:
            if ready.must_sync and ready.messages:
                self.flush()  # peers write to their disks while this node writes to its own
            self._storage.append(ready.hard_state, ready.batch)
            if ready.must_sync:
                self._storage.sync()
        self._send(ready.messages_after_sync)
        self._core.advance()
        if ready.snapshots is not None:
            self._send(self._keeper.filled(ready.snapshots))
        if ready.forgotten is not None:
            self.send_local("applier", LogForgotten(ready.forgotten))
        if ready.truncated_from is not None:
            # Gone here, and yet another node may hold them and lead with them (Raft Figure 8); of a ticket
            # that went out in several appends a part may be committed. So nobody can say "not applied".
            self._abandon(self._tickets.drop_from(ready.truncated_from), Reason.CONFLICT_WITH_LEADER)
        if ready.committed is not None:
            self._hand_over(ready.committed)
            self._keeper.consider()
        for context, read_index in ready.reads:
            self._release_read(context, read_index)
        for context in ready.refused_reads:
            waiting = self._reads.pop(context, None)
            if waiting is not None:
                self._refuse_read(waiting[1], None)
        if ready.role_change is not None:
            self._change_role(ready.role_change)
        if ready.configuration is not None or ready.role_change is not None:
            self._administration.note(ready)

    def _send(self, messages: Sequence[tuple[str, object]]) -> None:
        for node, message in messages:
            self.send(Address(node, self.name), message)

    def _hand_over(self, batch: EntryBatch) -> None:
        bodies = [body if kind == EntryKind.COMMAND else None for _, kind, body in batch.entries]
        slices, starts = self._tickets.take(batch.first_index, batch.last_index)
        if self._noticed:
            self._tell_committed(slices)
        arrivals = self._arrivals.until(batch.last_index)
        self.send_local("applier", Committed(batch.first_index, bodies, slices, starts, arrivals))

    def _tell_committed(self, slices: list[tuple[int, int, int]]) -> None:
        told = [(ticket, count) for ticket, _, count in slices if ticket in self._noticed]
        if told:
            tickets, counts = [list(column) for column in zip(*told)]
            self.send_local("gateway", CommitNotice(tickets, counts))
            # The last of them may be committed in part: then more is to be told of it.
            self._noticed.difference_update(tickets)
            if tickets[-1] == self._tickets.first():
                self._noticed.add(tickets[-1])

    def _release_read(self, context: int, read_index: int) -> None:
        waiting = self._reads.pop(context, None)
        if waiting is not None:
            read = waiting[1]
            if isinstance(read, OpenSnapshot):
                self._keeper.streams.set_moment(read.stream, read_index)
                self._keeper.consider()
            else:
                self.send_local("applier", ReadReady(read_index, read.tickets, read.counts, read.bodies))

    def _forget_stale_reads(self, now: float) -> None:
        for context in [context for context, (until, _) in self._reads.items() if until <= now]:
            _, read = self._reads.pop(context)
            self._refuse_read(read, None)

    def _abandon(self, tickets: list[int], reason: Reason) -> None:
        if tickets:
            self._noticed.difference_update(tickets)
            self.send_local("gateway", Abandoned(tickets, reason))

    def _change_role(self, change: RoleChange) -> None:
        log.info("role=%s term=%d leader=%s", change.role.value, change.term, change.leader_id or "none")
        if change.role is not Role.LEADER:
            # The next leader may keep these entries or overwrite them. A client that asks again with the same
            # session and sequence gets the one true answer, so it hears of it now, not at its deadline.
            self._abandon(self._tickets.drop_all(), Reason.OUTCOME_UNKNOWN)
        self._tell_role(change)

    def _tell_role(self, change: RoleChange) -> None:
        message = RoleChanged(change.role.value, change.term, change.leader_id, self._core.last_index)
        for actor in ("election", "applier", "gateway"):
            self.send_local(actor, message)
