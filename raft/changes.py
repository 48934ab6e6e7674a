"""Changes of membership as people ask for them: verbs, and the configuration that each of them aims at.

Pure: a verb and the configuration in force give a target, or a refusal that names what is wrong. Whether the
target may be had now is the leader's to decide (raft/reconfiguration.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from raft.entries import NodeId
from raft.errors import ConfigurationReason, ConfigurationRefused
from raft.membership import Configuration, has_bytes, is_name


class Verb(StrEnum):
    """What may be asked; a change is given the nodes that it is about."""

    ADD_LEARNER = "add_learner"  # nodes join as learners, and stay learners
    ADD_VOTER = "add_voter"  # nodes join as learners, and become voters once they have caught up
    PROMOTE = "promote"  # learners that have caught up become voters now
    DEMOTE = "demote"  # voters become learners
    REMOVE = "remove"  # members leave for good
    REPLACE = "replace"  # nodes = [old, new]: new joins as learner, catches up, and takes old's place
    SET = "set"  # nodes become the voters, all others leave; who is new catches up first
    MOVE = "move"  # members get other addresses


_NONE: Mapping[NodeId, str] = {}


@dataclass(slots=True)
class Change:
    """One of them, as it was asked for."""

    verb: str
    nodes: list[NodeId]
    addresses: Mapping[NodeId, str] = field(default_factory=dict)  # of nodes that are new, or moved


def check_names(nodes: Collection[NodeId], addresses: Mapping[NodeId, str] = _NONE) -> None:
    """Raises ConfigurationRefused for what no message could carry, and so nobody be asked."""
    bad = [name for name in (*nodes, *addresses) if not is_name(name)]
    bad += [address for address in addresses.values() if not has_bytes(address)]
    if bad:
        raise _bad(f"{ascii(bad[0])[:100]} can be no name or address")


def target_of(configuration: Configuration, change: Change) -> Configuration:
    """Raises ConfigurationRefused."""
    try:
        make = _MAKERS[Verb(change.verb)]
    except ValueError:
        raise _bad(f"{change.verb!r} is no change of membership") from None
    nodes = change.nodes
    if not nodes or len(set(nodes)) < len(nodes) or "" in nodes:
        raise _bad(f"{change.verb} needs names, each once, not {nodes}")
    strangers = change.addresses.keys() - set(nodes)
    if strangers:
        raise _bad(f"{sorted(strangers)} have addresses, and {change.verb} is not about them")
    used = configuration.removed & set(nodes)
    if used:
        raise ConfigurationRefused(ConfigurationReason.NAME_USED_BEFORE, f"{_names(used)} left for good")
    if configuration.retiring and not (change.verb == Verb.REMOVE and configuration.incoming & set(nodes)):
        waiting, leaving = _names(configuration.incoming), _names(configuration.retiring)
        raise ConfigurationRefused(
            ConfigurationReason.IN_FLIGHT,
            f"{waiting} will take the place of {leaving} once caught up; remove {waiting} to call that off",
        )
    return make(configuration, change)


def _add_learner(now: Configuration, change: Change) -> Configuration:
    _expect_new(now, change.nodes)
    return _like(now, change, learners=now.learners | set(change.nodes))


def _add_voter(now: Configuration, change: Change) -> Configuration:
    """A learner that is to become a voter may be named too: then only the intention is new."""
    nodes = frozenset(change.nodes)
    _expect_new(now, nodes - now.learners)
    return _like(now, change, learners=now.learners | nodes, incoming=now.incoming | nodes)


def _promote(now: Configuration, change: Change) -> Configuration:
    nodes = frozenset(change.nodes)
    _expect_members(now, nodes)
    if nodes <= now.voters:
        raise _unchanged(f"{_names(nodes)} vote already")
    return _like(
        now, change, voters=now.voters | nodes, learners=now.learners - nodes, incoming=now.incoming - nodes
    )


def _demote(now: Configuration, change: Change) -> Configuration:
    nodes = frozenset(change.nodes)
    _expect_members(now, nodes)
    return _like(
        now, change, voters=now.voters - nodes, learners=now.learners | nodes, incoming=now.incoming - nodes
    )


def _remove(now: Configuration, change: Change) -> Configuration:
    """Who was on the way in is called back; if nobody comes any more, nobody retires either."""
    nodes = frozenset(change.nodes)
    _expect_members(now, nodes)
    incoming = now.incoming - nodes
    return _like(
        now,
        change,
        voters=now.voters - nodes,
        learners=now.learners - nodes,
        incoming=incoming,
        retiring=(now.retiring - nodes) if incoming else frozenset(),
    )


def _replace(now: Configuration, change: Change) -> Configuration:
    if len(change.nodes) != 2:
        raise _bad(f"replace takes the old name and the new one, not {change.nodes}")
    old, new = change.nodes
    _expect_members(now, [old])
    _expect_new(now, {new} - now.learners)
    if old not in now.voters:
        raise _bad(f"{old} is a learner: add {new}, then remove {old}")
    if now.incoming - {new}:
        raise ConfigurationRefused(
            ConfigurationReason.IN_FLIGHT, f"{_names(now.incoming - {new})} are still to become voters"
        )
    return _like(now, change, learners=now.learners | {new}, incoming={new}, retiring={old})


def _set(now: Configuration, change: Change) -> Configuration:
    """The whole set of voters at once (Raft §6). Learners that are not named stay learners."""
    nodes = frozenset(change.nodes)
    entering, leaving = nodes - now.voters, now.voters - nodes
    if not entering:
        return _like(now, change, voters=nodes, incoming=())
    return _like(now, change, learners=now.learners | entering, incoming=entering, retiring=leaving)


def _move(now: Configuration, change: Change) -> Configuration:
    _expect_members(now, change.nodes)
    missing = set(change.nodes) - change.addresses.keys()
    if missing:
        raise _bad(f"where do {_names(missing)} move?")
    return _like(now, change)


_MAKERS: dict[Verb, Callable[[Configuration, Change], Configuration]] = {
    Verb.ADD_LEARNER: _add_learner,
    Verb.ADD_VOTER: _add_voter,
    Verb.PROMOTE: _promote,
    Verb.DEMOTE: _demote,
    Verb.REMOVE: _remove,
    Verb.REPLACE: _replace,
    Verb.SET: _set,
    Verb.MOVE: _move,
}


def _like(
    now: Configuration,
    change: Change,
    *,
    voters: Collection[NodeId] | None = None,
    learners: Collection[NodeId] | None = None,
    incoming: Collection[NodeId] | None = None,
    retiring: Collection[NodeId] | None = None,
) -> Configuration:
    """`now` with these parts exchanged."""
    voters = now.voters if voters is None else frozenset(voters)
    learners = now.learners if learners is None else frozenset(learners)
    members = frozenset(voters) | frozenset(learners)
    addresses = {**now.addresses, **change.addresses}
    return Configuration(
        voters,
        learners,
        addresses={node: address for node, address in addresses.items() if node in members},
        incoming=now.incoming if incoming is None else incoming,
        retiring=now.retiring if retiring is None else retiring,
    )


def _expect_new(now: Configuration, nodes: Collection[NodeId]) -> None:
    known = now.members & frozenset(nodes)
    if known:
        raise _unchanged(f"already members: {_names(known)}")


def _expect_members(now: Configuration, nodes: Collection[NodeId]) -> None:
    unknown = frozenset(nodes) - now.members
    if unknown:
        raise ConfigurationRefused(
            ConfigurationReason.UNKNOWN_MEMBER,
            f"not among the members: {_names(unknown)}; they are {_names(now.members)}",
        )


def _bad(detail: str) -> ConfigurationRefused:
    return ConfigurationRefused(ConfigurationReason.BAD_REQUEST, detail)


def _unchanged(detail: str) -> ConfigurationRefused:
    return ConfigurationRefused(ConfigurationReason.UNCHANGED, detail)


def _names(nodes: Collection[NodeId]) -> str:
    return ", ".join(sorted(nodes)) or "nobody"
