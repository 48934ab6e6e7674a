"""A snapshot on its way into the state machine: a new store and new sessions, built beside those in force.

May know: the store, the sessions and the shape of a snapshot; nothing of Raft. What comes is built into its
place at once, so the work of a piece is in proportion to that piece, and the end is a change of references.
"""

from __future__ import annotations

from collections.abc import Callable

from kvstore.sessions import Sessions
from kvstore.snapshots import StateReader
from kvstore.store import Store


class StoreRestorer:
    """Implements raft's Restorer. Owned by the applier, until the snapshot is whole or given up."""

    def __init__(
        self, store: Store, sessions: Sessions, take_over: Callable[[int, Store, Sessions], None]
    ) -> None:
        """`store` and `sessions` are empty ones; `take_over` gets the applied index, and them when full."""
        self._store = store
        self._sessions = sessions
        self._take_over = take_over
        self._reader = StateReader(store.load, sessions.load)

    def feed(self, data: bytes) -> None:
        """Raises CorruptState."""
        self._reader.feed(data)

    def finish(self) -> None:
        """Raises CorruptState unless all of it is there."""
        self._reader.finish()
        self._store.revision = self._reader.revision
        self._take_over(self._reader.applied_index, self._store, self._sessions)
