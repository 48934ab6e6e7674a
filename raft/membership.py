"""Who takes part. Knows sets of names and majorities of them; nothing of logs, terms or messages.

Everything that counts votes or acknowledgements asks a Configuration, and each question is answered over
`quorums`, the sets that must agree separately: one as a rule, two while a joint configuration (Raft §6,
dissertation 4.3) leads from the old voters to the new. Configurations travel in the log, as bytes that are
the same wherever they are made.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from raft.entries import MAX_CONFIGURATION_BYTES, NodeId
from raft.quorum import VoteResult, has_majority, majority_value, vote_result

LONGEST_NAME_BYTES = 255  # of a node; what carries messages has no room for longer ones


class CorruptConfiguration(ValueError):
    """Bytes that are no configuration."""


def has_bytes(text: str) -> bool:
    """Lone surrogates have none, so that no message and no file takes them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_name(name: str) -> bool:
    """May a node be called so?"""
    return has_bytes(name) and 0 < len(name.encode()) <= LONGEST_NAME_BYTES


class Configuration:
    """Immutable: a change of membership makes a new one. Equal if all that is told of the members is equal.

    An empty one is that of a node which no cluster has yet: it waits to be added.
    """

    __slots__ = (
        "addresses",
        "electorate",
        "incoming",
        "learners",
        "members",
        "outgoing",
        "quorums",
        "removed",
        "retiring",
        "voters",
    )

    def __init__(
        self,
        voters: Iterable[NodeId] = (),
        learners: Iterable[NodeId] = (),
        outgoing: Iterable[NodeId] = (),
        *,
        addresses: Mapping[NodeId, str] | None = None,
        removed: Iterable[NodeId] = (),
        incoming: Iterable[NodeId] = (),
        retiring: Iterable[NodeId] = (),
    ) -> None:
        self.voters: frozenset[NodeId] = frozenset(voters)  # the new ones, while joint
        # Learners receive the log and are counted nowhere (dissertation 4.2.1). While joint, an old voter
        # may be one already: it is on its way to be a learner.
        self.learners: frozenset[NodeId] = frozenset(learners)
        self.outgoing: frozenset[NodeId] = frozenset(outgoing)  # the old voters while joint, else nobody
        self.members: frozenset[NodeId] = self.voters | self.learners | self.outgoing
        # Of members only; that of some may be unknown. What an address means is not known here.
        self.addresses: Mapping[NodeId, str] = dict(addresses or {})
        # Names that were members once. They never are again: a node that lost its disk must not vote under
        # the name with which it voted before.
        self.removed: frozenset[NodeId] = frozenset(removed)
        # What is intended next, and goes on under any leader: these learners become voters as soon as they
        # have caught up, and in the same step those members leave. Nobody retires unless somebody comes.
        self.incoming: frozenset[NodeId] = frozenset(incoming)
        self.retiring: frozenset[NodeId] = frozenset(retiring)
        # Each of these sets must agree by a majority of its own.
        self.quorums: tuple[frozenset[NodeId], ...] = (
            (self.voters, self.outgoing) if self.outgoing else (self.voters,)
        )
        self.electorate: frozenset[NodeId] = self.voters | self.outgoing  # whose votes count somewhere
        problem = self._problem()
        if problem is not None:
            raise AssertionError(problem)  # not an assert: decode() relies on it

    def _problem(self) -> str | None:
        """What is wrong with these sets, in words; None if they make sense."""
        both = self.voters & self.learners
        if both:
            return f"{sorted(both)} cannot be voters and learners at once"
        if self.outgoing and not self.voters:
            return "a joint configuration leads to some voters"
        back = self.removed & self.members
        if back:
            return f"{sorted(back)} cannot be members again"
        if not self.addresses.keys() <= self.members:
            return f"{sorted(self.addresses.keys() - self.members)} have addresses and are no members"
        if not self.incoming <= self.learners:
            return f"{sorted(self.incoming - self.learners)} are to be voters and are no learners"
        if not self.retiring <= self.members - self.incoming or (self.retiring and not self.incoming):
            return f"{sorted(self.retiring)} are to retire for {sorted(self.incoming)}"
        return None

    # -- questions -------------------------------------------------------------------------------------

    @property
    def is_joint(self) -> bool:
        """Whether two sets of voters have to agree (Raft §6)."""
        return bool(self.outgoing)

    def may_campaign(self, node_id: NodeId) -> bool:
        """A learner never campaigns, nor does a node that no cluster has yet."""
        return node_id in self.electorate

    def has_quorum(self, nodes: Collection[NodeId]) -> bool:
        """Whether these are a majority of each set that must agree."""
        return all(has_majority(quorum, nodes) for quorum in self.quorums)

    def quorum_value(self, values: Mapping[NodeId, int]) -> int:
        """The largest number that a quorum has reached: a commit index, or a confirmed read round."""
        return min([majority_value(quorum, values) for quorum in self.quorums])

    def vote_result(self, granted: Collection[NodeId], denied: Collection[NodeId]) -> VoteResult:
        """Won if each set granted by a majority; lost if one of them cannot any more."""
        results = [vote_result(quorum, granted, denied) for quorum in self.quorums]
        if VoteResult.LOST in results:
            return VoteResult.LOST
        return VoteResult.PENDING if VoteResult.PENDING in results else VoteResult.WON

    # -- what follows from it --------------------------------------------------------------------------

    def toward(self, target: Configuration) -> Configuration:
        """The next one on the way to the members and intentions of `target`.

        It is the target itself if at most one voter comes or goes: then any majorities of both share a
        node (dissertation 4.1). Else it is the joint one (Raft §6). What this one knows of addresses and
        removed names is kept.
        """
        outgoing = self.voters if len(self.voters ^ target.voters) > 1 else frozenset()
        return self._successor(target.voters, target.learners, outgoing, target)

    def left(self) -> Configuration:
        """The one after this joint one: its new voters alone."""
        assert self.is_joint, f"{self} is not joint"
        return self._successor(self.voters, self.learners, frozenset(), self)

    def completed(self, ready: Collection[NodeId]) -> Configuration:
        """The target when these learners, of the incoming ones, are made voters, and who retires leaves."""
        entering = self.incoming & frozenset(ready)
        assert entering and (entering == self.incoming or not self.retiring), f"{self}: not only {ready}"
        return Configuration(
            (self.voters - self.retiring) | entering,
            self.learners - self.retiring - entering,
            incoming=self.incoming - entering,
        )

    def _successor(
        self,
        voters: frozenset[NodeId],
        learners: frozenset[NodeId],
        outgoing: frozenset[NodeId],
        other: Configuration,
    ) -> Configuration:
        members = voters | learners | outgoing
        addresses = {**self.addresses, **other.addresses}
        return Configuration(
            voters,
            learners,
            outgoing,
            addresses={node: address for node, address in addresses.items() if node in members},
            removed=self.removed | (self.members - members),
            incoming=other.incoming,
            retiring=other.retiring,
        )

    # -- bytes -----------------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """The same bytes for equal configurations, on any node. Empty parts are left out."""
        fields: dict[str, object] = {name: sorted(getattr(self, name)) for name in _SETS}
        fields["addresses"] = self.addresses
        kept = {name: value for name, value in fields.items() if value}
        return json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def decode(cls, blob: bytes) -> Configuration:
        """Raises CorruptConfiguration for anything that encode() did not make, and for what is too large."""
        if len(blob) > MAX_CONFIGURATION_BYTES:
            raise CorruptConfiguration(f"it has {len(blob)} bytes")
        try:
            fields = json.loads(blob)
        except (ValueError, RecursionError) as error:
            raise CorruptConfiguration(str(error)) from None
        if not isinstance(fields, dict) or not fields.keys() <= _FIELDS:
            raise CorruptConfiguration("it is not an object with the fields of a configuration")
        addresses = fields.pop("addresses", {})
        if not isinstance(addresses, dict) or not all(isinstance(each, str) for each in addresses.values()):
            raise CorruptConfiguration("addresses are not a map of strings")
        if not all(isinstance(names, list) and _are_names(names) for names in fields.values()):
            raise CorruptConfiguration("a set of members is not a list of names")
        try:
            made = cls(**fields, addresses=addresses)
            again = made.encode()
        except (AssertionError, UnicodeEncodeError) as error:
            raise CorruptConfiguration(str(error)) from None
        if again != bytes(blob):
            raise CorruptConfiguration("it is not written as encode() writes it")
        return made

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Configuration):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in (*_SETS, "addresses"))

    def __hash__(self) -> int:
        return hash((self.voters, self.learners, self.outgoing))

    def __repr__(self) -> str:
        told = [f"{name}={sorted(getattr(self, name))}" for name in _SETS if getattr(self, name)]
        return f"Configuration({', '.join(told)})"


_SETS = ("voters", "learners", "outgoing", "removed", "incoming", "retiring")
_FIELDS = frozenset({*_SETS, "addresses"})


def _are_names(values: list[Any]) -> bool:
    return all(isinstance(value, str) and is_name(value) for value in values)
