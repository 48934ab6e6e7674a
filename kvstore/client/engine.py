"""A client without a face: core, watches and sockets, and the one step that moves them all.

May know: its three parts; time comes in as a number. Both faces drive it in the same way: submit, pump, wait
for a descriptor or for next_deadline(), pump.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from kvstore.client.calls import Call
from kvstore.client.connection import Connections
from kvstore.client.core import ClientCore
from kvstore.client.results import State
from kvstore.client.watch import Watches
from kvstore.errors import ClientClosed

_MOST_ROUNDS: Final = 8  # of one pump, before whoever drives it may do something else


class Engine:
    """Owned by one client, and entered by one thread at a time."""

    def __init__(self, endpoints: Sequence[str], *, max_outstanding: int) -> None:
        self.connections = Connections(self)
        self.core = ClientCore(
            endpoints, self.connections, rng=random.SystemRandom(), max_outstanding=max_outstanding
        )
        self.watches = Watches(self.core, self.connections)
        self._now = 0.0

    def submit(self, call: Call, now: float) -> None:
        self.core.submit(call, now)

    def pump(self, now: float) -> None:
        """Reads what arrived, does what is due, and sends what can be sent."""
        self._now = now
        core, connections = self.core, self.connections
        connections.drain()
        for _ in range(_MOST_ROUNDS):
            self.watches.on_time(now)
            due_at = core.next_deadline()
            if due_at is not None and due_at <= now:
                core.on_time(now)
            else:
                core.flush(now)
            # What was sent to must be looked at; if nothing had arrived there, nothing else has changed.
            if not connections.drain():
                return

    def next_deadline(self) -> float | None:
        """When pump() is to be called at the latest; a time that is past if it has not come to an end."""
        if self.connections.has_touched:
            return self._now
        core_at, watches_at = self.core.next_deadline(), self.watches.next_deadline()
        if core_at is None or watches_at is None:
            return watches_at if core_at is None else core_at
        return min(core_at, watches_at)

    def take_state_changes(self) -> list[State]:
        changes = list(self.core.state_changes)
        self.core.state_changes.clear()
        return changes

    def close(self) -> None:
        self.watches.close(ClientClosed())
        self.core.close()
        self.connections.close_all()

    # -- reports of the sockets --------------------------------------------------------------------------

    def on_connected(self, connection: int) -> None:
        self.core.links.trouble = None
        self.core.on_connected(connection, self._now)

    def on_refused(self, connection: int) -> None:
        self.core.on_refused(connection, self._now)
        self.watches.on_lost(connection, self._now)

    def on_unusable(self, connection: int, reason: str) -> None:
        self.core.links.trouble = f"no socket could be opened: {reason}"
        self.on_lost(connection)  # so it is tried again, after a moment

    def on_lost(self, connection: int) -> None:
        self.core.on_lost(connection, self._now)
        self.watches.on_lost(connection, self._now)

    def on_frame(self, connection: int, payload: bytes) -> None:
        self.core.on_frame(connection, payload, self._now)

    def on_message(self, connection: int, parts: list[bytes]) -> None:
        self.watches.on_message(connection, parts, self._now)
