"""Whom a node is connected to, and what it tells them of itself.

May know: configurations, endpoints, and the actor on whose behalf it connects; nothing of requests. Members
are connected as long as they are members. A node that is none, and says where it is found, is answered for a
while: it may be one whose membership is news here (dissertation 4.1), the cluster that this node waits to be
added to, or a member that was removed and has to hear of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from actors import Actor, Address, EndpointUnusable
from kvstore.endpoints import parse_endpoint
from kvstore.protocol_admin import split_address
from raft import Configuration
from raft.messages import Removed

log = logging.getLogger("assent.neighbours")

ANNOUNCE_SECONDS: Final = 1.0
# While somebody was not heard yet, for so long after members came or went: a node that waits to be added does
# nothing before it hears of it.
HASTY_ANNOUNCE_SECONDS: Final = 0.1
HASTE_SECONDS: Final = 5.0
MAX_ACQUAINTANCES: Final = 16
FORGET_SECONDS: Final = 10.0  # an acquaintance that says nothing for so long


@dataclass(slots=True)
class Announce:
    """gateway to the other nodes' gateways, each second: where I am found, and in which cluster."""

    client_endpoint: str
    watch_endpoint: str
    peer_endpoint: str
    cluster_id: int


@dataclass(slots=True)
class StorageRefused:
    """gateway to the gateway of a node of a known name with another data directory: nobody listens to you."""

    known_storage_id: str


class Neighbours:
    """Owned by the gateway."""

    def __init__(self, host: Actor, announce: Announce, is_removed: Callable[[str], bool]) -> None:
        self.own = announce
        self._is_removed = is_removed  # from the cluster, for good: a node that was away may not know it
        self.announced: dict[str, Announce] = {}  # of members and acquaintances, as they said
        self.refused_by: dict[str, str] = {}  # nodes that do not listen to this one, and why
        self._host = host
        self._members: frozenset[str] = frozenset()  # the others
        self._hasty_until = 0.0
        self._acquaintances: dict[str, float] = {}  # connected, and no members; when they were heard last

    def follow(self, configuration: Configuration, now: float) -> None:
        """Another configuration is in force."""
        self._hasty_until = now + HASTE_SECONDS
        members = configuration.members - {self._host.node}
        for node in self._members - members:
            self._acquaintances[node] = now  # it may still have to be told
        self._members = members
        for node in sorted(members):
            self._acquaintances.pop(node, None)
            if node in configuration.addresses:
                self._connect(node, *split_address(configuration.addresses[node]))
        self._forget(self.announced.keys() - members - self._acquaintances.keys())

    def _connect(self, node: str, endpoint: str, storage_id: int = 0) -> bool:
        try:
            self._host.connect_peer(node, endpoint, storage_id)
        except EndpointUnusable as error:
            log.error("event=member_unreachable node=%s reason=%s", node, error)
            return False
        return True

    def hear(self, node: str, announce: Announce, now: float) -> bool:
        """False if it is no announcement: clients are sent there, so nonsense is not passed on."""
        try:
            for endpoint in (announce.client_endpoint, announce.watch_endpoint, announce.peer_endpoint):
                parse_endpoint(endpoint)
        except ValueError:
            return False
        if node not in self._members:
            if node not in self._acquaintances and len(self._acquaintances) >= MAX_ACQUAINTANCES:
                return True
            if not self._connect(node, announce.peer_endpoint):
                return True
            self._acquaintances[node] = now
            if self._is_removed(node):
                # Who campaigns is told by those whom it asks. A learner never does: its clients would read
                # and watch there for ever what was so once.
                self._host.send(Address(node, "replication"), Removed(0))
        self.announced[node] = announce
        return True

    def sweep(self, now: float) -> None:
        silent = [node for node, heard_at in self._acquaintances.items() if now - heard_at > FORGET_SECONDS]
        for node in silent:
            del self._acquaintances[node]
            self._host.disconnect_peer(node)
        self._forget(silent)

    def _forget(self, nodes: Iterable[str]) -> None:
        for node in nodes:
            self.announced.pop(node, None)
            self.refused_by.pop(node, None)

    def audience(self) -> list[str]:
        return sorted(self._members | self._acquaintances.keys())

    def pause_seconds(self, now: float) -> float:
        """Until the next announcement."""
        is_hasty = now < self._hasty_until and not self._members <= self.announced.keys()
        return HASTY_ANNOUNCE_SECONDS if is_hasty else ANNOUNCE_SECONDS

    def client_endpoint(self, node: str | None) -> str | None:
        if node == self._host.node:
            return self.own.client_endpoint
        announce = self.announced.get(node) if node is not None else None
        return announce.client_endpoint if announce is not None else None

    def member_endpoints(self) -> dict[str, str]:
        """The client endpoints of the other members, as far as they are known."""
        return {
            node: announce.client_endpoint
            for node, announce in self.announced.items()
            if node in self._members
        }

    def status(self) -> dict[str, object]:
        return {
            "client_endpoint": self.own.client_endpoint,
            "watch_endpoint": self.own.watch_endpoint,
            "peer_endpoint": self.own.peer_endpoint,
            "peers": self.member_endpoints(),
            "refused_by": self.refused_by,
        }

    def note_refusal(self, node: str, known_storage_id: str) -> None:
        if node not in self._members or node in self.refused_by:
            return
        name = self._host.node
        reason = f"it knows {name} with another data directory, {known_storage_id[:16]}"
        self.refused_by[node] = reason
        log.error(
            "event=refused_by node=%s reason=%r remedy=%r",
            node,
            reason,
            f"a lost disk cannot come back as {name}: remove {name}, and add this node under a new name",
        )
