"""Messages among the actors of one node about room: what the disk has, what the state takes, and whether the
applier keeps up.

May know nothing. `actor_messages` names them with all the others.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class SpaceChanged:
    """replication to gateway: the disk has too little room for anything that grows, or enough again."""

    is_low: bool
    free_bytes: int


@dataclass(slots=True)
class StateSize:
    """applier to gateway: how much the state machine holds, whenever that is another size at a tick."""

    size_bytes: int


@dataclass(slots=True)
class ApplierBehind:
    """applier to replication: hand out no more to be applied for now, or go on with it."""

    is_behind: bool
