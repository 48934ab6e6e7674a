"""Clients with leases: they grant, put keys with them, keep them alive for a while, and let them end.

What a client may count on is checked by the true time of the simulation, which no node knows: a lease whose
renewal was acknowledged lives for its whole TTL from the moment at which that was first asked for, whoever
leads and however often that changes. Clocks that run fast shorten it by as much as they do; where clocks
jump, nothing can be said.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from kvstore import protocol, protocol_lease
from tests.simulator.cluster import Cluster
from tests.simulator.model import StoreModel
from tests.simulator.tracing import Violation
from tests.simulator.workload import Command, SimulatedClient, Workload

TOLERANCE_SECONDS = 0.01  # rounding to milliseconds
GONE = (protocol.LEASE_NOT_FOUND, protocol.SESSION_EXPIRED, protocol.SEQUENCE_FORGOTTEN)


class Lessees:
    """Owns the lessees of one run, and knows what was promised to them."""

    def __init__(self, workload: Workload, model: StoreModel, rng: Random) -> None:
        self.cluster: Cluster = workload.cluster
        self._promised: dict[int, float] = {}  # by lease: until when it must live
        self._expired_at: dict[int, float] = {}
        model.expired = self._expired
        self._model = model
        self.clients = [
            Lessee(self, workload, f"l{number}", Random(rng.getrandbits(64)))
            for number in range(1, self.cluster.swarm.lessees + 1)
        ]

    def start(self) -> None:
        for client in self.clients:
            client.begin()

    def are_done(self) -> bool:
        """Every lease has ended, since nobody keeps one alive any more."""
        return not self._model.leases and all(not client.pending for client in self.clients)

    def acknowledged(self, lease: int, asked_at: float, ttl_seconds: int) -> None:
        until = asked_at + ttl_seconds / (1.0 + self.cluster.swarm.drift) - TOLERANCE_SECONDS
        self._promised[lease] = max(until, self._promised.get(lease, 0.0))
        self._check(lease)

    def _expired(self, lease: int) -> None:
        self.cluster.trace.say("*", "lease expired", f"lease={lease}")
        # Within a turn, which a slow sync may have made long: a lone node proposes, syncs and applies in one.
        self._expired_at[lease] = self.cluster.now()
        self._check(lease)

    def _check(self, lease: int) -> None:
        ended, promised = self._expired_at.get(lease), self._promised.get(lease)
        if ended is None or promised is None or self.cluster.swarm.jumps:
            return
        if ended < promised:
            raise Violation(f"lease {lease} ended at {ended:.3f}, and was promised until {promised:.3f}")


class Lessee(SimulatedClient):
    """One lease at a time. Sends, retries and gives up as any other client."""

    def __init__(self, owner: Lessees, workload: Workload, name: str, rng: Random) -> None:
        super().__init__(workload, name, rng)
        self._owner = owner
        self._lease = 0
        self._keys = 0
        self._asked_at = 0.0
        self._on_result: Callable[[list[Any]], None] = self._opened

    def _invent(self) -> list[Command]:
        rng, self._asked_at = self._rng, self._cluster.schedule.now
        draw = rng.random()
        if not self._lease or draw < 0.1:
            self._on_result = self._granted
            self._sequence += 1
            body = protocol_lease.grant_body(self._session, self._sequence, self._floor(), rng.randint(1, 3))
        elif draw < 0.4:
            self._keys += 1
            self._sequence += 1
            self._on_result = self._was_put
            key = b"l/%s/%d" % (self.name.encode(), self._keys % 4)
            body = protocol.put_body(
                self._session, self._sequence, self._floor(), key, b"%d" % self._keys, lease=self._lease
            )
        elif draw < 0.9:
            self._on_result = self._renewed
            body = protocol_lease.keepalive_body([self._lease])
        else:
            self._on_result = self._revoked
            self._sequence += 1
            body = protocol_lease.revoke_body(self._session, self._sequence, self._floor(), self._lease)
        return [Command(protocol.WRITE, body, None, self._workload)]

    def _answered(self, command: Command | None, result: list[Any]) -> None:
        if command is None or command not in self.pending:
            return
        if result[0] == protocol.SPACE_EXCEEDED:
            return  # it is tried again
        if result[0] != protocol.OK and result[0] not in GONE:
            raise Violation(f"{self.name} was answered {result}")
        self.pending.remove(command)
        if not self._session:
            self._session = result[2]
        elif result[0] == protocol.OK:
            self._on_result(result)
        else:
            if result[0] == protocol.SESSION_EXPIRED:
                self._lose_session()
            self._lease = 0
        self._next()

    def _opened(self, result: list[Any]) -> None:
        """The session: nothing further."""

    def _granted(self, result: list[Any]) -> None:
        self._cluster.trace.counts["lease granted"] += 1
        self._lease = result[2]
        self._owner.acknowledged(self._lease, self._asked_at, result[3])

    def _renewed(self, result: list[Any]) -> None:
        [ttl_seconds] = result[2]
        if ttl_seconds:
            self._cluster.trace.counts["lease renewed"] += 1
            self._owner.acknowledged(self._lease, self._asked_at, ttl_seconds)
        else:
            self._lease = 0

    def _was_put(self, result: list[Any]) -> None:
        self._cluster.trace.counts["put with a lease"] += 1

    def _revoked(self, result: list[Any]) -> None:
        self._cluster.trace.counts["lease revoked"] += 1
        self._lease = 0
