"""Majorities of one set of voters: arithmetic, and nothing else.

Who is not in the set does not count, whatever was received from it. No voters make no majority.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum

from raft.entries import NodeId


class VoteResult(Enum):
    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def majority(voter_count: int) -> int:
    """The least number of voters of which any two groups share a member."""
    return voter_count // 2 + 1


def has_majority(voters: Collection[NodeId], nodes: Collection[NodeId]) -> bool:
    return sum(node in nodes for node in voters) >= majority(len(voters))


def majority_value(voters: Collection[NodeId], values: Mapping[NodeId, int]) -> int:
    """The largest value that a majority of the voters has reached; a voter without a value has 0."""
    if not voters:
        return 0
    reached = sorted([values.get(node, 0) for node in voters])
    return reached[len(reached) - majority(len(reached))]


def vote_result(
    voters: Collection[NodeId], granted: Collection[NodeId], denied: Collection[NodeId]
) -> VoteResult:
    """Raft §5.2: won with a majority of grants, lost as soon as the rest cannot make one any more."""
    if has_majority(voters, granted):
        return VoteResult.WON
    still_possible = [node for node in voters if node not in denied]
    return VoteResult.PENDING if has_majority(voters, still_possible) else VoteResult.LOST
