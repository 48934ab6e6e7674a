"""Handing leadership over (dissertation 3.10), and who is a fit successor.

Owned by a leader. While a transfer is on, the leader proposes nothing new, so that the target can have all;
then it tells the target to campaign at once. When to give up is a question of time, and election's.

Priority: 0 never leads. Of the others, one with a higher priority waits less long before it campaigns (see
raft/election_actor.py), and a leader that hears a live voter with a higher priority and the whole log hands
over to it. Nobody needs to know anybody else's priority for an election to succeed, so a cluster in which all
preferred nodes are gone elects another as fast as ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.entries import NodeId
from raft.errors import TransferReason, TransferRefused
from raft.messages import TimeoutNow
from raft.progress import Progress

if TYPE_CHECKING:
    from raft.core import Core
    from raft.leader import Leader

# After a hand-over by priority so many election timeouts pass before this leader tries another. If it worked
# there is no such leader any more; if not, there is a reason, and trying costs proposals.
HAND_OVER_PAUSE_TIMEOUTS = 10


class Transfer:
    """One attempt."""

    __slots__ = ("_core", "target")

    def __init__(self, core: Core, target: NodeId) -> None:
        self._core = core
        self.target = target

    def advance(self, progress: Progress) -> None:
        """The target has everything: tell it. Told again at each heartbeat, in case the word was lost."""
        if progress.match_index == self._core.log.last_index:
            self._core.send(self.target, TimeoutNow(self._core.term))


def check_target(core: Core, leader: Leader, target: NodeId) -> None:
    """Raises TransferRefused."""
    if target == core.node_id:
        raise TransferRefused(TransferReason.LEADS_ALREADY, f"{target} leads in term {core.term}")
    if target not in core.configuration.voters:
        voters = sorted(core.configuration.voters)
        raise TransferRefused(TransferReason.NOT_A_VOTER, f"{target} is not among the voters {voters}")
    if leader.progress[target].priority == 0:
        raise TransferRefused(TransferReason.NEVER_LEADS, f"{target} has priority 0")


def best_successor(core: Core, leader: Leader) -> NodeId | None:
    """The live voter that has most of the log; of equals the one with the highest priority."""
    fit = [
        (progress.match_index, progress.priority, node_id)
        for node_id, progress in leader.progress.items()
        if node_id in core.configuration.voters and progress.is_live and progress.priority > 0
    ]
    return max(fit)[2] if fit else None


def preferred_successor(core: Core, leader: Leader) -> NodeId | None:
    """The live voter of the highest priority above the own, if it has all that is committed."""
    fit = [
        (progress.priority, progress.match_index, node_id)
        for node_id, progress in leader.progress.items()
        if node_id in core.configuration.voters
        and progress.is_live
        and progress.priority > core.config.priority
        and progress.match_index >= core.commit_index
    ]
    return max(fit)[2] if fit else None
