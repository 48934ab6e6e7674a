"""Proposer: stands where the client gateway stands, for a program that replicates a state machine of its own.

Owns the commands and queries that are under way; moves them on as replication and applier report, and ends
those whose time is up. May know messages and the clock. What its own process posts is taken as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from actors import Actor, Address, EndpointUnusable
from raft.actor_messages import (
    Abandoned,
    Applied,
    ChangeRefused,
    CommitNotice,
    ConfigurationChanged,
    LeadershipTransferred,
    LocalRead,
    MembershipChanged,
    NodeFenced,
    Propose,
    Queued,
    Read,
    Reason,
    Refused,
    RoleChanged,
    TransferLeadership,
)
from raft.entries import NodeId
from raft.errand import Errand, error_of
from raft.fence import FenceMark
from raft.life import Abandonment, Command, Query, Stage
from raft.membership import Configuration
from raft.ready import Role, RoleChange

log = logging.getLogger("assent.proposer")

# Deadlines are judged at this grain while anything is under way.
SWEEP_SECONDS = 0.02
# Who has left stays connected for so long, to be told of it.
LINGER_SECONDS = 10.0

Request = Command | Query | Errand


class ProposerActor(Actor):
    """One per node, in the gateway's place, so that replication and applier answer to it.

    `on_end` gets each request once, when it is over; `on_role` and `on_members` each change of these, and
    `on_fenced` why the machine is not used any more. What a callback raises is logged and goes no further:
    it is of the user's program, and no entry depends on it.
    It also keeps the node connected to those who are members.
    """

    name = "gateway"

    def __init__(
        self,
        *,
        on_end: Callable[[Request], None],
        on_role: Callable[[RoleChange], None],
        on_members: Callable[[Configuration], None],
        on_fenced: Callable[[FenceMark], None],
    ) -> None:
        super().__init__()
        self._on_end = on_end
        self._on_role = on_role
        self._on_members = on_members
        self._on_fenced = on_fenced
        self._is_fenced = False
        self._is_leader = False
        self._members: frozenset[NodeId] = frozenset()  # the others in the configuration in force
        self._leaving: dict[NodeId, float] = {}  # connected, but no members any more; until then
        self._farewell: int | None = None  # the ticket with which leadership is handed over before a stop
        self._tickets = count(1)
        self._commands: dict[int, Command] = {}  # under way, by ticket
        self._queries: dict[int, Query] = {}
        self._errands: dict[int, Errand] = {}
        self._sweep_at: float | None = None  # None: nothing is under way. New requests do not put it off
        self._handlers: dict[type, Callable[[Any], None]] = {
            Queued: self._on_queued,
            CommitNotice: self._on_committed,
            Applied: self._on_applied,
            Refused: self._on_refused,
            Abandoned: self._on_abandoned,
            RoleChanged: self._on_role_changed,
            MembershipChanged: self._on_membership,
            ConfigurationChanged: self._on_configuration_changed,
            LeadershipTransferred: self._on_transferred,
            ChangeRefused: self._on_change_refused,
            NodeFenced: self._fence,
        }

    def receive(self, batch: list[tuple[Address, object]]) -> None:
        posted = []
        rest = []
        for sender, message in batch:
            if type(message) in (Command, Query, Errand):
                posted.append(message)
            elif sender.actor == "replication":
                self._handle(message)  # it ran before applier, so its word comes first
            else:
                rest.append(message)
        for message in rest:
            self._handle(message)
        if posted:
            self._take_in(posted)

    def on_deadline(self) -> None:
        now = self.now()
        self._sweep_at = None
        for ticket in [ticket for ticket, command in self._commands.items() if command.deadline <= now]:
            self._abandon(ticket, Abandonment(Reason.OUTCOME_UNKNOWN, True))
        for ticket in [ticket for ticket, query in self._queries.items() if query.deadline <= now]:
            self._abandon(ticket, Abandonment(Reason.EXPIRED, False))
        for ticket in [ticket for ticket, errand in self._errands.items() if errand.deadline <= now]:
            self._abandon(ticket, Abandonment(Reason.OUTCOME_UNKNOWN, True))
        for node in [node for node, until in self._leaving.items() if until <= now]:
            del self._leaving[node]
            self.disconnect_peer(node)
        self._schedule(now)

    def may_stop(self) -> bool:
        """A leader hands over first, so that nobody has to find out by its silence."""
        if self._farewell is None and self._is_leader:
            self._farewell = next(self._tickets)
            self.send_local("replication", TransferLeadership(self._farewell, None))
        return not self._is_leader or self._farewell == 0

    # -- what the program posts ------------------------------------------------------------------------

    def _take_in(self, posted: Iterable[object]) -> None:
        now = self.now()
        commands: dict[int, Command] = {}
        queries: dict[int, Query] = {}
        local_queries: dict[int, Query] = {}
        for message in posted:
            assert isinstance(message, Request)
            if self._is_fenced:
                self._end(message, Abandonment(Reason.FENCED, False))
            elif message.deadline <= now:
                self._end(message, Abandonment(Reason.EXPIRED, False))
            elif isinstance(message, Command):
                message.is_proposed = True
                commands[next(self._tickets)] = message
            elif isinstance(message, Errand):
                message.question.ticket = next(self._tickets)
                self._errands[message.question.ticket] = message
                self.send_local("replication", message.question)
            else:
                (local_queries if message.is_local else queries)[next(self._tickets)] = message
        self._commands.update(commands)
        self._queries.update(queries)
        self._queries.update(local_queries)
        if commands:
            notices = any(command.wants_notices for command in commands.values())
            self.send_local("replication", Propose(*_columns(commands), notices))
        if queries:
            self.send_local("replication", Read(*_columns(queries)))
        if local_queries:
            self.send_local("applier", LocalRead(*_columns(local_queries)))
        self._schedule(now)

    def _schedule(self, now: float) -> None:
        if self._commands or self._queries or self._errands:
            if self._sweep_at is None:
                self._sweep_at = now + SWEEP_SECONDS
            self.set_deadline(self._sweep_at)
        else:
            self.set_deadline(min(self._leaving.values(), default=None))

    # -- what the ring answers -------------------------------------------------------------------------

    def _handle(self, message: object) -> None:
        handler = self._handlers.get(type(message))
        if handler is not None:
            handler(message)

    def _on_queued(self, message: Queued) -> None:
        for offset, ticket in enumerate(message.tickets):
            command = self._commands.get(ticket)
            if command is not None:
                command.index, command.term = message.first_index + offset, message.term
                self._advance(command, Stage.QUEUED)

    def _on_committed(self, message: CommitNotice) -> None:
        for ticket in message.tickets:
            command = self._commands.get(ticket)
            if command is not None:
                self._advance(command, Stage.COMMITTED)

    def _on_applied(self, message: Applied) -> None:
        for ticket, _, _, result in message.slices:
            command = self._commands.pop(ticket, None)
            if command is not None:
                command.result = result
                self._advance(command, Stage.APPLIED)
                self._on_end(command)
                continue
            query = self._queries.pop(ticket, None)
            if query is not None:
                query.answer = result
                self._end_query(query)

    def _on_refused(self, message: Refused) -> None:
        for ticket in message.tickets:
            self._abandon(ticket, Abandonment(Reason(message.reason), False, message.leader_id))

    def _on_abandoned(self, message: Abandoned) -> None:
        for ticket in message.tickets:
            self._abandon(ticket, Abandonment(Reason(message.reason), True))

    def _on_role_changed(self, message: RoleChanged) -> None:
        change = RoleChange(Role(message.role), message.term, message.leader_id)
        self._is_leader = change.role is Role.LEADER
        self._on_role(change)

    def _fence(self, message: NodeFenced) -> None:
        """The applier answers nothing any more. Other nodes will apply what is in the log."""
        self._is_fenced = True
        for ticket in (*self._commands, *self._errands):
            self._abandon(ticket, Abandonment(Reason.OUTCOME_UNKNOWN, True))
        for ticket in list(self._queries):
            self._abandon(ticket, Abandonment(Reason.FENCED, False))
        mark = (message.index, message.own, message.theirs, message.reason, message.has_forgotten)
        self._on_fenced(FenceMark(*mark))

    # -- members ---------------------------------------------------------------------------------------

    def _on_membership(self, message: MembershipChanged) -> None:
        configuration = Configuration.decode(message.configuration)
        if not configuration.members:
            return  # it waits to be added, and stays connected to whom it was given
        members = configuration.members - {self.node}
        now = self.now()
        for node in self._members - members:
            self._leaving[node] = now + LINGER_SECONDS
        for node in members:
            self._leaving.pop(node, None)
            if node in configuration.addresses:
                self._connect(node, configuration.addresses[node])
        self._members = members
        self._schedule(now)
        self._on_members(configuration)

    def _connect(self, node: NodeId, endpoint: str) -> None:
        try:
            self.connect_peer(node, endpoint)
        except EndpointUnusable as error:
            log.error("event=member_unreachable node=%s reason=%s", node, error)

    def _on_configuration_changed(self, message: ConfigurationChanged) -> None:
        if message.is_complete:
            self._answer_errand(message.ticket, Configuration.decode(message.configuration))

    def _on_transferred(self, message: LeadershipTransferred) -> None:
        self._answer_errand(message.ticket, message.leader_id)

    def _on_change_refused(self, message: ChangeRefused) -> None:
        if message.ticket == self._farewell:
            self._farewell = 0  # nobody can take over: it stops as it is
        errand = self._errands.pop(message.ticket, None)
        if errand is not None:
            errand.error = error_of(message)
            self._end_errand(errand)

    def _answer_errand(self, ticket: int, answer: Configuration | NodeId) -> None:
        errand = self._errands.pop(ticket, None)
        if errand is not None:
            errand.answer = answer
            self._end_errand(errand)

    def _end_errand(self, errand: Errand) -> None:
        if errand.on_end is not None:
            call_back(errand.on_end, errand)
        self._on_end(errand)

    # -- how it ends -----------------------------------------------------------------------------------

    def _abandon(self, ticket: int, abandonment: Abandonment) -> None:
        found: Request | None = self._commands.pop(ticket, None) or self._queries.pop(ticket, None)
        found = found or self._errands.pop(ticket, None)
        if found is not None:
            self._end(found, abandonment)

    def _end(self, ended: Request, abandonment: Abandonment) -> None:
        if isinstance(ended, Errand):
            ended.error = abandonment.error()
            self._end_errand(ended)
            return
        ended.abandonment = abandonment
        if isinstance(ended, Query):
            self._end_query(ended)
        else:
            self._advance(ended, Stage.ABANDONED)
            self._on_end(ended)

    def _end_query(self, query: Query) -> None:
        if query.on_end is not None:
            call_back(query.on_end, query)
        self._on_end(query)

    def _advance(self, command: Command, stage: Stage) -> None:
        command.stage = stage
        callback = command.callback(stage)
        if callback is not None:
            call_back(callback, command)


def call_back(callback: Callable[[Any], None], argument: object) -> None:
    """Call into the user's program, whose mistakes are its own."""
    try:
        callback(argument)
    except Exception:
        log.exception("callback=%r failed", callback)


def _columns(entries: dict[int, Any]) -> tuple[list[int], list[int], list[bytes]]:
    """Tickets, counts and bodies, as the ring wants them: one body for each ticket."""
    return list(entries), [1] * len(entries), [entry.body for entry in entries.values()]
