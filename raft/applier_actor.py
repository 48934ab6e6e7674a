"""Applier: feeds committed entries to the state machine in log order, answers reads, announces what changed.

Owns the state machine and the applied index; nobody else touches either. May know messages and the clock;
nothing of terms, votes or the disk. Bodies and results stay opaque bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from actors import Actor, Address
from raft.actor_messages import (
    Applied,
    Committed,
    LocalRead,
    MembershipChanged,
    QueryStatus,
    ReadReady,
    RoleChanged,
    StatusReport,
)
from raft.membership import Configuration
from raft.state_machine import Announcer, Frame, Silent, StateMachine

WATCH_PORT = "watch"
HEARTBEAT_CHECK_SECONDS = 0.25


class ApplierActor(Actor):
    """One per node. A turn's results leave as one message to the gateway, events as one frame a revision."""

    name = "applier"

    def __init__(self, machine: StateMachine, announcer: Announcer | None = None) -> None:
        super().__init__()
        self._machine = machine
        self._announcer: Announcer = announcer if announcer is not None else Silent()
        self._announces = announcer is not None
        self.applied_index = 0  # all entries up to here are in the machine; never falls
        self._waiting_reads: deque[ReadReady] = deque()  # reads whose index is not applied yet
        self._results: list[tuple[int, int, int, bytes]] = []
        self._handlers: dict[type, Callable[[Any], None]] = {
            Committed: self._apply,
            ReadReady: self._waiting_reads.append,
            LocalRead: self._answer_now,
            QueryStatus: self._report,
            RoleChanged: self._announce_role,
            MembershipChanged: self._announce_members,
        }

    def on_start(self) -> None:
        if self._announces:
            self.set_deadline(self.now() + HEARTBEAT_CHECK_SECONDS)

    def on_deadline(self) -> None:
        now = self.now()
        self._publish(self._announcer.heartbeats(now))
        self.set_deadline(now + HEARTBEAT_CHECK_SECONDS)

    def receive_frames(self, port: str, frames: list[tuple[bytes, bytes]]) -> None:
        self._publish(self._announcer.subscribed([payload for _, payload in frames]))

    def receive(self, batch: list[tuple[Address, object]]) -> None:
        for _, message in batch:
            handler = self._handlers.get(type(message))
            if handler is not None:
                handler(message)
        self._answer_waiting()
        if self._results:
            self.send_local("gateway", Applied(self._results))
            self._results = []
        if self._announces:
            self._publish(self._announcer.announcements())

    def _apply(self, message: Committed) -> None:
        assert message.first_index == self.applied_index + 1, (
            f"entry {message.first_index} was handed over while {self.applied_index} is the last applied"
        )
        results = self._machine.apply(message.first_index, message.bodies)
        self.applied_index += len(message.bodies)
        for (ticket, offset, count), start in zip(message.slices, message.starts):
            joined = b"".join(results[start : start + count])  # type: ignore[arg-type]  # commands have results
            self._results.append((ticket, offset, count, joined))

    def _answer_waiting(self) -> None:
        """A read waits until its index is applied here (dissertation 6.4, step 4)."""
        waiting = self._waiting_reads
        for _ in range(len(waiting)):
            read = waiting.popleft()
            if read.read_index <= self.applied_index:
                self._answer_now(read)
            else:
                waiting.append(read)

    def _answer_now(self, read: LocalRead | ReadReady) -> None:
        results = self._machine.query(read.bodies)
        for ticket, count, end in zip(read.tickets, read.counts, accumulate(read.counts)):
            self._results.append((ticket, 0, count, b"".join(results[end - count : end])))

    def _report(self, message: QueryStatus) -> None:
        fields = {**message.fields, "applied_index": self.applied_index, **self._machine.status()}
        self.send_local("gateway", StatusReport(message.ticket, fields))

    def _announce_role(self, message: RoleChanged) -> None:
        self._publish(self._announcer.role_changed(message.role, message.term, message.leader_id))

    def _announce_members(self, message: MembershipChanged) -> None:
        configuration = Configuration.decode(message.configuration)
        if message.is_committed and not configuration.is_joint:
            self._publish(self._announcer.members_changed(configuration))

    def _publish(self, frames: list[Frame]) -> None:
        for parts in frames:
            self.publish(WATCH_PORT, parts)
