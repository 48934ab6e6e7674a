"""Do the state machines of a cluster hold the same? Fingerprints, compared at equal indexes, and the verdict.

Pure: no clock, no message, no disk. What a machine is at an index depends on the log alone, so a fingerprint
does too: it holds for ever, whoever computed it, before or after a restart, from a snapshot or by applying.
That is why nothing here asks how old a report is, and why a false alarm takes several nodes that are wrong
in the same way: a node is judged at an index that it passed itself in this life, and only by the same other
value of a majority of the voters. Values that were computed in different ways never meet: a report
says the version.

Nodes pass the same indexes at different times, and tell each other seldom. So of the indexes passed a few of
each coarseness are kept: the last ones that are multiples of CHECK_EVERY, of twice as much, of four times …
Two nodes that are n entries apart have one in common that lies no more than a few times n behind.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from raft.entries import Index, NodeId
from raft.membership import Configuration

CHECK_EVERY: Final = 256  # entries; every node takes a fingerprint at these indexes
STEPS: Final = 16  # of coarseness, each twice the one before
KEPT_OF_EACH: Final = 4
KEPT_MARKS: Final = 4  # indexes at which the log stood still
MOST_PAIRS: Final = STEPS * KEPT_OF_EACH + KEPT_MARKS  # in one report, and of one node
# One node's word against another's: whoever of them is right, nobody could say.
LEAST_WITNESSES: Final = 2

_PAIR: Final = struct.Struct(">QQ")


class Difference(NamedTuple):
    """The own fingerprint at an index, and another one there."""

    index: Index  # type: ignore[assignment]  # hides tuple.index
    own: int
    theirs: int


class Checkpoints:
    """Fingerprints of one node, by index: a bounded number, ever farther apart. Owned by a Divergence."""

    __slots__ = ("_by_index", "_every", "_kept", "_marks")

    def __init__(self, every: int) -> None:
        self._every = every
        self._by_index: dict[Index, int] = {}
        # By coarseness, the indexes that are no multiple of a coarser step; the last holds all the rest.
        self._kept: list[deque[Index]] = [deque() for _ in range(STEPS)]
        self._marks: deque[Index] = deque()

    def add(self, index: Index, fingerprint: int) -> None:
        """Of an index beyond all that were added."""
        if index % self._every:
            kept, most = self._marks, KEPT_MARKS
        else:
            multiple = index // self._every
            step = (multiple & -multiple).bit_length() - 1  # how often it can be halved
            kept, most = self._kept[min(step, STEPS - 1)], KEPT_OF_EACH
        if index not in self._by_index:
            kept.append(index)
        self._by_index[index] = fingerprint
        if len(kept) > most:
            del self._by_index[kept.popleft()]

    def get(self, index: Index) -> int | None:
        return self._by_index.get(index)

    def clear(self) -> None:
        for kept in (*self._kept, self._marks):
            kept.clear()
        self._by_index.clear()

    def __len__(self) -> int:
        return len(self._by_index)

    def __iter__(self) -> Iterator[tuple[Index, int]]:
        return iter(self._by_index.items())


class Divergence:
    """What one node knows of its own states and of the others'. Owned by its applier's guard.

    Holds no more than MOST_PAIRS fingerprints of itself and of each member, whatever anybody says.
    """

    def __init__(self, version: int, *, every: int = CHECK_EVERY) -> None:
        self.version = version  # of the way in which fingerprints are computed
        self.has_news = False  # since the last report
        # Members that told of another state than this node had there, at the newest index in common.
        self.suspects: dict[NodeId, Difference] = {}
        self._configuration = Configuration()
        self._own = Checkpoints(every)
        self._heard: dict[NodeId, dict[Index, int]] = {}  # the last report of each other member

    def follow(self, configuration: Configuration) -> None:
        """Another configuration is in force. Who is no member any more is no witness either."""
        self._configuration = configuration
        for node_id in self._heard.keys() - configuration.members:
            del self._heard[node_id]
            self.suspects.pop(node_id, None)

    def forget(self) -> None:
        """The own state was replaced: what it was before says nothing of it."""
        self._own.clear()
        self.suspects.clear()

    def note(self, index: Index, fingerprint: int) -> Difference | None:
        """The own fingerprint at an index; not below one noted before. A Difference: this node is wrong."""
        if self._own.get(index) == fingerprint:
            return None
        self._own.add(index, fingerprint)
        self.has_news = True
        for node_id, heard in self._heard.items():
            if index in heard:
                self._compare(node_id, index, fingerprint, heard[index])
        return self._judged(index, fingerprint)

    def hear(self, node_id: NodeId, version: int, pairs: bytes) -> Difference | None:
        """A report of another node; anybody's, with anything in it. A Difference: this node is wrong.

        It takes the place of the one before. Indexes far ahead wait until this node gets there, or until the
        next report; indexes long gone meet nothing.
        """
        if version != self.version or node_id not in self._configuration.members:
            return None
        if len(pairs) % _PAIR.size or len(pairs) > MOST_PAIRS * _PAIR.size:
            return None
        heard = self._heard[node_id] = dict(_PAIR.iter_unpack(pairs))
        common = sorted(index for index in heard if self._own.get(index) is not None)
        if not common:
            self.suspects.pop(node_id, None)
            return None
        verdict = None
        for index in common:
            own = self._own.get(index)
            assert own is not None, f"{index} was in common"
            self._compare(node_id, index, own, heard[index])
            verdict = verdict or self._judged(index, own)
        return verdict

    def report(self) -> bytes:
        """All that is kept of the own states, for the others."""
        self.has_news = False
        return b"".join([_PAIR.pack(index, fingerprint) for index, fingerprint in self._own])

    def _compare(self, node_id: NodeId, index: Index, own: int, theirs: int) -> None:
        if own == theirs:
            self.suspects.pop(node_id, None)
        else:
            self.suspects[node_id] = Difference(index, own, theirs)

    def _judged(self, index: Index, own: int) -> Difference | None:
        """Is there another value that a majority of the voters has, of both majorities in a joint
        configuration? Their word counts only if they agree: nodes that are wrong each in its own way
        outvote nobody."""
        witnesses: dict[int, list[NodeId]] = {}
        for node_id, heard in self._heard.items():
            theirs = heard.get(index, own)
            if theirs != own:
                witnesses.setdefault(theirs, []).append(node_id)
        for theirs, nodes in witnesses.items():
            electorate = [node_id for node_id in nodes if node_id in self._configuration.electorate]
            if len(electorate) >= LEAST_WITNESSES and self._configuration.has_quorum(electorate):
                return Difference(index, own, theirs)
        return None
