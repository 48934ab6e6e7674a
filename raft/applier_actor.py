"""Applier: feeds committed entries to the state machine in log order, answers reads, announces what changed,
gives and takes the state as snapshots, and on the leader proposes what the machine itself wants.

Owns the state machine and the applied index; nobody else touches either. May know messages and the clock;
nothing of terms, votes or the disk. Bodies and results stay opaque bytes. If the state turns out to be wrong,
it is not used any more: nothing is applied, answered or announced behind the fence.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, cast

from actors import Actor, Address
from raft.actor_messages import (
    Applied,
    ApplierBehind,
    Committed,
    LocalRead,
    LogForgotten,
    MembershipChanged,
    NextSlice,
    NodeFenced,
    PartWanted,
    Propose,
    QueryStatus,
    ReadReady,
    Reason,
    Refused,
    RestoreSnapshot,
    RoleChanged,
    SnapshotGivenUp,
    SnapshotPart,
    SnapshotRestored,
    SnapshotSlice,
    StateSize,
    StatusReport,
    TakeSnapshot,
)
from raft.arrivals import Moment
from raft.configuration_history import NEVER
from raft.divergence import CHECK_EVERY
from raft.errors import StateDamaged
from raft.fence import Fence, FenceMark, MemoryFence, mark_of
from raft.guard import Guard
from raft.housekeeping import Housekeeping
from raft.long_answers import LongAnswers
from raft.membership import Configuration
from raft.messages import MemberHealth, StateReport
from raft.ready import Role
from raft.slices import Slices
from raft.state_machine import (
    Announcer,
    Frame,
    Housekeeper,
    Interruptible,
    LongAnswer,
    Restorer,
    Silent,
    StateMachine,
)
from raft.unapplied import PIECE_ENTRIES, Ordered, Share, Unapplied

log = logging.getLogger("assent.applier")

WATCH_PORT = "watch"
TICK_SECONDS = 0.25  # heartbeats of the watch plane, housekeeping, reports and tidying: this often


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
        fence: Fence | None = None,
        check_every: int = CHECK_EVERY,
        heartbeat_interval_seconds: float = 0.05,
    ) -> None:
        """`applied_index` is that of the snapshot which the machine was restored from, 0 for a new one.

        Behind a `fence` that is up the machine is not used: it need not have been restored. Of a heartbeat
        interval a turn takes a part.
        """
        super().__init__()
        self._machine = machine
        self._announcer: Announcer = announcer if announcer is not None else Silent()
        self._announces = announcer is not None
        self._housekeeping = Housekeeping(housekeeper)
        self._tidy: Callable[[], None] | None = getattr(machine, "tidy", None)
        self._size: Callable[[], int] | None = getattr(machine, "size_bytes", None)
        self._told_bytes = 0  # of that; the gateway knows
        self._guard = Guard(machine, fence if fence is not None else MemoryFence(), check_every=check_every)
        # All entries up to here are in the machine, or were dropped behind the fence; never falls.
        self.applied_index = applied_index
        self._unapplied = Unapplied()
        self._share = Share(self.now, heartbeat_interval_seconds)
        self._is_interruptible = callable(getattr(machine, "apply_some", None))
        self._most_entries = NEVER if self._is_interruptible else PIECE_ENTRIES  # of one call
        self._slices: Slices | None = None  # of the snapshot that is being taken
        self._slices_index = 0  # what was applied when it was
        self._restoring: RestoreSnapshot | None = None  # nothing is applied until it is done
        self._restorer: Restorer | None = None  # of that one; the machine has its old state until the end
        self._fed_bytes = 0  # what the restorer has of it
        # Their index is not applied yet, or there was no time.
        self._waiting_reads: deque[ReadReady] = deque()
        self._has_reads_left = False  # some are there whose index is applied
        self._begin_query: Callable[[list[bytes]], Sequence[bytes | LongAnswer]] = getattr(
            machine, "begin_query", machine.query
        )
        self._long_answers = LongAnswers()
        self._crowded_out: list[int] = []  # tickets of this turn that there was no room for
        self._ticks = False
        self._tick_at = 0.0  # of the next tick; the deadline may be earlier
        self._is_pressed = False  # the deadline is that of a turn that left something to do
        self._results: list[tuple[int, int, int, bytes]] = []
        self._handlers = self._all_handlers()

    def _all_handlers(self) -> dict[type, Callable[[Any], None]]:
        return {
            Committed: self._in_order,
            ReadReady: self._waiting_reads.append,
            LocalRead: self._answer_now,
            QueryStatus: self._report,
            RoleChanged: self._change_role,
            MembershipChanged: self._follow_members,
            TakeSnapshot: self._in_order,
            NextSlice: self._give_slice,
            SnapshotGivenUp: self._drop_slices,
            RestoreSnapshot: self._in_order,
            SnapshotPart: self._take_part,
            LogForgotten: self._fence_forgetful,
            MemberHealth: self._follow_health,
        }

    def on_start(self) -> None:
        if self._guard.fence.mark is not None:
            self._retire(self._guard.fence.mark)
        elif (
            self._announces
            or self._housekeeping.is_wanted
            or self._guard.compares
            or self._tidy
            or self._size
        ):
            self._ticks = True
            self._tick_at = self.now() + TICK_SECONDS
            self.set_deadline(self._tick_at)

    def on_deadline(self) -> None:
        self._is_pressed = False
        if self._has_left():
            self._share.begin()
            self._heed(self._work_off)
            self._answer_waiting()
            self._conclude()
        if self._long_answers:
            self._go_on_answering()
        if self._ticks and self.now() >= self._tick_at:
            self._tick()
        elif self._housekeeping.due_at() <= self.now():
            self._keep_house(self.now())
        self._schedule()

    def _has_left(self) -> bool:
        """Is there something that the turn before had no time for?"""
        return self._has_reads_left or bool(self._unapplied.waiting)

    def _schedule(self) -> None:
        """While commands wait, or answers are unfinished, each turn goes on with them.

        A deadline that was set for it stays, whatever messages come: else they would put it off for ever.
        """
        if self._long_answers or self._has_left():
            if not self._is_pressed:
                self._is_pressed = True
                self.set_deadline(self.now())
        elif self._ticks:
            self.set_deadline(min(self._tick_at, self._housekeeping.due_at()))

    def _keep_house(self, now: float) -> None:
        if bodies := self._housekeeping.due(now):
            self.send_local("replication", Propose([], [], bodies))  # no ticket: nobody waits for them

    def _tick(self) -> None:
        now = self.now()
        self._tick_at = now + TICK_SECONDS
        report = self._guard.tick(now, self.applied_index)
        if self._guard.verdict is not None:
            self._put_up_fence(self._guard.verdict)
            return
        if report is not None:
            for node in self._guard.audience:
                self.send(Address(node, self.name), report)
        self._publish(self._announcer.heartbeats(now))
        self._keep_house(now)
        if self._tidy is not None:
            self._tidy()
        if self._size is not None and (size_bytes := self._size()) != self._told_bytes:
            self._told_bytes = size_bytes
            self.send_local("gateway", StateSize(size_bytes))

    def receive_frames(self, port: str, frames: list[tuple[bytes, bytes]]) -> None:
        self._publish(self._announcer.subscribed([payload for _, payload in frames]))

    def receive(self, batch: list[tuple[Address, object]]) -> None:
        is_behind = self._has_left()  # then what comes waits for the deadline, which is due in this turn
        if not is_behind:
            self._share.begin()
        for sender, message in batch:
            if type(message) is StateReport:
                self._hear(sender.node, message)
                continue
            handler = self._handlers.get(type(message))
            if handler is not None:
                self._heed(handler, message)
        if not is_behind:
            self._answer_waiting()
        self._conclude()
        if self._has_left() or self._housekeeping.due_at() < self._tick_at:
            self._schedule()

    def _heed(self, handler: Callable[..., None], *message: object) -> None:
        try:
            handler(*message)
        except StateDamaged as damage:
            self._put_up_fence(self._guard.judge_damage(self.applied_index, damage))

    def _conclude(self) -> None:
        """What a turn had for clients and watchers leaves."""
        self._tell_behind()
        self._results += self._unapplied.part()
        if self._results:
            self.send_local("gateway", Applied(self._results))
            self._results = []
        if self._crowded_out:
            self._refuse(self._crowded_out)
            self._crowded_out = []
        if self._announces:
            self._publish(self._announcer.announcements())

    def _apply_piece(self, bodies: list[bytes | None]) -> list[bytes | None]:
        """At least the first of them."""
        first_index = self.applied_index + 1
        if self._is_interruptible:
            machine = cast(Interruptible, self._machine)
            return machine.apply_some(first_index, bodies, is_time_up=self._share.is_used_up)
        return self._machine.apply(first_index, bodies)

    def _in_order(self, message: Ordered) -> None:
        """Behind what is still to be applied, if anything is."""
        waiting = self._unapplied.waiting
        waiting.append(message)
        if len(waiting) == 1 and not self._share.is_used_up():
            self._work_off()

    def _work_off(self) -> None:
        """What waits, until this turn has had its share; meanwhile nothing more is handed out."""
        waiting = self._unapplied.waiting
        while waiting:
            message = waiting[0]
            if type(message) is Committed:
                if not self._apply(message):
                    break
            elif type(message) is RestoreSnapshot:
                self._begin_restoring(message)
            else:
                self._take_snapshot()
            self._unapplied.go_on()
            if self._share.is_used_up():
                break

    def _tell_behind(self) -> None:
        is_behind = bool(self._unapplied.waiting)
        if is_behind is not self._unapplied.is_told:
            self._unapplied.is_told = is_behind
            self.send_local("replication", ApplierBehind(is_behind))

    def _apply(self, message: Committed) -> bool:
        """False if it is not applied to its end: the share of this turn is used up, or there is a fence now.

        All nodes stop at the same indexes, to compare what they have become; nobody goes on from a state that
        turns out to be wrong.
        """
        guard, bodies, unapplied, share = self._guard, message.bodies, self._unapplied, self._share
        assert message.first_index + unapplied.done == self.applied_index + 1, (
            f"entry {message.first_index} was handed over while {self.applied_index} is the last applied"
        )
        while unapplied.done < len(bodies):
            at = unapplied.done
            most = min(guard.next_check - self.applied_index, self._most_entries)
            piece = bodies if not at and len(bodies) <= most else bodies[at : at + most]
            some = self._apply_piece(piece)
            self.applied_index += len(some)
            self._date(message.arrivals)
            parts = unapplied.take(message, some)
            self._results += parts
            share.result_bytes += sum(len(results) for *_, results in parts)
            if self.applied_index == guard.next_check:
                guard.passed(self.applied_index)
                if guard.verdict is not None:
                    self._put_up_fence(guard.verdict)
                    return False
            if len(some) < len(piece) or share.is_used_up():
                break
        return unapplied.done == len(bodies)

    def _date(self, arrivals: Sequence[Moment] = ()) -> None:
        """When what was applied had come into the log: if nobody knows, just now."""
        arrivals = arrivals or [(self.applied_index, self.now())]
        self._housekeeping.was_applied(self.applied_index, arrivals)

    def _answer_waiting(self) -> None:
        """A read waits until its index is applied here (dissertation 6.4, step 4)."""
        waiting, share = self._waiting_reads, self._share
        self._has_reads_left = False
        passed_over: list[ReadReady] = []
        if waiting:
            share.leave_some_for_reads()
        while waiting:
            read = waiting.popleft()
            if read.read_index > self.applied_index:
                passed_over.append(read)
                continue
            self._answer_now(read)
            if share.is_used_up():
                self._has_reads_left = bool(waiting)
                break
        waiting.extendleft(reversed(passed_over))

    def _answer_now(self, read: LocalRead | ReadReady) -> None:
        answers = self._begin_query(read.bodies)
        now = self.now()
        for ticket, count, end in zip(read.tickets, read.counts, accumulate(read.counts)):
            ready, has_room = self._long_answers.take(ticket, answers[end - count : end], now)
            self._results += ready
            self._share.result_bytes += sum(len(results) for *_, results in ready)
            if not has_room:
                self._crowded_out.append(ticket)
        if self._long_answers:
            self._schedule()

    def _go_on_answering(self) -> None:
        """Answered first, refused then: what is refused of a ticket is what is left of it."""
        slices, overdue = self._long_answers.work(self.now)
        if slices:
            self.send_local("gateway", Applied(slices))
        if overdue:
            self._refuse(overdue)

    def _refuse(self, tickets: list[int]) -> None:
        self.send_local("gateway", Refused(tickets, Reason.OVERLOADED, None))

    # -- snapshots -------------------------------------------------------------------------------------

    def _take_snapshot(self) -> None:
        """Of this very moment, though it is read slice by slice while entries are applied."""
        if self._restoring is None:
            self._slices, self._slices_index = Slices(self._machine.snapshot()), self.applied_index
            self._give_slice(NextSlice(self.applied_index))

    def _give_slice(self, message: NextSlice) -> None:
        slices = self._slices
        if slices is None or message.index != self._slices_index:
            return  # it was given up
        offset, until = slices.offset, self.now() + message.seconds
        data, is_last = slices.next_slice()
        if message.count > 1:
            parts = [data]
            while not is_last and len(parts) < message.count and self.now() < until:
                data, is_last = slices.next_slice()
                parts.append(data)
            data = b"".join(parts)
        if is_last:
            self._slices = None
        self.send_local("replication", SnapshotSlice(message.index, offset, data, is_last))

    def _drop_slices(self, message: SnapshotGivenUp) -> None:
        if message.index == self._slices_index:
            self._slices = None  # the state need not be kept as it was any longer

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
        self._guard.restored(restoring.index)
        self._date()
        self._restoring = self._restorer = None
        self.send_local("replication", SnapshotRestored(restoring.index))

    # -- the fence -------------------------------------------------------------------------------------

    def _hear(self, node: str, report: StateReport) -> None:
        if self._guard.fence.mark is None and node != self.node:
            self._guard.hear(node, report)
            if self._guard.verdict is not None:
                self._put_up_fence(self._guard.verdict)

    def _fence_forgetful(self, message: LogForgotten) -> None:
        """A fence that is up already is put up again: a node whose state alone is wrong may vote."""
        self._put_up_fence(mark_of(message.forgotten))

    def _put_up_fence(self, mark: FenceMark) -> None:
        """First on the disk, so that no restart takes it down; what this turn had for clients is dropped."""
        self._guard.fence.put_up(mark)
        self._retire(mark)

    def _retire(self, mark: FenceMark) -> None:
        log.error("event=fenced index=%d own=%016x theirs=%016x reason=%r has_forgotten=%s", *mark)
        self._publish(self._announcer.cut_off())
        self._announcer, self._announces, self._housekeeping = Silent(), False, Housekeeping(None)
        self._slices = None
        self._waiting_reads.clear()
        self._has_reads_left = self._is_pressed = False
        self._results = []
        self._crowded_out = []
        self._long_answers.clear()
        self._ticks = False
        self.set_deadline(None)
        self._handlers = {
            Committed: self._pass_over,
            RestoreSnapshot: self._pass_over_snapshot,
            QueryStatus: self._report,
            LogForgotten: self._fence_forgetful,
        }
        if self._restoring is not None:
            self._pass_over_snapshot(self._restoring)
            self._restoring = self._restorer = None
        for waiting in self._unapplied.waiting:
            if type(waiting) in self._handlers:  # nobody takes a snapshot behind the fence
                self._handlers[type(waiting)](waiting)
        self._unapplied.clear()
        self._tell_behind()
        for actor in ("replication", "gateway"):
            self.send_local(actor, NodeFenced(*mark))

    def _pass_over(self, message: Committed) -> None:
        self.applied_index = message.first_index + len(message.bodies) - 1

    def _pass_over_snapshot(self, message: RestoreSnapshot) -> None:
        self.applied_index = message.index
        self.send_local("replication", SnapshotRestored(message.index))

    # -- news of others --------------------------------------------------------------------------------

    def _report(self, message: QueryStatus) -> None:
        about = {"applied_index": self.applied_index, **self._guard.status()}
        fields = {**message.fields, **about, **self._machine.status()}
        self.send_local("gateway", StatusReport(message.ticket, fields))

    def _change_role(self, message: RoleChanged) -> None:
        self._housekeeping.lead(message.role == Role.LEADER.value, message.last_index)
        self._publish(self._announcer.role_changed(message.role, message.term, message.leader_id))

    def _follow_members(self, message: MembershipChanged) -> None:
        configuration = Configuration.decode(message.configuration)
        self._guard.follow(configuration, self.node, self.applied_index)
        if message.is_committed and not configuration.is_joint:
            self._publish(self._announcer.members_changed(configuration))
        if message.is_removed:
            # Nothing more will be applied here, and the gateway refuses whoever asks: who listens on must not
            # take silence about the store for peace.
            self._publish(self._announcer.cut_off())
            self._announcer, self._announces = Silent(), False

    def _follow_health(self, message: MemberHealth) -> None:
        self._publish(self._announcer.health_changed(message.term, message.silent))

    def _publish(self, frames: list[Frame]) -> None:
        for parts in frames:
            self.publish(WATCH_PORT, parts)
