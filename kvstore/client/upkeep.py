"""Keeping leases alive: which are to be renewed when, in one request for many, and when one is lost.

May know: leases as a client holds them, and time as it is passed in; no socket, thread or event loop. What a
client may rely on is counted from the moment at which it asked: the cluster keeps a lease for its TTL from
then on at least. Nobody is told that a lease is held any longer than that, whatever the cluster may do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from kvstore import protocol, protocol_lease
from kvstore.client.calls import AnyLease, Call, Consistency, lease_id, read_kind
from kvstore.client.client_log import client_log
from kvstore.client.lease_results import (
    LeasesRenewed,
    decode_lease_granted,
    decode_lease_info,
    decode_lease_list,
    decode_lease_revoked,
    decode_leases_renewed,
)

PARTS: Final = 3  # of a TTL; when one has passed the lease is renewed
RETRY_PART: Final = 20  # of a TTL, before another attempt
SHORTEST_TTL_SECONDS: Final = 2.0  # the cluster grants no shorter one
_OVERHEAD_BYTES: Final = 64
_FAR_SECONDS: Final = 1e9


class Held:
    """A lease that a client holds. Owned by its Upkeep; what its owner sees is made of it."""

    __slots__ = ("due_at", "expires_at", "id", "is_lost", "is_renewing", "on_lost", "ttl_seconds")

    def __init__(self, lease: int, ttl_seconds: int, asked_at: float, on_lost: Callable[[], None]) -> None:
        self.id = lease
        self.ttl_seconds = ttl_seconds
        self.is_lost = False
        self.is_renewing = False
        self.on_lost = on_lost  # called once, by whoever finds out
        self.renewed(asked_at)

    def renewed(self, asked_at: float) -> None:
        """By a request that was made then."""
        self.expires_at = asked_at + self.ttl_seconds
        self.due_at = asked_at + self.ttl_seconds / PARTS

    def remaining_seconds(self, now: float) -> float:
        """That it is held for sure; 0 once it is lost."""
        return 0.0 if self.is_lost else max(0.0, self.expires_at - now)


class Upkeep:
    """Owned by one client, which asks what is due, sends it and tells what came of it."""

    def __init__(self) -> None:
        self._held: dict[int, Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, held: Held) -> None:
        self._held[held.id] = held

    def release(self, held: Held) -> None:
        """It is not to be kept any longer, and its loss is of no interest."""
        if self._held.get(held.id) is held:
            del self._held[held.id]

    def next_at(self) -> float | None:
        """When something is to be done at the latest."""
        times = (
            held.expires_at if held.is_renewing else min(held.due_at, held.expires_at)
            for held in self._held.values()
        )
        return min(times, default=None)

    def due(self, now: float) -> list[Held]:
        """What is to be renewed now, in one request; nothing while nothing is urgent.

        With those that are due go those that are halfway there: so all of a client are renewed together.
        """
        waiting = [held for held in self._held.values() if not held.is_renewing]
        if not any(held.due_at <= now for held in waiting):
            return []
        near = [held for held in waiting if held.due_at - held.ttl_seconds / (2 * PARTS) <= now]
        near.sort(key=lambda held: held.due_at)
        batch = near[: protocol.MAX_KEEPALIVES]
        for held in batch:
            held.is_renewing = True
        return batch

    def answer_seconds(self, now: float) -> float:
        """How long the answer is worth waiting for: until the first of all leases is lost.

        One that is granted meanwhile may be lost before all others: so never for longer than any lives.
        """
        first_at = min((held.expires_at for held in self._held.values()), default=now)
        return min(max(0.001, first_at - now), SHORTEST_TTL_SECONDS)

    def renewed(self, batch: Sequence[Held], ttls: Sequence[int], asked_at: float) -> list[Held]:
        """The answer to a request that was made then. Those that are lost by it."""
        lost = []
        for held, ttl_seconds in zip(batch, ttls, strict=True):
            held.is_renewing = False
            if self._held.get(held.id) is not held:
                continue  # it was given up meanwhile
            if ttl_seconds:
                held.renewed(asked_at)
            else:
                lost.append(held)
        return self._lose(lost)

    def failed(self, batch: Sequence[Held], now: float) -> None:
        """No answer: they are tried again soon."""
        for held in batch:
            held.is_renewing = False
            held.due_at = now + held.ttl_seconds / RETRY_PART

    def overdue(self, now: float) -> list[Held]:
        """Those that were not renewed in time, and are lost by it."""
        return self._lose([held for held in self._held.values() if held.expires_at <= now])

    def _lose(self, lost: list[Held]) -> list[Held]:
        for held in lost:
            held.is_lost = True
            del self._held[held.id]
        return lost


def ttls_of(answer: LeasesRenewed, batch: Sequence[Held]) -> list[int] | None:
    """None: it is the answer to something else."""
    return answer.ttls if len(answer.ttls) == len(batch) else None


def settle(
    upkeep: Upkeep, batch: Sequence[Held], ttls: Sequence[int] | None, asked_at: float, now: float
) -> list[Held]:
    if ttls is None:
        upkeep.failed(batch, now)
        return []
    return upkeep.renewed(batch, ttls, asked_at)


def lose(lost: Iterable[Held]) -> None:
    for held in lost:
        held.on_lost()


def tell(on_lost: Callable[[], None] | None, lease: int) -> None:
    """Into the user's program, whose mistakes are its own."""
    if on_lost is not None:
        try:
            on_lost()
        except Exception:
            client_log().exception("event=lease_listener_failed lease=%d", lease)


# ---------------------------------------------------------------- calls


def _whole_seconds(ttl_seconds: float) -> int:
    if not 0 <= ttl_seconds <= _FAR_SECONDS * 1e3:
        raise ValueError(f"ttl_seconds: {ttl_seconds!r} is no time to live")
    return int(-(-ttl_seconds // 1))


def grant_call(ttl_seconds: float, lease: int = 0) -> Call:
    """A part of a second counts as a whole one."""
    if not protocol.is_integer(lease):
        raise ValueError(f"id: {lease!r} is none")
    whole = _whole_seconds(ttl_seconds)

    def encode(session_id: int, sequence: int, below: int, *_: bytes, flags: int) -> bytes:
        return protocol_lease.grant_body(session_id, sequence, below, whole, lease)

    call = Call(protocol.WRITE, decode_lease_granted, _OVERHEAD_BYTES)
    call.encode = encode
    return call


def revoke_call(lease: int | AnyLease) -> Call:
    number = lease_id(lease)

    def encode(session_id: int, sequence: int, below: int, *_: bytes, flags: int) -> bytes:
        return protocol_lease.revoke_body(session_id, sequence, below, number)

    call = Call(protocol.WRITE, decode_lease_revoked, _OVERHEAD_BYTES)
    call.encode = encode
    return call


def keep_alive_call(leases: Sequence[int]) -> Call:
    """Without a session: sent again, it renews them again, which does no harm."""
    if not 0 < len(leases) <= protocol.MAX_KEEPALIVES:
        raise ValueError(f"{len(leases)} leases: from 1 to {protocol.MAX_KEEPALIVES} are renewed at once")
    body = protocol_lease.keepalive_body(leases)
    call = Call(protocol.WRITE, decode_leases_renewed, len(body))
    call.body = body
    return call


def lease_info_call(lease: int | AnyLease, consistency: Consistency, *, keys: bool) -> Call:
    body = protocol_lease.time_to_live_body(lease_id(lease), protocol.LEASE_KEYS if keys else 0)
    call = Call(read_kind(consistency), decode_lease_info, len(body))
    call.body = body
    return call


def leases_call(consistency: Consistency) -> Call:
    body = protocol_lease.list_body()
    call = Call(read_kind(consistency), decode_lease_list, len(body))
    call.body = body
    return call
