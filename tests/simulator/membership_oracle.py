"""What must hold of configurations in the logs: one at a time is uncommitted, neighbours share majorities.

Fed by the oracles with what is appended and committed; shares no code with raft's own bookkeeping of
configurations, but for their decoding.
"""

from __future__ import annotations

from raft.entries import EntryBatch, EntryKind, Index
from raft.membership import Configuration
from tests.simulator.tracing import Trace, Violation


class MembershipOracle:
    """Owned by the oracles."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._logged: dict[str, dict[Index, bytes]] = {}  # by node: the configurations in its log
        self.committed: list[tuple[Index, Configuration]] = []

    def appended(self, node: str, batch: EntryBatch) -> None:
        logged = self._logged.setdefault(node, {})
        for index in [index for index in logged if index >= batch.first_index]:
            del logged[index]
            self._trace.say(node, "configuration rolled back", f"index={index}")
        for index, (_, kind, body) in enumerate(batch.entries, batch.first_index):
            if kind == EntryKind.CONFIGURATION:
                logged[index] = body

    def replaced(self, node: str, index: Index) -> None:
        """A snapshot up to `index` is all that this node has."""
        self._logged[node] = {at: new.encode() for at, new in self.committed if at <= index}

    def recovered(self, node: str, last_index: Index) -> None:
        logged = self._logged.setdefault(node, {})
        self._logged[node] = {index: body for index, body in logged.items() if index <= last_index}

    def check_uncommitted(self, node: str, committed_index: Index) -> None:
        logged = self._logged.get(node, {})
        if logged and max(logged) > committed_index:
            uncommitted = [index for index in logged if index > committed_index]
            if len(uncommitted) > 1:
                raise Violation(f"{node} has uncommitted configurations at {uncommitted}")

    def committed_up_to(self, node: str, first: Index, last: Index) -> None:
        """The entries from first to last, as this node has them, were committed."""
        logged = self._logged.get(node, {})
        for index in sorted(index for index in logged if first <= index <= last):
            new = Configuration.decode(logged[index])
            self._trace.say(node, "joint configuration" if new.is_joint else "configuration", f"{new}")
            if self.committed:
                self._check_succession(index, self.committed[-1][1], new)
            self.committed.append((index, new))

    @staticmethod
    def _check_succession(index: Index, old: Configuration, new: Configuration) -> None:
        """Raft §6 or dissertation 4.1: at no time may two majorities decide without each other."""
        if old.is_joint:
            is_safe = new.voters == old.voters and not new.is_joint
        elif new.is_joint:
            is_safe = new.outgoing == old.voters
        else:
            is_safe = len(new.voters ^ old.voters) <= 1
        if not is_safe:
            raise Violation(f"the configuration at {index} is {new}, after {old}")
        if not old.removed <= new.removed or old.removed & new.members:
            raise Violation(f"the configuration at {index} has removed names again: {new}, after {old}")
