"""The applier's guard: takes fingerprints of the state where they are due, and has them compared.

May know the state machine's fingerprint, the comparison and the node's fence; time as it is passed in. Costs
a command nothing: between two indexes at which something is due, nobody asks it anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from raft.divergence import CHECK_EVERY, Difference, Divergence
from raft.entries import Index, NodeId
from raft.errors import StateDamaged
from raft.fence import Fence, FenceMark
from raft.membership import Configuration
from raft.messages import StateReport

log = logging.getLogger("assent.guard")

NEVER: Final = 1 << 63  # an index that no log reaches
REPEAT_SECONDS: Final = 5.0  # a report is told again after this, news or not: it may have been lost
OUTVOTED: Final = "a majority of the voters has another state at this index"


class Guard:
    """One per applier, which asks it at each tick, and stops at `next_check`.

    Whatever it is told may show that this node is wrong: then `verdict` says why.
    """

    def __init__(self, machine: object, fence: Fence, *, check_every: int = CHECK_EVERY) -> None:
        fingerprint = getattr(machine, "fingerprint", None)
        self._fingerprint: Callable[[], int] | None = fingerprint if callable(fingerprint) else None
        version = getattr(machine, "fingerprint_version", 0)
        self._divergence = Divergence(version, every=check_every)
        self._check_every = check_every
        self.fence = fence
        self.verdict: FenceMark | None = None  # not None: the fence is to be put up
        self.next_check: Index = NEVER  # entries are applied up to here, and then passed() is called
        self.audience: list[NodeId] = []  # whom the reports go to
        self.is_only_voter = False
        self._seen_index: Index = 0  # applied at the last tick
        self._marked_index: Index = 0  # where the log stood still last
        self._repeat_at = 0.0
        self._suspects: frozenset[NodeId] = frozenset()  # as they were logged

    @property
    def compares(self) -> bool:
        """Has the machine fingerprints at all?"""
        return self._fingerprint is not None

    def follow(self, configuration: Configuration, node_id: NodeId, applied_index: Index) -> None:
        """Another configuration is in force."""
        self._divergence.follow(configuration)
        self.audience = sorted(configuration.members - {node_id})
        self.is_only_voter = configuration.electorate == {node_id}
        self._look_ahead(applied_index)

    def _look_ahead(self, applied_index: Index) -> None:
        is_due = self._fingerprint is not None and self.audience
        every = self._check_every
        self.next_check = applied_index - applied_index % every + every if is_due else NEVER

    def passed(self, index: Index) -> None:
        """The state is that of `index`, where a check is due."""
        self._note(index)
        self._look_ahead(index)

    def restored(self, index: Index) -> None:
        """The state was replaced by a snapshot's, at `index`."""
        self._divergence.forget()
        self._look_ahead(index)

    def tick(self, now_seconds: float, applied_index: Index) -> StateReport | None:
        """Called a few times a second; what the others are to be told, if anything.

        Where the log stands still, all nodes come to stand at the same index: a state to be compared,
        however far the next check is.
        """
        if self._fingerprint is None or not self.audience:
            return None
        if applied_index == self._seen_index != self._marked_index:
            self._marked_index = applied_index
            self._note(applied_index)
        self._seen_index = applied_index
        if not self._divergence.has_news and now_seconds < self._repeat_at:
            return None
        self._repeat_at = now_seconds + REPEAT_SECONDS
        pairs = self._divergence.report()
        return StateReport(self._divergence.version, pairs) if pairs else None

    def hear(self, node_id: NodeId, report: StateReport) -> None:
        """Another node's applier tells of its states."""
        self._judge(self._divergence.hear(node_id, report.version, report.pairs))

    def _note(self, index: Index) -> None:
        assert self._fingerprint is not None, "a state without fingerprint was noted"
        try:
            fingerprint = self._fingerprint()
        except StateDamaged as damage:
            self.verdict = self.judge_damage(index, damage)
        else:
            self._judge(self._divergence.note(index, fingerprint))

    def judge_damage(self, index: Index, damage: StateDamaged) -> FenceMark:
        """The machine itself says that its state is wrong. Raises it again if nobody else could serve: then
        the process ends, and its next start makes the state anew from the disk."""
        if self.is_only_voter:
            raise damage
        return FenceMark(index, 0, 0, str(damage))

    def _judge(self, difference: Difference | None) -> None:
        suspects = self._divergence.suspects
        if suspects.keys() != self._suspects:
            for node_id in sorted(suspects.keys() - self._suspects):
                log.error(
                    "event=divergence node=%s index=%d own=%016x theirs=%016x", node_id, *suspects[node_id]
                )
            for node_id in sorted(self._suspects - suspects.keys()):
                log.info("event=divergence_over node=%s", node_id)
            self._suspects = frozenset(suspects)
        if difference is not None:
            self.verdict = FenceMark(*difference, OUTVOTED)

    def status(self) -> dict[str, object]:
        """For operators: the fence, and who has another state than this node, at which index."""
        mark, suspects = self.fence.mark, self._divergence.suspects
        return {
            "fenced": mark.fields() if mark is not None else None,
            "divergence": {
                node_id: {"index": index, "own": f"{own:016x}", "theirs": f"{theirs:016x}"}
                for node_id, (index, own, theirs) in sorted(suspects.items())
            },
        }
