"""Leases, as clients use them and as leaders end them: kinds of the table in model_operations.py."""

from __future__ import annotations

from random import Random

from kvstore import protocol
from kvstore.codes import (
    LEASE_EXPIRE,
    LEASE_GRANT,
    LEASE_KEEPALIVE,
    LEASE_KEYS,
    LEASE_LIST,
    LEASE_REVOKE,
    LEASE_TICK,
    LEASE_TIME_TO_LIVE,
)
from tests.kvstore.model_operations import Pair, kind


@kind
def lease_grant(pair: Pair, chance: Random) -> None:
    """Too short a time is made longer, too long a one is refused; so is an id that is taken."""
    ttl_seconds = chance.choice([0, 1, 3, 60, 9_000_000_000, 9_000_000_001])
    pair.write(chance, LEASE_GRANT, ttl_seconds, chance.choice([0, 0, 1, 5, pair.model.index + 2]))


@kind
def put_with_lease(pair: Pair, chance: Random) -> None:
    pair.write(chance, protocol.PUT, pair.some_key(chance), b"l", pair.some_lease(chance), 0)


@kind
def lease_revoke(pair: Pair, chance: Random) -> None:
    pair.write(chance, LEASE_REVOKE, pair.some_lease(chance))


@kind
def lease_keepalive(pair: Pair, chance: Random) -> None:
    pair.write(chance, LEASE_KEEPALIVE, *(pair.some_lease(chance) for _ in range(chance.randint(1, 3))))


@kind
def lease_tick(pair: Pair, chance: Random) -> None:
    """Time goes on, or a leader of before says what time it was."""
    time_ms = max(0, pair.model.time_ms + chance.choice([500, 2500, 0, -1000]))
    seen_index = max(0, pair.model.index - chance.choice([0, 1, 5]))
    moments = [time_ms, seen_index]
    for _ in range(chance.choice([0, 0, 1, 3])):
        moments = [max(0, moments[0] - chance.choice([0, 400])), max(0, moments[1] - 2), *moments]
    pair.apply([0, 0, 0, LEASE_TICK, *moments], is_leaders=True)


@kind
def lease_expire(pair: Pair, chance: Random) -> None:
    """Of leases that have ended, and of some that have not, as a leader that knows too little may ask."""
    leases = sorted({pair.some_lease(chance) for _ in range(3)})
    time_ms = max(0, pair.model.time_ms + chance.choice([0, 0, -1000, 4000]))
    pair.apply([0, 0, 0, LEASE_EXPIRE, time_ms, *leases], is_leaders=True)


@kind
def lease_time_to_live(pair: Pair, chance: Random) -> None:
    pair.query([LEASE_TIME_TO_LIVE, pair.some_lease(chance), chance.choice([0, LEASE_KEYS])])


@kind
def lease_list(pair: Pair, chance: Random) -> None:
    pair.query([LEASE_LIST])
