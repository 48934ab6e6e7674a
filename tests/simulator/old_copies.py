"""An old copy of a node's data directory is put back: the node has forgotten what it acknowledged.

Only where its leader can prove that, and nothing under way was counted on what is forgotten: the same leader
leads on, in the same term, and names a committed index that the node acknowledged to it and no longer has.
There the node must fence itself (docs/disk.md says what is not covered, and why).
"""

from __future__ import annotations

from random import Random

from tests.simulator.cluster import Cluster, SimulatedNode
from tests.simulator.disk import Image

QUIET_SECONDS = 1.0  # between the death of the node and its start: what it said has arrived by then


class OldCopies:
    """One node of a run, once: with more of them there might be no majority left. Owned by the nemesis."""

    def __init__(self, cluster: Cluster, rng: Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self._node: SimulatedNode | None = None  # of which there is a copy
        self._image: Image
        self._last_index = 0  # of the log in the copy
        self._is_done = False

    def trouble(self) -> None:
        """First the copy is made, from a running node, as a snapshot of a volume; later it is put back."""
        leader = self._cluster.leader()
        if leader is None or self._is_done:
            return
        if self._node is None:
            followers = [node for node in self._cluster.living() if node is not leader]
            self._copy(self._rng.choice(followers))
        elif self._node is not leader and self._node.alive and self._is_provable(leader, self._node):
            node, term = self._node, leader.core.term
            self._is_done = True
            self._cluster.kill(node)
            self._cluster.schedule.after(QUIET_SECONDS, lambda: self._put_back(node, leader, term))
        else:
            self._node = None  # another copy, from now

    def _copy(self, node: SimulatedNode) -> None:
        self._node, self._image, self._last_index = node, node.disk.image(), node.core.last_index
        self._cluster.trace.say(node.name, "copied", f"last={self._last_index}")

    def _is_provable(self, leader: SimulatedNode, node: SimulatedNode) -> bool:
        progress = leader.core.progress.get(node.name)
        if progress is None or progress.match_index > leader.core.commit_index:
            return False
        return progress.match_index > self._last_index

    def _put_back(self, node: SimulatedNode, leader: SimulatedNode, term: int) -> None:
        if node.alive:
            return  # the run came to its end meanwhile, and everybody was started
        is_covered = leader.leads and leader.core.term == term and self._is_provable(leader, node)
        if is_covered:
            self._cluster.trace.say(node.name, "old copy", f"last={self._last_index}")
            node.disk.put_back(self._image)
            node.copy_of_term = term
        self._cluster.start(node)
