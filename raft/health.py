"""Which members a leader has not heard for too long.

Pure: knows the peers' progress, and that an election timeout has passed when it is told so; no clock. It
decides nothing: it is for whoever watches over the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from raft.entries import NodeId, Term
from raft.messages import MemberHealth
from raft.progress import Progress

SILENT_TIMEOUTS: Final = 2  # election timeouts in which nothing was heard of a member that is unhealthy
REPEAT_TIMEOUTS: Final = 8  # so often it is told again, lest a lost message be believed for ever


class Health:
    """Owned by one replication actor. What it counts is forgotten with the leadership."""

    __slots__ = ("_repeat_in", "_silent", "_term", "_timeouts", "_told")

    def __init__(self) -> None:
        self._term: Term = 0  # of the leadership that is counted
        self._timeouts = 0  # that have passed in it
        self._silent: dict[NodeId, int] = {}  # for how many of them nothing was heard of a member
        self._told: list[NodeId] | None = None  # None: nothing yet, in this term
        self._repeat_in = 0

    def end_timeout(self, term: Term, progress: Mapping[NodeId, Progress]) -> MemberHealth | None:
        """An election timeout of this leader's has passed; what all members are to be told, if anything.

        To be called before the core forgets who was active in it.
        """
        if term != self._term:
            self._term, self._timeouts, self._silent, self._told = term, 0, {}, None
        self._timeouts += 1
        before = self._silent
        self._silent = {
            node_id: 0 if peer.is_active else before.get(node_id, 0) + 1 for node_id, peer in progress.items()
        }
        if self._timeouts < SILENT_TIMEOUTS:
            return None  # nobody was silent for long enough, and who was before this leader is not known
        silent = sorted(node_id for node_id, count in self._silent.items() if count >= SILENT_TIMEOUTS)
        self._repeat_in -= 1
        if silent == self._told and self._repeat_in > 0:
            return None
        self._told, self._repeat_in = silent, REPEAT_TIMEOUTS
        return MemberHealth(term, silent)
