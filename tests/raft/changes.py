"""What tests of membership changes have in common: asking for one, and what a refusal says."""

from __future__ import annotations

import pytest

from raft.changes import Change, target_of
from raft.core import Core
from raft.entries import EntryBatch, EntryKind, NodeId
from raft.errors import ConfigurationReason, ConfigurationRefused
from raft.membership import Configuration
from raft.messages import AppendEntries
from tests.raft.network import Network

CONFIGURATION = int(EntryKind.CONFIGURATION)


def ask(core: Core, verb: str, *nodes: NodeId, force: bool = False) -> int:
    return core.propose_configuration(target_of(core.configuration, Change(verb, list(nodes))), force=force)


def refused(core: Core, target: Configuration, *, force: bool = False) -> ConfigurationReason:
    with pytest.raises(ConfigurationRefused) as refusal:
        core.propose_configuration(target, force=force)
    return refusal.value.reason


def grown(network: Network, *names: NodeId) -> None:
    """These joined, caught up, and vote."""
    for name in names:
        network.join(name)
        ask(network.leader(), "add_voter", name)
        network.settle()
        network.heartbeats(3)
        assert name in network.leader().configuration.voters


def append_of_configurations(first_index: int, *configurations: Configuration) -> AppendEntries:
    prev_term = 1 if first_index > 1 else 0
    batch = configuration_batch(first_index, 1, *configurations)
    return AppendEntries(1, first_index - 1, prev_term, 0, batch)


def configuration_batch(first_index: int, term: int, *configurations: Configuration) -> EntryBatch:
    return EntryBatch(first_index, [(term, CONFIGURATION, each.encode()) for each in configurations])
