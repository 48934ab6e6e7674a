"""Election: decides when to try, never what is true.

Owns time: the randomised election timeout, the heartbeat cadence, when the vote gate opens and when a leader
must prove its quorum. All of it is volatile, and no mistake here can break safety: a campaign too early, late
or twice costs availability only. May know the clock and the messages to replication; nothing of the log.
"""

from __future__ import annotations

import random

from actors import Actor, Address
from raft.actor_messages import (
    Campaign,
    CheckQuorumDue,
    HeartbeatDue,
    LeaderContact,
    LeaderSilent,
    RoleChanged,
    TransferBegun,
    TransferOverdue,
)
from raft.core import Role

# A priority beyond this makes no further difference to when a node campaigns.
MOST_HASTE = 8


class ElectionActor(Actor):
    """One per node; sees every contact before it judges, since it runs last in a turn.

    The seeded `rng` makes a simulated run repeatable; a real node seeds it from the system.
    """

    name = "election"
    runs_last = True

    def __init__(
        self,
        *,
        election_timeout_seconds: float,
        heartbeat_interval_seconds: float,
        rng: random.Random,
        priority: int = 1,
    ) -> None:
        super().__init__()
        assert 0 < heartbeat_interval_seconds < election_timeout_seconds
        self._election_timeout_seconds = election_timeout_seconds
        self._heartbeat_interval_seconds = heartbeat_interval_seconds
        self._rng = rng
        # With a higher priority the first attempt comes sooner, on average. With 0 the core never campaigns.
        self._haste = min(max(priority, 1), MOST_HASTE)
        self._role = Role.FOLLOWER.value
        self._term = 0
        self._leader_id: str | None = None
        # Follower and candidate: when to campaign, and when to free the votes (None: already free).
        self._campaign_at = 0.0
        self._gate_opens_at: float | None = None
        # Leader: when the next heartbeat and the next proof of a quorum are due.
        self._heartbeat_at = 0.0
        self._check_quorum_at = 0.0
        self._give_up_transfer_at: float | None = None  # None: leadership is not being handed over

    def on_start(self) -> None:
        self._restart_timeout()
        self._schedule()

    def receive(self, batch: list[tuple[Address, object]]) -> None:
        for _, message in batch:
            if type(message) is LeaderContact:
                self._leader_heard(message)
            elif type(message) is RoleChanged:
                self._role_changed(message)
            elif type(message) is TransferBegun and message.term == self._term:
                self._give_up_transfer_at = self.now() + self._election_timeout_seconds
        self._schedule()

    def on_deadline(self) -> None:
        now = self.now()
        if self._role == Role.LEADER.value:
            self._lead(now)
        else:
            self._follow(now)
        self._schedule()

    def _leader_heard(self, contact: LeaderContact) -> None:
        if contact.term == self._term and self._role == Role.FOLLOWER.value:
            # It may have been given up a moment ago, by a campaign that replication did not begin.
            self._leader_id = contact.leader_id
            self._restart_timeout()

    def _role_changed(self, message: RoleChanged) -> None:
        was_leader = self._role == Role.LEADER.value
        self._role, self._term, self._leader_id = message.role, message.term, message.leader_id
        self._give_up_transfer_at = None
        if self._role == Role.LEADER.value:
            if not was_leader:
                now = self.now()
                self._heartbeat_at = now + self._heartbeat_interval_seconds
                self._check_quorum_at = now + self._election_timeout_seconds
        else:
            self._restart_timeout()

    def _restart_timeout(self) -> None:
        """A new random timeout in [T, 2T) at each attempt, lest split votes repeat (Raft §5.2).

        Only the first attempt after a leader was heard may come sooner by priority, and not before T: if it
        fails, those with equal priorities must drift apart like any others.
        """
        now = self.now()
        spread = self._rng.random()
        if self._leader_id is not None:
            spread /= self._haste
        self._campaign_at = now + self._election_timeout_seconds * (1.0 + spread)
        # Nobody may depose a leader that was heard within the least timeout (dissertation 4.2.3).
        self._gate_opens_at = now + self._election_timeout_seconds if self._leader_id is not None else None

    def _lead(self, now: float) -> None:
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + self._heartbeat_interval_seconds
            self.send_local("replication", HeartbeatDue(self._term))
        if now >= self._check_quorum_at:
            self._check_quorum_at = now + self._election_timeout_seconds
            self.send_local("replication", CheckQuorumDue(self._term))
        if self._give_up_transfer_at is not None and now >= self._give_up_transfer_at:
            self._give_up_transfer_at = None
            self.send_local("replication", TransferOverdue(self._term))

    def _follow(self, now: float) -> None:
        if self._gate_opens_at is not None and now >= self._gate_opens_at:
            self._gate_opens_at = None
            self.send_local("replication", LeaderSilent(self._term))
        if now >= self._campaign_at:
            self._leader_id = None
            self._restart_timeout()
            self.send_local("replication", Campaign(self._term))

    def _schedule(self) -> None:
        if self._role == Role.LEADER.value:
            due = min(self._heartbeat_at, self._check_quorum_at)
            self.set_deadline(min(due, self._give_up_transfer_at or due))
        elif self._gate_opens_at is not None:
            self.set_deadline(min(self._gate_opens_at, self._campaign_at))
        else:
            self.set_deadline(self._campaign_at)
