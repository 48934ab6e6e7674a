"""What a node answers to who is behind: a request of an old term (Raft §5.1).

May know the core and the messages. Old answers are no requests: they are dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.entries import NodeId
from raft.messages import (
    AppendEntries,
    AppendRejected,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    ReadIndexRefused,
    ReadIndexRequest,
)

if TYPE_CHECKING:
    from raft.core import Core


def answer_stale(core: Core, sender: NodeId, message: object) -> None:
    """Refuse it, and say the term here."""
    if isinstance(message, AppendEntries):
        core.send_after_sync(sender, AppendRejected(core.term, message.prev_index, 0, 0))
    elif isinstance(message, Heartbeat):
        core.send(sender, HeartbeatResponse(core.term, 0))
    elif isinstance(message, InstallSnapshot):
        core.send(sender, InstallSnapshotResponse(core.term, message.index, 0))
    elif isinstance(message, ReadIndexRequest):
        core.send(sender, ReadIndexRefused(core.term, message.context))
