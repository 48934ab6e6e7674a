"""Applier: feeds committed entries to the state machine in log order, answers reads, announces what changed,
gives and takes the state as snapshots, and on the leader proposes what the machine itself wants.

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
    NextSlice,
    PartWanted,
    Propose,
    QueryStatus,
    ReadReady,
    RestoreSnapshot,
    RoleChanged,
    SnapshotPart,
    SnapshotRestored,
    SnapshotSlice,
    StatusReport,
    TakeSnapshot,
)
from raft.housekeeping import Housekeeping
from raft.membership import Configuration
from raft.ready import Role
from raft.slices import Slices
from raft.state_machine import Announcer, Frame, Housekeeper, Restorer, Silent, StateMachine

WATCH_PORT = "watch"
TICK_SECONDS = 0.25  # heartbeats of the watch plane and housekeeping are looked at this often


class ApplierActor(Actor):
    """One per node. A turn's results leave as one message to the gateway, events as one frame a revision."""

    name = "applier"

    def __init__(
        self,
        machine: StateMachine,
        announcer: Announcer | None = None,
        *,
        housekeeper: Housekeeper | None = None,
        applied_index: int = 0,
    ) -> None:
        """`applied_index` is that of the snapshot which the machine was restored from, 0 for a new one."""
        super().__init__()
        self._machine = machine
        self._announcer: Announcer = announcer if announcer is not None else Silent()
        self._announces = announcer is not None
        self._housekeeping = Housekeeping(housekeeper) if housekeeper is not None else None
        self.applied_index = applied_index  # all entries up to here are in the machine; never falls
        self._slices: Slices | None = None  # of the snapshot that is being taken
        self._slices_index = 0  # what was applied when it was
        self._restoring: RestoreSnapshot | None = None  # nothing is applied until it is done
        self._restorer: Restorer | None = None  # of that one; the machine has its old state until the end
        self._fed_bytes = 0  # what the restorer has of it
        self._waiting_reads: deque[ReadReady] = deque()  # reads whose index is not applied yet
        self._results: list[tuple[int, int, int, bytes]] = []
        self._handlers: dict[type, Callable[[Any], None]] = {
            Committed: self._apply,
            ReadReady: self._waiting_reads.append,
            LocalRead: self._answer_now,
            QueryStatus: self._report,
            RoleChanged: self._change_role,
            MembershipChanged: self._announce_members,
            TakeSnapshot: self._take_snapshot,
            NextSlice: self._give_slice,
            RestoreSnapshot: self._begin_restoring,
            SnapshotPart: self._take_part,
        }

    def on_start(self) -> None:
        if self._announces or self._housekeeping is not None:
            self.set_deadline(self.now() + TICK_SECONDS)

    def on_deadline(self) -> None:
        now = self.now()
        self._publish(self._announcer.heartbeats(now))
        if self._housekeeping is not None:
            bodies = self._housekeeping.due(now)
            if bodies:
                self.send_local("replication", Propose([], [], bodies))  # no ticket: nobody waits for them
        self.set_deadline(now + TICK_SECONDS)

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

    # -- snapshots -------------------------------------------------------------------------------------

    def _take_snapshot(self, _: TakeSnapshot) -> None:
        """Of this very moment, though it is read slice by slice while entries are applied."""
        if self._restoring is None:
            self._slices, self._slices_index = Slices(self._machine.snapshot()), self.applied_index
            self._give_slice(NextSlice(self.applied_index))

    def _give_slice(self, message: NextSlice) -> None:
        slices = self._slices
        if slices is None or message.index != self._slices_index:
            return  # it was given up
        offset = slices.offset
        data, is_last = slices.next_slice()
        if is_last:
            self._slices = None
        self.send_local("replication", SnapshotSlice(message.index, offset, data, is_last))

    def _begin_restoring(self, message: RestoreSnapshot) -> None:
        assert message.index > self.applied_index, f"{message} while {self.applied_index} is applied"
        self._slices = None
        # In place of an older one that is not whole yet, if there is one: that is given up.
        self._restoring, self._restorer, self._fed_bytes = message, self._machine.restorer(), 0
        self._go_on_restoring(message, self._restorer)

    def _take_part(self, message: SnapshotPart) -> None:
        """One part is in memory at a time: the next one is asked for when the machine has this one."""
        restoring, restorer = self._restoring, self._restorer
        if restoring is None or restorer is None:
            return
        if (message.index, message.offset) == (restoring.index, self._fed_bytes):
            restorer.feed(message.data)
            self._fed_bytes += len(message.data)
            self._go_on_restoring(restoring, restorer)

    def _go_on_restoring(self, restoring: RestoreSnapshot, restorer: Restorer) -> None:
        if self._fed_bytes < restoring.size_bytes:
            self.send_local("replication", PartWanted(restoring.index, self._fed_bytes))
            return
        restorer.finish()
        self.applied_index = restoring.index
        self._restoring = self._restorer = None
        self.send_local("replication", SnapshotRestored(restoring.index))

    def _report(self, message: QueryStatus) -> None:
        fields = {**message.fields, "applied_index": self.applied_index, **self._machine.status()}
        self.send_local("gateway", StatusReport(message.ticket, fields))

    def _change_role(self, message: RoleChanged) -> None:
        if self._housekeeping is not None:
            self._housekeeping.lead(message.role == Role.LEADER.value)
        self._publish(self._announcer.role_changed(message.role, message.term, message.leader_id))

    def _announce_members(self, message: MembershipChanged) -> None:
        configuration = Configuration.decode(message.configuration)
        if message.is_committed and not configuration.is_joint:
            self._publish(self._announcer.members_changed(configuration))

    def _publish(self, frames: list[Frame]) -> None:
        for parts in frames:
            self.publish(WATCH_PORT, parts)
