"""Snapshots that clients read, between the client plane and replication, which has them.

May know: the requests, their results, and the messages to replication; nothing of connections or files.
Remembers nothing: what is open, and for how long, is replication's to know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from zlib import crc32

from kvstore.operations import error_result
from kvstore.protocol import SNAPSHOT_GONE
from kvstore.protocol_snapshot import (
    Close,
    Open,
    Opened,
    Read,
    Slice,
    SnapshotRequest,
    encode_closed,
    encode_opened,
    encode_pending,
    encode_slice,
)
from raft.actor_messages import (
    CloseSnapshot,
    OpenSnapshot,
    ReadSnapshot,
    SnapshotClosed,
    SnapshotData,
    SnapshotGone,
    SnapshotOpened,
    SnapshotPending,
)

_GONE: Final = "the snapshot is not open at this node (any more): begin again"
_NO_ROOM: Final = "the node's disk has no room for another snapshot: ask another member, or make room"


class SnapshotDesk:
    """Owned by the gateway."""

    def __init__(
        self,
        node: str,
        cluster_id: int,
        *,
        send: Callable[[object], None],
        answer: Callable[[int, bytes], None],
    ) -> None:
        self._node = node
        self._cluster_id = cluster_id
        self._send = send  # to replication
        self._answer = answer
        self.handlers: dict[type, Callable[[Any], None]] = {
            SnapshotOpened: self._on_opened,
            SnapshotPending: self._on_pending,
            SnapshotData: self._on_data,
            SnapshotClosed: self._on_closed,
            SnapshotGone: self._on_gone,
        }

    def ask(self, ticket: int, request: SnapshotRequest) -> None:
        """The answer comes by way of `answer`, or as a refusal of the ticket."""
        match request:
            case Open(nonce):
                self._send(OpenSnapshot(ticket, nonce))
            case Read(nonce, offset):
                self._send(ReadSnapshot(ticket, nonce, offset))
            case Close(nonce):
                self._send(CloseSnapshot(ticket, nonce))

    def _on_opened(self, message: SnapshotOpened) -> None:
        opened = Opened(
            self._node,
            f"{self._cluster_id:016x}",
            message.index,
            message.term,
            message.size_bytes,
            message.checksum,
            message.configuration,
        )
        self._answer(message.ticket, encode_opened(opened))

    def _on_pending(self, message: SnapshotPending) -> None:
        self._answer(message.ticket, encode_pending(message.written_bytes))

    def _on_data(self, message: SnapshotData) -> None:
        piece = Slice(message.offset, crc32(message.data), message.data)
        self._answer(message.ticket, encode_slice(piece))

    def _on_closed(self, message: SnapshotClosed) -> None:
        self._answer(message.ticket, encode_closed())

    def _on_gone(self, message: SnapshotGone) -> None:
        text = _NO_ROOM if message.is_for_want_of_room else _GONE
        self._answer(message.ticket, error_result(SNAPSHOT_GONE, text))
