"""What clients are told instead of an answer, and when a node that runs serves nobody at all.

Pure: knows codes, roles and the messages of the ring; the gateway asks, and refuses.
"""

from __future__ import annotations

from typing import NamedTuple

from kvstore import protocol
from raft.actor_messages import NodeFenced, Reason

CODES = {
    Reason.NOT_LEADER: (protocol.NOT_LEADER, "another node leads"),
    Reason.NO_LEADER: (protocol.NO_LEADER, "no leader is known at the moment"),
    Reason.TRANSFERRING: (protocol.TRANSFERRING, "leadership is being handed over: try again in a moment"),
    Reason.OVERLOADED: (protocol.OVERLOADED, "too much is waiting to be committed: try again later"),
    Reason.SHUTTING_DOWN: (protocol.SHUTTING_DOWN, "the node is stopping"),
    Reason.FENCED: (protocol.FENCED, "the node's state is wrong: go to another node"),
    Reason.EXPIRED: (protocol.EXPIRED, "the deadline passed before the write was proposed"),
    Reason.CONFLICT_WITH_LEADER: (
        protocol.CONFLICT_WITH_LEADER,
        "a new leader overwrote it here; another node may still commit it",
    ),
    Reason.OUTCOME_UNKNOWN: (protocol.OUTCOME_UNKNOWN, "leadership was lost before the outcome was known"),
}


class Barrier(NamedTuple):
    """Why it takes no part in the cluster, or must not."""

    code: int
    text: str


def barrier_of(node: str, role: str, fence: NodeFenced | None) -> Barrier | None:
    """`role` is what the node is to its cluster. None: it serves.

    Nobody is to read, from a node that is told nothing any more, what was so long ago; and from one whose
    state is wrong nothing at all.
    """
    if role == "removed":
        return Barrier(protocol.NOT_MEMBER, f"{node} was removed from the cluster: go to another node")
    if role == "waiting":
        return Barrier(protocol.NOT_MEMBER, f"{node} waits to be added to a cluster")
    if fence is not None:
        what = "has forgotten what it acknowledged up to" if fence.has_forgotten else "has a wrong state at"
        text = f"{node} is fenced, for it {what} index {fence.index}: go to another node"
        return Barrier(protocol.FENCED, text)
    return None


def remedy_for(node: str) -> str:
    """What an operator does about a fenced one."""
    return f"assent member replace {node} NEW ADDRESS, where NEW is a new name with an empty data directory"
