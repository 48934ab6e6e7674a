"""Gateway: the client edge. Reads envelopes, admits, forwards opaque bodies in batches, and replies.

Owns client connections, pending requests, the admission limit and the leader hint. May know frames and the
clock; nothing of terms, log positions or what a body says: a body is decoded for the first time by the state
machine, once it is committed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import msgpack

from actors import Actor, Address
from kvstore import protocol
from kvstore.backlog import Backlog
from kvstore.endpoints import parse_endpoint
from raft.actor_messages import (
    Abandoned,
    Applied,
    LocalRead,
    Propose,
    QueryStatus,
    Read,
    Reason,
    Refused,
    RoleChanged,
    StatusReport,
)

log = logging.getLogger("assent.gateway")

CLIENT_PORT = "client"
ANNOUNCE_SECONDS = 1.0
SWEEP_SECONDS = 0.1
MAX_PENDING_REQUESTS = 65_536
MAX_PENDING_BYTES = 64 << 20

CODES = {
    Reason.NOT_LEADER: (protocol.NOT_LEADER, "another node leads"),
    Reason.NO_LEADER: (protocol.NO_LEADER, "no leader is known at the moment"),
    Reason.TRANSFERRING: (protocol.TRANSFERRING, "leadership is being handed over: try again in a moment"),
    Reason.OVERLOADED: (protocol.OVERLOADED, "too much is waiting to be committed: try again later"),
    Reason.SHUTTING_DOWN: (protocol.SHUTTING_DOWN, "the node is stopping"),
    Reason.EXPIRED: (protocol.EXPIRED, "the deadline passed before the write was proposed"),
    Reason.CONFLICT_WITH_LEADER: (
        protocol.CONFLICT_WITH_LEADER,
        "a new leader overwrote it here; another node may still commit it",
    ),
    Reason.OUTCOME_UNKNOWN: (protocol.OUTCOME_UNKNOWN, "leadership was lost before the outcome was known"),
}


@dataclass(slots=True)
class Announce:
    """gateway to the other nodes' gateways, each second: where my clients and watchers connect."""

    client_endpoint: str
    watch_endpoint: str


@dataclass(slots=True)
class Pending:
    """One client frame whose requests are not all answered yet; known by its ticket."""

    connection: bytes
    first_request_id: int
    count: int
    remaining: int  # 0 < remaining <= count
    size_bytes: int
    expires_at: float
    is_write: bool


class Batch:
    """What arrived in one turn for one destination, flattened: tickets, their counts, all bodies."""

    __slots__ = ("bodies", "counts", "tickets")

    def __init__(self) -> None:
        self.tickets: list[int] = []
        self.counts: list[int] = []
        self.bodies: list[bytes] = []


class GatewayActor(Actor):
    """One per node. Everything it holds is bounded: requests and bytes pending, and each has a deadline."""

    name = "gateway"

    def __init__(
        self,
        *,
        client_endpoint: str,
        watch_endpoint: str,
        peers: list[str],
        about: dict[str, object],
        vitals: Callable[[], dict[str, object]],
    ) -> None:
        super().__init__()
        self._announce = Announce(client_endpoint, watch_endpoint)
        self._peers = peers
        self._about = about
        self._vitals = vitals
        self._endpoints: dict[str, Announce] = {}  # of the other nodes, as they announced them
        self._tickets = count(1)
        self._pending: dict[int, Pending] = {}
        self._pending_requests = 0  # sum of `count` over _pending
        self._pending_bytes = 0  # sum of `size_bytes` over _pending
        self._backlog = Backlog()
        self._is_leader = False
        self._leader_id: str | None = None
        self._announce_at = 0.0
        self.counters: Counter[str] = Counter()
        self._handlers: dict[type, Callable[[Any], None]] = {
            Applied: self._on_applied,
            Refused: self._on_refused,
            Abandoned: self._on_abandoned,
            StatusReport: self._on_status,
            RoleChanged: self._on_role,
        }

    def on_start(self) -> None:
        self.on_deadline()

    def on_stop(self) -> None:
        """Whoever still waits is told, and need not find out by a lost connection."""
        for pending in self._pending.values():
            code = protocol.OUTCOME_UNKNOWN if pending.is_write else protocol.SHUTTING_DOWN
            first = pending.first_request_id + pending.count - pending.remaining
            self._refuse_frame(pending.connection, first, pending.remaining, code, "the node is stopping")
        self._pending.clear()

    def on_deadline(self) -> None:
        now = self.now()
        if now >= self._announce_at:
            self._announce_at = now + ANNOUNCE_SECONDS
            for peer in self._peers:
                self.send(Address(peer, self.name), self._announce)
        self._expire(now)
        self.set_deadline(min(self._announce_at, now + SWEEP_SECONDS) if self._pending else self._announce_at)

    # -- requests come in ------------------------------------------------------------------------------

    def receive_frames(self, port: str, frames: list[tuple[bytes, bytes]]) -> None:
        writes, reads, local_reads = Batch(), Batch(), Batch()
        batches = {protocol.WRITE: writes, protocol.READ: reads, protocol.STALE_READ: local_reads}
        now = self.now()
        was_idle = not self._pending
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
                kind == protocol.WRITE,
            )
            if kind == protocol.STATUS:
                pending.count = pending.remaining = 1
                self._ask_status(pending)
            elif self._admit(pending, now):
                batch = batches[kind]
                batch.tickets.append(self._enter(pending))
                batch.counts.append(len(bodies))
                batch.bodies.extend(bodies)
        if writes.tickets:
            self.send_local("replication", Propose(writes.tickets, writes.counts, writes.bodies))
        if reads.tickets:
            self.send_local("replication", Read(reads.tickets, reads.counts, reads.bodies))
        if local_reads.tickets:
            self.send_local("applier", LocalRead(local_reads.tickets, local_reads.counts, local_reads.bodies))
        if was_idle and self._pending:
            self.set_deadline(min(self._announce_at, now + SWEEP_SECONDS))

    def _admit(self, pending: Pending, now: float) -> bool:
        """Refuse what cannot succeed here before it costs anything, and what would break a bound."""
        if pending.is_write and not self._is_leader:
            self._refuse(pending, Reason.NO_LEADER if self._leader_id is None else Reason.NOT_LEADER)
            return False
        if pending.is_write and pending.expires_at <= now:
            self._refuse(pending, Reason.EXPIRED)
            return False
        if (
            self._pending_requests + pending.count > MAX_PENDING_REQUESTS
            or self._pending_bytes + pending.size_bytes > MAX_PENDING_BYTES
        ):
            self.counters["refused_overloaded"] += pending.count
            self._refuse(pending, Reason.OVERLOADED)
            return False
        return pending.count > 0

    def _enter(self, pending: Pending) -> int:
        ticket = next(self._tickets)
        self._pending[ticket] = pending
        self._pending_requests += pending.count
        self._pending_bytes += pending.size_bytes
        return ticket

    def _leave(self, ticket: int) -> Pending | None:
        pending = self._pending.pop(ticket, None)
        if pending is not None:
            self._pending_requests -= pending.count
            self._pending_bytes -= pending.size_bytes
        return pending

    def _ask_status(self, pending: Pending) -> None:
        if self._pending_requests >= MAX_PENDING_REQUESTS:
            self._refuse(pending, Reason.OVERLOADED)
            return
        peers = {node: announce.client_endpoint for node, announce in self._endpoints.items()}
        fields: dict[str, object] = {
            **self._about,
            **self._vitals(),
            "client_endpoint": self._announce.client_endpoint,
            "watch_endpoint": self._announce.watch_endpoint,
            "peers": peers,
            "leader_client": self._client_endpoint(self._leader_id),
        }
        self.send_local("replication", QueryStatus(self._enter(pending), fields))

    # -- answers go out --------------------------------------------------------------------------------

    def receive(self, batch: list[tuple[Address, object]]) -> None:
        for sender, message in batch:
            if type(message) is Announce:
                self._on_announce(sender.node, message)
                continue
            handler = self._handlers.get(type(message))
            if handler is not None:
                handler(message)

    def _on_announce(self, node: str, message: Announce) -> None:
        """Clients are sent there, so what is no endpoint is not passed on, whoever said it."""
        try:
            for endpoint in (message.client_endpoint, message.watch_endpoint):
                parse_endpoint(endpoint)
        except ValueError:
            self.counters["malformed_announcement"] += 1
        else:
            self._endpoints[node] = message

    def _on_applied(self, message: Applied) -> None:
        for ticket, offset, size, results in message.slices:
            self._answer(ticket, offset, size, results)

    def _on_refused(self, message: Refused) -> None:
        for ticket in message.tickets:
            self._give_up(ticket, Reason(message.reason), message.leader_id)

    def _on_abandoned(self, message: Abandoned) -> None:
        for ticket in message.tickets:
            self._give_up(ticket, Reason(message.reason), None)

    def _on_status(self, message: StatusReport) -> None:
        self._answer(message.ticket, 0, 1, msgpack.packb((protocol.OK, message.fields)))

    def _on_role(self, message: RoleChanged) -> None:
        self._is_leader = message.role == "leader"
        self._leader_id = message.leader_id

    def _answer(self, ticket: int, offset: int, size: int, results: bytes) -> None:
        pending = self._pending.get(ticket)
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
        frame = protocol.encode_refused(first, size, code, text, leader, self._client_endpoint(leader))
        self.send_frame(CLIENT_PORT, connection, frame)

    def _client_endpoint(self, node: str | None) -> str | None:
        if node == self.node:
            return self._announce.client_endpoint
        announce = self._endpoints.get(node) if node is not None else None
        return announce.client_endpoint if announce is not None else None

    def _expire(self, now: float) -> None:
        """Nothing waits for ever: what is past its deadline is answered with what is known of it."""
        for ticket in [ticket for ticket, pending in self._pending.items() if pending.expires_at <= now]:
            pending = self._leave(ticket)
            assert pending is not None
            first = pending.first_request_id + pending.count - pending.remaining
            if pending.is_write:
                code, text = protocol.OUTCOME_UNKNOWN, "the deadline passed before the outcome was known"
            else:
                code, text = protocol.DEADLINE_EXCEEDED, "the deadline passed before the read was answered"
            self.counters["expired"] += pending.remaining
            self._refuse_frame(pending.connection, first, pending.remaining, code, text)
