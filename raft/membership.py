"""Who takes part. Knows sets of names and majorities of them; nothing of logs, terms or messages.

Everything that counts votes or acknowledgements asks a Configuration, and each question is answered over
`quorums`, the sets that must agree separately. There is one such set as long as membership is static. A
joint configuration (Raft §6, dissertation 4.3) has two, old and new, and needs nothing else to change here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from raft.entries import NodeId
from raft.quorum import VoteResult, has_majority, majority_value, vote_result


class Configuration:
    """Immutable: a change of membership makes a new one."""

    __slots__ = ("learners", "members", "quorums", "voters")

    def __init__(self, voters: Iterable[NodeId], learners: Iterable[NodeId] = ()) -> None:
        self.voters: frozenset[NodeId] = frozenset(voters)
        # Learners receive the log and are counted nowhere (dissertation 4.2.1).
        self.learners: frozenset[NodeId] = frozenset(learners)
        both = self.voters & self.learners
        assert not both, f"{sorted(both)} cannot be voters and learners at once"
        self.members: frozenset[NodeId] = self.voters | self.learners
        # Each of these sets must agree by a majority of its own.
        self.quorums: tuple[frozenset[NodeId], ...] = (self.voters,)

    def may_campaign(self, node_id: NodeId) -> bool:
        """A learner never campaigns, nor does a node that no cluster has yet."""
        return node_id in self.voters

    def has_quorum(self, nodes: Collection[NodeId]) -> bool:
        return all(has_majority(quorum, nodes) for quorum in self.quorums)

    def quorum_value(self, values: Mapping[NodeId, int]) -> int:
        """The largest number that a quorum has reached: a commit index, or a confirmed read round."""
        return min([majority_value(quorum, values) for quorum in self.quorums])

    def vote_result(self, granted: Collection[NodeId], denied: Collection[NodeId]) -> VoteResult:
        results = [vote_result(quorum, granted, denied) for quorum in self.quorums]
        if VoteResult.LOST in results:
            return VoteResult.LOST
        return VoteResult.PENDING if VoteResult.PENDING in results else VoteResult.WON

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Configuration):
            return NotImplemented
        return self.voters == other.voters and self.learners == other.learners

    def __hash__(self) -> int:
        return hash((self.voters, self.learners))

    def __repr__(self) -> str:
        return f"Configuration(voters={sorted(self.voters)}, learners={sorted(self.learners)})"
