"""What operators ask of a leader, from the question to the answer: changes of membership, transfers.

Owned by the replication actor. Keeps the tickets of what is under way, tells the other actors of the members,
and has election time a transfer. Everything here is rare; none of it lies in the way of a command.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from raft.actor_messages import (
    Abandoned,
    ChangeConfiguration,
    ChangeRefused,
    ConfigurationChanged,
    LeadershipTransferred,
    MembershipChanged,
    Reason,
    Refused,
    TransferBegun,
    TransferLeadership,
)
from raft.changes import Change, Verb, target_of
from raft.configuration_history import NEVER
from raft.core import Core, Ready, Role
from raft.entries import Index, NodeId
from raft.errors import ConfigurationReason, ConfigurationRefused, NotLeader, TransferReason, TransferRefused

_VERBS_FOR_VOTERS = {Verb.ADD_VOTER, Verb.PROMOTE, Verb.SET}
_TOLD_OF_MEMBERS = ("election", "applier", "gateway")

Send = Callable[[str, object], None]


@dataclass(slots=True)
class OpenChange:
    """Asked for by `ticket`; its first step is the entry at `index`."""

    ticket: int
    index: Index
    voters_to_be: frozenset[NodeId]  # once these vote it is done
    is_begun_told: bool = False


class Administration:
    """One per replication actor."""

    def __init__(self, core: Core, send_local: Send) -> None:
        self._core = core
        self._send_local = send_local
        self._changes: list[OpenChange] = []
        self._transfers: list[int] = []  # tickets, all of the transfer that is under way
        self._transfer_told: NodeId | None = None  # its target, when election was told of it
        self._is_fenced = False

    # -- questions -------------------------------------------------------------------------------------

    def change(self, message: ChangeConfiguration) -> None:
        try:
            target = target_of(
                self._core.configuration, Change(message.verb, message.nodes, message.addresses)
            )
            index = self._core.propose_configuration(target, force=message.force)
        except NotLeader as refusal:
            self._refuse_as_follower(message.ticket, refusal)
        except ConfigurationRefused as refusal:
            self._send_local("gateway", ChangeRefused(message.ticket, refusal.reason, refusal.detail))
        else:
            voters_to_be = frozenset(message.nodes) if message.verb in _VERBS_FOR_VOTERS else frozenset()
            if message.verb == Verb.REPLACE:
                voters_to_be = frozenset(message.nodes[1:])
            self._changes.append(OpenChange(message.ticket, index, voters_to_be))

    def transfer(self, message: TransferLeadership) -> None:
        try:
            self._core.transfer_leadership(message.target)
        except NotLeader as refusal:
            self._refuse_as_follower(message.ticket, refusal)
        except TransferRefused as refusal:
            self._send_local("gateway", ChangeRefused(message.ticket, refusal.reason, refusal.detail))
        else:
            self._transfers.append(message.ticket)
            self.tell_transfer()

    def _refuse_as_follower(self, ticket: int, refusal: NotLeader) -> None:
        reason = Reason.NO_LEADER if refusal.leader_id is None else Reason.NOT_LEADER
        self._send_local("gateway", Refused([ticket], reason, refusal.leader_id))

    # -- what election must know and says --------------------------------------------------------------

    def tell_transfer(self) -> None:
        """Have election time a transfer that has begun, whoever wanted it."""
        target = self._core.transfer_target
        if target is not None and target != self._transfer_told:
            self._send_local("election", TransferBegun(self._core.term))
        self._transfer_told = target

    def give_up_transfer(self) -> None:
        target = self._core.transfer_target
        self._core.abort_transfer()
        self._transfer_told = None
        if self._is_fenced:
            self._step_down()
        elif self._core.role is Role.LEADER:
            self._refuse_transfers(f"{target} did not take over within an election timeout")

    def fence(self) -> None:
        """This node's state is wrong, though its log is not: it goes on to store and to vote, but it must
        not lead. It hands over, or, if nobody is there to take over, just stops."""
        core = self._core
        self._is_fenced = True
        core.config = replace(core.config, priority=0)
        if core.role is not Role.LEADER:
            self._step_down()
            return
        try:
            core.transfer_leadership(None)
        except TransferRefused:
            self._step_down()
        else:
            self.tell_transfer()

    def _step_down(self) -> None:
        if self._core.role is not Role.FOLLOWER:
            self._core.become_follower(self._core.term, None)

    def _refuse_transfers(self, detail: str) -> None:
        for ticket in self._transfers:
            self._send_local("gateway", ChangeRefused(ticket, TransferReason.TIMED_OUT, detail))
        self._transfers.clear()

    # -- answers ---------------------------------------------------------------------------------------

    def note(self, ready: Ready) -> None:
        """There is news of the role or of the membership."""
        if ready.role_change is not None:
            self._role_changed(ready.role_change.role, ready.role_change.leader_id)
        if ready.configuration is not None:
            self.tell_membership()
            self._answer_changes()

    def tell_membership(self) -> None:
        core, history = self._core, self._core.configurations
        news = MembershipChanged(
            history.last_index,
            core.configuration.encode(),
            history.uncommitted_index == NEVER,
            core.is_removed,
        )
        for actor in _TOLD_OF_MEMBERS:
            self._send_local(actor, news)

    def _role_changed(self, role: Role, leader_id: NodeId | None) -> None:
        if role is not Role.LEADER and self._changes:
            # The next leader may keep the entry or overwrite it: ask it for the members.
            tickets = [change.ticket for change in self._changes]
            self._send_local("gateway", Abandoned(tickets, Reason.OUTCOME_UNKNOWN))
            self._changes.clear()
        self._transfer_told = None
        if role is Role.LEADER:
            self._refuse_transfers("the target was not elected")
        elif leader_id is not None:
            for ticket in self._transfers:
                self._send_local("gateway", LeadershipTransferred(ticket, leader_id))
            self._transfers.clear()

    def _answer_changes(self) -> None:
        """Tell that a change has begun once its first step is committed, and that it is done when it is."""
        core = self._core
        committed = core.committed_configuration
        is_settled = committed is core.configuration and not committed.is_joint
        still_open = []
        for change in self._changes:
            is_done = is_settled and not change.voters_to_be & committed.incoming
            if change.index > core.commit_index:
                still_open.append(change)
            elif is_done and not change.voters_to_be <= committed.voters:
                missing = sorted(change.voters_to_be - committed.voters)
                refusal = ChangeRefused(
                    change.ticket, ConfigurationReason.CALLED_OFF, f"{missing} were called back meanwhile"
                )
                self._send_local("gateway", refusal)
            elif is_done or not change.is_begun_told:
                change.is_begun_told = True
                answer = ConfigurationChanged(change.ticket, change.index, committed.encode(), is_done)
                self._send_local("gateway", answer)
                if not is_done:
                    still_open.append(change)
            else:
                still_open.append(change)
        self._changes = still_open
