"""Bodies of the commands and reads that concern leases.

May know: msgpack and the numbers of the protocol. Encoders trust their caller; `operations` checks what comes
from outside. The last two are a leader's own: no client can send them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import msgpack

from kvstore.codes import (
    INTERNAL_BYTE,
    LEASE_EXPIRE,
    LEASE_GRANT,
    LEASE_KEEPALIVE,
    LEASE_LIST,
    LEASE_REVOKE,
    LEASE_TICK,
    LEASE_TIME_TO_LIVE,
)

_pack: Callable[[Any], bytes] = msgpack.Packer().pack


def grant_body(
    session_id: int, sequence: int, acknowledged_below: int, ttl_seconds: int, lease: int = 0
) -> bytes:
    """`lease` 0: an id that is free."""
    return _pack((session_id, sequence, acknowledged_below, LEASE_GRANT, ttl_seconds, lease))


def revoke_body(session_id: int, sequence: int, acknowledged_below: int, lease: int) -> bytes:
    return _pack((session_id, sequence, acknowledged_below, LEASE_REVOKE, lease))


def keepalive_body(leases: Sequence[int]) -> bytes:
    """Without a session: sent again, it is to renew them again."""
    return _pack((0, 0, 0, LEASE_KEEPALIVE, *leases))


def time_to_live_body(lease: int, flags: int = 0) -> bytes:
    return _pack((LEASE_TIME_TO_LIVE, lease, flags))


def list_body() -> bytes:
    return _pack((LEASE_LIST,))


def tick_body(time_ms: int, seen_index: int, earlier: Sequence[tuple[int, int]] = ()) -> bytes:
    """`seen_index`: the last entry that was applied when the clock was read. The same of `earlier` moments,
    the first one first, for entries that were there before."""
    return INTERNAL_BYTE + _pack((LEASE_TICK, *chain.from_iterable(earlier), time_ms, seen_index))


def expire_body(time_ms: int, leases: Sequence[int]) -> bytes:
    return INTERNAL_BYTE + _pack((LEASE_EXPIRE, time_ms, *leases))
