"""The applier of a store: one whose watch plane may hold events for a moment, and says when they are due.

May know: raft's applier, the watch plane, the clock, and where snapshots lie. All that is added is an earlier
deadline, and the name of a snapshot that the store refuses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors import Actor, Address
from kvstore.state_machine import StoreMachine
from kvstore.unusable import Judged
from raft.actor_messages import RestoreSnapshot
from raft.applier_actor import WATCH_PORT, ApplierActor
from raft.snapshot import snapshot_name


class StoreApplier(ApplierActor):
    """One per node."""

    def __init__(self, machine: StoreMachine, *, snapshots: Path = Path(), **others: Any) -> None:
        """`snapshots` is the directory of those that are installed."""
        super().__init__(machine, machine.watch_plane, **others)
        self._store = machine
        self._snapshots = snapshots
        self._plane = machine.watch_plane
        self._own_at: float | None = None  # the deadline of the applier as it is without this

    def on_start(self) -> None:
        self._plane.clock = self.now
        super().on_start()

    def set_deadline(self, at: float | None) -> None:
        self._own_at = at
        self._arrange()

    def receive(self, batch: list[tuple[Address, object]]) -> None:
        super().receive(batch)
        self._arrange()

    def on_deadline(self) -> None:
        if self._own_at is not None and self.now() >= self._own_at:
            self._own_at = None  # as a deadline is that was met
            super().on_deadline()
        for parts in self._plane.announcements():
            self.publish(WATCH_PORT, parts)
        self._arrange()

    def _begin_restoring(self, message: RestoreSnapshot) -> None:
        file = self._snapshots / snapshot_name(message.index, message.term)
        judged = Judged(self._store, file, message.index)
        with judged.named():  # one without content comes to its end in here
            super()._begin_restoring(message)
        if self._restorer is not None:
            self._restorer = judged.judging(self._restorer)

    def _arrange(self) -> None:
        times = [at for at in (self._own_at, self._plane.due_at()) if at is not None]
        Actor.set_deadline(self, min(times, default=None))
