"""Raft as a library: a pure core and its storage. Importing it needs nothing but Python.

The actors that drive the core (raft.replication_actor and its kin) need the actor runtime; import them by
name.
"""

from __future__ import annotations

from raft.config import RaftConfig
from raft.core import Core
from raft.entries import CorruptEntries, Entry, EntryBatch, EntryKind, HardState, Index, NodeId, Term
from raft.errors import (
    ConfigurationReason,
    ConfigurationRefused,
    InvariantBroken,
    NotLeader,
    Overloaded,
    RaftError,
    TransferReason,
    TransferRefused,
    Transferring,
)
from raft.membership import Configuration
from raft.ready import Ready, Role, RoleChange

__all__ = [
    "Configuration",
    "ConfigurationReason",
    "ConfigurationRefused",
    "Core",
    "CorruptEntries",
    "Entry",
    "EntryBatch",
    "EntryKind",
    "HardState",
    "Index",
    "InvariantBroken",
    "NodeId",
    "NotLeader",
    "Overloaded",
    "RaftConfig",
    "RaftError",
    "Ready",
    "Role",
    "RoleChange",
    "Term",
    "TransferReason",
    "TransferRefused",
    "Transferring",
]
