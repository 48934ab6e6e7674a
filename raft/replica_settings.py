"""What a program may tell its replica, and hear of it. Data only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from raft.config import RaftConfig
from raft.membership import Configuration
from raft.ready import RoleChange

# What a frame between nodes and a record of the log can carry, with something to spare.
MOST_COMMAND_BYTES = 7 << 20


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """What may be tuned; the same on all replicas of a cluster, but for tests."""

    cluster_id: int = 0  # replicas with different numbers do not listen to one another
    # A leader that is silent for one to two times as long is replaced. Many times a round trip and a sync.
    election_timeout_seconds: float = 0.2
    heartbeat_interval_seconds: float = 0.05
    # Commands and queries that may be under way; one more is abandoned as overloaded.
    max_open: int = 65_536
    max_open_bytes: int = 64 << 20
    # Of one command. An entry that no frame can carry would stand in the way of all that follow it.
    max_command_bytes: int = 4 << 20
    raft: RaftConfig = field(default_factory=RaftConfig)

    def __post_init__(self) -> None:
        limit = self.max_command_bytes
        assert 0 < limit <= MOST_COMMAND_BYTES, f"commands of {limit} bytes; no frame has more than 8 MiB"


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a program may want to hear of. All run on the loop's thread, and must not block it."""

    on_role: Callable[[RoleChange], None] | None = None  # role, term or known leader changed
    on_members: Callable[[Configuration], None] | None = None  # another configuration is in force
    on_stop: Callable[[BaseException | None], None] | None = None  # why the loop ended; None: it was told to
