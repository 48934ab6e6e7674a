"""What a tick of the leader tells: what time it is, and since when the leader has which renewals."""

from __future__ import annotations

import msgpack
import pytest

from kvstore import protocol
from kvstore import protocol_lease as bodies
from tests.kvstore.test_leases import LeaseLog


def test_each_renewal_counts_from_the_first_moment_at_which_the_teller_had_it() -> None:
    """And not from the tick, half a second later as it may be."""
    log = LeaseLog()
    for lease in (6, 7, 8, 9):
        log.grant(10, lease)
    log.tick(1_000, 0)
    log.one(bodies.tick_body(1_500, 3, [(1_100, 1), (1_300, 2)]))
    assert log.machine.lease_time_ms == 1_500
    for lease, end_ms in ((6, 11_100), (7, 11_300), (8, 11_500)):
        log.expire(end_ms - 1, lease)
        assert lease in log.ids()
        log.expire(end_ms, lease)
        assert lease not in log.ids()
    log.expire(10**12, 9)
    assert log.ids() == [9]


def test_of_a_stale_tick_no_moment_counts() -> None:
    log = LeaseLog()
    log.grant(10, 7)
    log.tick(50_000, 0)
    log.one(bodies.tick_body(49_999, 2, [(20_000, 1)]))
    log.expire(59_999, 7)
    assert log.ids() == [7]


@pytest.mark.parametrize("arguments", [[], [5], [5, 6, 7], [5, 6, 7, -1], [5, "6"]])
def test_a_tick_that_makes_no_sense_is_refused(arguments: list[object]) -> None:
    log = LeaseLog()
    body = protocol.INTERNAL_BYTE + msgpack.packb([protocol.LEASE_TICK, *arguments])
    assert log.one(body)[0] == protocol.BAD_REQUEST
