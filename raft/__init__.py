"""Raft as a library: a pure core, its storage, and the life of a command. To import it takes only Python.

Who wants to replicate a state machine begins with `raft.replica.Replica` and docs/library.md. That, and the
actors that drive the core (raft.replication_actor and its kin), need the actor runtime; import them by name.
"""

from __future__ import annotations

from raft.actor_messages import Reason
from raft.config import RaftConfig
from raft.core import Core
from raft.entries import CorruptEntries, Entry, EntryBatch, EntryKind, HardState, Index, NodeId, Term
from raft.errors import (
    ConfigurationReason,
    ConfigurationRefused,
    ConflictWithLeader,
    Expired,
    Fenced,
    InvariantBroken,
    NotApplied,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    RaftError,
    ShuttingDown,
    StateDamaged,
    TooLarge,
    TransferReason,
    TransferRefused,
    Transferring,
)
from raft.life import Abandonment, Command, Query, Stage
from raft.membership import Configuration
from raft.ready import Ready, Role, RoleChange
from raft.state_machine import (
    Fingerprinted,
    Housekeeper,
    Restorer,
    StateMachine,
    Tidying,
    WholeRestorer,
)
from raft.storage import MemoryStorage, Recovered, Storage, StorageError, StorageFailed

__all__ = [
    "Abandonment",
    "Command",
    "Configuration",
    "ConfigurationReason",
    "ConfigurationRefused",
    "ConflictWithLeader",
    "Core",
    "CorruptEntries",
    "Entry",
    "EntryBatch",
    "EntryKind",
    "Expired",
    "Fenced",
    "Fingerprinted",
    "HardState",
    "Housekeeper",
    "Index",
    "InvariantBroken",
    "MemoryStorage",
    "NodeId",
    "NotApplied",
    "NotLeader",
    "OutcomeUnknown",
    "Overloaded",
    "Query",
    "RaftConfig",
    "RaftError",
    "Ready",
    "Reason",
    "Recovered",
    "Restorer",
    "Role",
    "RoleChange",
    "ShuttingDown",
    "Stage",
    "StateDamaged",
    "StateMachine",
    "Storage",
    "StorageError",
    "StorageFailed",
    "Term",
    "Tidying",
    "TooLarge",
    "TransferReason",
    "TransferRefused",
    "Transferring",
    "WholeRestorer",
]
