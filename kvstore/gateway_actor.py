"""Gateway: the client edge. Reads envelopes, admits, forwards opaque bodies in batches, and replies.

Owns client connections, pending requests, the admission limit and the leader hint. May know frames and the
clock; nothing of terms, log positions or what a body says: a body is decoded for the first time by the state
machine, once it is committed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgpack

from actors import Actor, Address
from kvstore import protocol
from kvstore.backlog import Backlog
from kvstore.membership_desk import NOTE_TICKET, MembershipDesk
from kvstore.neighbours import Announce, Neighbours, StorageRefused
from kvstore.pending import MAX_REQUESTS, Batch, Pending, Waiting
from kvstore.protocol_admin import Initialise, ListMembers, decode_admin
from kvstore.protocol_snapshot import decode_snapshot_request
from kvstore.refusals import CODES, Barrier, barrier_of, remedy_for
from kvstore.renewals import Renewals, is_renewal
from kvstore.snapshot_desk import SnapshotDesk
from kvstore.space_gate import SpaceGate, SpaceNotice, parts
from raft import Configuration
from raft.actor_messages import (
    Abandoned,
    Applied,
    ChangeRefused,
    ConfigurationChanged,
    LeadershipTransferred,
    LocalRead,
    MembershipChanged,
    NodeFenced,
    Propose,
    QueryStatus,
    Read,
    Reason,
    Refused,
    RoleChanged,
    SpaceChanged,
    StateSize,
    StatusReport,
    TransferLeadership,
)

log = logging.getLogger("assent.gateway")

CLIENT_PORT = "client"
SWEEP_SECONDS = 0.1
STOP_TICKET = -1  # of the transfer that a leader asks for when it is told to stop


class GatewayActor(Actor):
    """One per node. Everything it holds is bounded: requests and bytes pending, and each has a deadline."""

    name = "gateway"

    def __init__(
        self,
        *,
        announce: Announce,
        storage_id: int,
        about: dict[str, object],
        vitals: Callable[[], dict[str, object]],
        quota_bytes: int = 0,
    ) -> None:
        super().__init__()
        self._neighbours = Neighbours(self, announce, lambda node: self.desk.has_removed(node))
        self._storage_id = storage_id  # of the own data directory
        self._about = about
        self._vitals = vitals
        self._quota_bytes = quota_bytes
        self._waiting = Waiting()
        self._backlog = Backlog()
        self._renewals = Renewals()
        self._is_leader = False
        self._leader_id: str | None = None
        # These two are made at the start, when the node's name is known.
        self._desk: MembershipDesk | None = None
        self._snapshot_desk: SnapshotDesk | None = None
        self._announce_at = 0.0
        self._fence: NodeFenced | None = None
        self._barrier: Barrier | None = None  # None: clients are served
        self._is_handing_over: bool | None = None  # None: nobody has told this node to stop
        self.counters: Counter[str] = Counter()
        self._handlers: dict[type, Callable[[Any], None]] = {
            Applied: self._on_applied,
            Refused: self._on_refused,
            Abandoned: self._on_abandoned,
            StatusReport: self._on_status,
            RoleChanged: self._on_role,
            MembershipChanged: self._on_membership,
            NodeFenced: self._on_fenced,
            SpaceChanged: self._on_space,
            ConfigurationChanged: self._on_changed,
            ChangeRefused: self._on_change_refused,
            LeadershipTransferred: self._on_transferred,
        }

    def on_start(self) -> None:
        def send(message: object) -> None:
            self.send_local("replication", message)

        def answer(ticket: int, result: bytes) -> None:
            self._answer(ticket, 0, 1, result)

        cluster_id = self._neighbours.own.cluster_id
        self._desk = MembershipDesk(
            self.node,
            cluster_id,
            send=send,
            answer=answer,
            client_endpoint=self._neighbours.client_endpoint,
        )
        self._space = SpaceGate(self.node, self._quota_bytes)
        self._handlers[StateSize] = self._space.weigh
        self._snapshot_desk = SnapshotDesk(self.node, cluster_id, send=send, answer=answer)
        self._handlers.update(self._snapshot_desk.handlers)
        self.on_deadline()

    @property
    def desk(self) -> MembershipDesk:
        assert self._desk is not None, "the gateway was not started"
        return self._desk

    def may_stop(self) -> bool:
        """A leader that is told to stop lets another lead first: that takes milliseconds, an election takes
        more than its timeout."""
        if self._is_handing_over is None:
            others = self.desk.configuration.voters - {self.node}
            self._is_handing_over = self._is_leader and bool(others)
            if self._is_handing_over:
                self.send_local("replication", TransferLeadership(STOP_TICKET, None))
        return not self._is_handing_over

    def on_stop(self) -> None:
        """Whoever still waits is told, and need not find out by a lost connection."""
        for ticket, pending in self._waiting.all():
            code = protocol.OUTCOME_UNKNOWN if pending.is_write else protocol.SHUTTING_DOWN
            first = pending.first_request_id + pending.count - pending.remaining
            self._refuse_frame(pending.connection, first, pending.remaining, code, "the node is stopping")
            self._waiting.leave(ticket)

    def on_deadline(self) -> None:
        now = self.now()
        self._propose(Batch(), now)
        if now >= self._announce_at:
            self._announce_at = now + self._neighbours.pause_seconds(now)
            self._neighbours.sweep(now)
            for peer in self._neighbours.audience():
                self.send(Address(peer, self.name), self._neighbours.own)
            self._tell_space(now)
            if self._is_leader:
                self.desk.note_storages(self._known_storage)
        self.desk.sweep(now)
        self._expire(now)
        self._schedule(now)

    def _tell_space(self, now: float) -> None:
        self._space.sweep(self.desk.configuration.members, now)
        notice = self._space.take_notice()
        if notice is not None:
            self.flush()  # In a frame of its own: a node that does not know it drops all of the frame.
            for peer in self._neighbours.audience():
                self.send(Address(peer, self.name), notice)
            self.flush()

    def _schedule(self, now: float) -> None:
        due = min(self._announce_at, now + SWEEP_SECONDS) if self._waiting else self._announce_at
        self.set_deadline(min(due, self.desk.next_deadline() or due, self._renewals.due_at() or due))

    def _known_storage(self, node: str) -> int:
        return self._storage_id if node == self.node else self.storage_of(node)

    # -- requests come in ------------------------------------------------------------------------------

    def receive_frames(self, port: str, frames: list[tuple[bytes, bytes]]) -> None:
        writes, reads, local_reads = Batch(), Batch(), Batch()
        batches = {protocol.READ: reads, protocol.STALE_READ: local_reads}
        now = self.now()
        was_idle = not self._waiting
        for connection, payload in frames:
            try:
                kind, first_request_id, timeout_ms, bodies, confirmed_below = protocol.decode_request(payload)
            except protocol.MalformedFrame as error:
                self.counters["malformed_client_frame"] += 1
                self._refuse_frame(connection, 0, 1, protocol.BAD_FRAME, error.reason)
                continue
            if confirmed_below:
                self._backlog.confirm(connection, confirmed_below)
            pending = Pending(
                connection,
                first_request_id,
                len(bodies),
                len(bodies),
                len(payload),
                now + timeout_ms / 1000,
                kind in (protocol.WRITE, protocol.ADMIN),
            )
            if kind == protocol.STATUS:
                pending.count = pending.remaining = 1
                pending.is_status = True
                self._ask_status(pending)
            elif kind == protocol.ADMIN:
                self._administer(pending, bodies[0], now)
            elif kind == protocol.SNAPSHOT:
                self._give_snapshot(pending, bodies[0], now)
            elif self._admit(pending, now):
                if kind == protocol.WRITE:
                    self._take_up_write(pending, bodies, writes, reads, now)
                else:
                    batches[kind].add(self._waiting.enter(pending), bodies)
        self._propose(writes, now)
        if reads.tickets:
            self.send_local("replication", Read(reads.tickets, reads.counts, reads.bodies))
        if local_reads.tickets:
            self.send_local("applier", LocalRead(local_reads.tickets, local_reads.counts, local_reads.bodies))
        if (was_idle and self._waiting) or self._renewals:
            self._schedule(now)

    def _propose(self, writes: Batch, now: float) -> None:
        if writes.tickets or self._renewals.is_due(now):
            self._renewals.join(writes, now)
        if writes.tickets:
            self.send_local("replication", Propose(writes.tickets, writes.counts, writes.bodies))

    def _take_up_write(
        self, pending: Pending, bodies: list[bytes], writes: Batch, reads: Batch, now: float
    ) -> None:
        if is_renewal(bodies):
            self._renewals.held.add(self._waiting.enter(pending), bodies)
            return
        self._renewals.join(writes, now)  # what came before goes before
        if self._space.is_closed:
            self._take_up_frugal(pending, bodies, writes, reads)
        else:
            writes.add(self._waiting.enter(pending), bodies)

    def _take_up_frugal(self, pending: Pending, bodies: list[bytes], writes: Batch, reads: Batch) -> None:
        """While there is too little room: of what would grow nothing is proposed, run by run."""
        for part, some, is_frugal in parts(pending, bodies):
            if is_frugal:
                writes.add(self._waiting.enter(part), some)
            else:
                part.is_write = False
                self.counters["refused_space"] += part.count
                reads.add(self._waiting.enter(part), self._space.questions(some))

    def _admit(self, pending: Pending, now: float, *, is_listing: bool = False) -> bool:
        """Refuse what cannot succeed here before it costs anything, and what would break a bound."""
        barrier = self._barrier
        if barrier is not None and not (is_listing and barrier.code == protocol.FENCED):
            self._turn_away(pending, barrier)
            return False
        if pending.is_write and not self._is_leader:
            self._refuse(pending, Reason.NO_LEADER if self._leader_id is None else Reason.NOT_LEADER)
            return False
        if pending.is_write and pending.expires_at <= now:
            self._refuse(pending, Reason.EXPIRED)
            return False
        if not self._waiting.has_room_for(pending):
            self.counters["refused_overloaded"] += pending.count
            self._refuse(pending, Reason.OVERLOADED)
            return False
        return pending.count > 0

    def _turn_away(self, pending: Pending, barrier: Barrier) -> None:
        first = pending.first_request_id + pending.count - pending.remaining
        self._refuse_frame(pending.connection, first, pending.remaining, *barrier)

    def _administer(self, pending: Pending, body: bytes, now: float) -> None:
        try:
            request = decode_admin(body)
        except protocol.MalformedFrame as error:
            self._answer_malformed(pending, error)
            return
        is_listing = isinstance(request, ListMembers)
        if isinstance(request, Initialise) or self._admit(pending, now, is_listing=is_listing):
            self.desk.open(self._waiting.enter(pending), request, now, pending.expires_at)
            self._schedule(now)

    def _give_snapshot(self, pending: Pending, body: bytes, now: float) -> None:
        assert self._snapshot_desk is not None, "the gateway was not started"
        try:
            request = decode_snapshot_request(body)
        except protocol.MalformedFrame as error:
            self._answer_malformed(pending, error)
            return
        if self._admit(pending, now):
            self._snapshot_desk.ask(self._waiting.enter(pending), request)

    def _answer_malformed(self, pending: Pending, error: protocol.MalformedFrame) -> None:
        result = msgpack.packb((protocol.BAD_REQUEST, error.reason))
        frame = protocol.encode_results(pending.first_request_id, 1, result)
        self.send_frame(CLIENT_PORT, pending.connection, frame)

    def _leave(self, ticket: int) -> Pending | None:
        pending = self._waiting.leave(ticket)
        if pending is not None:
            self.desk.drop(ticket)
        return pending

    def _ask_status(self, pending: Pending) -> None:
        if self._waiting.requests >= MAX_REQUESTS:
            self._refuse(pending, Reason.OVERLOADED)
            return
        neighbours, desk = self._neighbours, self.desk
        fields: dict[str, object] = {
            **self._about,
            **self._vitals(),
            "storage_id": f"{self._storage_id:016x}",
            "leader_client": neighbours.client_endpoint(self._leader_id),
            "member": desk.role_of(self.node),
            "members": desk.members(),
            "is_joint": desk.is_joint,
            "storages_known": desk.knows_storages(),
            **neighbours.status(),
            **self._space.status(),
        }
        self.send_local("replication", QueryStatus(self._waiting.enter(pending), fields))

    # -- answers go out --------------------------------------------------------------------------------

    def receive(self, batch: list[tuple[Address, object]]) -> None:
        for sender, message in batch:
            if type(message) is Announce:
                if not self._neighbours.hear(sender.node, message, self.now()):
                    self.counters["malformed_announcement"] += 1
                continue
            if type(message) is SpaceNotice:
                if sender.node in self.desk.configuration.members:
                    self._space.note(sender.node, message, self.now())
                continue
            if type(message) is StorageRefused:
                self._neighbours.note_refusal(sender.node, message.known_storage_id)
                continue
            handler = self._handlers.get(type(message))
            if handler is not None:
                handler(message)
        if not self._is_leader and (stranded := self.desk.stranded()):
            # Of a change that made this very leader step down it may be known by now that it is done.
            self.desk.sweep(self.now())
            for ticket in stranded:
                self._give_up(ticket, Reason.OUTCOME_UNKNOWN, self._leader_id)

    def receive_refused(self, batch: list[tuple[Address, object]]) -> None:
        """A node of a member's name that has another data directory: it is told, and not listened to."""
        for sender, message in batch:
            if type(message) is Announce:
                known = f"{self.storage_of(sender.node):016x}"
                self.send(Address(sender.node, self.name), StorageRefused(known))

    def _on_applied(self, message: Applied) -> None:
        for ticket, offset, size, results in message.slices:
            self._answer(ticket, offset, size, results)

    def _on_refused(self, message: Refused) -> None:
        for ticket in message.tickets:
            if ticket == STOP_TICKET:
                self._is_handing_over = False
            self._give_up(ticket, Reason(message.reason), message.leader_id)

    def _on_abandoned(self, message: Abandoned) -> None:
        for ticket in message.tickets:
            if ticket not in self.desk:  # which knows better, once all of this turn is heard
                self._give_up(ticket, Reason(message.reason), None)

    def _on_status(self, message: StatusReport) -> None:
        self._answer(message.ticket, 0, 1, msgpack.packb((protocol.OK, message.fields)))

    def _on_role(self, message: RoleChanged) -> None:
        self._is_leader = message.role == "leader"
        self._leader_id = message.leader_id

    # -- who takes part --------------------------------------------------------------------------------

    def _on_membership(self, message: MembershipChanged) -> None:
        now, desk = self.now(), self.desk
        configuration = Configuration.decode(message.configuration)
        is_news = configuration != desk.configuration
        desk.follow(configuration, is_committed=message.is_committed, is_removed=message.is_removed)
        if is_news:
            self._neighbours.follow(configuration, now)
            self._announce_at = now
        desk.sweep(now)
        self._decide_on_service()
        self._schedule(now)

    def _on_space(self, message: SpaceChanged) -> None:
        self._space.note(self.node, SpaceNotice(message.is_low, message.free_bytes), self.now())
        self._tell_space(self.now())

    def _on_fenced(self, message: NodeFenced) -> None:
        self._fence = message
        log.error("event=out_of_service reason=%r remedy=%r", message.reason, remedy_for(self.node))
        self._space.fall_silent()
        self._decide_on_service()

    def _decide_on_service(self) -> None:
        """Whoever waits for an answer when the service ends is told so."""
        before = self._barrier
        self._barrier = barrier = barrier_of(self.node, self.desk.role_of(self.node), self._fence)
        if before is not None or barrier is None:
            return
        for ticket, pending in self._waiting.all():
            if pending.is_status:
                continue
            self._leave(ticket)
            if pending.is_write:
                self._refuse(pending, Reason.OUTCOME_UNKNOWN)
            else:
                self._turn_away(pending, barrier)

    def _on_changed(self, message: ConfigurationChanged) -> None:
        self.desk.on_changed(message)

    def _on_change_refused(self, message: ChangeRefused) -> None:
        if message.ticket == STOP_TICKET:
            self._is_handing_over = False
        elif message.ticket != NOTE_TICKET:
            self.desk.on_refused(message, self.now())
            self._schedule(self.now())

    def _on_transferred(self, message: LeadershipTransferred) -> None:
        if message.ticket == STOP_TICKET:
            self._is_handing_over = False
        else:
            self.desk.on_transferred(message)

    # -- answers -------------------------------------------------------------------------------------

    def _answer(self, ticket: int, offset: int, size: int, results: bytes) -> None:
        pending = self._waiting.get(ticket)
        if pending is None:
            return  # it expired, and its client was told so
        first = pending.first_request_id + offset
        if self._backlog.admit(pending.connection, first + size - 1, len(results)):
            frame = protocol.encode_results(first, size, results)
            self.send_frame(CLIENT_PORT, pending.connection, frame)
        else:
            self.counters["refused_unconfirmed"] += size
            code = protocol.OUTCOME_UNKNOWN if pending.is_write else protocol.OVERLOADED
            self._refuse_frame(pending.connection, first, size, code, "large answers were not confirmed")
        pending.remaining -= size
        if pending.remaining == 0:
            self._leave(ticket)

    def _give_up(self, ticket: int, reason: Reason, leader_id: str | None) -> None:
        pending = self._leave(ticket)
        if pending is not None:
            if leader_id is not None:
                self._leader_id = leader_id
            self._refuse(pending, reason)

    def _refuse(self, pending: Pending, reason: Reason) -> None:
        code, text = CODES[reason]
        # What was answered of a ticket was answered from its start on: the last `remaining` are open.
        first = pending.first_request_id + pending.count - pending.remaining
        self._refuse_frame(pending.connection, first, pending.remaining, code, text)

    def _refuse_frame(self, connection: bytes, first: int, size: int, code: int, text: str) -> None:
        leader = self._leader_id
        endpoint = self._neighbours.client_endpoint(leader)
        frame = protocol.encode_refused(first, size, code, text, leader, endpoint)
        self.send_frame(CLIENT_PORT, connection, frame)

    def _expire(self, now: float) -> None:
        """Nothing waits for ever: what is past its deadline is answered with what is known of it."""
        for ticket in self._waiting.overdue(now):
            pending = self._leave(ticket)
            assert pending is not None
            first = pending.first_request_id + pending.count - pending.remaining
            if pending.is_write:
                code, text = protocol.OUTCOME_UNKNOWN, "the deadline passed before the outcome was known"
            else:
                code, text = protocol.DEADLINE_EXCEEDED, "the deadline passed before it was answered"
            self.counters["expired"] += pending.remaining
            self._refuse_frame(pending.connection, first, pending.remaining, code, text)
